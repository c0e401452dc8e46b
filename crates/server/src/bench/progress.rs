//! A bar on the terminal; nothing at all when standard error is none.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

/// A bar for one stage after another.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    drawn: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            shown: wanted && io::stderr().is_terminal(),
            drawn: None,
        }
    }

    /// Draws, if the last time is long enough ago. `detail` is asked for only then.
    pub(crate) fn show(
        &mut self,
        stage: &str,
        done: u64,
        all: u64,
        detail: impl FnOnce() -> String,
    ) {
        if !self.shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        let full = WIDTH * usize::try_from(done.min(all) * 1000 / all.max(1)).unwrap_or(0) / 1000;
        let (bar, rest) = ("█".repeat(full), "░".repeat(WIDTH - full));
        let line = format!("\r\x1b[K{stage:<10} {bar}{rest} {}", detail());
        // A bar that cannot be drawn is not missed.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
