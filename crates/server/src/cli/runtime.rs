//! The main thread's runtime; a server has more threads beside it ([`crate::threads`]).

use tokio::runtime::{Builder, Runtime};

use super::error::CliError;

pub(super) fn on_this_thread() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))
}
