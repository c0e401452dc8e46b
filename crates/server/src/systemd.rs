//! What the service manager is told of the server's life: sd_notify(3), by systemd's protocol.
//!
//! Without `NOTIFY_SOCKET` nothing is told. Invariant: nobody waits for a service manager that does not read, but for
//! [`PATIENCE`] each time (`tests/cli/test_watchdog.py`).

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
pub(crate) use sd_notify::NotifyState;
use tokio::net::UnixDatagram;

use crate::ticks::ticks;

/// How long it may take to tell something.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a start that goes on asks for more time, and for how much.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTENSION_USEC: u32 = 30_000_000;

/// CPU time and bytes read, in [`EXTEND_EVERY`], of a start that goes on. To look costs less.
const LEAST_CPU: Duration = Duration::from_millis(250);
const LEAST_BYTES: u64 = 64 * 1024;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Systemd {
    socket: Option<SocketAddr>,
    /// Within this time it wants to hear [`NotifyState::Watchdog`].
    watchdog: Option<Duration>,
    failed: AtomicBool,
}

impl Systemd {
    pub(crate) fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Self::at(name.as_deref(), sd_notify::watchdog_enabled())
    }

    pub(crate) fn at(name: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let socket = name.map(address).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "NOTIFY_SOCKET names no socket");
            None
        });
        Self {
            // Nobody to tell: there is nothing to be proved.
            watchdog: watchdog.filter(|it| socket.is_some() && !it.is_zero()),
            socket,
            failed: AtomicBool::new(false),
        }
    }

    /// Whether there is one that wants to be told.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Within which time it wants to be told that the server works.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(crate) async fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        let told = tokio::time::timeout(PATIENCE, send(socket, message.as_bytes())).await;
        let error = match told {
            Ok(Ok(())) => return self.failed.store(false, Ordering::Relaxed),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        if !self.failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the service manager cannot be notified");
        }
    }

    /// `RELOADING=1`, as of now.
    pub(crate) async fn tell_reloading(&self) {
        let now = NotifyState::monotonic_usec_now();
        let now = now.unwrap_or(NotifyState::MonotonicUsec(0));
        self.tell(&[NotifyState::Reloading, now]).await;
    }

    /// Asks for more time as long as the start goes on: a large mailbox takes its time, and a disk that does not answer
    /// is not waited for. When the server begins anew, its watchdog asks meanwhile.
    pub(crate) async fn extend_start(&self) -> Infallible {
        self.extend_every(EXTEND_EVERY).await
    }

    async fn extend_every(&self, period: Duration) -> Infallible {
        let status = NotifyState::Status("opening the accounts database and the mailbox");
        self.tell(&[status]).await;
        let mut ticks = ticks(period);
        let mut before = Effort::so_far();
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = Effort::so_far();
            if now.is_more_than(&before) {
                let extend = NotifyState::ExtendTimeoutUsec(EXTENSION_USEC);
                self.tell(&[extend, NotifyState::Watchdog]).await;
            }
            before = now;
        }
    }
}

/// A path, or `@` and a name in the abstract name space.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

async fn send(socket: &SocketAddr, message: &[u8]) -> io::Result<()> {
    // As often as it is told something: the service manager may have been started again.
    let from = StdDatagram::unbound()?;
    from.set_nonblocking(true)?;
    from.connect_addr(socket)?;
    UnixDatagram::from_std(from)?.send(message).await.map(drop)
}

/// What the process has done.
struct Effort {
    cpu: Duration,
    read_bytes: u64,
}

impl Effort {
    fn so_far() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        Self {
            cpu: cpu.try_into().unwrap_or_default(),
            read_bytes: read.and_then(|read| read.parse().ok()).unwrap_or(0),
        }
    }

    fn is_more_than(&self, before: &Self) -> bool {
        self.cpu.saturating_sub(before.cpu) >= LEAST_CPU
            || self.read_bytes.saturating_sub(before.read_bytes) >= LEAST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn with_socket(name: &OsStr) -> (Systemd, StdDatagram) {
        let socket = StdDatagram::bind_addr(&address(name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Systemd::at(Some(name), None), socket)
    }

    fn told(socket: &StdDatagram) -> Option<String> {
        let mut message = [0; 4096];
        let len = socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..len]).into_owned())
    }

    #[tokio::test]
    async fn it_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let mut names = vec![path.clone().into_os_string()];
        if cfg!(target_os = "linux") {
            names.push(format!("@{}", path.display()).into());
        }
        for name in names {
            let (systemd, socket) = with_socket(&name);
            systemd
                .tell(&[NotifyState::Ready, NotifyState::Status("so")])
                .await;
            assert_eq!(told(&socket).as_deref(), Some("READY=1\nSTATUS=so\n"));
            systemd.tell_reloading().await;
            let said = told(&socket).unwrap();
            let usec = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(usec.trim().parse::<u64>().unwrap() > 0);
        }
        assert_eq!(Systemd::at(None, Some(PATIENCE)).watchdog(), None);
    }

    #[tokio::test]
    async fn only_a_start_that_goes_on_asks_for_more_time() {
        let dir = tempfile::tempdir().unwrap();
        let (systemd, socket) = with_socket(dir.path().join("notify").as_os_str());
        let period = Duration::from_millis(200);
        // Other tests work in this process meanwhile, but not all the time.
        let extends = async |reads: bool| {
            let reading = std::thread::spawn(move || {
                let mut bytes = vec![0; 2 * usize::try_from(LEAST_BYTES).unwrap()];
                let mut zero = std::fs::File::open("/dev/zero").unwrap();
                for _ in 0..if reads { 10 } else { 0 } {
                    zero.read_exact(&mut bytes).unwrap();
                    std::thread::sleep(period / 2);
                }
            });
            let _ = tokio::time::timeout(5 * period, systemd.extend_every(period)).await;
            reading.join().unwrap();
            assert!(told(&socket).unwrap().starts_with("STATUS="));
            std::iter::from_fn(|| told(&socket)).count()
        };
        assert!(extends(true).await >= 3);
        let now = Effort::so_far();
        assert!(!now.is_more_than(&now));
    }
}
