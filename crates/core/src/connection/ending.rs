//! How a connection ends, and [`Ended`]: why it has, for the log.
//!
//! The first reason counts. The rules write no log; they say once, by value, what there is to tell. Nothing of it is secret: neither a token
//! nor a payload gets in here. The client id is the client's own text, of any length and content.

use std::time::Duration;

use jam_wire::ReasonCode;
use jam_wire::decode::DecodeError;
use jam_wire::packet::{Disconnect, Packet, Version};

use super::refused::RefusalCount;
use super::{Connection, Phase};
use crate::ids::ClientId;
use crate::link::Eviction;
use crate::metrics::{ConnectOutcome, DisconnectReason};
use crate::policy::{Refusal, refusals};
use crate::time::Time;

/// How a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What the client called itself, if it got that far.
    pub client: Option<ClientId>,
    /// Why.
    pub why: End,
    /// What it was refused before, as far as [`Connection::take_refusals`] has not told it.
    pub refused: Vec<RefusalCount>,
}

/// Why a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A DISCONNECT of the client; its will is due unless it said 0x00.
    Disconnect(ReasonCode),
    /// The socket ended without one.
    Lost,
    /// The CONNECT was refused by a row of the table (PROTOCOL.md, section 3).
    Refused(Refusal),
    /// The CONNECT was refused by MQTT itself.
    Denied(ReasonCode),
    /// The client takes no CONNACK.
    NoRoomForConnAck,
    /// There was no CONNECT in time.
    NoConnect,
    /// What came was no packet.
    Malformed(DecodeError),
    /// A packet was not allowed there.
    ProtocolError(ReasonCode),
    /// The client took nothing of what was written to it, for long.
    Stalled,
    /// Nothing came for 1.5 times the keep alive.
    KeepAlive,
    /// Something else than its own packets ended it.
    Evicted(Eviction),
}

impl End {
    /// As it is counted, of a client that had been let in.
    fn reason(&self) -> DisconnectReason {
        match self {
            Self::Disconnect(_) => DisconnectReason::Client,
            Self::Lost => DisconnectReason::Lost,
            Self::Malformed(DecodeError::TooLarge { .. }) => DisconnectReason::TooLarge,
            Self::Stalled => DisconnectReason::Stalled,
            Self::KeepAlive => DisconnectReason::KeepAlive,
            Self::Evicted(Eviction::Logout) => DisconnectReason::Logout,
            Self::Evicted(Eviction::TakenOver) => DisconnectReason::Takeover,
            Self::Evicted(Eviction::NotAuthorized) => DisconnectReason::Revoked,
            Self::Evicted(Eviction::ShuttingDown) => DisconnectReason::Shutdown,
            Self::Evicted(Eviction::Kicked) => DisconnectReason::Kicked,
            Self::Malformed(_)
            | Self::ProtocolError(_)
            | Self::Refused(_)
            | Self::Denied(_)
            | Self::NoRoomForConnAck
            | Self::NoConnect => DisconnectReason::Protocol,
        }
    }
}

impl Connection {
    /// The socket has ended, without a DISCONNECT if none was handed in before.
    pub fn handle_closed(&mut self, now: Time) {
        self.leave(End::Lost, None, now);
    }

    /// The client has taken nothing of the output for long.
    pub fn handle_stalled(&mut self, now: Time) {
        self.leave(End::Stalled, None, now);
    }

    /// The server stops.
    pub fn handle_shutdown(&mut self, now: Time) {
        self.evict(Eviction::ShuttingDown, now);
    }

    /// What arrived is no packet. `version` is what the CONNECT asked for, if it got that far.
    pub fn handle_decode_error(
        &mut self,
        error: &DecodeError,
        version: Option<Version>,
        now: Time,
    ) {
        match &self.phase {
            Phase::Fresh(_) => {
                self.refuse_malformed(error, version);
                self.router
                    .metrics()
                    .connected(ConnectOutcome::Protocol, version);
                self.end(None, End::Malformed(*error));
            }
            Phase::Established(_) => {
                self.disconnect(error.reason(), End::Malformed(*error), now);
            }
            Phase::Authenticating(..) | Phase::Authorizing(..) | Phase::Closing(_) => {}
        }
    }

    /// Why it has ended, once it has; told once.
    pub fn take_ended(&mut self) -> Option<Box<Ended>> {
        match &mut self.phase {
            Phase::Closing(ended) => ended.take(),
            _ => None,
        }
    }

    /// Whether the output is the last that is to be written.
    #[must_use]
    pub fn closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// Somebody else ends this connection.
    pub(super) fn evict(&mut self, why: Eviction, now: Time) {
        let reason = match why {
            Eviction::Logout => {
                if let Phase::Established(established) | Phase::Authorizing(established, ..) =
                    &mut self.phase
                {
                    self.router.metrics().refused(&refusals::LOGOUT);
                    established.tell(&refusals::LOGOUT, None, &mut self.output);
                }
                ReasonCode::SessionTakenOver
            }
            Eviction::TakenOver => ReasonCode::SessionTakenOver,
            Eviction::NotAuthorized => ReasonCode::NotAuthorized,
            Eviction::ShuttingDown => ReasonCode::ServerShuttingDown,
            Eviction::Kicked => ReasonCode::AdministrativeAction,
        };
        self.disconnect(reason, End::Evicted(why), now);
    }

    /// Ends the connection, with a DISCONNECT for a 5.0 client. Its will is due.
    pub(super) fn disconnect(&mut self, reason: ReasonCode, why: End, now: Time) {
        if let Phase::Established(established) | Phase::Authorizing(established, ..) =
            &mut self.phase
            && established.version == Version::V5
        {
            let disconnect = Packet::Disconnect(Box::new(Disconnect::with_reason(reason)));
            established.push(&disconnect, &mut self.output);
        }
        self.leave(why, None, now);
    }

    /// Leaves the router; what is in the output is the last. `expiry` is the session's, if that changes.
    pub(super) fn leave(&mut self, why: End, expiry: Option<Duration>, now: Time) {
        if let Phase::Established(established) | Phase::Authorizing(established, ..) =
            &mut self.phase
        {
            let refused = established
                .rare
                .as_mut()
                .map_or_else(Vec::new, |rare| rare.refusals.take_rest());
            let link = &established.link;
            let goodbye = why == End::Disconnect(ReasonCode::Success);
            self.router
                .detach(link.user(), link.id(), goodbye, expiry, now);
            let client = link.identity().client().clone();
            self.router.metrics().disconnected(why.reason());
            self.end_after(refused, Some(client), why);
        } else if !self.closing() {
            self.end(None, why);
        }
    }

    /// What is in the output is the last. The first reason counts.
    pub(super) fn end(&mut self, client: Option<ClientId>, why: End) {
        self.end_after(Vec::new(), client, why);
    }

    fn end_after(&mut self, refused: Vec<RefusalCount>, client: Option<ClientId>, why: End) {
        let ended = Ended {
            client,
            why,
            refused,
        };
        self.phase = Phase::Closing(Some(Box::new(ended)));
    }
}
