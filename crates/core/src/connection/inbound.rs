//! What a client that has been let in sends (PROTOCOL.md, sections 4 and 5).

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use jam_wire::ReasonCode;
use jam_wire::packet::{
    Ack, Connect, Disconnect, Packet, PacketId, Publish, QoS, ReasonProperties, SubAck, Subscribe,
    UnsubAck, Unsubscribe, Version,
};

use super::receipts::Receipts;
use super::{Connection, End, OUTPUT_ENOUGH, Phase, Progress};
use crate::link::{Link, Notices};
use crate::output::Output;
use crate::policy::{self, MAX_TOPIC_BYTES, Stop, refusals};
use crate::router::Router;
use crate::session::{PubRecOutcome, WrongAck};
use crate::store::{Origin, Receipt, Subscription};
use crate::time::Time;
use crate::user::Attached;

/// Topic aliases that a 5.0 client may set.
pub(super) const TOPIC_ALIAS_MAXIMUM: u16 = 16;
/// A client that has been let in.
pub(super) struct Established {
    pub(super) link: Arc<Link>,
    pub(super) version: Version,
    /// What the client asked for; 0 is none.
    pub(super) keep_alive_secs: u16,
    /// In the time without what is skipped.
    last_input: Time,
    /// QoS 1 and 2 messages that may be on their way to the client.
    pub(super) window: u16,
    /// Bytes of a packet that the client takes, if it said so.
    pub(super) max_packet: Option<u32>,
    /// Something may wait for the device.
    pub(super) has_mail: bool,
    /// Whether the client asked for a session that ends with the connection.
    pub(super) ends_with_connection: bool,
    /// The number of a session that outlives the connection; numbers begin with 1.
    pub(super) session: Option<NonZeroU64>,
    /// Whether the store may have yet to be told of that session.
    pub(super) unrecorded: bool,
    /// Publishes in their order, until they are acknowledged.
    pub(super) unacknowledged: VecDeque<Unacknowledged>,
    /// The number of the first of them.
    pub(super) first_publish: u64,
    /// Other answers that wait for the store, in the order of the packets they answer.
    pub(super) answers: VecDeque<Answer>,
    /// The number of the first of them.
    pub(super) first_answer: u64,
    /// How many of those are a CONNACK or SUBACKs: nothing is delivered before them.
    pub(super) deferred_subacks: u16,
    /// Whether the CONNACK has been written.
    pub(super) connack_sent: bool,
    /// QoS 2 ids received and not released.
    pub(super) received: u16,
    /// How many of those at most came on an earlier connection: they take no place in the window of this
    /// one (MQTT 5.0, section 4.9).
    pub(super) received_before: u16,
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
    /// Topics by alias less one.
    aliases: Vec<Option<ByteString>>,
    /// QoS 2 ids of a 3.1 or 3.1.1 client that were refused on this connection and not released. On the next
    /// one it cannot know what it was told: a repeated PUBLISH is judged again there.
    pub(super) refused: BTreeSet<PacketId>,
    /// Bytes of answers that were written while the output was full.
    pub(super) answers_beyond: usize,
    /// Newcomers that wait until what the client has sent is handled.
    pub(super) notices: Notices,
}

/// A publish that has not been acknowledged.
pub(super) struct Unacknowledged {
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    /// `None` as long as it is not decided.
    pub(super) outcome: Option<ReasonCode>,
    /// It was received on an earlier connection: what has become of it is for the session to say.
    pub(super) again: bool,
}

/// An answer that waits for the store.
pub(super) struct Answer {
    pub(super) packet: Option<Box<Packet>>,
    pub(super) ready: bool,
    /// The first publish that may still be unacknowledged when this is written.
    pub(super) not_before: u64,
}

/// Why a connection must end.
struct Fatal(ReasonCode);

