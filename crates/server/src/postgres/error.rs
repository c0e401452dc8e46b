//! [`PostgresError`]: what went wrong, in words that say what to do.
//!
//! Invariant: of what the server says only the message is shown, never the details, which may hold the values of a row.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// What went wrong, as far as somebody would do something else about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No server answers there, or it is starting or stopping.
    Unreachable,
    /// The server does not let this user in, or there is no such database.
    LoginRefused,
    /// It has no place for one more connection.
    TooManyConnections,
    /// It can be read only: a replica.
    ReadOnly,
    /// A table, column or function is missing.
    SchemaMissing,
    /// Another transaction was in the way, or it took too long.
    Busy,
    /// The database's own rules forbid it.
    Constraint,
    /// Its disk is full.
    DiskFull,
    /// This user may not do that in the database.
    NotPermitted,
    /// A statement's place in a chain, or a fence (`JAM01` and so on).
    Raised,
    /// Anything else.
    Other,
}

/// What is wrong with an address, and what is expected; never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAddress(String);

/// What went wrong, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresError {
    kind: FailureKind,
    sqlstate: Option<String>,
    message: String,
}

impl PostgresError {
    /// What an operator would do something else about.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The five characters that the server has sent, if it has.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.sqlstate.as_deref()
    }

    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            sqlstate: None,
            message: message.into(),
        }
    }

    pub(super) fn no_answer(after: Duration) -> Self {
        let message = format!("no answer for {} s", after.as_secs_f32());
        Self::new(FailureKind::Unreachable, message)
    }

    pub(super) fn tls(error: &dyn fmt::Display) -> Self {
        Self::new(FailureKind::Other, format!("TLS: {error}"))
    }

    pub(super) fn file(option: &str, path: &Path, error: &dyn fmt::Display) -> Self {
        let message = format!("{option} {} cannot be used: {error}", path.display());
        Self::new(FailureKind::Other, message)
    }

    /// What each host has said, when none could be used. It is the kind of the first that says most.
    pub(super) fn of_hosts(failures: &[(String, Self)]) -> Self {
        let weight = |failure: &Self| match failure.kind {
            FailureKind::Unreachable => 2,
            FailureKind::ReadOnly => 1,
            _ => 0,
        };
        let most = failures.iter().min_by_key(|(_, failure)| weight(failure));
        let most = most.map(|(_, failure)| (failure.kind, failure.sqlstate.clone()));
        let (kind, sqlstate) = most.unwrap_or((FailureKind::Unreachable, None));
        let said = failures.iter().map(|(host, it)| format!("{host}: {it}"));
        Self {
            kind,
            sqlstate,
            message: said.collect::<Vec<_>>().join("; "),
        }
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(told) = error.as_db_error() {
            let kind = kind_of(told.code());
            return Self {
                kind,
                sqlstate: Some(told.code().code().to_owned()),
                message: format!("{}{}", told.message(), advice(kind)),
            };
        }
        let source = std::error::Error::source(&error);
        let io = source.and_then(|it| it.downcast_ref::<io::Error>());
        if io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied && is_replica(io)) {
            let kind = FailureKind::ReadOnly;
            let message = format!("it can only be read{}", advice(kind));
            return Self::new(kind, message);
        }
        let kind = if io.is_some() || error.is_closed() {
            FailureKind::Unreachable
        } else {
            FailureKind::Other
        };
        let message = match source {
            Some(source) if !error.to_string().contains(&source.to_string()) => {
                format!("{error}: {source}")
            }
            _ => error.to_string(),
        };
        Self::new(kind, message)
    }
}

/// As `tokio_postgres` says that a session cannot write.
fn is_replica(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.to_string().contains("writes")
}

fn kind_of(code: &SqlState) -> FailureKind {
    match code.code() {
        "53300" => FailureKind::TooManyConnections,
        "53100" => FailureKind::DiskFull,
        "25006" => FailureKind::ReadOnly,
        // An old copy of a table's rights or definition, a lock, a deadlock, a conflict, a statement's time.
        "55P03" | "40P01" | "40001" | "57014" | "55006" => FailureKind::Busy,
        "42P01" | "42703" | "42883" | "3F000" => FailureKind::SchemaMissing,
        "42501" => FailureKind::NotPermitted,
        // Stopped, crashed, starting.
        "57P01" | "57P02" | "57P03" | "57P05" => FailureKind::Unreachable,
        "3D000" => FailureKind::LoginRefused,
        code if code.starts_with("28") => FailureKind::LoginRefused,
        code if code.starts_with("23") => FailureKind::Constraint,
        code if code.starts_with("08") => FailureKind::Unreachable,
        code if code.starts_with("JAM") => FailureKind::Raised,
        _ => FailureKind::Other,
    }
}

fn advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::LoginRefused => {
            "; correct user, password or database in the URL, PG… variables or .pgpass, or the server's pg_hba.conf"
        }
        FailureKind::TooManyConnections => {
            "; raise max_connections of the server, or end what holds connections there"
        }
        FailureKind::ReadOnly => "; name the primary, or all hosts separated by commas",
        FailureKind::DiskFull => "; make room on the database server's disk",
        FailureKind::NotPermitted => "; GRANT it to this user, or log in as the tables' owner",
        FailureKind::SchemaMissing => "; `jam-mqtt cluster init` makes the tables",
        FailureKind::Unreachable
        | FailureKind::Busy
        | FailureKind::Constraint
        | FailureKind::Raised
        | FailureKind::Other => "",
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PostgresError {}

impl InvalidAddress {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidAddress {}
