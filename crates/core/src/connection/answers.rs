//! What a client is told of its own packets: acknowledgements in the order of what they acknowledge, each
//! when its outcome is known, and the answers that wait for the store.

use jam_wire::ReasonCode;
use jam_wire::packet::{Packet, PacketId, Publish, QoS, Version};

use super::established::Established;
use super::replies::ReservedReply;
use crate::link::{Outcome, Responder, Ticket};
use crate::metrics::{Channel, Path};
use crate::output::Output;
use crate::policy::{Refusal, refusals};
use crate::router::Router;
use crate::time::Time;
use crate::user::Origin;

impl Established {
    /// Notes what became of packets, and answers those whose turn it is.
    pub(super) fn settle(
        &mut self,
        outcomes: Vec<(Ticket, Outcome)>,
        router: &Router,
        output: &mut Output,
        now: Time,
    ) {
        for (ticket, outcome) in outcomes {
            match ticket {
                Ticket::Publish(number) => self.settle_publish(number, outcome, router, output),
                Ticket::Answer(number) => self.replies.settle(number),
            }
        }
        self.acknowledge(router, output, now);
        while let Some(packet) = self.replies.pop(self.acknowledgements.left()) {
            self.has_mail |= self.gate.replied(&packet);
            self.push(&packet, output);
        }
    }

    fn settle_publish(
        &mut self,
        number: u64,
        outcome: Outcome,
        router: &Router,
        output: &mut Output,
    ) {
        let Some(place) = self.acknowledgements.get(number) else {
            return;
        };
        let (packet_id, qos) = (place.packet_id, place.qos);
        let mut outcome = outcome;
        if place.is_repeated {
            let (user, link) = (self.link.user(), self.link.id());
            let has = router.with_session(user, link, |session| session.has_received(packet_id));
            if has == Some(false) {
                outcome = Err(refusals::STORE);
            }
        }
        let (reason, path) = match &outcome {
            Ok(path) => (ReasonCode::Success, *path),
            Err(refusal) => (refusal.reason, Path::Disk),
        };
        self.acknowledgements.settle(number, reason, path);
        if let Err(refusal) = outcome {
            router.metrics().refused(&refusal);
            self.note_refusal(&refusal);
            self.tell(&refusal, Some(packet_id.get()), output);
            self.forget_refused(packet_id, qos, router);
        }
    }

    /// The CONNACK waits for the store. Nothing is taken before.
    pub(super) fn defer_connack(&mut self, conn_ack: Packet, router: &Router) {
        let (reply, responder) = self.reserve_reply();
        self.replies.fill(reply, conn_ack);
        self.gate.defer_connack();
        router.barrier(self.link.user(), responder);
    }

    /// Sends the CONNACK that waits for the store if the store cannot write now: clients may log in all the same.
    pub(super) fn connack_without_store(
        &mut self,
        router: &Router,
        output: &mut Output,
        now: Time,
    ) {
        if self.gate.connack_sent() || router.can_store() {
            return;
        }
        self.replies.settle_first();
        self.settle(Vec::new(), router, output, now);
    }

    /// A reply that leaves when what it waits for is done.
    pub(super) fn reserve_reply(&mut self) -> (ReservedReply, Responder) {
        self.reserve_reply_after(0)
    }

    /// The same, after so many acknowledgements.
    pub(super) fn reserve_reply_after(
        &mut self,
        acknowledgements: u64,
    ) -> (ReservedReply, Responder) {
        let reply = self.replies.reserve_after(acknowledgements);
        let ticket = Ticket::Answer(reply.number());
        (reply, Responder::new(self.link.clone(), ticket))
    }

    pub(super) fn acknowledge(&mut self, router: &Router, output: &mut Output, now: Time) {
        while let Some(packet) = self.acknowledgements.pop(router.metrics(), now) {
            self.push(&packet, output);
        }
    }

    /// A publish of QoS 1 or 2 takes its place in the order of acknowledgements: its number.
    pub(super) fn take_place(&mut self, publish: &Publish, now: Time) -> Option<u64> {
        let packet_id = publish.packet_id?;
        Some(self.acknowledgements.push(packet_id, publish.qos, now))
    }

    /// Refuses a publish: the error, then the acknowledgement as its QoS requires. In 5.0 a PUBREC with
    /// an error ends the exchange; in 3.1.1 a PUBREL follows, so the id is remembered.
    pub(super) fn refuse(
        &mut self,
        publish: &Publish,
        refusal: &Refusal,
        router: &Router,
        output: &mut Output,
        now: Time,
    ) {
        let channel = Channel::of_topic(&publish.topic);
        router.metrics().published(channel, publish.qos, false);
        router.metrics().refused(refusal);
        self.note_refusal(refusal);
        self.tell(refusal, publish.packet_id.map(PacketId::get), output);
        if let Some(packet_id) = publish.packet_id
            && publish.qos == QoS::ExactlyOnce
            && self.version != Version::V5
        {
            let rare = self.rare.get_or_insert_default();
            rare.refused.insert(packet_id);
        }
        if let Some(place) = self.take_place(publish, now) {
            self.acknowledgements
                .settle(place, refusal.reason, Path::Grace);
        }
        self.acknowledge(router, output, now);
    }

    /// Remembers the id of a QoS 2 publish until its PUBREL; what the store is to know of that. `None` if the
    /// session is no longer this connection's.
    #[inline(never)] // not between the lines that QoS 1 needs
    pub(super) fn receive(&mut self, packet_id: PacketId, router: &Router) -> Option<Origin> {
        let (user, link) = (self.link.user(), self.link.id());
        let received = router.with_session(user, link, |session| {
            session.receive(packet_id);
            session.received()
        })?;
        self.received.received(received);
        let Some(session) = self.session else {
            return Some(Origin::Plain);
        };
        if std::mem::take(&mut self.unrecorded) {
            router.keep_session(user, link);
        }
        Some(Origin::Received(user.clone(), session.get(), packet_id))
    }

    /// What was permitted could not be appended.
    pub(super) fn not_appended(
        &mut self,
        refusal: &Refusal,
        place: Option<u64>,
        router: &Router,
        output: &mut Output,
        now: Time,
    ) {
        match place {
            Some(number) => {
                self.settle_publish(number, Err(refusal.clone()), router, output);
                self.acknowledge(router, output, now);
            }
            None => {
                router.metrics().refused(refusal);
                self.note_refusal(refusal);
                self.tell(refusal, None, output);
            }
        }
    }

    /// It was not received. In 5.0 a PUBREC with an error ends the exchange, and the client may use the id for
    /// something new; in 3.1.1 a PUBREL follows.
    fn forget_refused(&mut self, packet_id: PacketId, qos: QoS, router: &Router) {
        if qos != QoS::ExactlyOnce {
            return;
        }
        let (user, link) = (self.link.user(), self.link.id());
        router.with_session(user, link, |session| session.release(packet_id));
        self.received.refused();
        if self.version != Version::V5 {
            let rare = self.rare.get_or_insert_default();
            rare.refused.insert(packet_id);
        }
    }
}
