//! What follows from a change of one user, as plain values: the router turns them into writes, wakes and the rest.

use std::sync::Arc;

use jam_wire::packet::PacketId;
use smallvec::SmallVec;

use super::tally::Tally;
use super::{DueWill, EndedAccounts, Listeners};
use crate::ids::{ClientId, UserId};
use crate::link::{Link, LinkId, Responder};
use crate::loads::Load;
use crate::mailbox::{Gone, Residence};
use crate::push::DuePush;
use crate::store::{Seq, SessionId, Write, Writes};
use crate::time::Time;

/// What others have to be told. Writes go out under the lock, the rest when it is free.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Each is one call of the store, with what it sets free.
    pub(crate) writes: SmallVec<[(Writes, Option<Awaits>); 1]>,
    pub(crate) wake: SmallVec<[Arc<Link>; 2]>,
    /// Entries that left the log within their grace: their senders need not wait any longer.
    pub(crate) acked_in_grace: SmallVec<[Seq; 4]>,
    /// `None` on the common path.
    pub(crate) rare: Option<Box<RareEffects>>,
}

/// Effects of rare operations, boxed so that the common path allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct RareEffects {
    /// The connection whose session another one has taken over.
    pub(crate) displaced: Option<Arc<Link>>,
    pub(crate) wills: Vec<DueWill>,
    /// Messages that a connection needs before it can go on.
    pub(crate) load: Option<Load>,
    /// Timers that are no longer wanted, and new ones.
    pub(crate) unset: Vec<(Time, Alarm)>,
    pub(crate) set: Vec<(Time, Alarm)>,
    /// Pushes that are due.
    pub(crate) pushes: Vec<DuePush>,
    /// Whether there is something to tell about the user's presence, or to them.
    pub(crate) look: bool,
    /// Whether a device has begun or ceased to watch the user's friends, or asks for them again.
    pub(crate) look_at_friends: bool,
    /// What has ended with an account.
    pub(crate) ended: Option<EndedAccounts>,
    /// Devices that subscribe to what the server writes, more than before.
    pub(crate) listeners: Listeners,
    /// What is to be counted.
    pub(crate) tally: Tally,
}

/// What a user's timer is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// A will, or the end of a session.
    Device(ClientId),
    /// The deadline of a message, or the end of a collapse window.
    Pushes,
    /// The user may have been away for long enough.
    Presence,
    /// Something expires.
    Expiry,
}

/// What waits for writes about a user to be committed.
#[derive(Debug)]
pub(crate) enum Awaits {
    /// The answer to a client.
    Client(Responder),
    /// A packet to a device, or all that are to come.
    Device(Which, Option<PacketId>),
    /// The delivery of a message of the user's log, and the answer to its publisher, if they wait for one.
    Message {
        seq: Seq,
        publisher: Option<Responder>,
        origin: Origin,
    },
}

/// Which session of a user: by its number, or, of one that ends with its connection, by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Lasting(SessionId),
    Of(LinkId),
}

/// What is committed together with a message, and has to be undone if that is rejected.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Nothing.
    Plain,
    /// It was published at QoS 2, under an id of a session of this user.
    Received(UserId, SessionId, PacketId),
    /// It is a will, which is due again.
    Will(DueWill),
    /// It says that this message of this user's log, which is with the store, has arrived.
    ReceiptOf(UserId, Seq),
}

impl Effects {
    pub(super) fn rare(&mut self) -> &mut RareEffects {
        self.rare.get_or_insert_default()
    }

    /// No timer that a timer sets is due by `now`: it would ring for ever.
    pub(super) fn postpone_timers(&mut self, now: Time) {
        for (due, alarm) in self.rare.iter_mut().flat_map(|rare| &mut rare.set) {
            *due = due.again_after(now, alarm);
        }
    }

    pub(super) fn write(&mut self, write: Write) {
        self.write_all(SmallVec::from_iter([write]));
    }

