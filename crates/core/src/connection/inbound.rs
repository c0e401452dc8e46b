//! What a client that has been let in sends (PROTOCOL.md, section 4); SUBSCRIBE and UNSUBSCRIBE are in `subscribing`.

use std::time::Duration;

use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Disconnect, Packet, PacketId, Publish, QoS, Version};

use super::established::Established;
use super::{Asking, Connection, End, Phase, Progress};
use crate::directory::Answers;
use crate::link::{Responder, Ticket};
use crate::metrics::{Channel, Path};
use crate::output::Output;
use crate::policy::{Stop, refusals};
use crate::router::Router;
use crate::session::{PubRecOutcome, WrongAck};
use crate::time::Time;
use crate::user::Origin;

/// Why a connection must end.
struct Fatal(ReasonCode);

impl From<WrongAck> for Fatal {
    fn from(WrongAck: WrongAck) -> Self {
        Self(ReasonCode::ProtocolError)
    }
}

impl Established {
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Fatal> {
        let properties = publish.properties.as_ref();
        if properties.is_none_or(|it| it.topic_alias.is_none()) {
            return Ok(());
        }
        let rare = self.rare.get_or_insert_default();
        rare.aliases.resolve(publish).map_err(Fatal)
    }

    /// Whether a publish is new. One whose QoS 2 id was received before is answered and not looked at.
    fn is_new(&mut self, publish: &Publish, router: &Router, now: Time) -> Result<bool, Fatal> {
        let Some(packet_id) = publish.packet_id else {
            return Ok(true);
        };
        if publish.qos == QoS::ExactlyOnce {
            let rare = self.rare.as_ref();
            if rare.is_some_and(|it| it.refused.contains(packet_id)) {
                let number = self.acknowledgements.push(packet_id, publish.qos, now);
                self.acknowledgements
                    .settle(number, ReasonCode::Success, Path::Disk);
                return Ok(false);
            }
            let (user, link) = (self.link.user().clone(), self.link.id());
            let again = router.with_session(&user, link, |session| session.has_received(packet_id));
            if again == Some(true) {
                if !self.acknowledgements.awaits_pub_rec(packet_id) {
                    let ticket =
                        Ticket::Publish(self.acknowledgements.push_repeated(packet_id, now));
                    // The connection on which it came first may have ended before the store had it.
                    router.barrier(&user, Responder::new(self.link.clone(), ticket));
                }
                return Ok(false);
            }
        }
        // MQTT 5.0, section 3.3.4: more than the server's Receive Maximum.
        let qos1 = self.acknowledgements.len_of_qos1();
        if self.version == Version::V5 && self.received.fills(router.rules().inflight, qos1) {
            return Err(Fatal(ReasonCode::ReceiveMaximumExceeded));
        }
        Ok(true)
    }
}

impl Connection {
    pub(super) fn handle_established(
        &mut self,
        mut established: Box<Established>,
        packet: Packet,
        now: Time,
    ) -> Progress {
        let handled = match packet {
            Packet::Publish(mut publish) => {
                let checked = established
                    .resolve_alias(&mut publish)
                    .and_then(|()| established.is_new(&publish, &self.router, now));
                match checked {
                    Ok(true) if self.router.may_publish(&established.link, now) => {
                        return self.authorize(established, publish, None, now);
                    }
                    Ok(true) => {
                        // Before all other rules: a flood costs no look at its payload or at the directory.
                        established.refuse(
                            &publish,
                            &refusals::RATE,
                            &self.router,
                            &mut self.output,
                            now,
                        );
                        Ok(())
                    }
                    Ok(false) => {
                        established.acknowledge(&self.router, &mut self.output, now);
                        Ok(())
                    }
                    Err(fatal) => Err(fatal),
                }
            }
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) | Packet::PubRel(_) => {
                established.handle_ack(&packet, &self.router, &mut self.output, now)
            }
            Packet::Subscribe(subscribe) => {
                established.subscribe(*subscribe, &self.router, &mut self.output, now);
                Ok(())
            }
            Packet::Unsubscribe(unsubscribe) => {
                established.unsubscribe(&unsubscribe, &self.router);
                Ok(())
            }
            Packet::PingReq => {
                established.push(&Packet::PingResp, &mut self.output);
                Ok(())
            }
            Packet::Disconnect(disconnect) => {
                return self.handle_disconnect(established, &disconnect, now);
            }
            // Only a server sends these, and a client its CONNECT only once.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Auth(_) => Err(Fatal(ReasonCode::ProtocolError)),
        };
        self.phase = Phase::Established(established);
        if let Err(Fatal(reason)) = handled {
            self.disconnect(reason, End::ProtocolError(reason), now);
        }
        Progress::Ready
    }

    /// Judges a publish with what has been answered for it, and appends or refuses it.
    pub(super) fn authorize(
        &mut self,
        mut established: Box<Established>,
        publish: Publish,
        answers: Option<Answers>,
        now: Time,
    ) -> Progress {
        let answered = answers.as_ref().unwrap_or(Answers::NONE);
        let user = established.link.user();
        match self.router.authorize_publish(user, &publish, answered) {
            Ok(permit) => {
                let link = established.link.clone();
                let permit = permit.by(link.identity().life());
                let is_once = publish.qos == QoS::ExactlyOnce;
                let _receiving = is_once.then(|| link.receiving());
                let mut origin = Origin::Plain;
                if let Some(packet_id) = publish.packet_id.filter(|_| is_once) {
                    let Some(received) = established.receive(packet_id, &self.router) else {
                        // Another connection has the session by now: there the client says it again.
                        self.phase = Phase::Established(established);
                        return Progress::Ready;
                    };
                    origin = received;
                }
                let place = established.take_place(&publish, now);
                let (channel, qos) = (Channel::from(permit.destination()), publish.qos);
                let publisher =
                    place.map(|place| Responder::new(link.clone(), Ticket::Publish(place)));
                let published =
                    self.router
                        .publish(permit, publish, Some(link.id()), publisher, origin, now);
                self.router
                    .metrics()
                    .published(channel, qos, published.is_ok());
                match published {
                    Ok(woken) => established.add_work(woken),
                    Err(refusal) => {
                        established.not_appended(
                            &refusal,
                            place,
                            &self.router,
                            &mut self.output,
                            now,
                        );
                    }
                }
                self.phase = Phase::Established(established);
            }
            Err(Stop::Refused(refusal)) => {
                established.refuse(&publish, &refusal, &self.router, &mut self.output, now);
                self.phase = Phase::Established(established);
            }
            Err(Stop::Ask(question)) => {
                let asking = Asking {
                    publish,
                    question: question.clone(),
                    answers: answers.unwrap_or_default(),
                };
                self.phase = Phase::Authorizing(established, Box::new(asking));
                return Progress::Ask(question);
            }
        }
        Progress::Ready
    }

    fn handle_disconnect(
        &mut self,
        established: Box<Established>,
        disconnect: &Disconnect,
        now: Time,
    ) -> Progress {
        let asked = disconnect.session_expiry_secs;
        if established.ends_with_connection && asked.is_some_and(|secs| secs > 0) {
            // MQTT 5.0, section 3.14.2.2.2.
            self.phase = Phase::Established(established);
            let reason = ReasonCode::ProtocolError;
            self.disconnect(reason, End::ProtocolError(reason), now);
            return Progress::Ready;
        }
        let maximum = self.router.rules().session_expiry;
        let expiry = asked.map(|secs| maximum.min(Duration::from_secs(secs.into())));
        self.phase = Phase::Established(established);
        self.leave(End::Disconnect(disconnect.reason), expiry, now);
        Progress::Ready
    }
}

