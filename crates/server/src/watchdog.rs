//! Whether the server works, for the service manager's watchdog, which starts it again when it is not told so.
//!
//! Work is proved each time anew: a ping passes through the loop of each listener, and so through the main thread;
//! housekeeping and the threads for connections have shown a sign of life; the mailbox's writer has come round.
//! What a start anew may mend fails at once: the main thread, the listeners and housekeeping wait for no disk. A thread
//! for connections and the writer may: for [`DISK_PATIENCE`] that counts as work
//! ([ADR 24](../../docs/adr/0024-a-watchdog-that-proves-work.md)).

use std::sync::Arc;
use std::time::Duration;

use jam_core::router::OnCommit;
use jam_core::store::MailboxStore;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::health::Health;
use crate::permits::ConnectionPermits;
use crate::systemd::{NotifyState, Systemd};
use crate::threads::Threads;
use crate::ticks::{next, ticks};

/// For so long a disk may keep a thread waiting. By then a kernel has had an answer or an error of its disk, five times
/// 30 s and a failover to another path included.
const DISK_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How often the service manager is told how things are, at least.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Asks one listener's loop for a sign of life.
pub(crate) type Pings = mpsc::Sender<oneshot::Sender<()>>;

/// Where a listener's loop finds what it is asked.
pub(crate) type Asked = mpsc::Receiver<oneshot::Sender<()>>;

/// For one listener.
pub(crate) fn pings() -> (Pings, Asked) {
    mpsc::channel(1)
}

/// All that has to work.
pub(crate) struct Watched {
    pub(crate) listeners: Vec<Pings>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) mailbox: Arc<dyn MailboxStore<OnCommit>>,
}

/// What has been found of work that may wait for a disk.
struct Waits {
    turns: Option<u64>,
    writer: Instant,
    connections: Instant,
    patience: Duration,
}

impl Waits {
    fn new(patience: Duration) -> Self {
        let now = Instant::now();
        Self {
            turns: None,
            writer: now,
            connections: now,
            patience,
        }
    }
}

impl Watched {
    /// Whether all of it works; what does not.
    async fn prove(&self, waits: &mut Waits, timeout: Duration) -> Result<(), &'static str> {
        let now = Instant::now();
        let turns = self.mailbox.turns();
        if std::mem::replace(&mut waits.turns, turns) != turns || turns.is_none() {
            waits.writer = now;
        }
        if !self.threads.connections_hang() {
            waits.connections = now;
        }
        if now - waits.writer >= waits.patience {
            return Err("the mailbox is not written");
        }
        if now - waits.connections >= waits.patience {
            return Err("a thread that serves connections hangs");
        }
        if self.threads.housekeeping_hangs() {
            return Err("housekeeping hangs");
        }
        let all = async {
            for listener in &self.listeners {
                ping(listener).await?;
            }
            Some(())
        };
        let answered = tokio::time::timeout(timeout, all).await;
        answered.ok().flatten().ok_or("a listener does not accept")
    }
}

async fn ping(listener: &Pings) -> Option<()> {
    let (answer, answered) = oneshot::channel();
    listener.try_send(answer).ok()?; // full: the last one is not answered yet
    answered.await.ok()
}

/// Tells the service manager how things are, and as long as it is so, that the server works, until the server stops.
pub(crate) async fn attend(
    systemd: Arc<Systemd>,
    work: Watched,
    health: Arc<Health>,
    permits: Arc<ConnectionPermits>,
    mut stop: watch::Receiver<bool>,
) {
    let half = systemd.watchdog().map(|within| within / 2);
    let period = half.unwrap_or(STATUS_EVERY).min(STATUS_EVERY);
    let mut ticks = ticks(period);
    let mut waits = Waits::new(DISK_PATIENCE);
    let mut fails = None;
    while next(&mut ticks, &mut stop).await {
        let status = status(&health.troubles(), permits.len());
        let proved = work.prove(&mut waits, period / 2).await;
        if *stop.borrow() {
            return;
        }
        let works = [NotifyState::Watchdog, NotifyState::Status(&status)];
        match proved {
            Ok(()) if half.is_some() => systemd.tell(&works).await,
            Ok(()) | Err(_) => systemd.tell(&works[1..]).await,
        }
        if proved.err() != fails {
            fails = proved.err();
            match fails {
                Some(why) if half.is_some() => {
                    tracing::error!("no ping for the service manager's watchdog: {why}");
                }
                Some(_) | None => {}
            }
        }
    }
}

