//! HTTP requests to push services: one pool of connections, and a bound to whatever comes back.
//!
//! HTTP/2 where the server offers it in the TLS handshake, else HTTP/1.1; TLS by rustls with ring and the
//! machine's certificate authorities. No redirect is followed: it would carry tokens to another place. No
//! proxy is used. An answer is a status and at most [`BODY_BYTES`] of body, within [`TIMEOUT`] in all. A
//! connection that ends before an answer begins may have been closed while nobody used it: the request is
//! repeated once, at once, on a new one.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};
use rustls::{ClientConfig, RootCertStore};

use super::{Delivery, PushError, Scope};

/// From the beginning of a request to the end of its answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Of that, for a new connection, its TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer bodies are not read.
pub(super) const BODY_BYTES: usize = 64 * 1024;

/// A service that asks to be left alone for longer is asked again all the same.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// While a request waits, the other end of an HTTP/2 connection must show that it is there: this often, ...
const PING_AFTER: Duration = Duration::from_secs(5);

/// ... and within this time. A connection that died silently is so given up before the request's time is over,
/// and the next request takes a new one.
const PONG_WITHIN: Duration = Duration::from_secs(4);

/// Connections that are kept for later.
const IDLE_CONNECTIONS: usize = 4;

/// What requests are made with. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct HttpClient {
    client: Client,
    /// Opens a connection for each request.
    unpooled: Client,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// An error: it is too long, broke off, or did not come in time.
    pub(super) body: Result<Bytes, Scope>,
}

/// Nothing came back.
#[derive(Debug)]
pub(super) struct NoAnswer {
    scope: Scope,
    /// In words for the log.
    pub(super) why: String,
}

impl HttpClient {
    /// For requests to these addresses.
    ///
    /// # Errors
    /// If one of them is `https` and the machine knows no certificate authority.
    pub(super) fn new(urls: &[&Url]) -> Result<Self, PushError> {
        let mut roots = RootCertStore::empty();
        if urls.iter().any(|url| url.scheme() == "https") {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(PushError::new(
                    "pushes cannot be sent by https: this machine knows no certificate authority; install \
                     the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
                ));
            }
        }
        Self::with(roots, TIMEOUT)
    }

    /// Trusts these certificate authorities, and waits so long for answers.
    pub(super) fn with(roots: RootCertStore, timeout: Duration) -> Result<Self, PushError> {
        let cannot = |error: &dyn std::fmt::Display| {
            PushError::new(format!("pushes cannot be sent: no HTTP client: {error}"))
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| cannot(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = |idle_connections: usize| {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("jam-mqtt/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .timeout(timeout)
                .connect_timeout(CONNECT_TIMEOUT.min(timeout / 2))
                .pool_max_idle_per_host(idle_connections)
                .http2_keep_alive_interval(PING_AFTER)
                .http2_keep_alive_timeout(PONG_WITHIN)
                .build()
                .map_err(|error| cannot(&error))
        };
        Ok(Self {
            client: client(IDLE_CONNECTIONS)?,
            unpooled: client(0)?,
        })
    }

    /// A POST, to be given headers and a body.
    pub(super) fn post(&self, url: &Url) -> RequestBuilder {
        self.client.post(url.clone())
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, NoAnswer> {
        let request = request.build().map_err(|error| describe(&error))?;
        let again = request.try_clone();
        let sent = match (self.client.execute(request).await, again) {
            (Err(error), Some(again)) if is_cut_off(&error) => self.unpooled.execute(again).await,
            (sent, _) => sent,
        };
        let mut response = sent.map_err(|error| describe(&error))?;
        Ok(Answer {
            status: response.status(),
            retry_after: retry_after(response.headers(), SystemTime::now()),
            body: read(&mut response).await,
        })
    }
}

impl Answer {
    /// The body as JSON, if it is an object.
    pub(super) fn object(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(self.body.as_ref().ok()?).ok()
    }

    /// What every service means by a status that is neither success nor refusal: not now. `None`: success
    /// or refusal.
    ///
    /// A redirect is one of these: where it leads nobody knows, and who set it up may still mend it.
    pub(super) fn not_now(&self) -> Option<Delivery> {
        let (scope, why) = match self.status.as_u16() {
            429 => (Scope::Receiver, ", it wants fewer requests"),
            300..=399 => (Scope::Request, ", a redirect, which is not followed"),
            200..=299 | 400..=499 => return None,
            _ => (Scope::Request, ""),
        };
        Some(Delivery::Unavailable {
            scope,
            retry_after: self.retry_after,
            why: format!("{}{why}", self.status.as_u16()),
        })
    }
}

impl From<NoAnswer> for Delivery {
    fn from(NoAnswer { scope, why }: NoAnswer) -> Self {
        Self::unavailable(scope, why)
    }
}

/// Without a body: of whom that is the trouble. One that does not come has used up its time, and nobody else's.
async fn read(response: &mut Response) -> Result<Bytes, Scope> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_BYTES => {
                body.extend_from_slice(&chunk);
            }
            Ok(None) => return Ok(body.freeze()),
            Err(error) if error.is_timeout() => return Err(Scope::Receiver),
            Ok(Some(_)) | Err(_) => return Err(Scope::Request),
        }
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3), no longer than [`MAX_RETRY_AFTER`].
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Whether the connection, or the request's stream on it, ended before anything was answered.
fn is_cut_off(error: &reqwest::Error) -> bool {
    let is_noise = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse)
    };
    !error.is_connect() && !error.is_timeout() && error.is_request() && !causes(error).any(is_noise)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// Neither address nor anything that was sent.
fn describe(error: &reqwest::Error) -> NoAnswer {
    let cause = causes(error).last();
    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
    let (scope, why) = if error.is_connect() && error.is_timeout() {
        (Scope::Service, "no connection in time".to_owned())
    } else if error.is_connect() {
        (Scope::Service, format!("no connection{cause}"))
    } else if error.is_timeout() {
        // A service that others reach; this one has used up its time, and nobody else's.
        (Scope::Receiver, "no answer in time".to_owned())
    } else {
        (Scope::Request, format!("no answer{cause}"))
    };
    NoAnswer { scope, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        retry_after(&headers, now)
    }

    #[test]
    fn how_long_to_wait() {
        assert_eq!(wait("0"), Some(Duration::ZERO));
        assert_eq!(wait(" 120 "), Some(Duration::from_secs(120)));
        for long in ["3601", "99999999999999999999999999"] {
            assert_eq!(wait(long), Some(MAX_RETRY_AFTER));
        }
        let date = |text| wait(text).unwrap().as_secs();
        assert_eq!(date("Sun, 06 Nov 1994 08:50:37 GMT"), 60);
        assert_eq!(date("Sunday, 06-Nov-94 08:50:37 GMT"), 60);
        assert_eq!(date("Sun, 06 Nov 1994 08:00:00 GMT"), 0);
        assert_eq!(date("Fri, 06 Nov 2054 08:49:37 GMT"), 3600);
        for garbage in ["", "-1", "1.5", "soon", "1 hour"] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
    }
}
