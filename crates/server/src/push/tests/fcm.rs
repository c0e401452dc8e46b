//! Firebase, played by servers that do as they are told.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::push::http::BODY_BYTES;

#[tokio::test]
async fn what_is_sent() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    let [request] = &firebase.messages.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, "POST /v1/projects/jam%20test/messages:send");
    assert_eq!(request.headers["authorization"], "Bearer access-1");
    assert_eq!(request.headers["content-type"], "application/json");
    let expected = json!({
        "message": {
            "token": TOKEN,
            "data": { "fromId": "1" },
            "android": { "priority": "high", "ttl": "86400s", "collapse_key": "1" },
            "apns": {
                "headers": {
                    "apns-push-type": "background",
                    "apns-priority": "5",
                    "apns-expiration": "1714651200",
                    "apns-collapse-id": "1",
                },
                "payload": { "aps": { "content-available": 1 } },
            },
        },
    });
    assert_eq!(
        serde_json::from_str::<Value>(&request.body).unwrap(),
        expected
    );
}

#[tokio::test]
async fn answers() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let nothing = |status| Reply::Http(status, vec![], String::new());
    let gone = json!({ "error": { "code": 404, "status": "UNREGISTERED" } });
    for (reply, expected) in [
        (Reply::json(200, &json!({})), Delivery::Delivered),
        (Reply::plain(200, ""), Delivery::Delivered),
        (
            Reply::error(404, "NOT_FOUND", "UNREGISTERED"),
            Delivery::Unregistered,
        ),
        (Reply::json(404, &gone), Delivery::Unregistered),
        // A wrong address or project says nothing of the token.
        (
            Reply::plain(404, "<html>UNREGISTERED</html>"),
            rejected("404"),
        ),
        (
            Reply::error(404, "NOT_FOUND", "NOT_FOUND"),
            rejected("404 NOT_FOUND"),
        ),
        (
            Reply::error(400, "NOT_FOUND", "UNREGISTERED"),
            rejected("400 UNREGISTERED"),
        ),
        (
            Reply::error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
            rejected("400 INVALID_ARGUMENT"),
        ),
        (
            Reply::error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
            rejected("403 SENDER_ID_MISMATCH"),
        ),
        (
            Reply::json(403, &json!({"error": {"status": "PERMISSION_DENIED"}})),
            rejected("403 PERMISSION_DENIED"),
        ),
        (
            Reply::error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
            rejected("401 THIRD_PARTY_AUTH_ERROR"),
        ),
        // No code is so long.
        (
            Reply::error(400, "INVALID_ARGUMENT", &"A".repeat(41)),
            rejected("400"),
        ),
        (nothing(400), rejected("400")),
        (nothing(413), rejected("413")),
        // Not a code: it might be anything.
        (Reply::error(400, TOKEN, TOKEN), rejected("400")),
        (Reply::json(400, &json!({"error": TOKEN})), rejected("400")),
        (
            Reply::json(400, &json!([{"error": {"status": "A"}}])),
            rejected("400"),
        ),
    ] {
        firebase.messages.then([reply.clone()]);
        assert_eq!(notifier.deliver(&push()).await, expected, "{reply:?}");
    }
    assert_eq!(
        firebase.tokens.count(),
        1,
        "none of these is about the access token"
    );
}

