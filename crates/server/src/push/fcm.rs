//! Firebase Cloud Messaging, HTTP v1 (PROTOCOL.md, section 9).
//!
//! A push is data alone, `fromId`, as the deployed apps expect it; what the phone shows is up to the app. So
//! for Apple's phones it is a background push: its priority must be 5, with 10 Firebase refuses a message
//! without an alert
//! (<https://firebase.google.com/docs/cloud-messaging/customize-messages/setting-message-priority>,
//! <https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns>).
//!
//! The sender's id is what pushes collapse by while the phone cannot be reached: the last one of each sender
//! stays. Firebase keeps four such for a phone and does not say which; any one of them makes the app connect
//! and find what all have written. An id has at most 64 bytes, which is what Apple allows.
//!
//! Of the answers (<https://firebase.google.com/docs/cloud-messaging/error-codes>) only the error code
//! `UNREGISTERED` says that a token is dead. A 404 without it is a wrong address or project.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::Duration;

use super::account::ServiceAccount;
use super::http::{Answer, HttpClient};
use super::oauth::{AccessToken, Oauth};
use super::{Delivering, Delivery, Notifier, Push, Scope};
use crate::settings::ServiceUrl;

/// How long Firebase and Apple go on trying to reach the phone.
const TTL: Duration = Duration::from_secs(86_400);

/// Error codes are names such as `SENDER_ID_MISMATCH`.
const CODE_BYTES: usize = 40;

/// Firebase, for one project.
#[derive(Debug)]
pub(super) struct Fcm {
    http: HttpClient,
    oauth: Oauth,
    project: String,
    url: ServiceUrl,
}

impl Fcm {
    /// Firebase at `base`, for the account's project.
    pub(super) fn new(http: HttpClient, account: ServiceAccount, base: &ServiceUrl) -> Self {
        let project = account.project().to_owned();
        let url = base.join(&["v1", "projects", &project, "messages:send"]);
        let oauth = Oauth::new(http.clone(), account);
        Self {
            http,
            oauth,
            project,
            url,
        }
    }

    async fn send(&self, push: &Push) -> Result<Delivery, Delivery> {
        let Some(body) = body(push) else {
            let kind = "no token".to_owned();
            return Ok(Delivery::Rejected { kind });
        };
        let access = self.oauth.access().await?;
        let answer = self.post(body.clone(), &access).await?;
        if answer.status != StatusCode::UNAUTHORIZED || is_about_apple(&answer) {
            return Ok(outcome(&answer));
        }
        // The access token may have been revoked before its time.
        let access = self.oauth.another(&access).await?;
        Ok(outcome(&self.post(body, &access).await?))
    }

    async fn post(&self, body: String, access: &AccessToken) -> Result<Answer, Delivery> {
        let request = self
            .http
            .post(self.url.expose())
            .header(AUTHORIZATION, access.header())
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        Ok(self.http.send(request).await?)
    }
}

impl Notifier for Fcm {
    fn deliver<'a>(&'a self, push: &'a Push) -> Delivering<'a> {
        Box::pin(async move { self.send(push).await.unwrap_or_else(|delivery| delivery) })
    }

    fn needs_token(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        format!("Firebase, project {}", self.project)
    }
}

/// What is sent. `None` without a token.
fn body(push: &Push) -> Option<String> {
    let Push {
        receiver: _,
        sender,
        since,
        token,
    } = push;
    let sender = sender.as_str();
    let ttl_secs = TTL.as_secs();
    let expiration_secs = since.as_millis() / 1000 + ttl_secs;
    let message = json!({
        "message": {
            "token": token.as_ref()?.expose_secret(),
            "data": { "fromId": sender },
            "android": {
                "priority": "high",
                "ttl": format!("{ttl_secs}s"),
                "collapse_key": sender,
            },
            "apns": {
                "headers": {
                    "apns-push-type": "background",
                    "apns-priority": "5",
                    "apns-expiration": expiration_secs.to_string(),
                    "apns-collapse-id": sender,
                },
                "payload": { "aps": { "content-available": 1 } },
            },
        },
    });
    Some(message.to_string())
}

fn outcome(answer: &Answer) -> Delivery {
    if let Some(not_now) = answer.not_now() {
        return not_now;
    }
    if let Err(scope) = answer.body {
        return Delivery::unavailable(scope, "its answer breaks off, or does not end");
    }
    if answer.status.is_success() {
        // Something else may answer in Firebase's place: a portal that wants to be logged into, say.
        let says_nothing = answer.body.as_ref().is_ok_and(Bytes::is_empty);
        if says_nothing || answer.object().is_some() {
            return Delivery::Delivered;
        }
        return Delivery::unavailable(Scope::Request, "its answer is not Firebase's");
    }
    let code = error_code(answer);
    if answer.status == StatusCode::NOT_FOUND && code.as_deref() == Some("UNREGISTERED") {
        return Delivery::Unregistered;
    }
    let status = answer.status.as_u16();
    let kind = code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"));
    Delivery::Rejected { kind }
}

/// A 401 that is not about our access token: Firebase has no valid key for Apple's service.
fn is_about_apple(answer: &Answer) -> bool {
    error_code(answer).as_deref() == Some("THIRD_PARTY_AUTH_ERROR")
}

/// Firebase's own code, else the status of its answer; nothing that could be something else than a code.
fn error_code(answer: &Answer) -> Option<String> {
    let object = answer.object()?;
    let error = object.get("error")?;
    let details = error.get("details").and_then(Value::as_array);
    let own =
        details.and_then(|details| details.iter().find_map(|it| it.get("errorCode")?.as_str()));
    let code = own.or_else(|| error.get("status")?.as_str())?;
    let is_code = code.len() <= CODE_BYTES
        && code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    is_code.then(|| code.to_owned())
}
