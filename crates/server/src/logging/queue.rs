//! [`Queue`]: log lines on their way to a file descriptor, bounded in bytes, written by one thread.
//!
//! Logging copies a line into memory and returns. Only the queue's thread waits in write(2), on a terminal that is held or
//! a pipe that is not read. A line that finds no room, or that
//! cannot be written, is counted; once writing works again, one line says how many were lost.
//!
//! Invariants: `push` never waits for I/O and never fails (`a_stalled_reader_holds_nobody_up`); memory is at most
//! [`QUEUE_BYTES`] and [`LAST_WORDS_BYTES`] (`tests::memory_is_bounded`).

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of lines that wait to be written, those included that are being written.
pub(crate) const QUEUE_BYTES: usize = 1024 * 1024;

/// Further room for the lines of a process that ends, such as a panic's reason.
pub(crate) const LAST_WORDS_BYTES: usize = 128 * 1024;

/// Between two tries of a descriptor that another process has made non-blocking.
const RETRY: Duration = Duration::from_millis(20);

/// The line that says how many lines were lost.
pub(super) type LossLine = fn(lost: u64) -> String;

/// See the module's description.
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// There is something to write.
    filled: Condvar,
    /// Everything has been written, or given up.
    settled: Condvar,
    /// Lines that were lost since the start.
    lost: AtomicU64,
}

#[derive(Default)]
struct QueueState {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Bytes that the thread has taken and is writing.
    writing: usize,
    /// Lines that found no room, as far as that has not been said.
    lost: u64,
    /// The thread sleeps.
    idle: bool,
    /// The process ends: there is room for the last words.
    ending: bool,
}

impl QueueState {
    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.writing == 0
    }
}

impl Queue {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        loss_line: LossLine,
    ) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            settled: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let writer = LogWriter {
            queue: queue.clone(),
            sink,
            loss_line,
            untold: 0,
            torn: false,
        };
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.run())?;
        Ok(queue)
    }

    /// Queues a line, its line feed included. Without room for it, it is lost.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        let limit = QUEUE_BYTES + if state.ending { LAST_WORDS_BYTES } else { 0 };
        if state.waiting.len() + state.writing + line.len() > limit {
            state.lost += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        if mem::take(&mut state.idle) {
            self.filled.notify_one();
        }
    }

    /// Lines that were lost since the start, each once: when it found no room, or could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// From now on there is room for a few more lines.
    pub(super) fn prepare_to_end(&self) {
        self.lock().ending = true;
    }

    /// Waits until everything is written or given up; false if that takes longer than `patience`.
    pub(super) fn settle(&self, patience: Duration) -> bool {
        let state = self.lock();
        let waited = self
            .settled
            .wait_timeout_while(state, patience, |state| !state.is_settled());
        let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// Takes what waits, and how many lines were lost behind it; sleeps until there is something. What was taken
    /// before is done with.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self.lock();
        state.writing = 0;
        if state.is_settled() {
            self.settled.notify_all();
            *lines = Vec::new();
        }
        while state.waiting.is_empty() {
            state.idle = true;
            let woken = self.filled.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        mem::swap(lines, &mut state.waiting);
        state.writing = lines.len();
        mem::take(&mut state.lost)
    }

    /// How many lines were lost, if none waits that came before them.
    fn lost_at_the_end(&self) -> u64 {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            mem::take(&mut state.lost)
        } else {
            0
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread has.
struct LogWriter<W> {
    queue: Arc<Queue>,
    sink: W,
    loss_line: LossLine,
    /// Lines that were lost, as far as that has not been said.
    untold: u64,
    /// The last that was written is a part of a line.
    torn: bool,
}

impl<W: Write> LogWriter<W> {
    fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let mut lost = self.queue.take(&mut lines);
            self.tell_lost();
            let written = self.write(&lines);
            lost += self.queue.lost_at_the_end();
            let unwritten = line_feeds(&lines[written..]);
            self.queue.lost.fetch_add(unwritten, Ordering::Relaxed);
            self.untold += unwritten + lost;
            if written == lines.len() {
                self.tell_lost();
            }
        }
    }

    fn tell_lost(&mut self) {
        if self.untold > 0 {
            let line = (self.loss_line)(self.untold);
            if self.write(line.as_bytes()) == line.len() {
                self.untold = 0;
            }
        }
    }

    /// How many of the bytes could be written. Half a line before them is ended first.
    fn write(&mut self, lines: &[u8]) -> usize {
        if self.torn && self.write_some(b"\n") == 0 {
            return 0;
        }
        let written = self.write_some(lines);
        self.torn = written > 0 && lines[written - 1] != b'\n';
        written
    }

    /// How many of the bytes could be written. No error goes further than this.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.sink.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(some) => written += some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(_) => break,
            }
        }
        written
    }
}

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests;