#[tokio::test]
async fn what_is_worth_another_try() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let elsewhere = StandIn::open().await;
    elsewhere.usually(Reply::json(200, &json!({})));
    let redirect = |status| {
        Reply::Http(
            status,
            vec![("location", elsewhere.url("/"))],
            String::new(),
        )
    };
    for (reply, secs, said) in [
        (Reply::retry_after(429, "7"), Some(7), "429"),
        (Reply::retry_after(503, "soon"), None, "503"),
        (Reply::error(500, "INTERNAL", "INTERNAL"), None, "500"),
        (Reply::plain(502, "<html>"), None, "502"),
        (redirect(301), None, "redirect"),
        (redirect(302), None, "redirect"),
        (redirect(307), None, "redirect"),
        (redirect(308), None, "redirect"),
        (
            Reply::plain(200, "<html>Log in, please</html>"),
            None,
            "not Firebase's",
        ),
        (Reply::json(200, &json!(["name"])), None, "not Firebase's"),
        (Reply::Reset(200), None, "breaks off"),
        (Reply::Reset(404), None, "breaks off"),
        (Reply::NoBody(200), None, "breaks off"),
        (Reply::Endless(200), None, "does not end"),
        (Reply::Endless(404), None, "does not end"),
        (Reply::Endless(503), None, "503"),
        (Reply::Noise, None, "no answer"),
        (Reply::Silence, None, "no answer in time"),
        (
            Reply::json(200, &json!({})).late(2 * PATIENCE),
            None,
            "no answer in time",
        ),
    ] {
        firebase.messages.then([reply.clone()]);
        let delivery = notifier.deliver(&push()).await;
        let Delivery::Unavailable {
            scope,
            retry_after,
            why,
        } = &delivery
        else {
            panic!("{reply:?}: {delivery:?}")
        };
        assert_eq!(*retry_after, secs.map(Duration::from_secs), "{reply:?}");
        assert!(why.contains(said), "{reply:?}: {why}");
        // What takes all of its time holds up its receiver only.
        let is_late = said == "no answer in time" || matches!(reply, Reply::NoBody(_));
        let expected = if said == "429" || is_late {
            Scope::Receiver
        } else {
            Scope::Request
        };
        assert_eq!(*scope, expected, "{reply:?}");
    }
    assert_eq!(elsewhere.count(), 0, "no redirect is followed");
    // What the kernel buffers is taken without being read.
    let unread = firebase.messages.taken();
    assert!(
        unread < BODY_BYTES + 32 * 1024 * 1024,
        "{unread} bytes of bodies without end"
    );
    assert_eq!(
        notifier.deliver(&push()).await,
        Delivery::Delivered,
        "it recovers"
    );
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_push() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    for closed in [Reply::Close, Reply::Reset(0)] {
        let before = firebase.messages.count();
        firebase.messages.then([closed.clone()]);
        let began = Instant::now();
        assert_eq!(
            notifier.deliver(&push()).await,
            Delivery::Delivered,
            "{closed:?}"
        );
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(firebase.messages.count(), before + 2);
    }
    // Once: a service that closes each connection is not asked for ever.
    let before = firebase.messages.count();
    firebase.messages.then([Reply::Close, Reply::Close]);
    let delivery = notifier.deliver(&push()).await;
    assert!(why(&delivery).starts_with("no answer"), "{delivery:?}");
    assert_eq!(firebase.messages.count(), before + 2);
}

/// Whatever ended one connection may have ended all that are kept.
#[tokio::test]
async fn the_second_try_is_on_a_connection_of_its_own() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let late = || Reply::json(200, &json!({})).late(PATIENCE / 5);
    firebase.messages.then([late(), late(), late()]);
    let (push, deliver) = (push(), |push| notifier.deliver(push));
    let _ = tokio::join!(deliver(&push), deliver(&push), deliver(&push));
    for _ in 0..2 {
        let before = firebase.messages.connections();
        firebase.messages.then([Reply::Close]);
        assert_eq!(deliver(&push).await, Delivery::Delivered);
        assert_eq!(firebase.messages.connections(), before + 1);
    }
}

#[tokio::test]
async fn nobody_at_the_address() {
    let mut firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    firebase.messages = StandIn::open().await;
    let delivery = notifier.deliver(&push()).await;
    assert!(why(&delivery).starts_with("no connection"), "{delivery:?}");
    let is_service = matches!(
        delivery,
        Delivery::Unavailable {
            scope: Scope::Service,
            ..
        }
    );
    assert!(is_service, "{delivery:?}");
}

#[tokio::test]
async fn no_token_is_logged() {
    let (logged, _guard) = Logged::everything();
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let echo =
        json!({ "error": { "status": TOKEN, "message": format!("no such token: {TOKEN}") } });
    firebase.messages.then([
        Reply::json(200, &json!({})),
        Reply::json(404, &echo),
        Reply::plain(503, TOKEN),
        Reply::Reset(200),
        Reply::Noise,
        Reply::Silence,
    ]);
    for _ in 0..6 {
        let delivery = notifier.deliver(&push()).await;
        tracing::error!(?delivery, push = ?push(), ?notifier, "what anybody might log");
    }
    let text = logged.text();
    assert!(text.contains("Fcm"), "it is logged at all");
    for secret in [TOKEN, "access-1", &private_key()[100..140]] {
        assert!(!text.contains(secret), "{secret} in: {text}");
    }
}

