use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A reader that reads when it is told to, or breaks.
#[derive(Clone, Default)]
struct Reader(Arc<(Mutex<Reads>, Condvar)>);

#[derive(Default)]
struct Reads {
    /// What the next writes come to: so many bytes, or an error.
    next: VecDeque<Result<usize, ErrorKind>>,
    /// What all writes come to after those; `None`: they wait.
    then: Option<Result<usize, ErrorKind>>,
    text: Vec<u8>,
}

impl Reader {
    fn stalled() -> Self {
        Self::default()
    }

    fn that_reads() -> Self {
        let reader = Self::default();
        reader.answer_with(Ok(usize::MAX));
        reader
    }

    fn next(&self, result: Result<usize, ErrorKind>) {
        self.0.0.lock().unwrap().next.push_back(result);
        self.0.1.notify_all();
    }

    fn answer_with(&self, result: Result<usize, ErrorKind>) {
        self.0.0.lock().unwrap().then = Some(result);
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().text.clone()).unwrap()
    }
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut reads = self.0.0.lock().unwrap();
        loop {
            if let Some(result) = reads.next.pop_front().or(reads.then) {
                let taken = result?.min(bytes.len());
                reads.text.extend_from_slice(&bytes[..taken]);
                return Ok(taken);
            }
            reads = self.0.1.wait(reads).unwrap();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(reader: &Reader) -> Arc<Queue> {
    Queue::start(reader.clone(), |lost| format!("lost {lost}\n")).unwrap()
}

#[test]
fn lines_are_written_in_their_order() {
    let reader = Reader::that_reads();
    let queue = start(&reader);
    for n in 0..100 {
        queue.push(format!("{n}\n").as_bytes());
    }
    let began = Instant::now();
    assert!(queue.settle(PATIENCE));
    assert!(began.elapsed() < PATIENCE / 2, "who waits is woken");
    let all: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(reader.text().lines().collect::<Vec<_>>(), all);
}

#[test]
fn a_stalled_reader_holds_nobody_up() {
    let reader = Reader::stalled();
    let queue = start(&reader);
    queue.push(b"first\n");
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let (done, pushed): (SyncSender<()>, Receiver<()>) = mpsc::sync_channel(0);
    let pusher = queue.clone();
    let thread = thread::spawn(move || {
        for _ in 0..2000 {
            pusher.push(&line);
        }
        let _ = done.send(());
    });
    pushed.recv_timeout(PATIENCE).unwrap();
    thread.join().unwrap();
    let began = Instant::now();
    assert!(!queue.settle(Duration::from_millis(50)));
    assert!(began.elapsed() < PATIENCE);

    let lost = queue.lost();
    assert!(lost > 0);
    // What waits is taken, and being written.
    reader.next(Ok(usize::MAX));
    while queue.lock().lost > 0 {
        thread::yield_now();
    }
    assert_eq!(queue.lost(), lost, "a counter does not go back");

    reader.answer_with(Ok(usize::MAX));
    assert!(queue.settle(PATIENCE));
    let text = reader.text();
    let written = text.lines().filter(|line| line.starts_with('x')).count();
    let room = (QUEUE_BYTES - "first\n".len()) / 1024;
    assert_eq!(written, room);
    // After those that were in time.
    assert!(text.ends_with(&format!("x\nlost {}\n", 2000 - room)));
    assert_eq!(queue.lost(), 2000 - room as u64);
}

#[test]
fn memory_is_bounded() {
    let queue = start(&Reader::stalled());
    let held = || {
        let state = queue.lock();
        state.waiting.len() + state.writing
    };
    for _ in 0..3 * QUEUE_BYTES / 1000 {
        queue.push(&[b'\n'; 1000]);
    }
    assert!(held() <= QUEUE_BYTES);
    queue.push(&vec![b'\n'; 2 * QUEUE_BYTES]); // fits nowhere
    let before = held();
    queue.prepare_to_end();
    queue.push(&[b'\n'; 1000]);
    assert_eq!(held(), before + 1000);
    for _ in 0..3 * QUEUE_BYTES / 1000 {
        queue.push(&[b'\n'; 1000]);
    }
    assert!(held() <= QUEUE_BYTES + LAST_WORDS_BYTES);
}

#[test]
fn what_cannot_be_written_is_counted_and_told_when_it_can() {
    let reader = Reader::stalled();
    let queue = start(&reader);
    for error in [ErrorKind::BrokenPipe, ErrorKind::StorageFull] {
        reader.answer_with(Err(error));
        queue.push(b"one\ntwo\n");
        assert!(queue.settle(PATIENCE));
    }
    reader.answer_with(Ok(usize::MAX));
    queue.push(b"three\n");
    assert!(queue.settle(PATIENCE));
    assert_eq!(reader.text(), "lost 4\nthree\n");
}

#[test]
fn half_a_line_is_ended_before_the_next() {
    let reader = Reader::stalled();
    let queue = start(&reader);
    reader.next(Ok(6));
    reader.next(Err(ErrorKind::StorageFull));
    queue.push(b"one\ntwo\nthree\n");
    assert!(queue.settle(PATIENCE));
    reader.answer_with(Ok(1));
    queue.push(b"four\n");
    assert!(queue.settle(PATIENCE));
    assert_eq!(reader.text(), "one\ntw\nlost 2\nfour\n");
}

#[test]
fn a_descriptor_that_others_made_non_blocking_is_tried_again() {
    let reader = Reader::that_reads();
    let queue = start(&reader);
    reader.next(Err(ErrorKind::WouldBlock));
    reader.next(Err(ErrorKind::Interrupted));
    queue.push(b"one\n");
    assert!(queue.settle(PATIENCE));
    assert_eq!(reader.text(), "one\n");
}
