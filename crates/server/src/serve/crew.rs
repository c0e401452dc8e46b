//! Tasks that end when they are told to.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the tasks may take to end; the push dispatcher needs half a second of it. What takes longer waits for
/// something that does not answer, and is dropped where it waits.
const TIMEOUT: Duration = Duration::from_secs(1);

/// See the module's description.
pub(super) struct Crew {
    thread: Handle,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Crew {
    /// On this thread.
    pub(super) fn on(thread: Handle) -> Self {
        Self {
            thread,
            stop: watch::Sender::new(false),
            tasks: JoinSet::new(),
        }
    }

    pub(super) fn spawn<F>(&mut self, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stop.subscribe());
        self.tasks.spawn_on(task, &self.thread);
    }

    /// Tells the tasks to end and waits until they have, or are dropped. What they are, for the log.
    pub(super) async fn stop(self, what: &str) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(TIMEOUT, self.tasks.join_all());
        if ended.await.is_err() {
            tracing::warn!("{what} did not end in time");
        }
    }
}
