//! The replies that wait for the store: CONNACK, SUBACK, UNSUBACK and PUBCOMP.
//!
//! A reply is reserved before the store is asked, and filled with its packet once that is known. The token that pairs
//! the two is spent by [`Replies::fill`].
//!
//! Invariants, checked by the tests below and by `tests/acknowledging.rs`: replies leave in the order in which they
//! were reserved, each when the store has what it tells of; a PUBCOMP leaves after the PUBREC of its packet id.

use std::collections::VecDeque;

use jam_wire::packet::Packet;

/// The queue of replies.
#[derive(Default)]
pub(super) struct Replies {
    queue: VecDeque<Reply>,
    /// The number of the first in the queue, which is how many have left.
    first: u64,
}

struct Reply {
    packet: Option<Box<Packet>>,
    /// Whether the store has what it tells of.
    is_ready: bool,
    /// Acknowledgements that leave before it does, counted from the first of the connection.
    acknowledgements: u64,
}

/// A place in the queue whose packet is to come.
#[derive(Debug)]
#[must_use = "a reply is filled with its packet"]
pub(super) struct ReservedReply(u64);

impl ReservedReply {
    /// The number by which [`Replies::settle`] finds it.
    pub(super) fn number(&self) -> u64 {
        self.0
    }
}

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes the last place, for a reply that leaves after so many acknowledgements of the connection.
    pub(super) fn reserve_after(&mut self, acknowledgements: u64) -> ReservedReply {
        self.queue.push_back(Reply {
            packet: None,
            is_ready: false,
            acknowledgements,
        });
        ReservedReply(self.first + self.queue.len() as u64 - 1)
    }

    /// What the reply says.
    #[expect(clippy::needless_pass_by_value, reason = "the token is spent")]
    pub(super) fn fill(&mut self, reserved: ReservedReply, packet: Packet) {
        if let Some(reply) = self.get_mut(reserved.0) {
            reply.packet = Some(Box::new(packet));
        }
    }

    /// The store has what the reply with this number tells of.
    pub(super) fn settle(&mut self, number: u64) {
        if let Some(reply) = self.get_mut(number) {
            reply.is_ready = true;
        }
    }

    /// The first waits for the store no longer.
    pub(super) fn settle_first(&mut self) {
        self.settle(self.first);
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Reply> {
        let index = number.checked_sub(self.first)?.try_into().ok()?;
        self.queue.get_mut(index)
    }

    /// The next reply, if it may leave after so many acknowledgements. The last one takes the queue's memory with it:
    /// an idle connection has no replies.
    pub(super) fn pop(&mut self, acknowledgements: u64) -> Option<Packet> {
        let is_due = |reply: &mut Reply| {
            reply.is_ready && reply.acknowledgements <= acknowledgements && reply.packet.is_some()
        };
        let reply = self.queue.pop_front_if(is_due)?;
        self.first += 1;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        reply.packet.map(|packet| *packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_leave_in_the_order_in_which_they_were_reserved() {
        let mut replies = Replies::default();
        let (one, two) = (replies.reserve_after(0), replies.reserve_after(0));
        let numbers = [one.number(), two.number()];
        replies.fill(two, Packet::PingReq);
        replies.fill(one, Packet::PingResp);
        replies.settle(numbers[1]);
        assert_eq!(replies.pop(0), None);
        replies.settle(numbers[0]);
        assert_eq!(replies.pop(0), Some(Packet::PingResp));
        assert_eq!(replies.pop(0), Some(Packet::PingReq));
        assert_eq!(replies.queue.capacity(), 0);
        let three = replies.reserve_after(0);
        assert_eq!(three.number(), 2);
        replies.fill(three, Packet::PingResp);
        replies.settle(numbers[0]);
        assert_eq!(replies.pop(0), None);
        replies.settle_first();
        assert_eq!((replies.pop(0), replies.len()), (Some(Packet::PingResp), 0));
    }

    #[test]
    fn one_that_is_ready_waits_for_its_packet() {
        let mut replies = Replies::default();
        let reply = replies.reserve_after(0);
        replies.settle(reply.number());
        assert_eq!(replies.pop(0), None);
        replies.fill(reply, Packet::PingResp);
        assert_eq!(replies.pop(0), Some(Packet::PingResp));
    }

    #[test]
    fn one_leaves_after_the_acknowledgements_before_it() {
        let mut replies = Replies::default();
        let reply = replies.reserve_after(3);
        replies.settle(reply.number());
        replies.fill(reply, Packet::PingResp);
        assert_eq!(replies.pop(2), None);
        assert_eq!(replies.pop(3), Some(Packet::PingResp));
    }
}
