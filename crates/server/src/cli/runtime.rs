//! The main thread's runtime; a server has more threads beside it ([`crate::threads`]).

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::error::CliError;

/// How long the process waits in the end for what still reads or writes files.
const BLOCKED_TIMEOUT: Duration = Duration::from_millis(200);

/// Does what a command does, where that is something to wait for.
pub(super) fn wait_for<T>(
    command: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let runtime = on_this_thread()?;
    let done = runtime.block_on(command);
    end(runtime);
    done
}

/// Threads that wait for a disk which does not answer must not keep the process.
pub(super) fn end(runtime: Runtime) {
    runtime.shutdown_timeout(BLOCKED_TIMEOUT);
}

pub(super) fn on_this_thread() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}