impl Established {
    /// The client's part of the handshakes of QoS 1 and 2.
    fn handle_ack(
        &mut self,
        packet: &Packet,
        router: &Router,
        output: &mut Output,
        now: Time,
    ) -> Result<(), Fatal> {
        self.write_owed_receipt(packet, router, now);
        let (user, link) = (self.link.user(), self.link.id());
        match packet {
            Packet::PubAck(ack) => router.pub_ack(user, link, ack.packet_id, now)?,
            Packet::PubRec(ack) => {
                let received =
                    router.pub_rec(user, link, ack.packet_id, ack.reason.is_error(), now)?;
                if received != PubRecOutcome::Unknown {
                    // The PUBREL is fetched, now or when the store has it.
                    self.has_mail = true;
                } else if !ack.reason.is_error() {
                    let reason = ReasonCode::PacketIdentifierNotFound;
                    let pub_rel = Packet::PubRel(Ack::with_reason(ack.packet_id, reason));
                    self.push(&pub_rel, output);
                }
            }
            Packet::PubComp(ack) => router.pub_comp(user, link, ack.packet_id)?,
            Packet::PubRel(ack) => self.handle_pub_rel(ack.packet_id, router),
            _ => {}
        }
        // The window may have opened.
        if self.has_mail {
            self.deliver(router, output, now);
        }
        Ok(())
    }

    fn handle_pub_rel(&mut self, packet_id: PacketId, router: &Router) {
        let (user, link) = (self.link.user().clone(), self.link.id());
        // A client may release what it has had no PUBREC for yet: PUBCOMP comes after that all the same.
        let after = self.acknowledgements.through_pub_rec(packet_id);
        let (reply, responder) = self.reserve_reply_after(after);
        if let Some(rare) = &mut self.rare {
            rare.refused.release(packet_id);
        }
        let (known, received) = router.pub_rel(&user, link, packet_id, responder);
        self.received.released(received);
        let reason = if known {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        let pub_comp = Packet::PubComp(Ack::with_reason(packet_id, reason));
        self.replies.fill(reply, pub_comp);
    }

    /// The client acknowledges something. A refusal is no delivery.
    fn write_owed_receipt(&mut self, packet: &Packet, router: &Router, now: Time) {
        let Some(receipts) = &mut self.receipts else {
            return;
        };
        let (ack, qos) = match packet {
            Packet::PubAck(ack) => (ack, QoS::AtLeastOnce),
            Packet::PubRec(ack) => (ack, QoS::ExactlyOnce),
            _ => return,
        };
        let Some(owed) = receipts.remove(ack.packet_id) else {
            return;
        };
        if receipts.is_empty() {
            self.receipts = None;
        }
        if !ack.reason.is_error() {
            let (user, link) = (self.link.user(), self.link.id());
            router.write_receipt(user, link, ack.packet_id, qos, &owed, now);
        }
    }
}
