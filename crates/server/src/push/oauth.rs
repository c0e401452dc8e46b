//! Access tokens: what Firebase wants to see with every push.
//!
//! One is asked for with the service account's signature (RFC 7523), kept until shortly before it expires,
//! and shared. However many pushes wait for one, it is asked for once, and if that fails they fail together
//! (`tests::oauth::one_access_token_for_many_pushes`, `a_failing_token_service_is_asked_once`).
//! Why not a library: docs/adr/0009-own-access-tokens.md.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::account::ServiceAccount;
use super::http::{Answer, HttpClient};
use super::{Delivery, Scope};

/// What the access token is good for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// RFC 7523, section 2.1, percent-encoded.
const GRANT_TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// A token is renewed this long before it expires, or a tenth of its life if that is less.
const MARGIN: Duration = Duration::from_secs(60);

/// No token is believed to live longer. Google's live for an hour.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Access tokens for one service account.
#[derive(Debug)]
pub(super) struct Oauth {
    http: HttpClient,
    account: ServiceAccount,
    last: Mutex<Last>,
}

/// What came of the last time that we asked.
#[derive(Debug)]
enum Last {
    Never,
    Token { access: AccessToken, until: Instant },
    Failed { at: Instant, delivery: Delivery },
}

/// `Bearer` and an access token, as a header's value. `Debug` does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccessToken(HeaderValue);

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    expires_in: u64,
}

impl Oauth {
    pub(super) fn new(http: HttpClient, account: ServiceAccount) -> Self {
        Self {
            http,
            account,
            last: Mutex::new(Last::Never),
        }
    }

    /// An access token that has not expired, or why there is none: [`Delivery::Unavailable`].
    pub(super) async fn access(&self) -> Result<AccessToken, Delivery> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        match &*last {
            Last::Token { access, until } if Instant::now() < *until => return Ok(access.clone()),
            // Somebody else has tried while this one waited for its turn.
            Last::Failed { at, delivery } if *at >= asked => return Err(delivery.clone()),
            Last::Never | Last::Token { .. } | Last::Failed { .. } => {}
        }
        match self.ask().await {
            Ok((access, life)) => {
                let until = Instant::now() + life;
                *last = Last::Token {
                    access: access.clone(),
                    until,
                };
                Ok(access)
            }
            Err(delivery) => {
                *last = Last::Failed {
                    at: Instant::now(),
                    delivery: delivery.clone(),
                };
                Err(delivery)
            }
        }
    }

    /// An access token instead of one that the service has refused, though it should still hold.
    pub(super) async fn another(&self, refused: &AccessToken) -> Result<AccessToken, Delivery> {
        {
            let mut last = self.last.lock().await;
            if matches!(&*last, Last::Token { access, .. } if access == refused) {
                *last = Last::Never;
            }
        }
        self.access().await
    }

    async fn ask(&self) -> Result<(AccessToken, Duration), Delivery> {
        // The wall clock, which Google judges it by, and not the server's own.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let assertion = self
            .account
            .assertion(SCOPE, now.unwrap_or_default().as_secs())
            .ok_or_else(|| no_token("the service account's key does not sign"))?;
        let request = self
            .http
            .post(self.account.token_uri())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("grant_type={GRANT_TYPE}&assertion={assertion}"));
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|error| no_token(&error.why))?;
        grant(&answer).ok_or_else(|| refusal(&answer))
    }
}

impl AccessToken {
    /// The value of `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn grant(answer: &Answer) -> Option<(AccessToken, Duration)> {
    if !answer.status.is_success() {
        return None;
    }
    let grant: Grant = serde_json::from_slice(answer.body.as_ref().ok()?).ok()?;
    if grant.access_token.is_empty() {
        return None;
    }
    let mut header = HeaderValue::try_from(format!("Bearer {}", grant.access_token)).ok()?;
    header.set_sensitive(true);
    let life = Duration::from_secs(grant.expires_in).min(MAX_LIFE);
    Some((AccessToken(header), life - MARGIN.min(life / 10)))
}

/// Without a token nothing can be sent, whatever the reason. The pushes wait: a key that is not accepted any
/// more can be replaced, a clock that is wrong be set.
fn refusal(answer: &Answer) -> Delivery {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return no_token(&format!("{status}, but no token in the answer"));
    }
    let error = answer.object();
    let error = error
        .as_ref()
        .and_then(|object| object.get("error")?.as_str());
    // The codes of RFC 6749, section 5.2, and no other words of a stranger.
    let code = error.filter(|code| {
        code.len() <= 40
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    });
    let code = code.map_or_else(String::new, |code| format!(" {code}"));
    Delivery::Unavailable {
        scope: Scope::Service,
        retry_after: answer.retry_after,
        why: format!("no access token: {status}{code}"),
    }
}

fn no_token(why: &str) -> Delivery {
    Delivery::unavailable(Scope::Service, format!("no access token: {why}"))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn a_token_is_used_until_shortly_before_it_expires() {
        let day = 24 * 3600;
        for (expires_in, used) in [(3600, 3540), (100, 90), (0, 0), (u64::MAX, day - 60)] {
            let body = format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#);
            let answer = Answer {
                status: StatusCode::OK,
                retry_after: None,
                body: Ok(body.into()),
            };
            let (_, life) = grant(&answer).unwrap();
            assert_eq!(life, Duration::from_secs(used));
        }
    }
}
