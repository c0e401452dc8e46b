//! A webhook, played by a server that does as it is told.

use ring::hmac;

use super::*;
use crate::settings;

async fn open() -> (StandIn, Webhook) {
    let server = StandIn::open().await;
    server.usually(Reply::plain(204, ""));
    let webhook = settings::Webhook {
        url: address(&server.url("/push?key=of-the-address")),
        secret: SecretString::from("the webhook's secret"),
    };
    let notifier = Webhook::new(http(), &webhook);
    (server, notifier)
}

#[tokio::test]
async fn what_is_sent() {
    let (server, notifier) = open().await;
    let push = Push {
        token: None,
        ..push()
    };
    assert!(!notifier.needs_token());
    assert_eq!(notifier.deliver(&push).await, Delivery::Delivered);
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, "POST /push?key=of-the-address");
    assert_eq!(request.headers["content-type"], "application/json");
    let body = r#"{"to":"2","fromId":"1","timestamp":"2024-05-01T12:00:00.007Z"}"#;
    assert_eq!(request.body, body);
    let signature = request.headers["x-jam-signature"]
        .strip_prefix("sha256=")
        .unwrap();
    let bytes: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"the webhook's secret");
    hmac::verify(&key, body.as_bytes(), &bytes).unwrap();
}

#[tokio::test]
async fn answers() {
    let (server, notifier) = open().await;
    let rejected = |kind: &str| Delivery::Rejected {
        kind: kind.to_owned(),
    };
    for (reply, expected) in [
        (Reply::plain(200, "anything"), Delivery::Delivered),
        (Reply::plain(202, ""), Delivery::Delivered),
        (Reply::Reset(200), Delivery::Delivered),
        (Reply::Endless(200), Delivery::Delivered),
        (Reply::plain(400, ""), rejected("400")),
        (Reply::plain(401, ""), rejected("401")),
        (Reply::plain(404, ""), rejected("404")),
        (Reply::plain(410, ""), rejected("410")),
        (
            Reply::error(404, "NOT_FOUND", "UNREGISTERED"),
            rejected("404"),
        ),
    ] {
        server.then([reply.clone()]);
        assert_eq!(notifier.deliver(&push()).await, expected, "{reply:?}");
    }
    let again = [
        (Reply::retry_after(429, "3"), Some(3)),
        (
            Reply::retry_after(503, "Fri, 06 Nov 2054 08:49:37 GMT"),
            Some(3600),
        ),
        (Reply::plain(500, ""), None),
        (Reply::plain(302, ""), None),
        (Reply::Noise, None),
        (Reply::Silence, None),
    ];
    for (reply, secs) in again {
        server.then([reply.clone()]);
        let delivery = notifier.deliver(&push()).await;
        let Delivery::Unavailable { retry_after, .. } = delivery else {
            panic!("{reply:?}: {delivery:?}")
        };
        assert_eq!(retry_after.map(|it| it.as_secs()), secs, "{reply:?}");
    }
}

#[tokio::test]
async fn neither_secret_nor_address_is_logged() {
    let (logged, _guard) = Logged::everything();
    let (server, notifier) = open().await;
    server.then([Reply::plain(204, ""), Reply::Silence, Reply::Close]);
    for _ in 0..3 {
        let delivery = notifier.deliver(&push()).await;
        tracing::error!(?delivery, name = notifier.name(), "what is logged");
    }
    assert!(logged.text().contains("the webhook at 127.0.0.1"));
    assert_eq!(logged.count("the webhook's secret"), 0);
    let ours = logged
        .text()
        .lines()
        .filter(|it| it.contains("jam_mqtt"))
        .collect::<String>();
    assert!(!ours.contains("of-the-address"), "{ours}");
}