/// Firebase itself is met like this: TLS, and HTTP/2 because it offers it. It resets the stream of a push to
/// "nobody", and says GOAWAY after one to "the last".
struct Http2 {
    port: u16,
    certificate: CertificateDer<'static>,
    accepted: Arc<Mutex<usize>>,
    serving: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Http2 {
    async fn open() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let identity = crate::tls::tests::write_identity(dir.path(), "localhost");
        let certificate = CertificateDer::from_pem_file(&identity.cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(Mutex::new(0));
        let count = accepted.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(serve_http_2(TokioIo::new(stream)));
                }
            }
        });
        Self {
            port,
            certificate,
            accepted,
            serving,
            _dir: dir,
        }
    }

    fn notifier(&self, http: HttpClient, firebase: &Firebase) -> Fcm {
        let account = ServiceAccount::parse(&firebase.key_file().to_string()).unwrap();
        let base = address(&format!("https://localhost:{}", self.port));
        Fcm::new(http, account, &base)
    }

    fn trusted(&self) -> HttpClient {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        HttpClient::with(roots, Duration::from_secs(5)).unwrap()
    }

    fn accepted(&self) -> usize {
        *self.accepted.lock().unwrap()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve_http_2(stream: TokioIo<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>) {
    let goes = Arc::new(tokio::sync::Notify::new());
    let going = goes.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let goes = goes.clone();
        async move {
            assert_eq!(request.version(), hyper::Version::HTTP_2);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            if body.contains("nobody") {
                return Err(io::Error::other("the stream is reset"));
            }
            if body.contains("the last") {
                goes.notify_one();
            }
            Ok(hyper::Response::new(Full::new(Bytes::from_static(b"{}"))))
        }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(http.serve_connection(stream, service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = going.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn push_to(token: &str) -> Push {
    Push {
        token: Some(SecretString::from(token)),
        ..push()
    }
}

#[tokio::test]
async fn http_2_where_it_is_offered() {
    let (server, firebase) = (Http2::open().await, Firebase::open().await);
    let notifier = server.notifier(server.trusted(), &firebase);
    for _ in 0..3 {
        assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    }
    assert_eq!(server.accepted(), 1, "all over one connection");

    // A server that cannot prove its name gets nothing.
    let stranger = server.notifier(http(), &firebase);
    let delivery = stranger.deliver(&push()).await;
    assert!(why(&delivery).starts_with("no connection"), "{delivery:?}");
}

#[tokio::test]
async fn a_stream_that_is_reset_is_one_requests_trouble() {
    let (server, firebase) = (Http2::open().await, Firebase::open().await);
    let notifier = server.notifier(server.trusted(), &firebase);
    for _ in 0..3 {
        let delivery = notifier.deliver(&push_to("nobody")).await;
        let is_request = matches!(
            delivery,
            Delivery::Unavailable {
                scope: Scope::Request,
                ..
            }
        );
        assert!(is_request, "{delivery:?}");
        assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    }
}

#[tokio::test]
async fn a_connection_that_goes_away_costs_no_push() {
    let (server, firebase) = (Http2::open().await, Firebase::open().await);
    let notifier = server.notifier(server.trusted(), &firebase);
    for _ in 0..5 {
        assert_eq!(
            notifier.deliver(&push_to("the last")).await,
            Delivery::Delivered
        );
        assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    }
    assert!(server.accepted() > 1);
}

#[tokio::test]
async fn a_slow_service_holds_a_push_no_longer_than_its_time() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let all_slow = Reply::error(401, "UNAUTHENTICATED", "UNSPECIFIED_ERROR").late(PATIENCE / 2);
    firebase.messages.usually(all_slow);
    let began = Instant::now();
    assert_eq!(
        notifier.deliver(&push()).await,
        rejected("401 UNSPECIFIED_ERROR")
    );
    assert!(began.elapsed() < 4 * PATIENCE);
}

#[test]
fn key_files_that_are_none() {
    let good = key_file("https://oauth2.googleapis.com/token");
    assert!(ServiceAccount::parse(&good.to_string()).is_ok());
    let without = |name: &str| {
        let mut file = good.clone();
        file.as_object_mut().unwrap().remove(name);
        file.to_string()
    };
    let with = |name: &str, value: &str| {
        let mut file = good.clone();
        file[name] = value.into();
        file.to_string()
    };
    let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (text, said) in [
        (String::new(), "not a JSON object"),
        ("[]".to_owned(), "not a JSON object"),
        (
            "{\n\"private_key\": secret}".to_owned(),
            "not a JSON object (line 2)",
        ),
        ("{}".to_owned(), "has no project_id"),
        (without("client_email"), "has no client_email"),
        (without("private_key"), "has no private_key"),
        (without("token_uri"), "has no token_uri"),
        (with("project_id", ""), "has no project_id"),
        (with("private_key", "secret"), "private_key is not PEM"),
        (with("private_key", &other_key), "is not an RSA key"),
        (with("token_uri", "secret"), "token_uri is not an address"),
        (
            with("token_uri", "file:///etc/passwd"),
            "token_uri is not an address",
        ),
    ] {
        let error = ServiceAccount::parse(&text).unwrap_err();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = ServiceAccount::read(std::path::Path::new("/nowhere/key.json")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("push.fcm_key: /nowhere/key.json: No such file"),
        "{error}"
    );
    assert!(ServiceAccount::parse(&without("private_key_id")).is_ok());
}
