//! What one write changes in a batch: which of the earlier ones it makes superfluous, and whether it is needed itself.

use jam_core::ids::UserId;
use jam_core::store::{Append, Seq, SessionId, WillId, Write};

use super::{Op, Pending, index};
use crate::mailbox::kept::{Kept, PacketKey};

/// Operations among which those of a session that ends are looked for.
const SCAN_OPS: usize = 1024;

impl<C> Pending<C> {
    pub(super) fn put(&mut self, kept: &Kept, write: Write, call: u32) {
        match write {
            Write::Append(append) => self.append(append, call),
            Write::Acknowledged { seq, waits_for } => {
                self.acknowledge(kept, seq, waits_for, call);
            }
            Write::Remove(seq) => self.remove(kept, seq, call),
            Write::Session(record) => {
                self.highest = self.highest.max(record.id);
                let at = self.next();
                let before = self.by_session.insert(record.id, at);
                self.supersede(before);
                self.add(Write::Session(record), call);
            }
            Write::EndSession(session) => self.end_session(kept, session, call),
            Write::Subscribe(session, ref subscription) => {
                self.subscription((session, subscription.topic.as_str().into()), write, call);
            }
            Write::Unsubscribe(session, ref topic) => {
                self.subscription((session, topic.as_str().into()), write, call);
            }
            Write::Received(_, session, id) => {
                self.packet(PacketKey::received(session, id), write, call);
            }
            Write::InFlight(session, id, _) => {
                self.packet(PacketKey::in_flight(session, id), write, call);
            }
            Write::Released(session, id) => {
                self.free(kept, PacketKey::received(session, id), write, call);
            }
            Write::EndInFlight(session, id) => {
                self.free(kept, PacketKey::in_flight(session, id), write, call);
            }
            Write::Retain(ref append) => {
                self.highest = self.highest.max(append.seq);
                let at = self.next();
                self.by_seq.insert(append.seq, at);
                self.add(write, call);
            }
            Write::Unretain(_) => self.add(write, call),
            Write::Claim(session, seq) => {
                let at = self.next();
                let before = self.by_claim.insert((session, seq), at);
                self.supersede(before);
                self.add(write, call);
            }
            Write::EndClaim(session, seq) => self.end_claim(kept, session, seq, call),
            Write::Will(record) => {
                self.highest = self.highest.max(record.id);
                let at = self.next();
                self.by_will.insert(record.id, at);
                self.add(Write::Will(record), call);
            }
            Write::EndWill(_, id) => self.end_will(id, write, call),
            Write::Push(ref push) => {
                let key = (push.receiver.clone(), push.sender.clone());
                self.pushed(key, write, call);
            }
            Write::EndPush(ref receiver, ref sender) => {
                let key = (receiver.clone(), sender.clone());
                self.pushed(key, write, call);
            }
            Write::AnswerAfter(_, seq) => self.answer_after(seq),
            Write::Owner(ref owner) => {
                let user = owner.user.clone();
                self.owner(user, write, call);
            }
            Write::EndOwner(ref user) => {
                let user = user.clone();
                self.owner(user, write, call);
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

    fn append(&mut self, append: Append, call: u32) {
        self.highest = self.highest.max(append.seq);
        let at = self.next();
        self.by_seq.insert(append.seq, at);
        self.add(Write::Append(append), call);
    }

    fn acknowledge(&mut self, kept: &Kept, seq: Seq, waits_for: u32, call: u32) {
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
        self.add(Write::Acknowledged { seq, waits_for }, call);
    }

    fn remove(&mut self, kept: &Kept, seq: Seq, call: u32) {
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
                    self.add(Write::Remove(seq), call);
                }
                return;
            }
        }
        self.by_seq.insert(seq, at);
        self.supersede(before);
        self.add(Write::Remove(seq), call);
    }

    fn packet(&mut self, key: PacketKey, write: Write, call: u32) {
        let at = self.next();
        let before = self.by_packet.insert(key, at);
        self.supersede(before);
        self.add(write, call);
    }

    /// A packet id that stands for nothing any more.
    fn free(&mut self, kept: &Kept, key: PacketKey, write: Write, call: u32) {
        if kept.has(key) {
            self.packet(key, write, call);
            return;
        }
        let before = self.by_packet.remove(&key);
        self.supersede(before);
    }

    fn end_session(&mut self, kept: &Kept, session: SessionId, call: u32) {
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
        self.add(Write::EndSession(session), call);
    }

    fn end_will(&mut self, id: WillId, write: Write, call: u32) {
        // With its message it may be rejected, and then the will is still due.
        let may_be_refused = self
            .calls
            .get(call as usize)
            .is_some_and(|call| call.refusable);
        if !may_be_refused && let Some(before) = self.by_will.remove(&id) {
            let again = self.ops[before as usize].again;
            self.supersede(Some(before));
            if !again {
                return;
            }
        }
        self.add(write, call);
    }

    fn subscription(&mut self, key: (SessionId, Box<str>), write: Write, call: u32) {
        let at = self.next();
        let before = self.by_subscription.insert(key, at);
        self.supersede(before);
        self.add(write, call);
    }

    fn end_claim(&mut self, kept: &Kept, session: SessionId, seq: Seq, call: u32) {
        let at = self.next();
        let before = self.by_claim.remove(&(session, seq));
        self.supersede(before);
        if kept.has_claim(session, seq) {
            self.by_claim.insert((session, seq), at);
            self.add(Write::EndClaim(session, seq), call);
        }
    }

    /// Whether the session has not ended.
    pub(super) fn has_session(&self, kept: &Kept, session: SessionId) -> bool {
        match self.by_session.get(&session) {
            Some(&at) => matches!(self.ops[at as usize].write, Some(Write::Session(_))),
            None => kept.has_session(session),
        }
    }

    fn pushed(&mut self, key: (UserId, UserId), write: Write, call: u32) {
        let at = self.next();
        let before = self.by_push.insert(key, at);
        self.supersede(before);
        self.add(write, call);
    }

    fn owner(&mut self, user: UserId, write: Write, call: u32) {
        let at = self.next();
        let before = self.by_owner.insert(user, at);
        self.supersede(before);
        self.add(write, call);
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

    fn add(&mut self, write: Write, call: u32) {
        let size = usize::try_from(write.weight()).unwrap_or(usize::MAX);
        self.live += 1;
        self.ends += usize::from(matches!(write, Write::EndSession(_)));
        self.bytes += size;
        self.ops.push(Op {
            write: Some(write),
            call,
            acknowledged: false,
            again: false,
            size,
        });
    }
}
