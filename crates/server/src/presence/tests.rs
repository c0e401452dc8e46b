//! A bench of devices, and a scripted directory of their friends.

use std::sync::Arc;

use QoS::AtMostOnce;
use jam_core::MAX_EPHEMERAL;
use jam_testkit::{Bench, Client, FakeDirectory};
use jam_wire::packet::{Packet, QoS, Version};

use super::*;
use crate::clock::Clock;
use crate::events::Events;

/// Friends 1 and 2, and 2 and 3; nothing is told but by the teller.
struct Setting {
    bench: Bench,
    household: Household,
}

impl Setting {
    fn new() -> Self {
        let directory = FakeDirectory::default();
        directory.befriend("1", "2");
        directory.befriend("2", "3");
        let bench = Bench::with(|rules| rules.user.many_devices = true);
        bench.tell(false);
        let household = Household {
            clock: Arc::new(Clock::start(Arc::default(), None).0),
            router: bench.router(),
            directory: Arc::new(directory),
            events: Arc::new(Events::off()),
        };
        Self { bench, household }
    }

    fn device(&self, client: &str) -> Client {
        let device = self.bench.client(client, Version::V5);
        device.connect();
        device
    }

    /// A device of user 1 that does not read, behind which there is no room for anything.
    fn stuck(&self) -> Client {
        let (stuck, writer) = (self.device("1:phone"), self.device("1:tablet"));
        stuck.subscribe("/1/x", AtMostOnce);
        stuck.subscribe("/1/presence", AtMostOnce);
        stuck.set_reading(false);
        let some = "x".repeat(1000);
        for _ in 0..4 * MAX_EPHEMERAL {
            writer.publish("/1/x", some.clone(), AtMostOnce);
        }
        stuck
    }
}

/// How often a device is told of presence.
fn told(device: &Client) -> usize {
    let is_presence =
        |packet: &Packet| matches!(packet, Packet::Publish(it) if it.topic.ends_with("/presence"));
    std::iter::from_fn(|| device.next())
        .filter(is_presence)
        .count()
}

#[tokio::test]
async fn nobody_waits_for_one_who_does_not_read() {
    let setting = Setting::new();
    let mut teller = PresenceTeller::new(&setting.household);
    let two = setting.device("2:phone");
    two.subscribe("/2/presence", AtMostOnce);
    teller.tell_all().await;
    let stuck = setting.stuck();
    // To 1 there is something to tell, and of 1 and 3.
    setting.device("3:phone");
    let began = Instant::now();
    let mut dues = 0;
    while let Some(due) = setting.household.router.next_presence() {
        teller.tell(due).await.unwrap();
        dues += 1;
    }
    assert_eq!((dues, teller.slow.len()), (2, 1));
    setting.bench.run();
    assert_eq!(told(&two), 2);
    // Room that comes later is used.
    assert_eq!(teller.slow[0].tries, ROOM_TRIES - 1);
    stuck.set_reading(true);
    assert_eq!(told(&stuck), 0);
    teller.tell_all().await;
    setting.bench.run();
    assert_eq!(told(&stuck), 1);
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn who_never_reads_is_not_told_in_the_end() {
    let setting = Setting::new();
    let mut teller = PresenceTeller::new(&setting.household);
    let _two = setting.device("2:phone");
    teller.tell_all().await;
    let _stuck = setting.stuck();
    let all = tokio::time::timeout(Duration::from_secs(60), teller.tell_all());
    all.await.expect("it ends");
    assert!(teller.slow.is_empty());
}
