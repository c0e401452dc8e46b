//! The `admin` address over real sockets: who is let in, and what errors look like.

mod metrics;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::serve::tests::house::{House, soon};
use crate::serve::{ServeError, start};
use crate::settings::{DirectorySettings, Settings};

pub(crate) const TOKEN: &str = "may-everything";
pub(crate) const READ_TOKEN: &str = "may-look";

/// Has both tokens set.
pub(crate) fn with_tokens(settings: &mut Settings) {
    settings.listen.admin = Some("127.0.0.1:0".parse().unwrap());
    settings.admin.token = Some(TOKEN.into());
    settings.admin.read_token = Some(READ_TOKEN.into());
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let field = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(field.1)
    }

    /// Is an error of RFC 9457.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{} {}", self.head, self.body);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["status"], status);
        for field in ["title", "detail"] {
            assert_ne!(body[field].as_str().unwrap(), "", "{}", self.body);
        }
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // A body that is refused need not be read.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn without_a_token_nothing_of_the_api_is_told() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let address = house.running.admin.unwrap();
    for authorization in [
        None,
        Some("Bearer".to_owned()),
        Some(bearer("")),
        Some(bearer("may-everythin")),
        Some(bearer("may-everything2")),
        Some("Basic bWF5LWV2ZXJ5dGhpbmc=".to_owned()),
        Some(TOKEN.to_owned()),
    ] {
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        for line in [
            "GET /api/v1/users",
            "DELETE /api/v1/users/1",
            "GET /api/v1/no",
        ] {
            let answer = ask(address, line, &headers, b"").await;
            answer.is_problem(401);
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer "), "{challenge}");
            assert!(!answer.body.contains("may-"), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn the_token_that_may_look_changes_nothing() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let address = house.running.admin.unwrap();
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "GeT"] {
        let line = format!("{method} /api/v1/no");
        let reading = bearer(READ_TOKEN);
        ask(address, &line, &[("Authorization", &reading)], b"")
            .await
            .is_problem(403);
        let writing = bearer(TOKEN);
        ask(address, &line, &[("authorization", &writing)], b"")
            .await
            .is_problem(404);
    }
    let headers = [("Authorization", "bearer  may-look")];
    ask(address, "GET /api/v1/no", &headers, b"")
        .await
        .is_problem(404);
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let address = house.running.admin.unwrap();
    let token = bearer(TOKEN);
    let headers = [("Authorization", token.as_str())];
    for path in ["/", "/no", "/api", "/api/v1/no", "/api/v1/%2e%2e/healthz"] {
        let answer = ask(address, &format!("GET {path}"), &headers, b"").await;
        answer.is_problem(404);
        assert!(
            answer.body.contains(&format!("there is no {path}\"")),
            "{}",
            answer.body
        );
    }
    let answer = ask(address, "DELETE /healthz", &headers, b"").await;
    answer.is_problem(405);
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    for line in ["PUT /api/v1/no", "PUT /no", "PUT /healthz"] {
        let body = vec![b'x'; crate::admin_bounds::MAX_BODY_BYTES + 1];
        ask(address, line, &headers, &body).await.is_problem(413);
    }
    let body = vec![b'x'; crate::admin_bounds::MAX_BODY_BYTES];
    ask(address, "PUT /no", &headers, &body)
        .await
        .is_problem(404);
    assert_eq!(ask(address, "GET /healthz", &[], b"").await.body, "ok\n");
}

fn without_token(dir: &TempDir) -> Settings {
    let mut settings = Settings::default();
    settings.data = dir.path().to_owned();
    settings.directory = DirectorySettings::in_file(dir.path().join("jam.db"));
    settings.listen.mqtt = Some("127.0.0.1:0".parse().unwrap());
    settings.listen.http = None;
    settings.listen.admin = Some("127.0.0.1:0".parse().unwrap());
    settings
}

#[tokio::test]
async fn a_token_is_made_once_and_is_the_owners_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("admin-token");
    let mut first = None;
    for _ in 0..2 {
        let running = start(without_token(&dir)).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = std::fs::read_to_string(&path).unwrap();
        assert_eq!(token.trim().len(), 43);
        assert_eq!(&token, first.get_or_insert(token.clone()));
        let headers = [("Authorization", &*bearer(token.trim()))];
        ask(running.admin.unwrap(), "PUT /api/v1/no", &headers, b"")
            .await
            .is_problem(404);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_token_that_others_can_read_stops_the_start() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("admin-token");
    for (text, mode, said) in [
        ("secret\n", 0o640, "chmod 600"),
        ("secret\n", 0o604, "chmod 600"),
        (" \n", 0o600, "holds no token"),
    ] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let error = start(without_token(&dir)).await.unwrap_err();
        assert!(matches!(error, ServeError::Admin(_)));
        let error = error.to_string();
        assert!(error.contains(said) && !error.contains("secret"), "{error}");
        assert!(super::access::check(&without_token(&dir)).is_err());
    }
    std::fs::write(&path, "kept").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    super::access::check(&without_token(&dir)).unwrap();
    start(without_token(&dir)).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_no_admin_connection() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let address = house.running.admin.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut halfway = TcpStream::connect(address).await.unwrap();
    halfway.write_all(b"GET /healthz HT").await.unwrap();
    assert_eq!(ask(address, "GET /healthz", &[], b"").await.status, 200);
    let begun = tokio::time::Instant::now();
    house.running.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    for stream in [&mut idle, &mut halfway] {
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"", "{rest:?}");
    }
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn silent_connections_make_way() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let address = house.running.admin.unwrap();
    let token = bearer(TOKEN);
    let line = "GET /api/v1/stats";
    let mut kept = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n");
    kept.write_all(request.as_bytes()).await.unwrap();
    let mut byte = [0];
    soon(kept.read_exact(&mut byte)).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..crate::admin_bounds::MAX_CONNECTIONS + 5 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let headers = [("Authorization", token.as_str())];
    let asked = ask(address, line, &headers, b"");
    let asked = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await;
    assert_eq!(asked.expect("a place in time").status, 200);
    assert_eq!(soon(silent[0].read(&mut byte)).await.unwrap_or(0), 0);
    // Its token was right, so that it stays, though it is the oldest.
    kept.write_all(request.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    while answers.windows(9).filter(|it| it == b"HTTP/1.1 ").count() < 1 {
        let mut some = [0; 4096];
        let read = soon(kept.read(&mut some)).await.unwrap();
        assert_ne!(read, 0, "it had to make way");
        answers.extend_from_slice(&some[..read]);
    }
}
