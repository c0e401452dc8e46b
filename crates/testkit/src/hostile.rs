//! Clients that send whatever they like, a directory and a store that fail as they like.
//!
//! What is checked: the server never panics and never stops; all it sends are packets of the version;
//! what waits for a client that does not read is bounded; a user that nobody may write to is neither
//! disturbed nor disconnected; and when all have gone and time has passed, next to nothing is left. The same holds of a
//! server that is killed and started on what its store has kept.

use std::num::NonZeroU16;
use std::time::Duration;

use jam_core::connection::OUTPUT_ENOUGH;
use jam_core::push::PushAudience;
use jam_core::router::{GRACE, Rules};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Connect, Disconnect, Packet, PacketId, Publish, QoS, Version};

use crate::bench::Bench;
use crate::client::Client;
use crate::disk::CrashingStore;
use crate::packets::{self, message};
use crate::random::Source;

/// Beyond the bound on output: one batch, and what one packet makes.
const SLACK: usize = 256 * 1024;
/// Topics and filters of all sorts.
const TOPICS: &[&str] = &[
    "/1/inbox",
    "/2/inbox",
    "/3/inbox",
    "/1/x",
    "/2/x",
    "/1/devices/1:a",
    "/1",
    "/1/#",
    "willtopic",
    "$share/g//1/x",
];

struct Hostile<'a> {
    bench: Bench,
    clients: Vec<Client>,
    source: &'a mut dyn Source,
    /// The server has been killed, and the victim does not know yet.
    crashed: bool,
}

/// Runs at most so many operations.
///
/// # Panics
/// If a promise is broken.
pub fn run(source: &mut dyn Source, steps: usize) {
    run_on(Bench::with, source, steps);
}

/// As [`run`], on a store with a file, which commits, fails and answers when chance will have it, and with a server that
/// is killed now and then.
///
/// # Panics
/// If a promise is broken.
pub fn run_with_crashes(source: &mut dyn Source, steps: usize) {
    run_on(Bench::on_disk, source, steps);
}

fn run_on(
    bench: impl FnOnce(Box<dyn FnOnce(&mut Rules)>) -> Bench,
    source: &mut dyn Source,
    steps: usize,
) {
    let many = source.below(2) == Some(1);
    let bench = bench(Box::new(move |rules| {
        rules.user.many_devices = many;
        rules.user.max_messages = 20;
        rules.inflight = 3;
        rules.packet = 4096;
        if many {
            rules.user.push.audience = PushAudience::TokenHolders;
        }
        rules.failed_auth = u32::MAX;
    }));
    if bench.disk().is_some() && source.below(2) == Some(0) {
        bench.be_graceful();
    }
    let victim = bench.client("3:phone", Version::V5);
    come(&bench, &victim);
    let devices = [
        ("1:a", Version::V4),
        ("1:a", Version::V5),
        ("1:b", Version::V5),
        ("2:a", Version::V3),
        ("2:b", Version::V5),
        ("3:phone", Version::V4),
    ];
    let clients = devices
        .iter()
        .map(|(id, version)| bench.client(id, *version))
        .collect();
    let mut hostile = Hostile {
        bench,
        clients,
        source,
        crashed: false,
    };
    for _ in 0..steps {
        if hostile.step().is_none() {
            break;
        }
        if std::mem::take(&mut hostile.crashed) {
            come(&hostile.bench, &victim);
        }
        victim.expect_nothing();
    }
    hostile.finish();
    if hostile.crashed {
        come(&hostile.bench, &victim);
    }
    victim.send(Packet::PingReq);
    victim.expect(Packet::PingResp);
}

/// The victim connects, with a store and a directory that answer, and finds nothing.
fn come(bench: &Bench, victim: &Client) {
    bench.directory().fail(false);
    let at_once = |at_once| {
        if let Some(disk) = bench.disk() {
            disk.at_once(at_once);
        }
    };
    at_once(true);
    victim.connect();
    victim.subscribe_inbox();
    at_once(false);
}

