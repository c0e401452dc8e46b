//! What the tests of pushes share: a service account, a push, what is logged.

mod dispatcher;
mod fcm;
mod oauth;
mod pacing;
mod stand_in;
mod webhook;

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::settings::ServiceUrl;
use stand_in::{Reply, StandIn};

/// What must never be logged.
const TOKEN: &str = "the-notification-token-of-2";

/// So long a test waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_millis(500);

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// From 1 to 2, owed since noon.
fn push() -> Push {
    Push {
        receiver: user("2"),
        sender: user("1"),
        since: Stamp::from_millis(1_714_564_800_007),
        token: Some(SecretString::from(TOKEN)),
    }
}

fn rejected(kind: &str) -> Delivery {
    Delivery::Rejected {
        kind: kind.to_owned(),
    }
}

fn why(delivery: &Delivery) -> &str {
    match delivery {
        Delivery::Unavailable { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

fn address(text: &str) -> ServiceUrl {
    ServiceUrl::parse(text).unwrap()
}

fn http() -> HttpClient {
    HttpClient::with(rustls::RootCertStore::empty(), PATIENCE).unwrap()
}

/// Made anew for each run.
fn private_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let made = Command::new("openssl")
            .args([
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
            ])
            .output()
            .expect("openssl makes a key");
        String::from_utf8(made.stdout).unwrap()
    })
}

/// A service account's key file, as Firebase hands it out.
fn key_file(token_uri: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "jam test",
        "private_key_id": "key-1",
        "private_key": private_key(),
        "client_email": "push@jam-test.example",
        "token_uri": token_uri,
    })
}

/// Firebase, played by two servers.
struct Firebase {
    tokens: StandIn,
    messages: StandIn,
}

impl Firebase {
    async fn open() -> Self {
        let tokens = StandIn::open().await;
        tokens.usually(Reply::access_token("access-1", 3600));
        let messages = StandIn::open().await;
        messages.usually(Reply::json(
            200,
            &json!({"name": "projects/jam test/messages/1"}),
        ));
        Self { tokens, messages }
    }

    fn key_file(&self) -> Value {
        key_file(&self.tokens.url("/token"))
    }

    fn notifier(&self) -> Fcm {
        let account = ServiceAccount::parse(&self.key_file().to_string()).unwrap();
        Fcm::new(http(), account, &address(&self.messages.url("")))
    }
}

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn everything() -> (Self, DefaultGuard) {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn count(&self, words: &str) -> usize {
        self.text().matches(words).count()
    }
}

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
