//! What a commit sets free: answers to clients, packets to devices, messages of a log.
//!
//! Invariants: the store knows an [`OnCommit`] as a [`Completion`] and nothing more; it is called when no lock of the
//! router is held.

use std::sync::Weak;

use jam_wire::packet::PacketId;

use super::Router;
use crate::ids::UserId;
use crate::link::Responder;
use crate::metrics::Path;
use crate::policy::refusals;
use crate::store::{Completion, Seq, SessionId};
use crate::user::{Awaits, Origin, Which};

/// What follows when writes are committed or rejected.
#[derive(Debug)]
pub struct OnCommit(Follows);

#[derive(Debug)]
enum Follows {
    /// A client is answered.
    Respond(Responder),
    /// A packet goes to a device, or all that are to come.
    Send {
        router: Weak<Router>,
        user: UserId,
        session: Which,
        packet_id: Option<PacketId>,
    },
    /// A message may be delivered, and its publisher is answered.
    Deliver {
        router: Weak<Router>,
        user: UserId,
        seq: Seq,
        publisher: Option<Responder>,
        origin: Origin,
    },
}

impl Completion for OnCommit {
    fn committed(self) {
        match self.0 {
            Follows::Respond(client) => client.succeed(Path::Disk),
            Follows::Send {
                router,
                user,
                session,
                packet_id,
            } => {
                if let Some(router) = router.upgrade() {
                    router.flight_stored(&user, session, packet_id);
                }
            }
            Follows::Deliver {
                router,
                user,
                seq,
                publisher,
                origin: _,
            } => {
                if let Some(publisher) = publisher {
                    publisher.succeed(Path::Disk);
                }
                if let Some(router) = router.upgrade() {
                    router.message_stored(&user, seq);
                }
            }
        }
    }

    fn rejected(self) {
        match self.0 {
            Follows::Respond(client) => client.refuse(refusals::STORE),
            Follows::Send { .. } => {}
            Follows::Deliver {
                router,
                user,
                seq,
                publisher,
                origin,
            } => {
                if let Some(router) = router.upgrade() {
                    router.message_rejected(&user, seq);
                    match origin {
                        Origin::Plain | Origin::ReceiptOf(..) => {}
                        Origin::Received(sender, session, packet_id) => {
                            router.publish_rejected(&sender, session, packet_id);
                        }
                        Origin::Will(due) => router.put_back_will(due),
                    }
                }
                if let Some(publisher) = publisher {
                    publisher.refuse(refusals::STORE);
                }
            }
        }
    }
}

impl Router {
    /// What follows when writes about a user are committed.
    pub(super) fn on_commit(&self, user: &UserId, awaits: Awaits) -> OnCommit {
        OnCommit(match awaits {
            Awaits::Client(client) => Follows::Respond(client),
            Awaits::Device(session, packet_id) => Follows::Send {
                router: self.this.clone(),
                user: user.clone(),
                session,
                packet_id,
            },
            Awaits::Message {
                seq,
                publisher,
                origin,
            } => Follows::Deliver {
                router: self.this.clone(),
                user: user.clone(),
                seq,
                publisher,
                origin,
            },
        })
    }

    /// The store has a message that could not be delivered before.
    fn message_stored(&self, user: &UserId, seq: Seq) {
        self.with_user(user, |user, effects| user.message_stored(seq, effects));
    }

    /// The store could not keep a message.
    fn message_rejected(&self, user: &UserId, seq: Seq) {
        self.with_user(user, |user, effects| user.forget(seq, effects));
    }

    /// The same, of a message that was published at QoS 2: its id is free, on whatever connection its
    /// sender is by now.
    fn publish_rejected(&self, sender: &UserId, session: SessionId, id: PacketId) {
        self.with_user(sender, |user, _| user.publish_rejected(session, id));
    }

    /// The store has what waited for it before it could be sent under a packet id.
    fn flight_stored(&self, user: &UserId, session: Which, packet_id: Option<PacketId>) {
        self.with_user(user, |user, effects| {
            user.flight_stored(session, packet_id, effects);
        });
    }
}
