//! Why a command fails, and the exit status that says so.

use std::fmt;
use std::io::{self, ErrorKind};

/// Why the exit status is not 0.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong: 2.
    Usage(String),
    /// The command line is wrong, and the help has been printed: 2.
    Misused,
    /// The command failed: 1.
    Failed(String),
    /// The server could not start, for a reason that scripts tell apart: a status of `sysexits.h`.
    NotServed {
        /// See [`crate::serve::ServeError::exit_status`].
        status: u8,
        /// Why.
        message: String,
    },
    /// The reader of standard output has gone, which is no failure: 0.
    NoReader,
}

impl CliError {
    /// With the error's text.
    pub fn failed(error: &dyn fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What it means that standard output could not be written.
pub(super) fn print_error(error: &io::Error) -> CliError {
    match error.kind() {
        ErrorKind::BrokenPipe => CliError::NoReader,
        _ => CliError::Failed(format!("cannot print: {error}")),
    }
}
