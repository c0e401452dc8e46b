//! A webhook: pushes as requests to any HTTP server, for those who do not use Firebase.
//!
//! `POST {"to","fromId","timestamp"}`, the timestamp being since when the push is owed. Who receives it knows
//! by `X-Jam-Signature` that it comes from this server: `sha256=` and the HMAC-SHA256 of the body in
//! hexadecimal, with `push.webhook_secret`. Every 2xx is success, whatever else is in the answer.

use reqwest::header::CONTENT_TYPE;
use ring::hmac;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::http::{Answer, HttpClient};
use super::{Delivering, Delivery, Notifier, Push};
use crate::settings::{self, ServiceUrl};

/// Where the signature is.
const SIGNATURE: &str = "x-jam-signature";

/// One address that takes pushes.
#[derive(Debug)]
pub(super) struct Webhook {
    http: HttpClient,
    url: ServiceUrl,
    key: hmac::Key,
}

/// In the order in which it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    to: &'a str,
    from_id: &'a str,
    timestamp: String,
}

impl Webhook {
    pub(super) fn new(http: HttpClient, webhook: &settings::Webhook) -> Self {
        let secret = webhook.secret.expose_secret().as_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let url = webhook.url.clone();
        Self { http, url, key }
    }

    async fn send(&self, push: &Push) -> Result<Delivery, Delivery> {
        let body = body(push);
        let request = self
            .http
            .post(self.url.expose())
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature(&self.key, body.as_bytes()))
            .body(body);
        Ok(outcome(&self.http.send(request).await?))
    }
}

impl Notifier for Webhook {
    fn deliver<'a>(&'a self, push: &'a Push) -> Delivering<'a> {
        Box::pin(async move { self.send(push).await.unwrap_or_else(|delivery| delivery) })
    }

    fn needs_token(&self) -> bool {
        false
    }

    /// Without what follows the host, which may be a secret.
    fn name(&self) -> String {
        let host = self.url.expose().host_str();
        format!("the webhook at {}", host.unwrap_or_default())
    }
}

fn body(push: &Push) -> String {
    let body = Body {
        to: push.receiver.as_str(),
        from_id: push.sender.as_str(),
        timestamp: push.since.to_string(),
    };
    serde_json::to_string(&body).expect("three texts are JSON")
}

fn signature(key: &hmac::Key, body: &[u8]) -> String {
    let tag = hmac::sign(key, body);
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={hex}")
}

fn outcome(answer: &Answer) -> Delivery {
    answer.not_now().unwrap_or_else(|| {
        if answer.status.is_success() {
            return Delivery::Delivered;
        }
        let kind = answer.status.as_u16().to_string();
        Delivery::Rejected { kind }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, section 4.3.
    #[test]
    fn signatures() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        assert_eq!(
            signature(&key, b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