    /// Writes without a completion join the call that was made just before: a crash keeps all of it or nothing.
    pub(crate) fn write_all(&mut self, writes: Writes) {
        if writes.is_empty() {
            return;
        }
        match self.writes.last_mut() {
            Some((before, None)) => before.extend(writes),
            _ => self.writes.push((writes, None)),
        }
    }

    /// What a client waits for. Gives it back if there is nothing to wait for.
    pub(crate) fn write_for(
        &mut self,
        client: Responder,
        writes: Option<Writes>,
    ) -> Option<Responder> {
        let Some(writes) = writes else {
            return Some(client);
        };
        self.writes.push((writes, Some(Awaits::Client(client))));
        None
    }

    /// A will that has left its session is kept in the same call as that it has left.
    pub(super) fn wills_due(&mut self, due: Option<DueWill>) {
        let Some(due) = due else { return };
        if let Some(record) = due.record() {
            self.write(Write::Will(Box::new(record)));
        }
        self.rare().wills.push(due);
    }

    pub(super) fn gone(&mut self, gone: Gone) {
        match gone.residence {
            Residence::MemoryOnly => {}
            Residence::Grace => self.acked_in_grace.push(gone.seq),
            Residence::Committing | Residence::Stored => {
                self.write(Write::Remove(gone.seq));
            }
        }
    }

    pub(super) fn all_gone(&mut self, gone: Vec<Gone>) {
        gone.into_iter().for_each(|gone| self.gone(gone));
    }
}

impl Origin {
    pub(crate) fn write(&self) -> Option<Write> {
        match self {
            Self::Plain => None,
            Self::Received(sender, session, packet_id) => {
                Some(Write::Received(sender.clone(), *session, *packet_id))
            }
            Self::Will(due) => due.id.map(|id| Write::EndWill(due.user.clone(), id)),
            Self::ReceiptOf(receiver, seq) => Some(Write::AnswerAfter(receiver.clone(), *seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jam_wire::packet::{Publish, PublishProperties, QoS};

    use super::*;
    use crate::mailbox::{DeviceSet, Kind};
    use crate::message::Message;
    use crate::push::{PushAudience, PushRules};
    use crate::store::Sequence;
    use crate::user::{User, UserLimits};

    const NOW: Time = Time::from_millis(7_000);
    const LIMITS: UserLimits = UserLimits {
        many_devices: true,
        max_messages: 1,
        max_bytes: 1_000,
        max_age: Duration::MAX,
        push: PushRules {
            audience: PushAudience::Off,
            deadline: Duration::ZERO,
            collapse: Duration::ZERO,
        },
    };

    /// A user whose log has a retained message that has expired and that only another look at expiry would end: a fault,
    /// for what is retained is replaced before it is looked at.
    fn user_with_an_expiry_in_the_past() -> User {
        let id = UserId::parse("1").unwrap();
        let properties = PublishProperties {
            message_expiry_secs: Some(1),
            ..PublishProperties::default()
        };
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "/1/profile".into(),
            packet_id: None,
            properties: Some(Box::new(properties)),
            payload: bytes::Bytes::new(),
        };
        let message = Message::new(publish, id.clone(), NOW - Duration::from_secs(2));
        let mut user = User::new(id);
        let (kind, residence) = (Kind::Retained, Residence::Stored);
        let mailbox = &mut user.mailbox;
        mailbox.append(
            1,
            Arc::new(message),
            kind,
            residence,
            DeviceSet::default(),
            LIMITS.max_age,
        );
        assert!(mailbox.restore_sent(1, 0));
        user
    }

    #[test]
    #[cfg_attr(
        debug_assertions,
        should_panic(expected = "Expiry has just been dealt with")
    )]
    fn a_timer_that_is_set_for_what_has_been_dealt_with_rings_later() {
        let (mut user, mut effects) = (user_with_an_expiry_in_the_past(), Effects::default());
        let numbers = Sequence::default();
        user.handle_timeout(&Alarm::Expiry, NOW, &LIMITS, &mut effects, &numbers);
        assert!(effects.rare().set.iter().all(|(due, _)| *due > NOW));
        assert_eq!(effects.rare().set.len(), 1);
    }
}
