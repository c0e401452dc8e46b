//! [`Pending`]: the calls of `write` that wait for the next commit.
//!
//! A batch is committed as a whole, so only its outcome counts: what a later call makes superfluous is
//! dropped here and costs no I/O. That is how a message which is delivered before its commit is never
//! written.
//!
//! Invariants: the batch applied to the file gives what all its calls, applied one after another, would
//! have given (`tests::model`); completions are in the order of the calls.
//!
//! `superseding` is what one write changes in it.

mod superseding;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{Seq, SessionId, WillId, Write, Writes, is_refusable};

use super::kept::{Kept, PacketKey};

type Map<K, V> = HashMap<K, V, RandomState>;

/// What an operation costs in memory besides its message.
const OP_BYTES: usize = 256;
/// What a call costs in memory.
const CALL_BYTES: usize = 256;
/// A buffer that has grown beyond this many operations is not kept for the next batch, and not left with more obsolete ones than
/// others.
const KEEP_OPS: usize = 65_536;

/// One call that somebody waits for, or that must be rejected as a whole.
#[derive(Debug)]
pub(super) struct Call<C> {
    pub(super) completion: Option<C>,
    /// It is rejected if it cannot be kept; other calls are tried again.
    pub(super) refusable: bool,
    /// It is an append and nothing else.
    lone: bool,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Op {
    /// `None`: a later call has made it superfluous.
    pub(super) write: Option<Write>,
    /// Of [`Pending::calls`]; [`NO_CALL`] if nobody waits.
    call: u32,
    /// As in [`Source`].
    pub(super) part: u16,
    /// Of a message: a device has acknowledged it since.
    pub(super) acknowledged: bool,
    /// Of a message or a will: it is tried again, and a commit that failed may have reached the file all the same.
    pub(super) again: bool,
    /// Bytes of what it holds.
    pub(super) size: usize,
}

/// Which call an operation is of, and where what it is about is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    call: u32,
    /// The part of the user that the call is about; 0 in a kind of store that has no parts.
    part: u16,
}

const NO_CALL: u32 = u32::MAX;

/// Operations in the order of their calls, less the obsolete ones.
#[derive(Debug)]
pub(super) struct Pending<C> {
    pub(super) ops: Vec<Op>,
    live: usize,
    calls: Vec<Call<C>>,
    /// Completions of calls that have become obsolete.
    early: Vec<C>,
    by_seq: Map<Seq, u32>,
    by_packet: Map<PacketKey, u32>,
    by_session: Map<SessionId, u32>,
    by_will: Map<WillId, u32>,
    by_subscription: Map<(SessionId, Box<str>), u32>,
    by_claim: Map<(SessionId, Seq), u32>,
    by_push: Map<(UserId, UserId), u32>,
    by_owner: Map<UserId, u32>,
    bytes: usize,
    highest: u64,
    /// Ends of sessions.
    ends: usize,
}

impl<C> Default for Pending<C> {
    fn default() -> Self {
        Self {
            ops: Vec::new(),
            live: 0,
            calls: Vec::new(),
            early: Vec::new(),
            by_seq: Map::default(),
            by_packet: Map::default(),
            by_session: Map::default(),
            by_will: Map::default(),
            by_subscription: Map::default(),
            by_claim: Map::default(),
            by_push: Map::default(),
            by_owner: Map::default(),
            bytes: 0,
            highest: 0,
            ends: 0,
        }
    }
}

impl<C> Pending<C> {
    /// Takes a call. Costs no I/O and completes nothing.
    pub(super) fn push(&mut self, kept: &Kept, part: u16, writes: Writes, completion: Option<C>) {
        let refusable = is_refusable(&writes);
        let lone = refusable && writes.len() == 1;
        let appends = writes.iter().any(|it| matches!(it, Write::Append(_)));
        let call = if completion.is_some() || (appends && !lone) {
            self.calls.push(Call {
                completion,
                refusable,
                lone,
            });
            index(self.calls.len() - 1)
        } else {
            NO_CALL
        };
        for write in writes {
            // The session may have ended on another thread: then nothing would ever remove it.
            if let Write::Received(_, session, _) = &write
                && !self.has_session(kept, *session)
            {
                continue;
            }
            self.put(kept, write, Source { call, part });
        }
        if self.ops.len() > KEEP_OPS && self.ops.len() > self.live * 2 {
            self.forget_obsolete(kept);
        }
    }

    /// Frees the places of what later calls have made superfluous: a batch that waits for long stays as small as what it changes.
    pub(super) fn forget_obsolete(&mut self, kept: &Kept) {
        let all = std::mem::take(self);
        self.absorb(kept, all);
    }

