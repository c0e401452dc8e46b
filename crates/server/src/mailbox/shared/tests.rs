use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jam_core::store::{OutboundState, Write};
use jam_wire::packet::PacketId;

use super::*;

/// More than a test takes that is not held up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A claim that was never stored is ended: there is nothing to write, and the writer sleeps on.
#[test]
fn a_write_wakes_the_writer_after_one_that_left_nothing_to_do() {
    #[derive(Debug)]
    struct Nobody;
    impl Completion for Nobody {
        fn committed(self) {}
        fn rejected(self) {}
    }
    let shared = Arc::new(MailboxShared::<Nobody>::new(Kept::default()));
    let writer = {
        let shared = shared.clone();
        thread::spawn(move || {
            let began = Instant::now();
            (shared.wait_for_work(PATIENCE), began.elapsed())
        })
    };
    while !shared.state().asleep {
        thread::yield_now();
    }
    shared.push(0, [Write::EndClaim(1, 1)].into_iter().collect(), None);
    thread::sleep(Duration::from_millis(100)); // it has woken, and sleeps again
    let id = PacketId::new(1).unwrap();
    let sent = Write::InFlight(1, id, OutboundState::AwaitsPubAck(1));
    shared.push(0, [sent].into_iter().collect(), None);
    let (waited, took) = writer.join().unwrap();
    assert!(matches!(waited, Waited::Work));
    assert!(took < PATIENCE, "it was not woken");
}
