//! What waits for a file is done by threads of the pool for blocking work.
//!
//! Bound: [`AT_ONCE`] threads, also when a disk does not answer: then more requests are answered with 503 at once.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::admin::problem::Problem;

/// Threads that read or write files for the API.
const AT_ONCE: usize = 4;

/// How long a request waits for one of them, and then for the file.
const PATIENCE: Duration = Duration::from_secs(4);

/// See the module's description.
pub(super) struct Disk(Arc<Semaphore>);

impl Default for Disk {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Disk {
    /// Does `work`. What has begun goes on when nobody waits for it any more.
    pub(super) async fn wait_for<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let silent = |_| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the disk of the data directory does not answer; look at it, and try again",
            )
        };
        let place = tokio::time::timeout(PATIENCE, self.0.clone().acquire_owned());
        let place = place.await.map_err(silent)?.expect("never closed");
        let done = spawn_blocking(move || {
            let _place = place;
            work()
        });
        let done = tokio::time::timeout(PATIENCE, done).await.map_err(silent)?;
        Ok(done.expect("a panic ends the process"))
    }
}
