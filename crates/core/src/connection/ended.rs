//! [`Ended`]: why a connection has ended, for the log.
//!
//! The rules write no log; they say once, by value, what there is to tell. Nothing of it is secret: neither a token
//! nor a payload gets in here. The client id is the client's own text, of any length and content.

use jam_wire::ReasonCode;
use jam_wire::decode::DecodeError;

use crate::ids::ClientId;
use crate::link::Eviction;
use crate::policy::Refusal;

/// How a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What the client called itself, if it got that far.
    pub client: Option<ClientId>,
    /// Why.
    pub why: End,
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
