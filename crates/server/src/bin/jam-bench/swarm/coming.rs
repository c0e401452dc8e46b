//! How clients come and go: sockets, handshakes, and what is said when one fails.
//!
//! Invariant: `opening` is the number of clients between [`Swarm::connect`] and their last answer; each
//! leaves it once, as ready or as lost.

use std::mem;
use std::time::Instant;

use mio::Token;

use super::{Handshake, IDLE, Phase, Swarm};
use crate::BenchError;
use crate::handshake::{connect_packet, put, subscribe_packet};
use crate::link::Link;

impl Swarm<'_> {
    /// Connects these clients; an error if one cannot.
    pub(crate) fn connect(&mut self, who: &[usize], how: Handshake) -> Result<(), BenchError> {
        let begun = Instant::now();
        let mut begun_with = 0;
        loop {
            while self.opening < self.plan.concurrency && begun_with < who.len() {
                self.open(who[begun_with], how)?;
                begun_with += 1;
            }
            if self.opening == 0 {
                break;
            }
            if begun.elapsed() > self.plan.patience {
                return Err(BenchError::new(format!(
                    "{} of {} clients have no answer after {}; is this an MQTT broker?",
                    self.opening,
                    who.len(),
                    humantime::format_duration(self.plan.patience)
                )));
            }
            self.turn(IDLE);
            let done = begun_with - self.opening;
            self.progress
                .show("connect", done as u64, who.len() as u64, || {
                    format!("{done} of {}", who.len())
                });
        }
        match self.failure.take() {
            None => Ok(()),
            Some(failure) => Err(BenchError::new(format!(
                "{} of {} clients could not connect to {}: {failure}",
                mem::take(&mut self.failed),
                who.len(),
                self.plan.broker
            ))),
        }
    }

    fn open(&mut self, at: usize, how: Handshake) -> Result<(), BenchError> {
        let (version, registry) = (self.plan.version, self.poll.registry());
        let mut link =
            Link::open(self.plan.broker, version, registry, Token(at)).map_err(|error| {
                BenchError::new(format!(
                    "cannot open connection {at}: {error}; `ulimit -n` bounds open files, and \
                 net.ipv4.ip_local_port_range the connections to one address"
                ))
            })?;
        let client = &mut self.clients[at];
        put(
            &connect_packet(&client.user, version, how.clean),
            version,
            link.output(),
        );
        client.link = Some(link);
        client.phase = Phase::Connecting;
        client.handshake = how;
        self.opening += 1;
        Ok(())
    }

    /// Ends the connections of these clients without a word.
    pub(crate) fn drop_links(&mut self, who: &[usize]) {
        for at in who {
            self.clients[*at].link = None;
            self.clients[*at].phase = Phase::Closed;
        }
    }

    pub(super) fn handle_connected(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !client.handshake.subscribe {
            return self.handle_ready(at);
        }
        client.phase = Phase::Subscribing;
        let packet = subscribe_packet(&client.inbox, self.plan.qos);
        self.answer(at, &packet);
    }

    pub(super) fn handle_ready(&mut self, at: usize) {
        self.clients[at].phase = Phase::Ready;
        self.opening -= 1;
        self.list(at);
    }

    /// The client has lost its connection, or never got one.
    pub(super) fn lose(&mut self, at: usize, why: &str) {
        let client = &mut self.clients[at];
        if client.link.take().is_none() {
            return;
        }
        match mem::replace(&mut client.phase, Phase::Closed) {
            Phase::Ready => self.ledger.dropped_connections += 1,
            _ => {
                self.opening -= 1;
                self.failed += 1;
                self.failure.get_or_insert_with(|| why.to_owned());
            }
        }
    }
}