fn status(troubles: &[&str], connections: usize) -> String {
    match troubles {
        [] => format!("ready, {connections} connections"),
        troubles => format!(
            "not ready: {}; {connections} connections",
            troubles.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use jam_testkit::store::FaultyStore;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// A listener's loop that lives.
    fn answering() -> Pings {
        let (pings, mut asked) = pings();
        tokio::spawn(async move {
            while let Some(ping) = asked.recv().await {
                let _ = ping.send(());
            }
        });
        pings
    }

    fn work(disk: &Arc<FaultyStore>) -> Watched {
        Watched {
            listeners: vec![answering(), answering()],
            threads: Arc::new(Threads::start(1, 50, || ()).unwrap()),
            mailbox: disk.clone(),
        }
    }

    #[tokio::test]
    async fn a_listener_that_does_not_answer_proves_nothing() {
        let mut waits = Waits::new(SOON);
        let mut work = work(&Arc::default());
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
        let (pings, mut asked) = pings();
        work.listeners.push(pings);
        let why = Err("a listener does not accept");
        let brief = Duration::from_millis(20);
        assert_eq!(work.prove(&mut waits, brief).await, why);
        // It reads what it was asked: that is an answer to a question of before.
        let _ = asked.recv().await.unwrap().send(());
        assert_eq!(work.prove(&mut waits, brief).await, why);
        drop(asked);
        assert_eq!(work.prove(&mut waits, SOON).await, why, "it has ended");
        work.listeners.pop();
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn a_disk_is_waited_for_and_not_for_ever() {
        let disk = Arc::new(FaultyStore::default());
        let patience = Duration::from_millis(300);
        let mut waits = Waits::new(patience);
        let work = work(&disk);
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
        disk.hang(true);
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
        tokio::time::sleep(patience).await;
        let proved = work.prove(&mut waits, SOON).await;
        assert_eq!(proved, Err("the mailbox is not written"));
        disk.hang(false);
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn a_thread_that_hangs_is_waited_for_if_a_disk_may_be_why() {
        let mut waits = Waits::new(Duration::from_millis(300));
        let work = work(&Arc::default());
        work.threads.hang_for_test(false);
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
        tokio::time::sleep(waits.patience).await;
        let proved = work.prove(&mut waits, SOON).await;
        assert_eq!(proved, Err("a thread that serves connections hangs"));
        let mut waits = Waits::new(SOON);
        assert_eq!(work.prove(&mut waits, SOON).await, Ok(()));
        work.threads.hang_for_test(true);
        let proved = work.prove(&mut waits, SOON).await;
        assert_eq!(proved, Err("housekeeping hangs"), "that waits for no disk");
    }

    #[tokio::test]
    async fn only_what_was_proved_is_told() {
        let within = Duration::from_millis(200);
        for lives in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let name = dir.path().join("notify");
            let socket = std::os::unix::net::UnixDatagram::bind(&name).unwrap();
            socket.set_nonblocking(true).unwrap();
            let systemd = Arc::new(Systemd::at(Some(name.as_os_str()), Some(within)));
            let disk = Arc::<FaultyStore>::default();
            let mut work = work(&disk);
            let (dead, _asked) = pings();
            work.listeners.extend((!lives).then_some(dead));
            let permits = ConnectionPermits::new(1, 1);
            let threads = work.threads.clone();
            let health = Arc::new(Health::new(permits.clone(), disk, threads));
            let (_run, stop) = watch::channel(false);
            let attending = attend(systemd, work, health, permits, stop);
            assert!(tokio::time::timeout(5 * within, attending).await.is_err());
            let mut message = [0; 256];
            let told: Vec<_> = std::iter::from_fn(|| {
                let len = socket.recv(&mut message).ok()?;
                Some(message[..len].starts_with(b"WATCHDOG=1"))
            })
            .collect();
            assert!(
                told.len() >= 3 && told.iter().all(|it| *it == lives),
                "{told:?}"
            );
        }
    }

    #[test]
    fn it_says_how_things_are() {
        assert_eq!(status(&[], 3), "ready, 3 connections");
        assert_eq!(status(&["a", "b"], 0), "not ready: a, b; 0 connections");
    }
}
