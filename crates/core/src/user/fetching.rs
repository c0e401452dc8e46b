//! Devices get what waits for them; that they have it is said in `acknowledging`.

mod next;

use std::sync::Arc;

use jam_wire::encode;
use jam_wire::packet::{Packet, PacketId, QoS, Version};
use smallvec::SmallVec;

use super::acknowledging::{acked, end_in_flight};
use super::loading::to_load;
use super::{Awaits, Device, Effects, User, Which};
use crate::ids::UserId;
use crate::link::LinkId;
use crate::mailbox::{Entry, Mailbox, Residence};
use crate::message::{Message, Terms};
use crate::session::SendState;
use crate::store::{OutboundState, Seq, Write, Writes};
use crate::time::{Ticks, Time};
use next::{Next, StoredFirst, content, terms_under_id};

/// One thing to send to a device.
#[derive(Debug)]
pub(crate) enum Delivery {
    Publish(Arc<Message>, Terms),
    PubRel(PacketId),
}

/// What a connection has fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) deliveries: SmallVec<[Delivery; 16]>,
    /// There is more, and the window is closed.
    pub(crate) held_back: bool,
    /// There is no more at the moment; the next message wakes the connection.
    pub(crate) is_all: bool,
    /// Bytes of the deliveries, as they weigh.
    bytes: u64,
    /// Something that was read from the store for the device waits to be sent.
    pub(crate) holds_loaded: bool,
}

/// What limits a fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Packet ids that may be on their way.
    pub(crate) window: usize,
    /// Messages from this number on have come while the client was connected.
    pub(crate) live_from: Seq,
    /// Deliveries.
    pub(crate) count: usize,
    /// Bytes of those, but for the last.
    pub(crate) bytes: u64,
    /// Whether the store can keep anything at the moment.
    pub(crate) can_store: bool,
    /// Bytes of a packet that a client of 5.0 takes, if it said so.
    pub(crate) max_packet: Option<u32>,
}

impl Fetched {
    fn publish(&mut self, message: Arc<Message>, terms: Terms) {
        self.bytes += message.weight();
        self.deliveries.push(Delivery::Publish(message, terms));
    }

    /// What comes next needs a place in the window.
    fn hold_back(&mut self) -> Halt {
        self.held_back = true;
        Halt::Window
    }
}

impl Room {
    fn takes(self, message: &Message, mut terms: Terms, now: Time) -> bool {
        let Some(max) = self.max_packet else {
            return true;
        };
        if terms.qos != QoS::AtMostOnce {
            terms.packet_id = terms.packet_id.or(Some(PacketId::MIN));
        }
        let packet = Packet::Publish(message.to_publish(terms, true, now));
        encode::encoded_len(&packet, Version::V5).is_ok_and(|len| len <= max as usize)
    }
}

/// Why there is nothing more to fetch at the moment.
enum Halt {
    /// It is in the store: it has to be read first.
    Load,
    /// The window is closed.
    Window,
    /// There is enough for now.
    Enough,
    /// Blocked: a commit, a load or an acknowledgement wakes the connection.
    Wait,
}

impl User {
    /// The next things to send on a connection, in order: first what was due before, then what is new.
    /// They are put into `fetched`, for it is large.
    pub(crate) fn fetch(
        &mut self,
        link: LinkId,
        room: Room,
        now: Time,
        effects: &mut Effects,
        fetched: &mut Fetched,
    ) {
        self.expire(now, effects);
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return;
        };
        if !room.can_store {
            device.session.let_go(device.id().is_some());
        }
        let mailbox = &mut self.mailbox;
        let halt = send_due(device, mailbox, room, now, effects, fetched).and_then(|()| {
            let user = &self.id;
            send_new(user, device, mailbox, room, now, effects, fetched)
        });
        device.has_room = device.session.on_the_way() < room.window;
        match halt {
            Err(Halt::Load) if !device.loading => {
                device.loading = true;
                let open = room.window.saturating_sub(device.session.on_the_way());
                effects.rare().load = Some(to_load(&self.id, link, device, mailbox, open));
            }
            // A device that acknowledges nothing takes no memory for what was read for it.
            Err(Halt::Window) => device.loaded = None,
            _ => {}
        }
        fetched.holds_loaded = device.loaded.is_some();
    }

    /// A connection cannot take what was read for it: it is read again when it can.
    pub(crate) fn unload(&mut self, link: LinkId) {
        let mut devices = self.devices.iter_mut();
        if let Some(device) = devices.find(|device| device.is_linked(link)) {
            device.loaded = None;
        }
    }
}

