//! What one write changes in a batch: which of the earlier ones it makes superfluous, and whether it is needed itself.

use jam_core::ids::UserId;
use jam_core::store::{Seq, SessionId, WillId, Write};

use super::{Op, Pending, Source, index};
use crate::mailbox::kept::{Kept, PacketKey};

/// Operations among which those of a session that ends are looked for.
const SCAN_OPS: usize = 1024;

impl<C> Pending<C> {
    pub(super) fn put(&mut self, kept: &Kept, write: Write, from: Source) {
        match write {
            Write::Append(ref append) | Write::Retain(ref append) => {
                self.append(append.seq, write, from);
            }
            Write::Acknowledged { seq, waits_for } => {
                self.acknowledge(kept, seq, waits_for, from);
            }
            Write::Remove(seq) => self.remove(kept, seq, from),
            Write::Session(ref record) => self.session(record.id, write, from),
            Write::EndSession(session) => self.end_session(kept, session, from),
            Write::Subscribe(session, ref subscription) => {
                self.subscription((session, subscription.topic.as_str().into()), write, from);
            }
            Write::Unsubscribe(session, ref topic) => {
                self.subscription((session, topic.as_str().into()), write, from);
            }
            Write::Received(_, session, id) => {
                self.packet(PacketKey::received(session, id), write, from);
            }
            Write::InFlight(session, id, _) => {
                self.packet(PacketKey::in_flight(session, id), write, from);
            }
            Write::Released(session, id) => {
                self.free(kept, PacketKey::received(session, id), write, from);
            }
            Write::EndInFlight(session, id) => {
                self.free(kept, PacketKey::in_flight(session, id), write, from);
            }
            Write::Unretain(_) => self.add(write, from),
            Write::Claim(session, seq) => self.claim((session, seq), write, from),
            Write::EndClaim(session, seq) => self.end_claim(kept, session, seq, from),
            Write::Will(ref record) => self.will(record.id, write, from),
            Write::EndWill(_, id) => self.end_will(id, write, from),
            Write::Push(ref push) => {
                let key = (push.receiver.clone(), push.sender.clone());
                self.pushed(key, write, from);
            }
            Write::EndPush(ref receiver, ref sender) => {
                let key = (receiver.clone(), sender.clone());
                self.pushed(key, write, from);
            }
            Write::AnswerAfter(_, seq) => self.answer_after(seq),
            Write::Owner(ref owner) => {
                let user = owner.user.clone();
                self.owner(user, write, from);
            }
            Write::EndOwner(ref user) => {
                let user = user.clone();
                self.owner(user, write, from);
            }
        }
    }

    /// The call of an append is completed with this batch, even if the message is removed: this batch has what is to
    /// be kept before.
    fn answer_after(&mut self, seq: Seq) {
        let op = self.by_seq.get(&seq).map(|&at| &self.ops[at as usize]);
        if let Some(Op {
            write: Some(Write::Append(_)),
            call,
            ..
        }) = op
            && let Some(call) = self.calls.get_mut(*call as usize)
        {
            call.lone = false;
        }
    }

    fn append(&mut self, seq: Seq, write: Write, from: Source) {
        self.highest = self.highest.max(seq);
        let at = self.next();
        self.by_seq.insert(seq, at);
        self.add(write, from);
    }

    fn session(&mut self, session: SessionId, write: Write, from: Source) {
        self.highest = self.highest.max(session);
        let at = self.next();
        let before = self.by_session.insert(session, at);
        self.supersede(before);
        self.add(write, from);
    }

    fn claim(&mut self, claim: (SessionId, Seq), write: Write, from: Source) {
        let at = self.next();
        let before = self.by_claim.insert(claim, at);
        self.supersede(before);
        self.add(write, from);
    }

    fn will(&mut self, will: WillId, write: Write, from: Source) {
        self.highest = self.highest.max(will);
        let at = self.next();
        self.by_will.insert(will, at);
        self.add(write, from);
    }

    fn acknowledge(&mut self, kept: &Kept, seq: Seq, waits_for: u32, from: Source) {
        if kept.is_unreadable(seq) {
            return;
        }
        let at = self.next();
        let before = self.by_seq.get(&seq).copied();
        if let Some(op) = before.map(|before| &mut self.ops[before as usize]) {
            match &mut op.write {
                Some(Write::Append(append) | Write::Retain(append)) => {
                    append.waits_for = waits_for;
                    op.acknowledged = true;
                    return;
                }
                Some(Write::Remove(_)) => return,
                _ => {}
            }
        }
        self.by_seq.insert(seq, at);
        self.supersede(before);
        self.add(Write::Acknowledged { seq, waits_for }, from);
    }

