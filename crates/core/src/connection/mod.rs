//! One network connection: packets and the time in, bytes and questions out.
//!
//! The owner of the socket decodes packets and hands them in, writes [`Connection::output`], and tells
//! of wakes, of time-outs and of the socket's end. A connection never waits. Where a rule lacks a fact,
//! [`Progress::Ask`] hands out the question, and nothing more may be handed in before
//! [`Connection::resume`] has brought the answer.
//!
//! Invariants:
//! - *Order*: PUBACK and PUBREC leave in the order of their PUBLISH, each only when its outcome is
//!   resolved; an error is written before the acknowledgement of what caused it.
//! - *Bounded*: no more is fetched while the output holds [`OUTPUT_ENOUGH`] bytes. No packet is taken while
//!   the inflight limit of publishes waits for the store, or when [`ANSWERS_ENOUGH`] bytes of answers have
//!   been added to a full output.
//! - *Heard*: what the client had sent when its connection ends counts ([`Connection::wants_last_input`]), and
//!   before another connection takes its place ([`Progress::Displace`]).
//! - *Alone*: whatever arrives here ends no other connection, but for what section 3 of PROTOCOL.md
//!   says of devices that have authenticated.

mod accept;
mod acknowledgements;
mod aliases;
mod answers;
mod ending;
mod established;
mod gate;
mod inbound;
mod intake;
mod outbound;
mod qos2;
mod receipts;
mod refused;
mod replies;
mod subscribing;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use jam_wire::ReasonCode;
use jam_wire::packet::{Connect, Packet, Publish};

use crate::directory::{Answer, Answers, Question, Unavailable};
use crate::ids::ClientId;
use crate::link::{Displaced, Signals};
pub use crate::output::OUTPUT_ENOUGH;
use crate::output::Output;
use crate::policy::{self, refusals};
use crate::router::Router;
use crate::time::Time;
pub use aliases::MAX_ALIASES;
pub use ending::{End, Ended};
use established::Established;
pub use intake::{ANSWERS_ENOUGH, MAX_CONNECT, TURN_WORK};
use intake::{WORK_BYTES, work_of};
pub use refused::{RefusalCount, TELLINGS_A_SECOND};

/// What is to be done before the next packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing.
    Ready,
    /// Have the directory answer this, then call [`Connection::resume`].
    Ask(Question),
    /// Wait until the connections that this one is going to displace have handled what was sent to them, but
    /// not for long, then call [`Connection::handle_displaced`].
    Displace(Displaced),
}

/// A connection from its first byte to its last.
pub struct Connection {
    router: Arc<Router>,
    phase: Phase,
    output: Output,
}

/// What a phase needs is in boxes: nearly all connections are let in and idle, and take no room for more.
enum Phase {
    /// No CONNECT yet.
    Fresh(Box<Newcomer>),
    /// A CONNECT waits for its account.
    Authenticating(Box<Newcomer>, Box<Connect>),
    /// Let in.
    Established(Box<Established>),
    /// A publish waits for an answer.
    Authorizing(Box<Established>, Box<Asking>),
    /// What is in the output is the last. Why it is, until that has been asked.
    Closing(Option<Box<Ended>>),
}

/// A client that has not been let in.
struct Newcomer {
    waker: Waker,
    address: IpAddr,
    /// When it must have been, in the time without what is skipped.
    deadline: Time,
    /// It has authenticated, and waits until then before it logs another device of its user out.
    is_held_back: bool,
    /// Whether those that it displaces have had their say.
    has_waited: bool,
    /// Of the account that it asks for.
    answers: Answers,
}

/// A publish that is judged with what the directory has answered.
struct Asking {
    publish: Publish,
    question: Question,
    answers: Answers,
}

impl Connection {
    /// A connection from `address`. `waker` is woken when [`Self::handle_wake`] has something to do.
    #[must_use]
    pub fn new(router: Arc<Router>, address: IpAddr, waker: Waker, now: Time) -> Self {
        let awake = now - router.adjustments().skipped();
        let deadline = awake + router.rules().connect_timeout;
        let newcomer = Newcomer {
            waker,
            address,
            deadline,
            is_held_back: false,
            has_waited: false,
            answers: Answers::default(),
        };
        Self {
            router,
            phase: Phase::Fresh(Box::new(newcomer)),
            output: Output::default(),
        }
    }

    /// The time without what has been skipped (the machine slept, the clock was set): what clients are given is
    /// counted by it, for none has been silent then.
    fn awake(&self, now: Time) -> Time {
        now - self.router.adjustments().skipped()
    }

