//! A client that has been let in: what its connection knows, and when it must have been heard of.
//!
//! The queues and counts are values of their own: `acknowledgements`, `replies`, `gate`, `qos2`, `aliases` and
//! `receipts`. `inbound`, `subscribing`, `answers` and `outbound` are what happens to them. Invariant: an idle
//! connection is small, which the test in `connection/mod.rs` checks; what most clients never need is in [`RareState`].

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::{Connect, Version};

use super::acknowledgements::Acknowledgements;
use super::aliases::TopicAliases;
use super::gate::DeliveryGate;
use super::qos2::{ReceivedIds, RefusedIds};
use super::receipts::Receipts;
use super::refused::Refusals;
use super::replies::Replies;
use crate::link::{Link, Notices};
use crate::policy::Refusal;
use crate::router::Router;
use crate::store::Seq;
use crate::time::Time;
use crate::user::Attached;

/// A client that has been let in.
pub(super) struct Established {
    pub(super) link: Arc<Link>,
    pub(super) version: Version,
    /// Messages from this number on come while the client is connected.
    pub(super) live_from: Seq,
    /// What the client asked for; 0 is none.
    pub(super) keep_alive_secs: u16,
    /// In the time without what is skipped.
    last_input: Time,
    /// QoS 1 and 2 messages that may be on their way to the client.
    pub(super) window: u16,
    /// Bytes of a packet that the client takes, if it said so.
    pub(super) max_packet: Option<NonZeroU32>,
    /// Something may wait for the device.
    pub(super) has_mail: bool,
    /// Whether the client asked for a session that ends with the connection.
    pub(super) ends_with_connection: bool,
    /// The number of a session that outlives the connection; numbers begin with 1.
    pub(super) session: Option<NonZeroU64>,
    /// Whether the store may have yet to be told of that session.
    pub(super) unrecorded: bool,
    pub(super) acknowledgements: Acknowledgements,
    pub(super) replies: Replies,
    pub(super) gate: DeliveryGate,
    pub(super) received: ReceivedIds,
    /// See [`Connection::take_work`].
    pub(super) work: u32,
    /// What senders are to be told when the client acknowledges.
    pub(super) receipts: Option<Box<Receipts>>,
    /// `None` of a client that has needed none of it.
    pub(super) rare: Option<Box<RareState>>,
}

/// What most connections never need, and so take no room for.
#[derive(Default)]
pub(super) struct RareState {
    pub(super) aliases: TopicAliases,
    pub(super) refused: RefusedIds,
    /// What it was refused, for events and metrics.
    pub(super) refusals: Refusals,
    /// Bytes of answers that were written while the output was full.
    pub(super) answers_beyond: usize,
    /// Newcomers that wait until what the client has sent is handled.
    pub(super) notices: Notices,
}

impl Established {
    pub(super) fn new(
        link: Arc<Link>,
        connect: &Connect,
        attached: Attached,
        inflight: u16,
        awake: Time,
    ) -> Self {
        let properties = &connect.properties;
        let window = properties
            .receive_maximum
            .map_or(inflight, |max| max.get().min(inflight));
        Self {
            link,
            version: connect.version,
            live_from: attached.live_from,
            keep_alive_secs: connect.keep_alive_secs,
            last_input: awake,
            window,
            max_packet: properties.maximum_packet_size.and_then(NonZeroU32::new),
            has_mail: false,
            ends_with_connection: properties.session_expiry_secs.unwrap_or(0) == 0,
            acknowledgements: Acknowledgements::default(),
            session: attached.session.and_then(NonZeroU64::new),
            unrecorded: attached.unrecorded,
            replies: Replies::default(),
            gate: DeliveryGate::open(),
            received: ReceivedIds::carried_over(attached.received),
            work: 0,
            receipts: None,
            rare: None,
        }
    }

    /// Notes for operators that something was refused.
    pub(super) fn note_refusal(&mut self, refusal: &Refusal) {
        self.rare.get_or_insert_default().refusals.note(refusal);
    }

    pub(super) fn add_work(&mut self, units: usize) {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.work = self.work.saturating_add(units);
    }

    /// The client is alive. Another thread may have moved the time on since it was read: nothing is taken back.
    pub(super) fn heard(&mut self, awake: Time) {
        self.last_input = self.last_input.max(awake);
    }

    /// What remains of the client's time is at least so much.
    pub(super) fn excuse(&mut self, awake: Time, at_least: Duration) {
        self.heard((awake + at_least) - self.patience());
    }

    fn patience(&self) -> Duration {
        // MQTT 5.0, section 3.1.2.10: one and a half times as long.
        Duration::from_millis(u64::from(self.keep_alive_secs) * 1500)
    }

    /// When the client must have been heard of, in the time without what is skipped.
    pub(super) fn deadline(&self) -> Option<Time> {
        if !self.gate.connack_sent() {
            return None; // the client waits for the server, and not the other way round
        }
        let patience = self.patience();
        (!patience.is_zero()).then(|| self.last_input + patience)
    }

    /// Whether another packet may be taken.
    pub(super) fn has_room(&self, router: &Router) -> bool {
        let inflight = usize::from(router.rules().inflight);
        self.gate.connack_sent()
            && self.acknowledgements.len() < inflight
            && self.replies.len() < inflight
    }
}