    fn remove(&mut self, kept: &Kept, seq: Seq, from: Source) {
        if kept.is_unreadable(seq) {
            return;
        }
        let at = self.next();
        let before = self.by_seq.get(&seq).copied();
        if let Some(before) = before {
            let op = &self.ops[before as usize];
            if let Some(Write::Append(_) | Write::Retain(_)) = &op.write {
                let (of, again) = (op.call as usize, op.again);
                self.supersede(Some(before));
                self.by_seq.remove(&seq);
                if let Some(of) = self.calls.get_mut(of)
                    && of.lone
                {
                    self.early.extend(of.completion.take());
                }
                if again {
                    self.by_seq.insert(seq, at);
                    self.add(Write::Remove(seq), from);
                }
                return;
            }
        }
        self.by_seq.insert(seq, at);
        self.supersede(before);
        self.add(Write::Remove(seq), from);
    }

    fn packet(&mut self, key: PacketKey, write: Write, from: Source) {
        let at = self.next();
        let before = self.by_packet.insert(key, at);
        self.supersede(before);
        self.add(write, from);
    }

    /// A packet id that stands for nothing any more.
    fn free(&mut self, kept: &Kept, key: PacketKey, write: Write, from: Source) {
        if kept.has(key) {
            self.packet(key, write, from);
            return;
        }
        let before = self.by_packet.remove(&key);
        self.supersede(before);
    }

    fn end_session(&mut self, kept: &Kept, session: SessionId, from: Source) {
        let at = self.next();
        let before = self.by_session.insert(session, at);
        self.supersede(before);
        // Not if there are too many to look at: then they are written and deleted.
        let all = self.ops.len() <= SCAN_OPS;
        if all {
            for at in 0..self.ops.len() {
                if let Some(
                    Write::InFlight(of, ..)
                    | Write::Received(_, of, _)
                    | Write::Claim(of, _)
                    | Write::Subscribe(of, _)
                    | Write::Unsubscribe(of, _),
                ) = self.ops[at].write
                    && of == session
                {
                    self.supersede(Some(index(at)));
                }
            }
        }
        if all && !kept.has_session(session) {
            self.by_session.remove(&session);
            return;
        }
        self.add(Write::EndSession(session), from);
    }

    fn end_will(&mut self, id: WillId, write: Write, from: Source) {
        // With its message it may be rejected, and then the will is still due.
        let may_be_refused = self
            .calls
            .get(from.call as usize)
            .is_some_and(|call| call.refusable);
        if !may_be_refused && let Some(before) = self.by_will.remove(&id) {
            let again = self.ops[before as usize].again;
            self.supersede(Some(before));
            if !again {
                return;
            }
        }
        self.add(write, from);
    }

    fn subscription(&mut self, key: (SessionId, Box<str>), write: Write, from: Source) {
        let at = self.next();
        let before = self.by_subscription.insert(key, at);
        self.supersede(before);
        self.add(write, from);
    }

    fn end_claim(&mut self, kept: &Kept, session: SessionId, seq: Seq, from: Source) {
        let at = self.next();
        let before = self.by_claim.remove(&(session, seq));
        self.supersede(before);
        if kept.has_claim(session, seq) {
            self.by_claim.insert((session, seq), at);
            self.add(Write::EndClaim(session, seq), from);
        }
    }

    /// Whether the session has not ended.
    pub(super) fn has_session(&self, kept: &Kept, session: SessionId) -> bool {
        match self.by_session.get(&session) {
            Some(&at) => matches!(self.ops[at as usize].write, Some(Write::Session(_))),
            None => kept.has_session(session),
        }
    }

    fn pushed(&mut self, key: (UserId, UserId), write: Write, from: Source) {
        let at = self.next();
        let before = self.by_push.insert(key, at);
        self.supersede(before);
        self.add(write, from);
    }

    fn owner(&mut self, user: UserId, write: Write, from: Source) {
        let at = self.next();
        let before = self.by_owner.insert(user, at);
        self.supersede(before);
        self.add(write, from);
    }

    fn supersede(&mut self, before: Option<u32>) {
        if let Some(before) = before
            && let Some(op) = self.ops.get_mut(before as usize)
            && let Some(write) = op.write.take()
        {
            self.ends -= usize::from(matches!(write, Write::EndSession(_)));
            self.bytes -= op.size;
            self.live -= 1;
        }
    }

    fn next(&self) -> u32 {
        index(self.ops.len())
    }

    fn add(&mut self, write: Write, from: Source) {
        let size = usize::try_from(write.weight()).unwrap_or(usize::MAX);
        self.live += 1;
        self.ends += usize::from(matches!(write, Write::EndSession(_)));
        self.bytes += size;
        self.ops.push(Op {
            write: Some(write),
            call: from.call,
            part: from.part,
            acknowledged: false,
            again: false,
            size,
        });
    }
}
