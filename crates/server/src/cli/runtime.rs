//! On how many threads connections are served.
//!
//! - `TOKIO_WORKER_THREADS` is tokio's own variable and means the same here, but that with 1 the tasks run on
//!   the main thread, without a scheduler (`test_as_many_threads_as_are_asked_for`).
//! - Without it the machine decides (`two_cores_have_one_thread_unless_there_is_tls`; ADR 8).

use std::env::{self, VarError};
use std::ffi::OsString;
use std::fmt;
use std::num::NonZero;
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::CliError;

const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// More than any machine has cores.
const MAX_THREADS: usize = 1024;

/// For a server that does TLS itself or not.
pub(super) fn threads(tls: bool) -> Result<usize, WrongThreads> {
    match env::var(WORKER_THREADS) {
        Ok(text) => match text.parse() {
            Ok(threads @ 1..=MAX_THREADS) => Ok(threads),
            _ => Err(WrongThreads(text.into())),
        },
        Err(VarError::NotPresent) => {
            let cores = thread::available_parallelism().map_or(1, NonZero::get);
            Ok(threads_for(cores, tls))
        }
        Err(VarError::NotUnicode(text)) => Err(WrongThreads(text)),
    }
}

/// A thread for each core, but one for two cores: the mailbox's writer, the accounts database's reader and the kernel
/// have work for the other, and to hand tasks over costs more than it brings. With TLS it is two, for
/// everybody's messages would wait for the handshakes when many clients come back at once.
fn threads_for(cores: usize, tls: bool) -> usize {
    if cores == 2 && !tls {
        1
    } else {
        cores.min(MAX_THREADS)
    }
}

/// What the variable is instead of a number.
#[derive(Debug)]
pub(super) struct WrongThreads(OsString);

impl fmt::Display for WrongThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the environment variable {WORKER_THREADS} is {:?}; give a number of threads from 1 to {MAX_THREADS}, or leave it out",
            self.0
        )
    }
}

impl From<WrongThreads> for CliError {
    fn from(error: WrongThreads) -> Self {
        Self::Usage(error.to_string())
    }
}

pub(super) fn on_threads(threads: usize) -> Result<Runtime, CliError> {
    if threads == 1 {
        return on_this_thread();
    }
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}

pub(super) fn on_this_thread() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_have_one_thread_unless_there_is_tls() {
        for (cores, plain, tls) in [
            (1, 1, 1),
            (2, 1, 2),
            (3, 3, 3),
            (4096, MAX_THREADS, MAX_THREADS),
        ] {
            assert_eq!(threads_for(cores, false), plain, "{cores} cores");
            assert_eq!(threads_for(cores, true), tls, "{cores} cores, TLS");
        }
    }
}
