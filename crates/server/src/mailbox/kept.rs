//! [`Kept`]: what memory knows of the file, so that a delete is written only if there may be something to delete.
//!
//! Invariant: everything that is in the file is here. What is here may be missing in the file.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use jam_core::store::{Seq, SessionId};
use jam_wire::packet::PacketId;

/// A packet id of a session, in one of two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PacketKey {
    session: SessionId,
    /// The packet id; from the client if the bit above it is set.
    id: u32,
}

impl PacketKey {
    const RECEIVED: u32 = 1 << 16;

    pub(super) fn received(session: SessionId, id: PacketId) -> Self {
        Self {
            session,
            id: u32::from(id.get()) | Self::RECEIVED,
        }
    }

    pub(super) fn in_flight(session: SessionId, id: PacketId) -> Self {
        Self {
            session,
            id: id.get().into(),
        }
    }
}

/// What may be in the file once the batches that were handed out are committed. Deleting anything else
/// needs no write.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// All sessions. Most have no packet id in use, and take no more memory than this.
    sessions: HashSet<SessionId, RandomState>,
    /// The packet ids in use, of sessions that have any.
    packets: HashMap<SessionId, HashSet<u32, RandomState>, RandomState>,
    /// The retained messages that sessions are still to get.
    claims: HashMap<SessionId, HashSet<Seq, RandomState>, RandomState>,
    /// Messages that could not be read: they are left in the file for an operator to look at.
    unreadable: HashSet<Seq, RandomState>,
}

impl Kept {
    pub(super) fn session(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    pub(super) fn sessions(&mut self, sessions: impl ExactSizeIterator<Item = SessionId>) {
        self.sessions.extend(sessions);
    }

    pub(super) fn packet(&mut self, key: PacketKey) {
        self.sessions.insert(key.session);
        self.packets.entry(key.session).or_default().insert(key.id);
    }

    pub(super) fn claim(&mut self, session: SessionId, seq: Seq) {
        self.claims.entry(session).or_default().insert(seq);
    }

    pub(super) fn has_claim(&self, session: SessionId, seq: Seq) -> bool {
        self.claims
            .get(&session)
            .is_some_and(|seqs| seqs.contains(&seq))
    }

    pub(super) fn end_claim(&mut self, session: SessionId, seq: Seq) {
        if let Entry::Occupied(mut seqs) = self.claims.entry(session) {
            seqs.get_mut().remove(&seq);
            if seqs.get().is_empty() {
                seqs.remove();
            }
        }
    }

    pub(super) fn unreadable(&mut self, seq: Seq) {
        self.unreadable.insert(seq);
    }

    pub(super) fn is_unreadable(&self, seq: Seq) -> bool {
        self.unreadable.contains(&seq)
    }

    pub(super) fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(super) fn has(&self, key: PacketKey) -> bool {
        self.packets
            .get(&key.session)
            .is_some_and(|ids| ids.contains(&key.id))
    }

    pub(super) fn free(&mut self, key: PacketKey) {
        if let Entry::Occupied(mut ids) = self.packets.entry(key.session) {
            ids.get_mut().remove(&key.id);
            if ids.get().is_empty() {
                ids.remove();
            }
        }
    }

    pub(super) fn end_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.packets.remove(&session);
        self.claims.remove(&session);
    }
}