impl Device {
    /// The entry gets a packet id. It is sent now, or, if it `waits`, when the store has the id.
    fn put_in_flight(
        &mut self,
        entry: &Entry,
        qos: QoS,
        waits: bool,
        published_at: Option<Ticks>,
        effects: &mut Effects,
    ) -> PacketId {
        let seq = entry.seq;
        self.session.cursor = seq;
        let state = if waits {
            SendState::AwaitingStore
        } else {
            SendState::Sent
        };
        let packet_id = self.session.send(seq, qos, state, published_at);
        if let Some(id) = self.id().filter(|_| waits || entry.is_stored()) {
            let flight = match qos {
                QoS::ExactlyOnce => OutboundState::AwaitsPubRec(seq),
                _ => OutboundState::AwaitsPubAck(seq),
            };
            let awaits = waits.then(|| Awaits::Device(Which::Lasting(id), Some(packet_id)));
            let mut writes = Writes::from_iter([Write::InFlight(id, packet_id, flight)]);
            if entry.is_retained() {
                writes.extend(self.end_claim(seq));
            }
            effects.writes.push((writes, awaits));
        }
        packet_id
    }

    /// Writes down how far messages of QoS 1 may be sent from now on: as far as the window is open. One such write at a
    /// time.
    fn advance_maybe_sent_now(
        &mut self,
        user: &UserId,
        mailbox: &Mailbox,
        room: Room,
        effects: &mut Effects,
    ) {
        let Some(link) = self.link.as_ref().map(|link| link.id()) else {
            return;
        };
        if self.maybe_sent_now > 0 && !self.maybe_sent_now_is_stored {
            return;
        }
        let open = room.window.saturating_sub(self.session.on_the_way());
        let next = mailbox.unsent(self.slot, self.session.cursor);
        let last = next
            .take_while(|entry| entry.residence != Residence::Committing)
            .take(open)
            .last();
        self.maybe_sent_now = last.map_or(self.maybe_sent_now, |entry| entry.seq);
        self.maybe_sent_now_is_stored = false;
        if let Some(record) = self.record(user) {
            let awaits = Awaits::Device(Which::Of(link), None);
            effects
                .writes
                .push((SmallVec::from_iter([record]), Some(awaits)));
        }
    }
}

/// What can be sent under packet ids that exist: PUBRELs, QoS 2 messages that the store has by now, and,
/// with DUP, what was on its way when the last connection ended.
fn send_due(
    device: &mut Device,
    mailbox: &mut Mailbox,
    room: Room,
    now: Time,
    effects: &mut Effects,
    fetched: &mut Fetched,
) -> Result<(), Halt> {
    if !device.session.has_due() {
        return Ok(()); // nothing is to be sent again either
    }
    let mut halt = None;
    // All that may be looked at: PUBRELs have a right to go out behind any number of messages that wait.
    let due: SmallVec<[_; 16]> = device.session.due().collect();
    for it in due {
        if fetched.deliveries.len() >= room.count {
            break;
        }
        let (seq, qos) = match it.flight {
            // Exempt from the window, and from what a message waits for (MQTT 5.0, section 4.9).
            OutboundState::AwaitsPubComp => {
                device.session.sent(it.packet_id);
                fetched.deliveries.push(Delivery::PubRel(it.packet_id));
                continue;
            }
            OutboundState::AwaitsPubAck(seq) => (seq, QoS::AtLeastOnce),
            OutboundState::AwaitsPubRec(seq) => (seq, QoS::ExactlyOnce),
        };
        if halt.is_some() {
            continue;
        }
        if fetched.bytes >= room.bytes {
            halt = Some(Halt::Enough);
            continue;
        }
        if !it.in_window && device.session.on_the_way() >= room.window {
            halt = Some(fetched.hold_back());
            continue;
        }
        let entry = mailbox
            .get(seq)
            .expect("what is on its way stays in the log");
        // Its delivery has not begun as long as it waited for the store (MQTT 5.0, section 3.3.2.3.3).
        if it.send_state == SendState::Ready && entry.is_expired(now) {
            drop_unsent(device, mailbox, it.packet_id, seq, effects);
            continue;
        }
        let Some(message) = content(device, entry) else {
            halt = Some(Halt::Load);
            continue;
        };
        let terms = terms_under_id(device, entry, &message, it, qos);
        device.unload(seq);
        if room.takes(&message, terms, now) {
            device.session.sent(it.packet_id);
            fetched.publish(message, terms);
        } else {
            device.session.park(it.packet_id);
        }
    }
    match halt {
        Some(halt) => Err(halt),
        // Nothing new before what is old.
        None if device.session.has_carried_over() => Err(Halt::Wait),
        None => Ok(()),
    }
}

