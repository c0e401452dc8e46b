//! `health`: whether the server is ready, for images and scripts that have no curl.
//!
//! The answer comes within [`TIMEOUT`], whatever the server does. Its certificate is not verified: nothing is
//! sent to it, and on the machine itself no certificate is good for 127.0.0.1.

use std::error::Error;
use std::time::Duration;

use clap::Args;
use reqwest::{Client, Response, StatusCode, Url, redirect};

use super::output::Output;
use super::settings_args::SourceArgs;
use super::{CliError, block_on};
use crate::settings::{Address, Settings};

pub(super) const HELP: &str = "Example: jam-mqtt health --config /etc/jam-mqtt/jam-mqtt.toml\n\n\
    Exit status 0: ready; 1: not ready, or no answer within 5 s. The certificate of an https address is not verified.";

/// From the beginning to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Of the answer, so much is read.
const ANSWER_BYTES: usize = 4096;

/// Whom to ask.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// http://HOST:PORT or https://HOST:PORT [default: where listen.http is]
    url: Option<String>,
    #[command(flatten)]
    sources: SourceArgs,
}

impl Health {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => address(&Settings::load(&self.sources.sources(Vec::new())?)?)?,
        };
        let url = readyz(&url).ok_or_else(|| {
            CliError::Usage(format!(
                "{url}: expected http://HOST:PORT or https://HOST:PORT"
            ))
        })?;
        block_on(ask(&url))?;
        output.line("ready")
    }
}

/// Where a server with these settings can be asked on this machine.
fn address(settings: &Settings) -> Result<String, CliError> {
    let http = settings.listen.http.as_ref().ok_or_else(|| {
        CliError::Usage("listen.http is off: name the address that is to be asked".to_owned())
    })?;
    let scheme = match settings.tls.identity {
        Some(_) => "https",
        None => "http",
    };
    Ok(local_url(scheme, http))
}

/// Where this machine reaches what listens at an address.
pub(super) fn local_url(scheme: &str, listens: &Address) -> String {
    let address = listens.as_str();
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    match listens.host() {
        "0.0.0.0" => format!("{scheme}://127.0.0.1:{port}"),
        "::" => format!("{scheme}://[::1]:{port}"),
        _ => format!("{scheme}://{address}"),
    }
}

/// `/readyz` there, unless the URL names another path.
fn readyz(url: &str) -> Option<Url> {
    let mut url = Url::parse(url).ok()?;
    let is_http = matches!(url.scheme(), "http" | "https");
    if url.path() == "/" {
        url.set_path("/readyz");
    }
    Some(url).filter(|_| is_http)
}

async fn ask(url: &Url) -> Result<(), CliError> {
    let shown = without_credentials(url);
    let failed = |why: &str| CliError::Failed(format!("{shown}: {why}"));
    let client = client(TIMEOUT)?;
    let answer = client.get(url.clone()).send().await;
    let answer = answer.map_err(|error| match error.is_timeout() {
        true => failed("no answer within 5 s"),
        false => failed(&format!("no answer: {}", cause(&error))),
    })?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        status => Err(failed(&format!(
            "{}: {}",
            status.as_u16(),
            reasons(answer).await
        ))),
    }
}

/// For requests to a server on this machine.
pub(super) fn client(timeout: Duration) -> Result<Client, CliError> {
    // For this command's process, which does nothing else by TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .build()
        .map_err(|error| CliError::failed(&error))
}

/// For what is written where others may read it.
fn without_credentials(url: &Url) -> Url {
    let mut shown = url.clone();
    shown.set_query(None);
    // An http address can have them, so they can be set.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown
}

/// The innermost one, which says what happened.
fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// All reasons in one line.
async fn reasons(mut answer: Response) -> String {
    let mut text = Vec::new();
    while text.len() < ANSWER_BYTES
        && let Ok(Some(some)) = answer.chunk().await
    {
        text.extend_from_slice(&some);
    }
    text.truncate(ANSWER_BYTES);
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim);
    lines
        .collect::<Vec<_>>()
        .join("; ")
        .replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_where_the_server_listens() {
        let of = |http: &str| {
            let mut settings = Settings::default();
            settings.listen.http = http.parse().ok();
            address(&settings)
        };
        assert_eq!(of("0.0.0.0:80").unwrap(), "http://127.0.0.1:80");
        assert_eq!(of("[::]:80").unwrap(), "http://[::1]:80");
        assert_eq!(of("chat.example:80").unwrap(), "http://chat.example:80");
        assert!(matches!(of(""), Err(CliError::Usage(why)) if why.contains("listen.http")));
        let asked = |url| readyz(url).map(|url| url.to_string());
        assert_eq!(asked("http://a:1").as_deref(), Some("http://a:1/readyz"));
        assert_eq!(asked("https://a/x").as_deref(), Some("https://a/x"));
        assert_eq!(asked("mqtt://a"), None);
        assert_eq!(asked("127.0.0.1:8080"), None);
        let shown = without_credentials(&readyz("https://u:p@a/x?k=v").unwrap());
        assert_eq!(shown.as_str(), "https://a/x");
    }
}