    /// Takes one packet of the client.
    pub fn handle_packet(&mut self, packet: Packet, now: Time) -> Progress {
        let (work, before) = (work_of(&packet), self.output.len());
        let progress = self.dispatch(packet, now);
        let written = self.output.len().saturating_sub(before);
        if let Some(established) = self.established() {
            established.add_work(work + written / WORK_BYTES);
        }
        self.note_answers(before);
        progress
    }

    fn established(&mut self) -> Option<&mut Established> {
        match &mut self.phase {
            Phase::Established(established) | Phase::Authorizing(established, ..) => {
                Some(established)
            }
            Phase::Fresh(_) | Phase::Authenticating(..) | Phase::Closing(_) => None,
        }
    }

    fn dispatch(&mut self, packet: Packet, now: Time) -> Progress {
        let awake = self.awake(now);
        match std::mem::replace(&mut self.phase, Phase::Closing(None)) {
            Phase::Fresh(mut newcomer) => match packet {
                Packet::Connect(connect) => {
                    // The client has done its part: what it waits for now has that time again.
                    newcomer.deadline = awake + self.router.rules().connect_timeout;
                    self.handle_connect(newcomer, connect, now)
                }
                _ => Progress::Ready,
            },
            Phase::Established(established) => self.handle_established(established, packet, now),
            waiting @ (Phase::Authenticating(..) | Phase::Authorizing(..)) => {
                debug_assert!(
                    false,
                    "a packet was handed in before the answer to a question"
                );
                self.phase = waiting;
                Progress::Ready
            }
            closing @ Phase::Closing(_) => {
                self.phase = closing;
                Progress::Ready
            }
        }
    }

    /// Goes on after [`Progress::Ask`]: the directory has answered, or could not.
    pub fn resume(&mut self, answer: Result<Answer, Unavailable>, now: Time) -> Progress {
        match std::mem::replace(&mut self.phase, Phase::Closing(None)) {
            Phase::Authenticating(mut newcomer, connect) => {
                match answer.and_then(|answer| newcomer.answers.add(answer)) {
                    Ok(()) => self.handle_connect(newcomer, connect, now),
                    Err(Unavailable) => {
                        self.refuse_connect(&connect, &refusals::CONNECT_WITHOUT_DIRECTORY);
                        Progress::Ready
                    }
                }
            }
            Phase::Authorizing(mut established, mut asking) => {
                match answer.and_then(|answer| asking.answers.add(answer)) {
                    Ok(()) => {
                        let Asking {
                            publish, answers, ..
                        } = *asking;
                        self.authorize(established, publish, Some(answers), now)
                    }
                    Err(Unavailable) => {
                        let refusal = policy::without_directory(&asking.question);
                        established.refuse(
                            &asking.publish,
                            &refusal,
                            &self.router,
                            &mut self.output,
                            now,
                        );
                        self.phase = Phase::Established(established);
                        Progress::Ready
                    }
                }
            }
            other => {
                self.phase = other;
                Progress::Ready
            }
        }
    }

    /// Goes on after [`Progress::Displace`].
    pub fn handle_displaced(&mut self, now: Time) -> Progress {
        match std::mem::replace(&mut self.phase, Phase::Closing(None)) {
            Phase::Authenticating(mut newcomer, connect) => {
                // It has waited: its token may have changed.
                newcomer.answers.forget();
                self.handle_connect(newcomer, connect, now)
            }
            other => {
                self.phase = other;
                Progress::Ready
            }
        }
    }

    /// Bytes have arrived, of whatever: the client is alive.
    pub fn handle_input(&mut self, now: Time) {
        let awake = self.awake(now);
        if let Some(established) = self.established() {
            established.heard(awake);
        }
    }

    /// The server itself was held up and may not have heard the client: it has at least so long.
    pub fn excuse(&mut self, now: Time, at_least: Duration) {
        let awake = self.awake(now);
        if let Some(established) = self.established() {
            established.excuse(awake, at_least);
        }
    }

    /// Does what others left for this connection, and sends what waits for its device. Whether that is
    /// something that the client has to acknowledge.
    pub fn handle_wake(&mut self, now: Time) -> bool {
        let (awake, before) = (self.awake(now), self.output.len());
        let (Phase::Established(established) | Phase::Authorizing(established, ..)) =
            &mut self.phase
        else {
            return false;
        };
        let Signals {
            outcomes,
            mail,
            evicted,
            notices,
            ..
        } = established.link.take_signals();
        if let Some(notices) = notices {
            let rare = established.rare.get_or_insert_default();
            rare.notices.extend(*notices);
        }
        let had_connack = established.gate.connack_sent();
        established.settle(outcomes, &self.router, &mut self.output, now);
        established.connack_without_store(&self.router, &mut self.output, now);
        if established.gate.connack_sent() && !had_connack {
            established.heard(awake); // from now on it is the client's turn
        }
        if let Some(why) = evicted {
            self.evict(why, now);
            return false;
        }
        self.note_answers(before);
        let (Phase::Established(established) | Phase::Authorizing(established, ..)) =
            &mut self.phase
        else {
            return false;
        };
        (mail || established.has_mail) && established.deliver(&self.router, &mut self.output, now)
    }

