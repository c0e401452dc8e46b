//! What a client is told of its own packets: acknowledgements in the order of what they acknowledge, each
//! when its receipt is resolved, and the answers that wait for the store.

use std::collections::VecDeque;

use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

use super::inbound::{Answer, Established, Unacknowledged};
use crate::link::{Outcome, Ticket};
use crate::output::Output;
use crate::policy::{Refusal, refusals};
use crate::router::Router;
use crate::store::{Origin, Receipt};

impl Established {
    /// Notes what became of packets, and answers those whose turn it is.
    pub(super) fn settle(
        &mut self,
        outcomes: Vec<(Ticket, Outcome)>,
        router: &Router,
        output: &mut Output,
    ) {
        for (ticket, outcome) in outcomes {
            match ticket {
                Ticket::Publish(number) => self.settle_publish(number, outcome, router, output),
                Ticket::Answer(number) => {
                    let index = index(number, self.first_answer);
                    if let Some(answer) = index.and_then(|index| self.answers.get_mut(index)) {
                        answer.ready = true;
                    }
                }
            }
        }
        self.acknowledge(output);
        let acknowledged = self.first_publish;
        let is_due = |answer: &mut Answer| answer.ready && answer.not_before <= acknowledged;
        while let Some(answer) = self.answers.pop_front_if(is_due) {
            self.first_answer += 1;
            let Some(packet) = answer.packet else {
                continue;
            };
            if matches!(*packet, Packet::SubAck(_) | Packet::ConnAck(_)) {
                self.deferred_subacks -= 1;
                self.connack_sent = true;
                self.has_mail = true;
            }
            self.push(&packet, output);
        }
        if self.answers.is_empty() {
            // A connection that goes idle keeps no room for what is rare.
            self.answers = VecDeque::new();
        }
    }

    fn settle_publish(
        &mut self,
        number: u64,
        outcome: Outcome,
        router: &Router,
        output: &mut Output,
    ) {
        let index = index(number, self.first_publish);
        let Some(publish) = index.and_then(|index| self.unacknowledged.get_mut(index)) else {
            return;
        };
        let (packet_id, qos) = (publish.packet_id, publish.qos);
        let mut outcome = outcome;
        if publish.again {
            let (user, link) = (self.link.user(), self.link.id());
            let has = router.with_session(user, link, |session| session.has_received(packet_id));
            if has == Some(false) {
                outcome = Err(refusals::STORE);
            }
        }
        let reason = outcome
            .as_ref()
            .map_or_else(|refusal| refusal.reason, |()| ReasonCode::Success);
        publish.outcome = Some(reason);
        if let Err(refusal) = outcome {
            self.tell(&refusal, Some(packet_id.get()), output);
            self.forget_refused(packet_id, qos, router);
        }
    }

    /// The CONNACK waits for the store. Nothing is taken before.
    pub(super) fn defer_connack(&mut self, conn_ack: Packet, router: &Router) {
        let receipt = self.answer_later();
        self.answer_is(conn_ack);
        self.deferred_subacks += 1;
        self.connack_sent = false;
        router.barrier(self.link.user(), receipt);
    }

    /// Nobody is kept out by a store that can keep nothing.
    pub(super) fn connack_without_store(&mut self, router: &Router, output: &mut Output) {
        if self.connack_sent || router.can_store() {
            return;
        }
        if let Some(conn_ack) = self.answers.front_mut() {
            conn_ack.ready = true;
        }
        self.settle(Vec::new(), router, output);
    }

    /// An answer that is written when the receipt is resolved.
    pub(super) fn answer_later(&mut self) -> Receipt {
        let number = self.first_answer + self.answers.len() as u64;
        self.answers.push_back(Answer {
            packet: None,
            ready: false,
            not_before: 0,
        });
        Receipt::for_client(self.link.clone(), Ticket::Answer(number))
    }

    /// What the last answer says.
    pub(super) fn answer_is(&mut self, packet: Packet) {
        if let Some(answer) = self.answers.back_mut() {
            answer.packet = Some(Box::new(packet));
        }
    }

    pub(super) fn acknowledge(&mut self, output: &mut Output) {
        while let Some(first) = self.unacknowledged.front()
            && let Some(reason) = first.outcome
        {
            let ack = Ack::with_reason(first.packet_id, reason);
            let packet = match first.qos {
                QoS::ExactlyOnce => Packet::PubRec(ack),
                QoS::AtMostOnce | QoS::AtLeastOnce => Packet::PubAck(ack),
            };
            self.push(&packet, output);
            self.unacknowledged.pop_front();
            self.first_publish += 1;
        }
    }

    /// Takes the place of a publish in the order of acknowledgements.
    pub(super) fn enqueue(
        &mut self,
        publish: &Publish,
        outcome: Option<ReasonCode>,
    ) -> Option<Ticket> {
        let packet_id = publish.packet_id?;
        let number = self.first_publish + self.unacknowledged.len() as u64;
        self.unacknowledged.push_back(Unacknowledged {
            packet_id,
            qos: publish.qos,
            outcome,
            again: false,
        });
        Some(Ticket::Publish(number))
    }

    /// Refuses a publish: the error, then the acknowledgement as its QoS requires. In 5.0 a PUBREC with
    /// an error ends the exchange; in 3.1.1 a PUBREL follows, so the id is remembered.
    pub(super) fn refuse(&mut self, publish: &Publish, refusal: &Refusal, output: &mut Output) {
        self.tell(refusal, publish.packet_id.map(PacketId::get), output);
        if let Some(packet_id) = publish.packet_id
            && publish.qos == QoS::ExactlyOnce
            && self.version != Version::V5
        {
            let rare = self.rare.get_or_insert_default();
            rare.refused.insert(packet_id);
        }
        self.enqueue(publish, Some(refusal.reason));
        self.acknowledge(output);
    }

    /// Remembers the id of a QoS 2 publish until its PUBREL; what the store is to know of that. `None` if the
    /// session is no longer this connection's.
    #[inline(never)] // not between the lines that QoS 1 needs
    pub(super) fn receive(&mut self, packet_id: PacketId, router: &Router) -> Option<Origin> {
        let (user, link) = (self.link.user(), self.link.id());
        self.received = router.with_session(user, link, |session| {
            session.receive(packet_id);
            session.received()
        })?;
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
        packet_id: Option<u16>,
        router: &Router,
        output: &mut Output,
    ) {
        self.tell(refusal, packet_id, output);
        if packet_id.is_none() {
            return;
        }
        let Some(last) = self.unacknowledged.back_mut() else {
            return;
        };
        last.outcome = Some(refusal.reason);
        let (packet_id, qos) = (last.packet_id, last.qos);
        self.forget_refused(packet_id, qos, router);
        self.acknowledge(output);
    }

    /// It was not received. In 5.0 a PUBREC with an error ends the exchange, and the client may use the id for
    /// something new; in 3.1.1 a PUBREL follows.
    fn forget_refused(&mut self, packet_id: PacketId, qos: QoS, router: &Router) {
        if qos != QoS::ExactlyOnce {
            return;
        }
        let (user, link) = (self.link.user(), self.link.id());
        router.with_session(user, link, |session| session.release(packet_id));
        self.received = self.received.saturating_sub(1);
        if self.version != Version::V5 {
            let rare = self.rare.get_or_insert_default();
            rare.refused.insert(packet_id);
        }
    }
}

/// The place of a number in a queue whose first has the number `first`.
fn index(number: u64, first: u64) -> Option<usize> {
    number
        .checked_sub(first)
        .and_then(|index| index.try_into().ok())
}