impl From<WrongAck> for Fatal {
    fn from(WrongAck: WrongAck) -> Self {
        Self(ReasonCode::ProtocolError)
    }
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
            keep_alive_secs: connect.keep_alive_secs,
            last_input: awake,
            window,
            max_packet: properties.maximum_packet_size,
            has_mail: false,
            ends_with_connection: properties.session_expiry_secs.unwrap_or(0) == 0,
            unacknowledged: VecDeque::new(),
            session: attached.session.and_then(NonZeroU64::new),
            unrecorded: attached.unrecorded,
            first_publish: 0,
            answers: VecDeque::new(),
            first_answer: 0,
            deferred_subacks: 0,
            connack_sent: true,
            received: attached.received,
            received_before: attached.received,
            work: 0,
            receipts: None,
            rare: None,
        }
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
        if !self.connack_sent {
            return None; // the client waits for the server, and not the other way round
        }
        let patience = self.patience();
        (!patience.is_zero()).then(|| self.last_input + patience)
    }

    /// Whether another packet may be taken.
    pub(super) fn has_room(&self, router: &Router) -> bool {
        let inflight = usize::from(router.rules().inflight);
        self.connack_sent && self.unacknowledged.len() < inflight && self.answers.len() < inflight
    }

    /// Puts the topic in place of its alias (MQTT 5.0, section 3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Fatal> {
        let Some(alias) = publish.properties.as_ref().and_then(|it| it.topic_alias) else {
            return Ok(());
        };
        if alias.get() > TOPIC_ALIAS_MAXIMUM {
            return Err(Fatal(ReasonCode::TopicAliasInvalid));
        }
        let index = usize::from(alias.get() - 1);
        let aliases = &mut self.rare.get_or_insert_default().aliases;
        if aliases.len() <= index {
            aliases.resize(index + 1, None);
        }
        if publish.topic.is_empty() {
            publish.topic = aliases[index]
                .clone()
                .ok_or(Fatal(ReasonCode::ProtocolError))?;
        } else {
            // A copy: a slice would hold the whole receive buffer for as long as the connection lives. Of a topic
            // that is too long, as much as makes it so.
            let end = publish.topic.ceil_char_boundary(MAX_TOPIC_BYTES + 1);
            aliases[index] = Some(publish.topic[..end].into());
        }
        Ok(())
    }

    /// Whether a publish is new. One whose QoS 2 id was received before is answered and not looked at.
    fn is_new(&mut self, publish: &Publish, router: &Router) -> Result<bool, Fatal> {
        let Some(packet_id) = publish.packet_id else {
            return Ok(true);
        };
        if publish.qos == QoS::ExactlyOnce {
            let rare = self.rare.as_ref();
            if rare.is_some_and(|it| it.refused.contains(&packet_id)) {
                self.enqueue(publish, Some(ReasonCode::Success));
                return Ok(false);
            }
            let (user, link) = (self.link.user().clone(), self.link.id());
            let again = router.with_session(&user, link, |session| session.has_received(packet_id));
            if again == Some(true) {
                let waits = self
                    .unacknowledged
                    .iter()
                    .any(|other| other.packet_id == packet_id && other.qos == QoS::ExactlyOnce);
                if !waits && let Some(ticket) = self.enqueue(publish, None) {
                    if let Some(last) = self.unacknowledged.back_mut() {
                        last.again = true;
                    }
                    // The connection on which it came first may have ended before the store had it.
                    router.barrier(&user, Receipt::for_client(self.link.clone(), ticket));
                }
                return Ok(false);
            }
        }
        // MQTT 5.0, section 3.3.4: more than the server's Receive Maximum.
        let limit = usize::from(router.rules().inflight) + usize::from(self.received_before);
        if self.version == Version::V5
            && usize::from(self.received) + self.unacknowledged_qos1() >= limit
        {
            return Err(Fatal(ReasonCode::ReceiveMaximumExceeded));
        }
        Ok(true)
    }

    fn unacknowledged_qos1(&self) -> usize {
        self.unacknowledged
            .iter()
            .filter(|publish| publish.qos == QoS::AtLeastOnce)
            .count()
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
                    .and_then(|()| established.is_new(&publish, &self.router));
                match checked {
                    Ok(true) if self.router.may_publish(&established.link, now) => {
                        return self.authorize(established, publish, now);
                    }
                    Ok(true) => {
                        // Before all other rules: a flood costs no look at its payload or at the directory.
                        established.refuse(&publish, &refusals::RATE, &mut self.output);
                        Ok(())
                    }
                    Ok(false) => {
                        established.acknowledge(&mut self.output);
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

    /// Judges a publish, and appends or refuses it.
    pub(super) fn authorize(
        &mut self,
        mut established: Box<Established>,
        publish: Publish,
        now: Time,
    ) -> Progress {
        match self
            .router
            .authorize_publish(established.link.user(), &publish)
        {
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
                let ticket = established.enqueue(&publish, None);
                let receipt = ticket.map(|ticket| Receipt::for_client(link.clone(), ticket));
                let packet_id = publish.packet_id.map(PacketId::get);
                let published =
                    self.router
                        .publish(permit, publish, Some(link.id()), receipt, origin, now);
                match published {
                    Ok(woken) => established.add_work(woken),
                    Err(refusal) => {
                        established.not_appended(
                            &refusal,
                            packet_id,
                            &self.router,
                            &mut self.output,
                        );
                    }
                }
                self.phase = Phase::Established(established);
            }
            Err(Stop::Refused(refusal)) => {
                established.refuse(&publish, &refusal, &mut self.output);
                self.phase = Phase::Established(established);
            }
            Err(Stop::Ask(question)) => {
                let asked = question.clone();
                self.phase = Phase::Authorizing(established, Box::new((publish, question)));
                return Progress::Ask(asked);
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
        self.write_receipt(packet, router, now);
        let (user, link) = (self.link.user(), self.link.id());
        match packet {
            Packet::PubAck(ack) => router.pub_ack(user, link, ack.packet_id)?,
            Packet::PubRec(ack) => {
                let received = router.pub_rec(user, link, ack.packet_id, ack.reason.is_error())?;
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
        let receipt = self.answer_later();
        // A client may release what it has had no PUBREC for yet: PUBCOMP comes after that all the same.
        let unacknowledged = self
            .unacknowledged
            .iter()
            .rposition(|it| it.packet_id == packet_id && it.qos == QoS::ExactlyOnce);
        if let Some(place) = unacknowledged
            && let Some(answer) = self.answers.back_mut()
        {
            answer.not_before = self.first_publish + place as u64 + 1;
        }
        if let Some(rare) = &mut self.rare {
            rare.refused.remove(&packet_id);
        }
        let (known, received) = router.pub_rel(&user, link, packet_id, receipt);
        self.received = received;
        self.received_before = self.received_before.min(received);
        let reason = if known {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.answer_is(Packet::PubComp(Ack::with_reason(packet_id, reason)));
    }

    fn subscribe(&mut self, subscribe: Subscribe, router: &Router, output: &mut Output, now: Time) {
        let (user, link) = (self.link.user().clone(), self.link.id());
        let mut wanted = Vec::with_capacity(subscribe.filters.len());
        let mut verdicts = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters {
            let verdict = policy::authorize_subscribe(&user, &filter.filter);
            verdicts.push(
                verdict
                    .as_ref()
                    .map(|()| filter.qos)
                    .map_err(|refusal| refusal.reason),
            );
            match verdict {
                // The SUBACK says it all the same.
                Err(_) if output.len() >= OUTPUT_ENOUGH => {}
                Err(refusal) => self.tell(&refusal, None, output),
                Ok(()) => wanted.push((
                    Subscription {
                        topic: (&*filter.filter).into(),
                        qos: filter.qos,
                        no_local: filter.no_local,
                        retain_as_published: filter.retain_as_published,
                        id: subscribe.subscription_id,
                    },
                    filter.retain_handling,
                )),
            }
        }
        let receipt = self.answer_later();
        let mut outcomes = router
            .subscribe(&user, link, wanted, receipt, now)
            .into_iter();
        let codes = verdicts.into_iter().map(|verdict| match verdict {
            Err(reason) => reason,
            Ok(qos) => match (outcomes.next().flatten(), qos) {
                (Some(true), QoS::AtMostOnce) => ReasonCode::Success,
                (Some(true), QoS::AtLeastOnce) => ReasonCode::GrantedQoS1,
                (Some(true), QoS::ExactlyOnce) => ReasonCode::GrantedQoS2,
                (Some(false), _) => ReasonCode::QuotaExceeded,
                (None, _) => ReasonCode::UnspecifiedError,
            },
        });
        let (packet_id, codes) = (subscribe.packet_id, codes.collect());
        let properties = ReasonProperties::default();
        self.answer_is(Packet::SubAck(Box::new(SubAck {
            packet_id,
            properties,
            codes,
        })));
        self.deferred_subacks += 1;
        if !router.can_store() {
            self.deliver(router, output, now);
        }
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe, router: &Router) {
        let (user, link) = (self.link.user().clone(), self.link.id());
        let receipt = self.answer_later();
        let existed = router.unsubscribe(&user, link, &unsubscribe.filters, receipt);
        let code = |existed| {
            if existed {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            }
        };
        let (packet_id, codes) = (
            unsubscribe.packet_id,
            existed.into_iter().map(code).collect(),
        );
        let properties = ReasonProperties::default();
        self.answer_is(Packet::UnsubAck(Box::new(UnsubAck {
            packet_id,
            properties,
            codes,
        })));
    }
}