impl Hostile<'_> {
    fn step(&mut self) -> Option<()> {
        let which = self.source.below(self.clients.len())?;
        match self.source.below(16)? {
            0..3 => self.connect(which)?,
            3 => self.clients[which].drop_connection(),
            4 => self.disturb()?,
            5 => {
                let secs = [1, 20, 3600, 24 * 3600][self.source.below(4)?];
                self.bench.pass(Duration::from_secs(secs));
            }
            6 => {
                let reading = self.source.below(2)? == 0;
                if self.clients[which].is_open() {
                    self.clients[which].set_reading(reading);
                }
            }
            7 => self.send_raw(which)?,
            _ => self.send(which)?,
        }
        for client in &self.clients {
            while client.next().is_some() {}
            if client.is_open() {
                assert!(
                    client.pending() < OUTPUT_ENOUGH + SLACK,
                    "{} bytes",
                    client.pending()
                );
            }
        }
        Some(())
    }

    fn flag(&mut self) -> Option<bool> {
        self.source.below(2).map(|n| n == 1)
    }

    fn id(&mut self) -> Option<PacketId> {
        self.source
            .below(5)
            .and_then(|n| PacketId::new(u16::try_from(n).ok()? + 1))
    }

    fn topic(&mut self) -> Option<&'static str> {
        self.source.below(TOPICS.len()).map(|n| TOPICS[n])
    }

    fn qos(&mut self) -> Option<QoS> {
        QoS::from_bits(u8::try_from(self.source.below(3)?).ok()?)
    }

    fn publish(&mut self, from: &str) -> Option<Publish> {
        let (topic, qos, id) = (self.topic()?, self.qos()?, self.id()?);
        let size = [0, 10, 1000, 3000][self.source.below(4)?];
        let id = (qos != QoS::AtMostOnce).then_some(id);
        let mut publish = packets::publish(topic, message(from, &"x".repeat(size)), qos, id);
        publish.dup = self.flag()? && qos != QoS::AtMostOnce;
        publish.retain = self.flag()?;
        if self.source.below(8)? == 0 {
            publish.payload = publish.payload.slice(..self.source.below(4)?);
        }
        if self.source.below(4)? == 0 {
            let properties = publish.properties.get_or_insert_default();
            properties.topic_alias = NonZeroU16::new(1);
            properties.message_expiry_secs = Some(30);
        }
        Some(publish)
    }

    fn connect(&mut self, which: usize) -> Option<()> {
        // Only the last one plays the victim, and does not know the token.
        let impostor = which + 1 == self.clients.len();
        let mut connect = packets::connect(self.clients[which].id(), self.clients[which].version());
        connect.clean_start = self.flag()?;
        if impostor || self.source.below(16)? == 0 {
            connect.password = Some("wrong".into());
        }
        connect.keep_alive_secs = [0, 10][self.source.below(2)?];
        let user = self.clients[which].user().to_string();
        if self.flag()? {
            let publish = self.publish(&user)?;
            let text = String::from_utf8_lossy(&publish.payload).into_owned();
            let mut will = packets::will(&publish.topic, &text);
            (will.qos, will.retain) = (publish.qos, publish.retain);
            will.delay_secs = [None, Some(10)][self.source.below(2)?];
            connect.will = Some(will);
        }
        self.limits_of_5_0(&mut connect)?;
        self.clients[which].open();
        self.clients[which].send(Packet::Connect(Box::new(connect)));
        Some(())
    }

    fn limits_of_5_0(&mut self, connect: &mut Connect) -> Option<()> {
        let properties = &mut connect.properties;
        properties.session_expiry_secs = [None, Some(15), Some(u32::MAX)][self.source.below(3)?];
        properties.receive_maximum = NonZeroU16::new([0, 1, 2][self.source.below(3)?]);
        properties.maximum_packet_size = [None, Some(5), Some(300)][self.source.below(3)?];
        Some(())
    }

    fn send(&mut self, which: usize) -> Option<()> {
        let user = self.clients[which].user().to_string();
        let id = self.id()?;
        let error = self.source.below(8)? == 0;
        let reason = if error {
            ReasonCode::UnspecifiedError
        } else {
            ReasonCode::Success
        };
        let ack = Ack::with_reason(id, reason);
        let packet = match self.source.below(16)? {
            0..6 => Packet::Publish(self.publish(&user)?),
            6 => {
                let mut filter = packets::filter(self.topic()?, self.qos()?);
                filter.no_local = self.flag()?;
                filter.retain_as_published = self.flag()?;
                Packet::Subscribe(Box::new(packets::subscribe(id, vec![filter])))
            }
            7 => {
                let inbox = packets::filter(&format!("/{user}/inbox"), self.qos()?);
                Packet::Subscribe(Box::new(packets::subscribe(id, vec![inbox])))
            }
            8 => Packet::Unsubscribe(Box::new(packets::unsubscribe(id, &[self.topic()?]))),
            9 => Packet::PubAck(ack),
            10 => Packet::PubRec(ack),
            11 => Packet::PubRel(Ack::success(id)),
            12 => Packet::PubComp(Ack::success(id)),
            13 => Packet::PingReq,
            14 => Packet::PingResp,
            _ => {
                let mut disconnect = Disconnect::with_reason(reason);
                disconnect.session_expiry_secs = [None, Some(0), Some(20)][self.source.below(3)?];
                Packet::Disconnect(Box::new(disconnect))
            }
        };
        if self.clients[which].is_open() {
            self.clients[which].send(packet);
        }
        Some(())
    }

    fn send_raw(&mut self, which: usize) -> Option<()> {
        let mut bytes = Vec::new();
        for _ in 0..self.source.below(12)? {
            bytes.push(u8::try_from(self.source.below(256)?).unwrap_or_default());
        }
        if self.clients[which].is_open() {
            self.clients[which].send_raw(&bytes);
        }
        Some(())
    }

    /// The store, the directory or the operator does something.
    fn disturb(&mut self) -> Option<()> {
        let (store, directory) = (self.bench.store(), self.bench.directory());
        let on = self.source.below(2)? == 1;
        match self.source.below(8)? {
            0..4 if self.bench.disk().is_some() => self.disk()?,
            0 => store.hold(on),
            1 => store.release_all(),
            2 if store.held() > 0 => {
                store.reject(self.source.below(store.held())?);
            }
            3 if store.held() > 0 => store.lose(self.source.below(store.held())?),
            4 if on => directory.befriend("1", "2"),
            4 => directory.forbid("1", "2"),
            5 => directory.fail(on),
            6 => directory.set_account("2", Some(&packets::token(["2", "x"][usize::from(on)]))),
            7 if on => {
                directory.remove_account("1");
                self.bench.recheck();
                directory.set_account("1", Some(&packets::token("1")));
            }
            _ => self.bench.recheck(),
        }
        self.bench.run();
        Some(())
    }

    /// The store with a file does something, or the server is killed.
    fn disk(&mut self) -> Option<()> {
        let (what, some) = (self.source.below(8)?, self.source.below(8)?);
        let Some(disk) = self.bench.disk() else {
            return Some(());
        };
        match what {
            0 => {
                self.bench.crash();
                self.crashed = true;
            }
            1 => disk.fail(),
            2 => {
                let _ = disk.read();
            }
            3 => {
                let _ = disk.flush();
            }
            4 if disk.unanswered() > 0 => disk.answer(some % disk.unanswered()),
            _ => disk.commit(some),
        }
        Some(())
    }

    fn finish(&mut self) {
        self.bench.directory().fail(false);
        for client in &self.clients {
            client.drop_connection();
        }
        self.bench.pass(Duration::from_secs(24 * 3600));
        self.settle();
        self.is_quiet();
        if self.bench.disk().is_some() {
            self.bench.crash();
            self.crashed = true;
            self.settle();
            self.is_quiet();
        }
    }

    /// The store has nothing to do any more.
    fn settle(&self) {
        self.bench.store().release_all();
        self.bench.pass(GRACE);
        while self.bench.disk().is_some_and(CrashingStore::flush) {
            self.bench.run();
        }
    }

    fn is_quiet(&self) {
        assert!(
            self.bench.router().known_users() <= 3,
            "somebody is not forgotten"
        );
        assert!(self.bench.router().next_will().is_none(), "a will is left");
    }
}
