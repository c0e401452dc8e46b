//! Access tokens, from a server that does as it is told.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::*;

#[tokio::test]
async fn what_an_access_token_is_asked_for_with() {
    let firebase = Firebase::open().await;
    firebase.notifier().deliver(&push()).await;
    let [request] = &firebase.tokens.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, "POST /token");
    assert_eq!(
        request.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    let assertion = request.body.strip_prefix(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=",
    );
    let assertion = assertion.unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(private_key().as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref())
        .verify(signed.as_bytes(), &signature)
        .unwrap();
    let part =
        |text| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap() };
    let (header, claims) = signed.split_once('.').unwrap();
    assert_eq!(
        part(header),
        json!({ "alg": "RS256", "typ": "JWT", "kid": "key-1" })
    );
    let claims = part(claims);
    assert_eq!(claims["iss"], "push@jam-test.example");
    assert_eq!(claims["aud"], firebase.tokens.url("/token"));
    assert_eq!(
        claims["scope"],
        "https://www.googleapis.com/auth/firebase.messaging"
    );
    let secs = |name: &str| claims[name].as_u64().unwrap();
    assert_eq!(secs("exp") - secs("iat"), 3600);
}

#[tokio::test]
async fn one_access_token_for_many_pushes() {
    let firebase = Firebase::open().await;
    firebase
        .tokens
        .then([Reply::access_token("access-1", 3600).late(PATIENCE / 5)]);
    let notifier = Arc::new(firebase.notifier());
    let mut pushes = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let notifier = notifier.clone();
        pushes.spawn(async move { notifier.deliver(&push()).await });
    }
    for delivery in pushes.join_all().await {
        assert_eq!(delivery, Delivery::Delivered);
    }
    assert_eq!(firebase.tokens.count(), 1);
    assert_eq!(firebase.messages.count(), 50);
}

#[tokio::test]
async fn an_access_token_is_renewed_before_it_expires() {
    let firebase = Firebase::open().await;
    firebase.tokens.then([
        Reply::access_token("short", 1),
        Reply::access_token("next", 3600),
    ]);
    let notifier = firebase.notifier();
    for _ in 0..3 {
        assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    assert_eq!(firebase.tokens.count(), 2);
    let requests = firebase.messages.requests();
    let used: Vec<_> = requests
        .iter()
        .map(|it| &*it.headers["authorization"])
        .collect();
    assert_eq!(
        used,
        [
            "Bearer short",
            "Bearer short",
            "Bearer short",
            "Bearer next"
        ]
    );
}

#[tokio::test]
async fn a_revoked_access_token_is_renewed_once() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let refusal = || Reply::error(401, "UNAUTHENTICATED", "UNSPECIFIED_ERROR");
    firebase
        .tokens
        .then(["1", "2", "3"].map(|it| Reply::access_token(it, 3600)));

    firebase.messages.then([refusal()]);
    assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
    firebase.messages.then([refusal(), refusal()]);
    let delivery = notifier.deliver(&push()).await;
    assert_eq!(delivery, rejected("401 UNSPECIFIED_ERROR"));
    let requests = firebase.messages.requests();
    let used: Vec<_> = requests
        .iter()
        .map(|it| &*it.headers["authorization"])
        .collect();
    assert_eq!(used, ["Bearer 1", "Bearer 2", "Bearer 2", "Bearer 3"]);
    assert_eq!(firebase.tokens.count(), 3);
}

#[tokio::test]
async fn no_access_token() {
    let firebase = Firebase::open().await;
    let notifier = firebase.notifier();
    let invalid = json!({ "error": "invalid_grant", "error_description": "Invalid JWT" });
    for (reply, said) in [
        (Reply::json(400, &invalid), "400 invalid_grant"),
        (
            Reply::json(401, &json!({ "error": TOKEN.to_uppercase() })),
            "401",
        ),
        (Reply::retry_after(503, "9"), "503"),
        (Reply::plain(200, "<html>"), "no token in the answer"),
        (
            Reply::json(200, &json!({ "access_token": "", "expires_in": 1 })),
            "no token",
        ),
        (
            Reply::json(200, &json!({ "access_token": "a\nb", "expires_in": 1 })),
            "no token",
        ),
        (
            Reply::json(200, &json!({ "access_token": "a", "expires_in": -1 })),
            "no token",
        ),
        (Reply::json(302, &json!({})), "302"),
        (Reply::Silence, "no answer in time"),
        (Reply::Endless(200), "no token"),
        (Reply::Reset(200), "no token"),
        (Reply::Noise, "no answer"),
    ] {
        firebase.tokens.then([reply.clone()]);
        let delivery = notifier.deliver(&push()).await;
        let is_service = matches!(
            delivery,
            Delivery::Unavailable {
                scope: Scope::Service,
                ..
            }
        );
        assert!(is_service, "without a token no push is sent: {delivery:?}");
        if let Delivery::Unavailable { retry_after, .. } = &delivery {
            let asked = said == "503";
            assert_eq!(*retry_after, asked.then(|| Duration::from_secs(9)));
        }
        let why = why(&delivery);
        assert!(
            why.starts_with("no access token: ") && why.contains(said),
            "{reply:?}: {why}"
        );
        assert!(!why.contains("THE-NOTIFICATION"), "{why}");
    }
    assert_eq!(firebase.messages.count(), 0);
    // One that says it holds for longer than the clock goes.
    firebase
        .tokens
        .then([Reply::access_token("for ever", u64::MAX)]);
    assert_eq!(notifier.deliver(&push()).await, Delivery::Delivered);
}

#[tokio::test]
async fn a_failing_token_service_is_asked_once() {
    let firebase = Firebase::open().await;
    firebase
        .tokens
        .then([Reply::plain(500, "").late(PATIENCE / 5)]);
    let notifier = Arc::new(firebase.notifier());
    let mut pushes = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let notifier = notifier.clone();
        pushes.spawn(async move { notifier.deliver(&push()).await });
    }
    for delivery in pushes.join_all().await {
        assert_eq!(why(&delivery), "no access token: 500");
    }
    assert_eq!(firebase.tokens.count(), 1);
    assert_eq!(
        notifier.deliver(&push()).await,
        Delivery::Delivered,
        "then it is asked again"
    );
}
