//! Who may ask: whoever has one of the two tokens.
//!
//! `admin.token` may everything; `admin.read_token` may look, and change nothing. Without `admin.token` there is a random
//! one in `<data>/admin-token`, which only the server's own user may read.
//!
//! Whoever has the right token is let in, whatever others have tried: on a loopback address everybody of the machine comes
//! from one source, and could lock the operator out. What makes guessing hopeless is a token's length: a short one
//! is warned of ([`Settings::short_tokens`]). A wrong one is in the log, with its address.
//!
//! Invariant: a token is compared in constant time, and is in no log, no error and no answer.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::Served;
use super::listener::AdminPlace;
use super::problem::Problem;
use crate::named_file;
use crate::settings::Settings;

/// In the data directory.
const TOKEN_FILE: &str = "admin-token";

/// Random bytes in a token that the server makes.
const TOKEN_BYTES: usize = 32;

/// The mode bits of everybody but the owner.
const OF_OTHERS: u32 = 0o077;

/// The tokens.
#[derive(Debug)]
pub(crate) struct Access {
    token: SecretString,
    read_token: Option<SecretString>,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allows {
    Reading,
    Everything,
}

/// Why there is no token.
#[derive(Debug)]
pub enum AccessError {
    /// The file cannot be read or made.
    Io(PathBuf, io::Error),
    /// The file of a server's token is not there.
    Missing(PathBuf),
    /// Other users of the machine can read it.
    Exposed(PathBuf),
    /// It holds no token.
    Empty(PathBuf),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(
                f,
                "cannot use the file of the admin token {}: {error}; set admin.token, or listen.admin = \"\" for no admin API",
                path.display()
            ),
            Self::Missing(path) => write!(
                f,
                "there is no admin token {}: a server makes it when it starts; restart the server, or name its data directory \
                 with --data",
                path.display()
            ),
            Self::Exposed(path) => write!(
                f,
                "other users of this machine can read the admin token: delete {0} for a new one, or chmod 600 {0} to keep it",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "{} holds no token: delete it, and a new one is made",
                path.display()
            ),
        }
    }
}

impl std::error::Error for AccessError {}

impl Access {
    /// The tokens that the settings name, or the one in the data directory, which is made if it is not there.
    pub(crate) fn open(settings: &Settings) -> Result<Self, AccessError> {
        let token = match &settings.admin.token {
            Some(token) => token.clone(),
            None => make_or_read(&token_file(settings))?,
        };
        Ok(Self {
            token,
            read_token: settings.admin.read_token.clone(),
        })
    }

    fn allows(&self, offered: &str) -> Option<Allows> {
        let is = |token: &SecretString| {
            bool::from(token.expose_secret().as_bytes().ct_eq(offered.as_bytes()))
        };
        // Both are compared, whichever it is.
        let (everything, reading) = (is(&self.token), self.read_token.as_ref().is_some_and(is));
        if everything {
            Some(Allows::Everything)
        } else {
            reading.then_some(Allows::Reading)
        }
    }
}

/// Where a token is that the settings do not name.
pub(crate) fn token_file(settings: &Settings) -> PathBuf {
    settings.data.join(TOKEN_FILE)
}

/// What the server that runs with these settings lets do everything. Makes nothing.
pub(crate) fn token(settings: &Settings) -> Result<SecretString, AccessError> {
    match &settings.admin.token {
        Some(token) => Ok(token.clone()),
        None => read(&token_file(settings)).map_err(|error| match error {
            AccessError::Io(path, error) if error.kind() == io::ErrorKind::NotFound => {
                AccessError::Missing(path)
            }
            other => other,
        }),
    }
}

/// Where [`Access::open`] would find the token, in words for `check`; makes nothing.
pub(crate) fn check(settings: &Settings) -> Result<String, AccessError> {
    if settings.admin.token.is_some() {
        return Ok("the one that is set".to_owned());
    }
    let path = token_file(settings);
    let shown = path.display();
    match read(&path) {
        Err(AccessError::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("{shown} would be created"))
        }
        found => found.map(|_| format!("in {shown}")),
    }
}

fn make_or_read(path: &Path) -> Result<SecretString, AccessError> {
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        made => made.map_err(|error| AccessError::Io(path.to_owned(), error)),
    }
}

fn read(path: &Path) -> Result<SecretString, AccessError> {
    let failed = |error| AccessError::Io(path.to_owned(), error);
    let file = named_file::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & OF_OTHERS != 0 {
        return Err(AccessError::Exposed(path.to_owned()));
    }
    let text = named_file::text_of(file).map_err(failed)?;
    match text.trim() {
        "" => Err(AccessError::Empty(path.to_owned())),
        token => Ok(token.into()),
    }
}

fn make(path: &Path) -> io::Result<SecretString> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    writeln!(file, "{token}")?;
    file.sync_all()?;
    Ok(token.into())
}

/// Lets a request through if its token allows it.
pub(super) async fn require(
    State(served): State<Served>,
    request: Request,
    next: Next,
) -> Response {
    let offered = bearer(request.headers());
    let allows = offered.and_then(|token| served.access.allows(token));
    let place = request.extensions().get::<Arc<AdminPlace>>();
    match (place, allows, offered) {
        (Some(place), Some(_), _) => place.keep(),
        (Some(place), None, Some(_)) => served.client_log.wrong_admin_token(place.address()),
        _ => {}
    }
    match allows {
        Some(Allows::Everything) => next.run(request).await,
        Some(Allows::Reading) if [Method::GET, Method::HEAD].contains(request.method()) => {
            next.run(request).await
        }
        Some(Allows::Reading) => {
            Problem::forbidden("this token may look, and change nothing: use admin.token")
                .into_response()
        }
        None => {
            let problem = Problem::unauthorized(
                "send Authorization: Bearer TOKEN with the token of admin.token or of <data>/admin-token",
            );
            let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer realm="jam-mqtt""#)];
            (challenge, problem).into_response()
        }
    }
}

/// RFC 6750, section 2.1; the scheme in whatever case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