    /// Whether there is nothing to write and nothing to complete.
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0 && self.calls.is_empty() && self.early.is_empty()
    }

    /// Whether there is nothing to write.
    pub(super) fn is_idle(&self) -> bool {
        self.live == 0
    }

    /// How many changes there are.
    pub(super) fn changes(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.ops.len() * OP_BYTES + self.calls.len() * CALL_BYTES
    }

    /// The highest number of a message or session ever pushed.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// How many sessions end.
    pub(super) fn ends(&self) -> usize {
        self.ends
    }

    pub(super) fn take_calls(&mut self) -> Vec<Call<C>> {
        std::mem::take(&mut self.calls)
    }

    /// How many completions are due already.
    pub(super) fn early(&self) -> usize {
        self.early.len()
    }

    pub(super) fn take_early(&mut self) -> Vec<C> {
        std::mem::take(&mut self.early)
    }

    /// A message that waits to be written.
    pub(super) fn message(&self, seq: Seq) -> Option<&Arc<Message>> {
        match &self.ops[*self.by_seq.get(&seq)? as usize].write {
            Some(Write::Append(append) | Write::Retain(append)) => Some(&append.message),
            _ => None,
        }
    }

    /// Whether nothing of `seq` can be read from the file any more once this is committed.
    pub(super) fn removes(&self, seq: Seq) -> bool {
        self.by_seq
            .get(&seq)
            .is_some_and(|&at| matches!(self.ops[at as usize].write, Some(Write::Remove(_))))
    }

    /// Says in `kept` what stands in the file when this batch is committed.
    pub(super) fn note(&self, kept: &mut Kept) {
        for op in &self.ops {
            match &op.write {
                Some(Write::Received(_, session, id)) => {
                    kept.packet(PacketKey::received(*session, *id));
                }
                Some(Write::Released(session, id)) => {
                    kept.free(PacketKey::received(*session, *id));
                }
                Some(Write::InFlight(session, id, _)) => {
                    kept.packet(PacketKey::in_flight(*session, *id));
                }
                Some(Write::EndInFlight(session, id)) => {
                    kept.free(PacketKey::in_flight(*session, *id));
                }
                Some(Write::Session(record)) => kept.session(record.id),
                Some(Write::EndSession(session)) => kept.end_session(*session),
                Some(Write::Claim(session, seq)) => kept.claim(*session, *seq),
                Some(Write::EndClaim(session, seq)) => kept.end_claim(*session, *seq),
                _ => {}
            }
        }
    }

    /// What is left of a batch that could not be committed, to be tried again: all but the messages of the calls that are
    /// rejected, and the packet ids that were received with them. `kept` is made to
    /// allow for either outcome.
    pub(super) fn retry(&self, calls: Vec<Call<C>>, kept: &mut Kept) -> (Self, Vec<C>) {
        let mut again = Self {
            highest: self.highest,
            ..Self::default()
        };
        let mut rejected = Vec::new();
        // Where each of the calls is among those of `again`.
        let mut places = Vec::with_capacity(calls.len());
        for call in calls {
            if call.refusable {
                places.push(NO_CALL);
                rejected.extend(call.completion);
            } else {
                places.push(index(again.calls.len()));
                again.calls.push(call);
            }
        }
        self.allow_for_either(kept);
        for op in &self.ops {
            let Some(write) = &op.write else { continue };
            let of = op.call;
            let call = places.get(of as usize).copied().unwrap_or(NO_CALL);
            let is_rejected = of != NO_CALL && call == NO_CALL;
            let write = match write {
                // Of an append that nobody waits for, nobody has to be told either.
                Write::Append(_) if call == NO_CALL => continue,
                // It is still due.
                Write::EndWill(..) if is_rejected => continue,
                // The id was free before the call, or else the message would not have been appended.
                Write::Received(_, session, id) if is_rejected => Write::Released(*session, *id),
                other => other.clone(),
            };
            let may_be_there =
                matches!(write, Write::Append(_) | Write::Retain(_) | Write::Will(_));
            again.put(
                kept,
                write,
                Source {
                    call,
                    part: op.part,
                },
            );
            if may_be_there && let Some(last) = again.ops.last_mut() {
                (last.acknowledged, last.again) = (op.acknowledged, true);
            }
        }
        (again, rejected)
    }

    /// The same of calls that nobody has tried to commit, to be refused because the disk is in trouble.
    pub(super) fn refuse(&mut self, kept: &mut Kept) -> Vec<C> {
        let calls = self.take_calls();
        if !calls.iter().any(|call| call.refusable) {
            self.calls = calls;
            return Vec::new();
        }
        let (mut rest, refused) = self.retry(calls, kept);
        rest.early = self.take_early();
        *self = rest;
        refused
    }

    /// Appends the calls of `later`.
    pub(super) fn absorb(&mut self, kept: &Kept, later: Self) {
        let offset = index(self.calls.len());
        self.calls.extend(later.calls);
        self.early.extend(later.early);
        self.highest = self.highest.max(later.highest);
        for op in later.ops {
            let Some(write) = op.write else { continue };
            let call = match op.call {
                NO_CALL => NO_CALL,
                call => call + offset,
            };
            let (acknowledged, again) = (op.acknowledged, op.again);
            self.put(
                kept,
                write,
                Source {
                    call,
                    part: op.part,
                },
            );
            if (acknowledged || again)
                && let Some(op) = self.ops.last_mut()
            {
                (op.acknowledged, op.again) = (acknowledged, again);
            }
        }
    }

    /// Empties it, but keeps the room it has taken.
    pub(super) fn clear(&mut self) {
        if self.ops.capacity() > KEEP_OPS {
            *self = Self::default();
            return;
        }
        self.ops.clear();
        self.calls.clear();
        self.early.clear();
        self.by_seq.clear();
        self.by_packet.clear();
        self.by_session.clear();
        self.by_will.clear();
        self.by_subscription.clear();
        self.by_claim.clear();
        self.by_push.clear();
        self.by_owner.clear();
        self.live = 0;
        self.bytes = 0;
        self.highest = 0;
        self.ends = 0;
    }

    /// The same for packet ids and sessions whose batch may or may not have reached the file.
    fn allow_for_either(&self, kept: &mut Kept) {
        for op in &self.ops {
            match &op.write {
                Some(Write::Received(_, session, id) | Write::Released(session, id)) => {
                    kept.packet(PacketKey::received(*session, *id));
                }
                Some(Write::InFlight(session, id, _) | Write::EndInFlight(session, id)) => {
                    kept.packet(PacketKey::in_flight(*session, *id));
                }
                Some(Write::EndSession(session)) => kept.session(*session),
                Some(Write::Claim(session, seq) | Write::EndClaim(session, seq)) => {
                    kept.claim(*session, *seq);
                }
                _ => {}
            }
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("memory ends before 2^32 operations")
}
