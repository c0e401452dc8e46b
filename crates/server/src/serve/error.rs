//! Why the server cannot start, in words that say what to do.

use std::fmt;
use std::io;

use jam_core::store::StoreError;

use crate::admin::access::AccessError;
use crate::directory::DirectoryError;
use crate::mailbox::OpenError;
use crate::push::PushError;
use crate::tls::TlsError;

/// Why the server cannot start or go on. Each says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting names an address that cannot be served on.
    Bind {
        /// The setting.
        setting: &'static str,
        /// What it says.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// A listening socket that the service manager has passed on cannot be served.
    Given(String),
    /// The TLS files.
    Tls(TlsError),
    /// The directory.
    Directory(DirectoryError),
    /// The mailbox.
    Mailbox(StoreError),
    /// The push service.
    Push(PushError),
    /// The token of the admin API.
    Admin(AccessError),
    /// The system.
    Io(io::Error),
}

/// Of `sysexits.h`, `EX_UNAVAILABLE`: what the server needs cannot be used.
const UNAVAILABLE: u8 = 69;

/// `EX_TEMPFAIL`: somebody else has it at the moment.
const IN_USE: u8 = 75;

/// `EX_CONFIG`: starting again changes nothing.
const CONFIG: u8 = 78;

impl ServeError {
    /// What the process exits with: scripts, and a service manager that is to try again or not, tell some reasons apart
    /// (`docs/operations.md`, "Commands").
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Bind { error, .. } => match error.kind() {
                io::ErrorKind::AddrInUse => IN_USE,
                io::ErrorKind::PermissionDenied => CONFIG,
                // An interface or a name that may yet come: machines start in any order.
                _ => UNAVAILABLE,
            },
            Self::Given(_) | Self::Tls(_) | Self::Push(_) | Self::Admin(_) => CONFIG,
            Self::Mailbox(error) => match error.downcast_ref() {
                Some(OpenError::InUse { .. }) => IN_USE,
                _ => UNAVAILABLE,
            },
            Self::Directory(_) => UNAVAILABLE,
            Self::Io(_) => 1,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind {
                setting,
                address,
                error,
            } => {
                write!(f, "cannot listen on {address} ({setting}): {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "; stop what listens there, or choose another")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; name an address of this machine, or 0.0.0.0 for all")
                    }
                    io::ErrorKind::PermissionDenied => write!(f, "; choose a port above 1023"),
                    _ => Ok(()),
                }
            }
            Self::Given(why) => f.write_str(why),
            Self::Tls(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
            Self::Mailbox(error) => error.fmt(f),
            Self::Push(error) => error.fmt(f),
            Self::Admin(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { error, .. } | Self::Io(error) => Some(error),
            Self::Given(_) => None,
            Self::Tls(error) => Some(error),
            Self::Directory(error) => Some(error),
            Self::Mailbox(error) => Some(&**error),
            Self::Push(error) => Some(error),
            Self::Admin(error) => Some(error),
        }
    }
}