/// What has not been sent to this device, from its cursor on.
fn send_new(
    user: &UserId,
    device: &mut Device,
    mailbox: &mut Mailbox,
    room: Room,
    now: Time,
    effects: &mut Effects,
    fetched: &mut Fetched,
) -> Result<(), Halt> {
    let mut held_up = device.session.is_held_up();
    while fetched.deliveries.len() < room.count && fetched.bytes < room.bytes {
        let next = mailbox.unsent(device.slot, device.session.cursor).next();
        let Some(entry) = next else {
            // What others are to get is not looked at again at each fetch.
            device.session.cursor = mailbox.last().max(device.session.cursor);
            fetched.is_all = true;
            return Ok(());
        };
        if entry.residence == Residence::Committing {
            return Ok(());
        }
        let seq = entry.seq;
        let is_open =
            device.session.on_the_way() < room.window && device.session.has_free_packet_id();
        let (message, mut terms) = match Next::of(device, entry, room, now) {
            Next::Send(message, terms) => (message, terms),
            Next::Load if is_open || entry.qos == QoS::AtMostOnce => return Err(Halt::Load),
            Next::Load => return Err(fetched.hold_back()),
            Next::PassBy => {
                pass_by(device, seq);
                continue;
            }
            Next::GiveUp => {
                give_up(device, mailbox, seq, effects);
                continue;
            }
        };
        let stored_first = StoredFirst::of(device, entry, terms.qos, room);
        if held_up && stored_first != StoredFirst::PacketId {
            return Err(Halt::Wait);
        }
        if terms.qos == QoS::AtMostOnce {
            // QoS 0 is complete once sent.
            give_up(device, mailbox, seq, effects);
            fetched.publish(message, terms);
            continue;
        }
        if !is_open {
            return Err(fetched.hold_back());
        }
        if stored_first == StoredFirst::MaybeSentNow {
            device.advance_maybe_sent_now(user, mailbox, room, effects);
            return Err(Halt::Wait);
        }
        let waits = stored_first == StoredFirst::PacketId;
        let published_at = (seq >= room.live_from).then(|| message.received_at.ticks());
        let packet_id = device.put_in_flight(entry, terms.qos, waits, published_at, effects);
        mailbox.sent(seq, device.slot);
        if waits {
            held_up = true;
            // It is needed again when the store has the packet id.
            device.keep(seq, message);
            continue;
        }
        device.unload(seq);
        terms.packet_id = Some(packet_id);
        fetched.publish(message, terms);
    }
    Ok(())
}

/// The entry has expired: it is not sent, and leaves without this device's doing.
fn pass_by(device: &mut Device, seq: Seq) {
    device.session.cursor = seq;
    device.unload(seq);
}

/// The entry has expired before it was sent under the packet id that it has.
fn drop_unsent(
    device: &mut Device,
    mailbox: &mut Mailbox,
    packet_id: PacketId,
    seq: Seq,
    effects: &mut Effects,
) {
    device.session.complete(packet_id);
    device.unload(seq);
    let mut writes = acked(device, mailbox, seq, None, effects, |_| ());
    writes.extend(end_in_flight(device, packet_id));
    effects.write_all(writes);
}

/// The entry is this device's no more, sent or not.
fn give_up(device: &mut Device, mailbox: &mut Mailbox, seq: Seq, effects: &mut Effects) {
    device.session.cursor = seq;
    device.unload(seq);
    let writes = acked(device, mailbox, seq, None, effects, |_| ());
    effects.write_all(writes);
}
