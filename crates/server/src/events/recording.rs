//! What happens, as events.

use std::net::IpAddr;

use jam_core::connection::{End, Ended, RefusalCount};
use jam_core::ids::{ClientId, UserId};
use jam_core::link::Eviction;
use jam_core::policy::{Refusal, refusals};
use jam_core::time::Stamp;
use jam_wire::ReasonCode;
use jam_wire::decode::DecodeError;

use super::{Event, Events, Kind, Standing};
use crate::client_log::LogText;

/// Bytes of a push service's words.
const DETAIL_BYTES: usize = 128;

/// What came of a push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushResult<'a> {
    pub(crate) receiver: &'a UserId,
    pub(crate) sender: &'a UserId,
    /// `sent`, `token_dead`, `refused`, `retry`, `expired` or `withdrawn`.
    pub(crate) outcome: &'static str,
    /// In the words of the push service's error codes.
    pub(crate) detail: Option<&'a str>,
}

impl Events {
    /// A client has been let in.
    pub(crate) fn connected(&self, client: &ClientId, address: IpAddr, time: Stamp) {
        self.record(|| of_client(Kind::Connect, client, address, time));
    }

    /// A client has authenticated and waits: the devices of its user log each other out in turn.
    pub(crate) fn held_back(&self, client: &ClientId, address: IpAddr, time: Stamp) {
        self.record(|| of_client(Kind::HeldBack, client, address, time));
    }

    /// A client that has been let in was refused something.
    pub(crate) fn refused(
        &self,
        client: &ClientId,
        address: IpAddr,
        refused: &[RefusalCount],
        time: Stamp,
    ) {
        for row in refused {
            self.record(|| Event {
                packet: Some(row.handler.label()),
                reason: Some(row.slug),
                count: row.count,
                ..of_client(Kind::Refused, client, address, time)
            });
        }
    }

    /// A connection has ended.
    pub(crate) fn ended(&self, ended: &Ended, address: IpAddr, time: Stamp) {
        let Ended {
            client,
            why,
            refused,
        } = ended;
        if let Some(client) = client {
            self.refused(client, address, refused, time);
        }
        match (client, why) {
            (client, End::Refused(refusal)) => {
                self.record(|| of_refusal(refusal, client.as_ref(), address, time));
            }
            (client, End::Denied(_) | End::NoConnect | End::NoRoomForConnAck)
            | (client @ None, End::Malformed(_) | End::ProtocolError(_)) => {
                let reason = of_newcomer(why);
                self.record(|| of_stranger(Kind::Refused, reason, client.as_ref(), address, time));
            }
            (Some(client), _) if let Some((kind, reason)) = of_end(why) => self.record(|| Event {
                reason,
                ..of_client(kind, client, address, time)
            }),
            // Who said nothing and went, and who the server leaves.
            _ => {}
        }
    }

    /// Something came of a push.
    pub(crate) fn pushed(&self, result: PushResult<'_>, time: Stamp) {
        let shorten = |text: &str| text[..text.floor_char_boundary(DETAIL_BYTES)].into();
        self.record(|| Event {
            time,
            kind: Kind::Push,
            user: Some(result.receiver.clone()),
            standing: Standing::Authenticated,
            client: None,
            address: None,
            packet: None,
            reason: Some(result.outcome),
            detail: result.detail.map(shorten),
            sender: Some(result.sender.clone()),
            count: 1,
            is_sum: false,
        });
    }
}

/// Of a client that has authenticated.
fn of_client(kind: Kind, client: &ClientId, address: IpAddr, time: Stamp) -> Event {
    Event {
        time,
        kind,
        user: UserId::parse(client.user_part()).ok(),
        standing: Standing::Authenticated,
        client: Some(client.clone()),
        address: Some(address),
        packet: None,
        reason: None,
        detail: None,
        sender: None,
        count: 1,
        is_sum: false,
    }
}

/// Of a client that has not: its name is a text of its own.
fn of_stranger(
    kind: Kind,
    reason: &'static str,
    client: Option<&ClientId>,
    address: IpAddr,
    time: Stamp,
) -> Event {
    let client = client.filter(|client| !client.as_str().is_empty());
    Event {
        time,
        kind,
        user: client.and_then(|client| UserId::parse(client.user_part()).ok()),
        standing: Standing::Claimed,
        client: client.map(|client| ClientId::new(LogText(client.as_str()).to_string())),
        address: Some(address),
        packet: Some("connect"),
        reason: Some(reason),
        detail: None,
        sender: None,
        count: 1,
        is_sum: false,
    }
}

fn of_refusal(refusal: &Refusal, client: Option<&ClientId>, address: IpAddr, time: Stamp) -> Event {
    let kind = if *refusal == refusals::SPAM {
        Kind::Lockout
    } else {
        Kind::Refused
    };
    let event = of_stranger(kind, refusal.slug, client, address, time);
    let standing = if *refusal == refusals::WRONG_TOKEN {
        Standing::Existing
    } else {
        Standing::Claimed
    };
    Event { standing, ..event }
}

/// Why a client was not let in, by MQTT itself.
fn of_newcomer(why: &End) -> &'static str {
    match why {
        End::Denied(ReasonCode::QuotaExceeded) => "too_many_devices",
        End::NoConnect => "timeout",
        End::NoRoomForConnAck => "too_large",
        End::Malformed(_) => "malformed",
        _ => "protocol",
    }
}

/// How the connection of a client that has been let in has ended, in the words of `jam_disconnects_total`.
fn of_end(why: &End) -> Option<(Kind, Option<&'static str>)> {
    let reason = match why {
        End::Disconnect(_) => "client",
        End::Lost => "lost",
        End::Malformed(DecodeError::TooLarge { .. }) => "too_large",
        End::Malformed(_) | End::ProtocolError(_) => "protocol",
        End::Stalled => "stalled",
        End::KeepAlive => "keepalive",
        End::Evicted(Eviction::Logout) => return Some((Kind::Logout, None)),
        End::Evicted(Eviction::Kicked) => return Some((Kind::Kick, None)),
        End::Evicted(Eviction::TakenOver) => "takeover",
        End::Evicted(Eviction::NotAuthorized) => "revoked",
        End::Evicted(Eviction::ShuttingDown)
        | End::Refused(_)
        | End::Denied(_)
        | End::NoRoomForConnAck
        | End::NoConnect => return None,
    };
    Some((Kind::Disconnect, Some(reason)))
}