    /// Output has been written: sends more of what waits for the device, if it was held back.
    pub fn handle_flushed(&mut self, now: Time) {
        let has_room = self.output.len() < OUTPUT_ENOUGH;
        if let Phase::Established(established) | Phase::Authorizing(established, ..) =
            &mut self.phase
        {
            if has_room && let Some(rare) = &mut established.rare {
                rare.answers_beyond = 0;
            }
            if established.has_mail {
                established.deliver(&self.router, &mut self.output, now);
            }
        }
    }

    /// The time of [`Self::deadline`] has come.
    pub fn handle_timeout(&mut self, now: Time) -> Progress {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Progress::Ready;
        }
        match std::mem::replace(&mut self.phase, Phase::Closing(None)) {
            Phase::Authenticating(mut newcomer, connect) if newcomer.is_held_back => {
                newcomer.is_held_back = false;
                newcomer.answers.forget();
                newcomer.deadline = self.awake(now) + self.router.rules().connect_timeout;
                return self.handle_connect(newcomer, connect, now);
            }
            other => self.phase = other,
        }
        match &self.phase {
            Phase::Fresh(_) => self.end(None, End::NoConnect),
            Phase::Authenticating(_, connect) => {
                let connect = connect.clone();
                self.refuse_connect(&connect, &refusals::CONNECT_WITHOUT_DIRECTORY);
            }
            Phase::Established(_) | Phase::Authorizing(..) => {
                self.disconnect(ReasonCode::KeepAliveTimeout, End::KeepAlive, now);
            }
            Phase::Closing(_) => {}
        }
        Progress::Ready
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let awake = match &self.phase {
            Phase::Fresh(newcomer) | Phase::Authenticating(newcomer, _) => Some(newcomer.deadline),
            Phase::Established(established) | Phase::Authorizing(established, _) => {
                established.deadline()
            }
            Phase::Closing(_) => None,
        };
        awake.map(|awake| awake + self.router.adjustments().skipped())
    }

    /// The client, from the end of its login to the end of its connection.
    #[must_use]
    pub fn client(&self) -> Option<&ClientId> {
        match &self.phase {
            Phase::Established(established) | Phase::Authorizing(established, ..) => {
                Some(established.link.identity().client())
            }
            Phase::Fresh(_) | Phase::Authenticating(..) | Phase::Closing(_) => None,
        }
    }

    /// The client, if it has authenticated and has to wait because the devices of its user log each other out in turn.
    #[must_use]
    pub fn held_back(&self) -> Option<ClientId> {
        match &self.phase {
            Phase::Authenticating(newcomer, connect) if newcomer.is_held_back => {
                Some(accept::shortened(&connect.client_id))
            }
            _ => None,
        }
    }

    /// Whether a newcomer waits for what this client has sent. [`Self::handle_heard`] is the answer, or the end.
    #[must_use]
    pub fn has_notice(&self) -> bool {
        match &self.phase {
            Phase::Established(established) | Phase::Authorizing(established, ..) => established
                .rare
                .as_ref()
                .is_some_and(|rare| !rare.notices.is_empty()),
            Phase::Fresh(_) | Phase::Authenticating(..) | Phase::Closing(_) => false,
        }
    }

    /// All that the client had sent is handled: newcomers may take this connection's place.
    pub fn handle_heard(&mut self) {
        if let Some(established) = self.established()
            && let Some(rare) = &mut established.rare
        {
            rare.notices.clear();
        }
    }

    /// What is to be written.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Whether the client has been let in and is still there.
    #[must_use]
    pub fn has_authenticated(&self) -> bool {
        matches!(self.phase, Phase::Established(_) | Phase::Authorizing(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use crate::user::User;

    /// One device, one subscription, nothing under way: all of it is in these.
    #[test]
    fn an_idle_connection_is_small() {
        let counts = 2 * size_of::<usize>();
        let sizes = [
            size_of::<Established>(),
            counts + size_of::<Link>(),
            size_of::<User>(),
        ];
        println!("connection, link and user: {sizes:?} bytes");
        assert!(sizes.iter().sum::<usize>() <= 736, "{sizes:?} bytes");
    }
}
