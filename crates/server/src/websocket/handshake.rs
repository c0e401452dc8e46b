//! From an HTTP request to a WebSocket (RFC 6455, section 4.2).

use axum::body::Body;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::upgrade::OnUpgrade;

/// The subprotocols: MQTT's own name, and what clients of MQTT 3.1 ask for.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What is added to the client's key before it is hashed (section 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a request, and what becomes the WebSocket once that is written.
///
/// # Errors
/// The answer to a request that asks for none, or not as the standard says.
pub(crate) fn accept(request: &mut Request<Body>) -> Result<(Response, OnUpgrade), Box<Response>> {
    let headers = request.headers();
    let is_upgrade = request.method() == Method::GET
        && names(headers, CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade"))
        && names(headers, UPGRADE).any(|it| it.eq_ignore_ascii_case("websocket"));
    if !is_upgrade {
        return Err(bad_request("this is a WebSocket: ask for an upgrade\n"));
    }
    if names(headers, SEC_WEBSOCKET_VERSION).ne(["13"]) {
        let version = [(SEC_WEBSOCKET_VERSION, "13")];
        let why = "only version 13 of WebSocket is served\n";
        return Err(Box::new(
            (StatusCode::UPGRADE_REQUIRED, version, why).into_response(),
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|it| it.len() == 16))
    else {
        return Err(bad_request(
            "Sec-WebSocket-Key must be 16 bytes in base64\n",
        ));
    };
    let accept = accept_key(key);
    let protocol = PROTOCOLS
        .into_iter()
        .find(|ours| names(headers, SEC_WEBSOCKET_PROTOCOL).any(|asked| asked == *ours));
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(bad_request("this connection cannot be upgraded\n"));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((response, upgrade))
}

fn bad_request(why: &'static str) -> Box<Response> {
    Box::new((StatusCode::BAD_REQUEST, why).into_response())
}

/// The names in a header that lists them.
fn names(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn accept_key(key: &[u8]) -> HeaderValue {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(KEY_SUFFIX);
    let accept = BASE64_STANDARD.encode(hash.finish());
    HeaderValue::from_str(&accept).expect("base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_is_answered_as_it_says() {
        let key = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn what_is_no_upgrade_is_refused() {
        let good: [(&str, &str); 4] = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let refused = |changed: &str, value: Option<&str>| {
            let mut request = Request::get("/mqtt");
            for (name, good) in good {
                let value = if name == changed { value } else { Some(good) };
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let mut request = request.body(Body::empty()).expect("a request");
            let answer = *accept(&mut request).expect_err("it is refused");
            async {
                let status = answer.status().as_u16();
                let why = axum::body::to_bytes(answer.into_body(), 1000).await;
                (status, String::from_utf8(why.unwrap().into()).unwrap())
            }
        };
        let bad = |why: &str| (400, format!("{why}\n"));
        for (name, value) in [("connection", Some("close")), ("upgrade", None)] {
            let why = "this is a WebSocket: ask for an upgrade";
            assert_eq!(refused(name, value).await, bad(why));
        }
        for version in [Some("8"), None] {
            let (status, _) = refused("sec-websocket-version", version).await;
            assert_eq!(status, 426);
        }
        for key in [
            None,
            Some("short"),
            Some("dGhlIHNhbXBsZSBub25jZQ="),
            Some("dGhlIHNhbXBsZQ=="),
        ] {
            let why = "Sec-WebSocket-Key must be 16 bytes in base64";
            assert_eq!(refused("sec-websocket-key", key).await, bad(why));
        }
        // Nothing is wrong with it, but there is no connection under it.
        let why = "this connection cannot be upgraded";
        assert_eq!(refused("", None).await, bad(why));
    }
}
