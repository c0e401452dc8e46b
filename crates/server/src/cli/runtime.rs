//! On how many threads the work is done.

use std::env::{self, VarError};
use std::num::NonZero;
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::CliError;

/// tokio's own variable, for those who know better than [`threads_for`].
const VARIABLE: &str = "TOKIO_WORKER_THREADS";

const THREADS_MAX: usize = 1024;

/// For a server: one thread for all connections, or several that take tasks from each other.
pub(super) fn of_server() -> Result<Runtime, CliError> {
    let threads = match env::var(VARIABLE) {
        Ok(text) => parse(&text)?,
        Err(VarError::NotPresent) => {
            threads_for(thread::available_parallelism().map_or(1, NonZero::get))
        }
        Err(VarError::NotUnicode(_)) => return Err(wrong("not a text")),
    };
    if threads == 1 {
        return of_client();
    }
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}

/// For a client, who does one thing: this thread.
pub(super) fn of_client() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}

/// A thread for each core, but one thread on two: the other core has the mailbox's writer, the directory's
/// reader and the kernel's part to run, and to hand tasks over costs more than it brings (ADR 8).
fn threads_for(cores: usize) -> usize {
    if cores == 2 {
        1
    } else {
        cores.min(THREADS_MAX)
    }
}

fn parse(text: &str) -> Result<usize, CliError> {
    match text.parse() {
        Ok(threads @ 1..=THREADS_MAX) => Ok(threads),
        _ => Err(wrong(&format!("{text:?}"))),
    }
}

fn wrong(found: &str) -> CliError {
    CliError::Usage(format!(
        "the environment variable {VARIABLE} is {found}; give a number of threads from 1 to {THREADS_MAX}, or leave it out"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_have_one_thread_for_connections() {
        for (cores, threads) in [(1, 1), (2, 1), (3, 3), (64, 64), (4096, THREADS_MAX)] {
            assert_eq!(threads_for(cores), threads, "{cores} cores");
        }
    }
}
