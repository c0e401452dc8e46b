//! Whether a client's next packet is taken, and how much work its packets have been.
//!
//! Invariant *Bounded*: a client that asks for much and reads nothing, or that sends without a pause, takes neither
//! memory nor time from others.

use jam_wire::packet::Packet;

use super::{Connection, OUTPUT_ENOUGH, Phase};

/// Bytes of a packet before the CONNECT has been accepted.
pub const MAX_CONNECT: usize = 64 * 1024;
/// Bytes of answers that are added to a full output ([`OUTPUT_ENOUGH`]) before no packet is taken any more. Acknowledgements and DISCONNECT
/// need no answer: a client that does not read is heard as long as it asks for little.
pub const ANSWERS_ENOUGH: usize = 64 * 1024;
/// Work after which a connection lets others go on, in the units of [`Connection::take_work`].
pub const TURN_WORK: u32 = 256;
/// Bytes of output, and of a payload that is judged, that are one unit of work.
pub(super) const WORK_BYTES: usize = 1024;

impl Connection {
    /// Work done for the client's packets since this was last called, in units of about a microsecond: one for each
    /// packet, each of its filters, each device that it wakes, each KiB of payload and of output, and 256 messages that
    /// wait in an inbox that it subscribes to or leaves. From
    /// [`TURN_WORK`] on, other connections come first.
    pub fn take_work(&mut self) -> u32 {
        self.established()
            .map_or(0, |established| std::mem::take(&mut established.work))
    }

    /// Whether other connections come first: [`Self::take_work`] begins a new turn.
    #[must_use]
    pub fn has_worked_enough(&self) -> bool {
        match &self.phase {
            Phase::Established(established) | Phase::Authorizing(established, ..) => {
                established.work >= TURN_WORK
            }
            Phase::Fresh(_) | Phase::Authenticating(..) | Phase::Closing(_) => false,
        }
    }

    /// Whether a packet may be handed in.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let room = !self.awaits_reading();
        match &self.phase {
            Phase::Fresh(_) => room,
            Phase::Established(established) => room && established.has_room(&self.router),
            Phase::Authenticating(..) | Phase::Authorizing(..) | Phase::Closing(_) => false,
        }
    }

    /// Whether a packet may be handed in to a connection that is going to end, whatever comes: what has arrived
    /// is taken without regard to the room for answers. They are thrown away when they are too many.
    pub fn wants_last_input(&mut self) -> bool {
        if self.answers_beyond() >= ANSWERS_ENOUGH {
            self.output.discard();
        }
        match &self.phase {
            Phase::Fresh(_) => true,
            Phase::Established(established) => established.gate.connack_sent(),
            Phase::Authenticating(..) | Phase::Authorizing(..) | Phase::Closing(_) => false,
        }
    }

    /// Whether no packet is taken because the client does not read.
    #[must_use]
    pub fn awaits_reading(&self) -> bool {
        self.output.len() >= OUTPUT_ENOUGH && self.answers_beyond() >= ANSWERS_ENOUGH
    }

    fn answers_beyond(&self) -> usize {
        match &self.phase {
            Phase::Established(established) => {
                let rare = established.rare.as_ref();
                rare.map_or(0, |rare| rare.answers_beyond)
            }
            _ => 0,
        }
    }

    /// What is added to a full output is an answer: nothing else is written then.
    pub(super) fn note_answers(&mut self, before: usize) {
        let written = self.output.len().saturating_sub(before);
        if before >= OUTPUT_ENOUGH
            && written > 0
            && let Some(established) = self.established()
        {
            established.rare.get_or_insert_default().answers_beyond += written;
        }
    }

    /// Bytes that a packet of this client may have, its fixed header included.
    #[must_use]
    pub fn max_packet(&self) -> usize {
        match &self.phase {
            Phase::Fresh(_) | Phase::Authenticating(..) => {
                MAX_CONNECT.min(self.router.rules().packet)
            }
            Phase::Established(_) | Phase::Authorizing(..) | Phase::Closing(_) => {
                self.router.rules().packet
            }
        }
    }
}

/// What a packet costs by itself.
pub(super) fn work_of(packet: &Packet) -> usize {
    1 + match packet {
        Packet::Publish(publish) => publish.payload.len() / WORK_BYTES,
        Packet::Subscribe(subscribe) => subscribe.filters.len(),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.len(),
        _ => 0,
    }
}
