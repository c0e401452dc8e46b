//! QoS 2 packet ids that a connection knows of, beside those in the session.
//!
//! Invariants, checked by the tests below and by `tests/handshakes.rs`: a PUBLISH of QoS 2 counts against the Receive
//! Maximum from its arrival to its PUBREL, on the connection on which it came (MQTT 5.0, section 4.9); a PUBLISH with
//! the id of one that was refused is refused with it until the PUBREL.

use std::collections::BTreeSet;

use jam_wire::packet::PacketId;

/// How many QoS 2 ids are received and not released.
pub(super) struct ReceivedIds {
    count: u16,
    /// How many of those at most came on an earlier connection.
    carried_over: u16,
}

impl ReceivedIds {
    /// Of a session that comes with so many.
    pub(super) fn carried_over(count: u16) -> Self {
        Self {
            count,
            carried_over: count,
        }
    }

    /// One has been received; so many are there now.
    pub(super) fn received(&mut self, count: u16) {
        self.count = count;
    }

    /// One has been released, by its PUBREL; so many are there now. Those that were carried over are released first,
    /// as far as this can be told.
    pub(super) fn released(&mut self, count: u16) {
        self.count = count;
        self.carried_over = self.carried_over.min(count);
    }

    /// One that came on this connection was refused.
    pub(super) fn refused(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Whether these and so many others fill a window: those that were carried over take no place in it.
    pub(super) fn fills(&self, window: u16, others: usize) -> bool {
        usize::from(self.count) + others >= usize::from(window) + usize::from(self.carried_over)
    }
}

/// QoS 2 ids of a 3.1 or 3.1.1 client that were refused on this connection and not released. On the next one it
/// cannot know what it was told: a repeated PUBLISH is judged again there.
#[derive(Default)]
pub(super) struct RefusedIds(BTreeSet<PacketId>);

impl RefusedIds {
    pub(super) fn insert(&mut self, packet_id: PacketId) {
        self.0.insert(packet_id);
    }

    pub(super) fn release(&mut self, packet_id: PacketId) {
        self.0.remove(&packet_id);
    }

    pub(super) fn contains(&self, packet_id: PacketId) -> bool {
        self.0.contains(&packet_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_was_carried_over_takes_no_place_in_the_window() {
        let mut ids = ReceivedIds::carried_over(3);
        assert!(!ids.fills(2, 1));
        ids.received(4);
        assert!(ids.fills(2, 1));
        ids.refused();
        assert!(!ids.fills(2, 1));
    }

    #[test]
    fn a_place_is_free_again_when_an_id_of_this_connection_is_released() {
        let mut ids = ReceivedIds::carried_over(0);
        ids.received(1);
        ids.received(2);
        assert!(ids.fills(2, 0));
        ids.released(1);
        assert!(!ids.fills(2, 0) && ids.fills(2, 1));
    }

    #[test]
    fn what_is_carried_over_is_never_more_than_what_is_there() {
        let mut ids = ReceivedIds::carried_over(2);
        ids.released(1);
        ids.released(0);
        ids.received(1);
        assert!(ids.fills(1, 0));
    }

    #[test]
    fn a_refused_id_is_known_until_it_is_released() {
        let (mut ids, id) = (RefusedIds::default(), PacketId::new(5).unwrap());
        ids.insert(id);
        assert!(ids.contains(id));
        ids.release(id);
        assert!(!ids.contains(id));
    }
}
