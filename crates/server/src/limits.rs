//! What one packet, connection, user, friend or address can make the server hold, write and do, computed from the
//! settings and the constants; `docs/limits.md` is made of it.
//!
//! Invariants: a bound that is not in here is a defect; the figures of the documentation are those of the default
//! settings (`tests::the_documentation_says_what_is_computed`), and memory stays within them
//! (`tests/protocol/test_memory.py`).

use jam_core::attempts::MAX_SOURCES;
use jam_core::connection::{MAX_ALIASES, MAX_CONNECT, OUTPUT_ENOUGH, TURN_WORK};
use jam_core::friends::{
    MAX_LIST_BYTES, MAX_PARTS, MAX_ROWS, PAGE_BYTES, PART_BYTES, PART_FRIENDS,
};
use jam_core::ids::{ClientId, UserId};
use jam_core::loads::LOADED_BYTES;
use jam_core::message::ENTRY_BYTES;
use jam_core::policy::{MAX_PROPERTIES_BYTES, MAX_TOPIC_BYTES, MAX_USER_PROPERTIES};
use jam_core::push::MAX_PUSHES;
use jam_core::router::{GRACE_BYTES, MAX_DUE_WILL_BYTES, MAX_DUE_WILLS};
use jam_core::{
    KEEPING_UP, MAX_DEVICES, MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES, MAX_RETAINED, MAX_SUBSCRIPTIONS,
};
use jam_wire::decode::MAX_FILTERS;

use crate::admin_bounds;
use crate::connection::{HELD_BYTES, READ_BYTES};
use crate::deferred_acks;
use crate::directory::FACTS_BYTES;
use crate::events::{self, RINGS_BYTES, USER_EVENTS};
use crate::friends::LISTS_AT_ONCE;
use crate::logging::{LAST_WORDS_BYTES, QUEUE_BYTES};
use crate::mailbox::{MAX_PENDING_BYTES, RESERVE_BYTES};
use crate::permits::MAX_HALF_OPEN;
use crate::push::MAX_RECEIVERS;
use crate::settings::{Devices, Settings};

/// Memory of a connection that does nothing, its session and its user included, without TLS.
const IDLE_BYTES: u64 = 4 * 1024;
/// Memory of a subscription besides its topic, which is in an index too.
const SUBSCRIPTION_BYTES: u64 = 128;
/// Memory of a message whose content is on the disk.
const LOG_BYTES: u64 = 56;
/// Memory of a failed attempt to log in, the room included in which a list of them grows.
const FAILURE_BYTES: u64 = 32;
/// What a row costs on the disk besides content: names, numbers, and half a page that stays empty.
const ROW_BYTES: u64 = 4096;

/// One bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Who or what is bounded.
    pub of: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// Where the figure comes from: settings and constants by their names.
    pub from: &'static str,
    /// How much.
    pub value: u64,
    /// Whether that is bytes.
    pub is_bytes: bool,
}

/// Every bound, with these settings.
#[must_use]
pub fn bounds(settings: &Settings) -> Vec<Bound> {
    [
        of_packet(settings),
        of_connection(settings),
        of_user(settings),
        of_friend(settings),
        of_address(settings),
        of_server(settings),
    ]
    .concat()
}

/// Memory that a connection takes at its worst: what it is reading, what it is to write, its aliases.
#[must_use]
pub fn connection_bytes(settings: &Settings) -> u64 {
    let packet = u64::from(settings.limits.packet);
    let reading = packet + READ_BYTES as u64;
    let writing = OUTPUT_ENOUGH as u64 + packet;
    let aliases = u64::from(MAX_ALIASES) * MAX_TOPIC_BYTES as u64;
    IDLE_BYTES + reading + writing + aliases
}

/// Memory that a user takes at their worst, besides connections.
#[must_use]
pub fn user_bytes(settings: &Settings) -> u64 {
    let topic = MAX_TOPIC_BYTES as u64;
    let session = MAX_SUBSCRIPTIONS as u64 * (2 * topic + SUBSCRIPTION_BYTES) + MAX_CONNECT as u64;
    let ephemeral = MAX_EPHEMERAL_BYTES + MAX_EPHEMERAL as u64 * ENTRY_BYTES;
    sessions(settings) * session
        + ephemeral
        + held_bytes()
        + u64::from(settings.mailbox.max_messages) * LOG_BYTES
        + MAX_RETAINED as u64 * (2 * topic + LOG_BYTES)
}

/// Memory of the receive buffers that messages for a device that keeps up hold, kept ones and QoS 0.
fn held_bytes() -> u64 {
    (2 * KEEPING_UP * HELD_BYTES) as u64
}

/// Memory that all users share, whatever they do.
#[must_use]
pub fn shared_bytes() -> u64 {
    GRACE_BYTES + 2 * MAX_PENDING_BYTES as u64 + LOADED_BYTES + MAX_DUE_WILL_BYTES
}

/// Memory that a connection takes at its worst before its client has authenticated.
fn half_open_bytes() -> u64 {
    MAX_CONNECT as u64 + READ_BYTES as u64 + IDLE_BYTES
}

fn sessions(settings: &Settings) -> u64 {
    match settings.sessions.devices {
        Devices::One => 1,
        Devices::Many => MAX_DEVICES as u64,
    }
}

fn bytes(of: &'static str, what: &'static str, from: &'static str, value: u64) -> Bound {
    Bound {
        of,
        what,
        from,
        value,
        is_bytes: true,
    }
}

fn count(of: &'static str, what: &'static str, from: &'static str, value: u64) -> Bound {
    Bound {
        is_bytes: false,
        ..bytes(of, what, from, value)
    }
}

fn of_packet(settings: &Settings) -> Vec<Bound> {
    const OF: &str = "one packet";
    let packet = u64::from(settings.limits.packet);
    vec![
        bytes(
            OF,
            "its bytes; decoded, it takes no more",
            "`limits.packet`",
            packet,
        ),
        bytes(
            OF,
            "its bytes before the CONNECT is accepted",
            "`MAX_CONNECT`",
            MAX_CONNECT as u64,
        ),
        bytes(
            OF,
            "a topic, a topic filter",
            "`MAX_TOPIC_BYTES`",
            MAX_TOPIC_BYTES as u64,
        ),
        bytes(
            OF,
            "a client id",
            "`ClientId::MAX_LEN`",
            ClientId::MAX_LEN as u64,
        ),
        bytes(OF, "a user id", "`UserId::MAX_LEN`", UserId::MAX_LEN as u64),
        bytes(
            OF,
            "properties of a PUBLISH or a will",
            "`MAX_PROPERTIES_BYTES`",
            MAX_PROPERTIES_BYTES as u64,
        ),
        count(
            OF,
            "User Properties of a PUBLISH or a will",
            "`MAX_USER_PROPERTIES`",
            MAX_USER_PROPERTIES as u64,
        ),
        count(
            OF,
            "filters of a SUBSCRIBE or UNSUBSCRIBE",
            "`MAX_FILTERS`",
            MAX_FILTERS as u64,
        ),
        bytes(
            OF,
            "errors in answer to it, and one more",
            "`OUTPUT_ENOUGH`",
            OUTPUT_ENOUGH as u64,
        ),
    ]
}

fn of_connection(settings: &Settings) -> Vec<Bound> {
    const OF: &str = "one connection";
    vec![
        bytes(
            OF,
            "memory",
            "2 × `limits.packet` + `OUTPUT_ENOUGH` + `READ_BYTES` + `MAX_ALIASES` × `MAX_TOPIC_BYTES` + 4 KiB",
            connection_bytes(settings),
        ),
        count(
            OF,
            "messages on their way, each way",
            "`limits.inflight`",
            settings.limits.inflight.into(),
        ),
        count(
            OF,
            "work before others have their turn, in microseconds or so",
            "`TURN_WORK`",
            TURN_WORK.into(),
        ),
    ]
}

fn of_user(settings: &Settings) -> Vec<Bound> {
    const OF: &str = "one user";
    let topic = MAX_TOPIC_BYTES as u64;
    let kept = settings.mailbox.max_bytes;
    let messages = u64::from(settings.mailbox.max_messages);
    let rows = messages + MAX_RETAINED as u64;
    let subscriptions =
        sessions(settings) * MAX_SUBSCRIPTIONS as u64 * (topic + SUBSCRIPTION_BYTES);
    let wills = sessions(settings) * MAX_CONNECT as u64;
    vec![
        count(OF, "sessions", "`sessions.devices`", sessions(settings)),
        count(
            OF,
            "subscriptions of a session",
            "`MAX_SUBSCRIPTIONS`",
            MAX_SUBSCRIPTIONS as u64,
        ),
        bytes(
            OF,
            "memory, besides connections",
            "sessions × (256 × 2 topics + will) + QoS 0 that waits + buffers it came in + 56 bytes a message + 256 × 2 retained topics",
            user_bytes(settings),
        ),
        bytes(
            OF,
            "QoS 0 that waits",
            "`MAX_EPHEMERAL_BYTES`",
            MAX_EPHEMERAL_BYTES,
        ),
        bytes(
            OF,
            "receive buffers that messages for a device that keeps up hold",
            "2 × `KEEPING_UP` × `HELD_BYTES`",
            held_bytes(),
        ),
        bytes(
            OF,
            "a list of friends; while it waits it is part of that",
            "`MAX_LIST_BYTES`",
            MAX_LIST_BYTES as u64,
        ),
        count(
            OF,
            "parts of a list of friends",
            "`MAX_PARTS`",
            MAX_PARTS as u64,
        ),
        bytes(OF, "one part", "`PART_BYTES`", PART_BYTES as u64),
        count(
            OF,
            "friends in one part",
            "`PART_FRIENDS`",
            PART_FRIENDS as u64,
        ),
        count(
            OF,
            "rows of friends that are read for a list",
            "`MAX_ROWS`",
            MAX_ROWS as u64,
        ),
        bytes(OF, "what waits in the mailbox", "`mailbox.max_bytes`", kept),
        count(
            OF,
            "messages in the mailbox",
            "`mailbox.max_messages`",
            messages,
        ),
        bytes(
            OF,
            "retained messages on the disk",
            "`mailbox.max_bytes`",
            kept,
        ),
        count(
            OF,
            "events that an operator is shown",
            "`USER_EVENTS`",
            USER_EVENTS as u64,
        ),
        bytes(
            OF,
            "disk",
            "2 × `mailbox.max_bytes` + 4 KiB for each message and retained topic + sessions",
            2 * kept + rows * ROW_BYTES + subscriptions + wills,
        ),
    ]
}

fn of_friend(settings: &Settings) -> Vec<Bound> {
    const OF: &str = "one friend";
    let mailbox = &settings.mailbox;
    let rate = settings
        .limits
        .publish_rate
        .map_or(0, |rate| rate.get().into());
    vec![
        bytes(
            OF,
            "what waits of them in a mailbox, or one message",
            "half of `mailbox.max_bytes`",
            mailbox.max_bytes / 2,
        ),
        count(
            OF,
            "messages that wait of them in a mailbox",
            "half of `mailbox.max_messages`",
            u64::from(mailbox.max_messages) / 2,
        ),
        count(
            OF,
            "messages a second, after a burst of ten times that; 0 is no limit",
            "`limits.publish_rate`",
            rate,
        ),
    ]
}

fn of_address(settings: &Settings) -> Vec<Bound> {
    const OF: &str = "one address";
    let connections = u64::from(settings.limits.connections_per_address);
    vec![
        count(
            OF,
            "connections; an IPv6 /64 is one address",
            "`limits.connections_per_address`",
            connections,
        ),
        bytes(
            OF,
            "memory before anybody has logged in",
            "connections × (`MAX_CONNECT` + `READ_BYTES` + 4 KiB)",
            connections * half_open_bytes(),
        ),
    ]
}

fn of_server(settings: &Settings) -> Vec<Bound> {
    const OF: &str = "the server";
    let connections = u64::from(settings.limits.connections);
    vec![
        count(OF, "connections", "`limits.connections`", connections),
        count(
            OF,
            "connections that have not authenticated",
            "`MAX_HALF_OPEN`",
            MAX_HALF_OPEN as u64,
        ),
        bytes(
            OF,
            "memory of those",
            "`MAX_HALF_OPEN` × (`MAX_CONNECT` + `READ_BYTES` + 4 KiB)",
            MAX_HALF_OPEN as u64 * half_open_bytes(),
        ),
        bytes(
            OF,
            "messages that may be acknowledged before they are stored",
            "`GRACE_BYTES`",
            GRACE_BYTES,
        ),
        bytes(
            OF,
            "memory of what waits to be written, and of what is being written",
            "2 × `MAX_PENDING_BYTES`",
            2 * MAX_PENDING_BYTES as u64,
        ),
        bytes(
            OF,
            "content that is read from the mailbox, or one message",
            "`LOADED_BYTES`",
            LOADED_BYTES,
        ),
        bytes(
            OF,
            "memory of wills that are due",
            "`MAX_DUE_WILL_BYTES`",
            MAX_DUE_WILL_BYTES,
        ),
        count(
            OF,
            "wills that are due",
            "`MAX_DUE_WILLS`",
            MAX_DUE_WILLS as u64,
        ),
        bytes(
            OF,
            "memory that all users share",
            "`GRACE_BYTES` + 2 × `MAX_PENDING_BYTES` + `LOADED_BYTES` + `MAX_DUE_WILL_BYTES`",
            shared_bytes(),
        ),
        bytes(
            OF,
            "memory of the lists of friends that are being read and written",
            "(`LISTS_AT_ONCE` + 1) × (`MAX_LIST_BYTES` + `PAGE_BYTES`)",
            (LISTS_AT_ONCE as u64 + 1) * (MAX_LIST_BYTES + PAGE_BYTES) as u64,
        ),
        bytes(
            OF,
            "memory of facts of the accounts database, the tokens in them apart",
            "`FACTS_BYTES`",
            FACTS_BYTES as u64,
        ),
        bytes(
            OF,
            "memory of events that users' pages show",
            "`RINGS_BYTES`",
            RINGS_BYTES as u64,
        ),
        bytes(
            OF,
            "memory of the stream of events, and of those on their way to it",
            "(`STREAM_EVENTS` + `PUSH_EVENTS` + `LANES` × `LANE_EVENTS`) × 1 KiB",
            events::stream_bytes(),
        ),
        count(
            OF,
            "pairs of a sender and a receiver of whom a push is owed or was sent",
            "`MAX_PUSHES`",
            MAX_PUSHES as u64,
        ),
        count(
            OF,
            "receivers whose pushes are on their way or have failed",
            "`MAX_RECEIVERS`",
            MAX_RECEIVERS as u64,
        ),
        count(
            OF,
            "addresses whose failed attempts to log in are remembered",
            "`MAX_SOURCES`",
            MAX_SOURCES as u64,
        ),
        bytes(
            OF,
            "memory of those",
            "`MAX_SOURCES` × (`limits.failed_auth` + 3) × 32 bytes",
            MAX_SOURCES as u64 * (u64::from(settings.limits.failed_auth) + 3) * FAILURE_BYTES,
        ),
        count(
            OF,
            "connections to the admin address",
            "`admin_bounds::MAX_CONNECTIONS`",
            admin_bounds::MAX_CONNECTIONS as u64,
        ),
        bytes(
            OF,
            "memory of those, besides what they are answered",
            "`MAX_CONNECTIONS` × (`MAX_HEAD_BYTES` + `MAX_BODY_BYTES` + 2 × `SEND_BUFFER_BYTES`)",
            admin_bounds::CONNECTIONS_BYTES as u64,
        ),
        count(
            OF,
            "sockets whose acknowledgements are read with what comes next",
            "`deferred_acks::MOST`",
            deferred_acks::MOST as u64,
        ),
        count(
            OF,
            "milliseconds that such an acknowledgement waits at most, and a tick",
            "`deferred_acks::LONGEST`",
            deferred_acks::LONGEST.subsec_millis().into(),
        ),
        bytes(
            OF,
            "log lines that wait to be written",
            "`QUEUE_BYTES` + `LAST_WORDS_BYTES`",
            (QUEUE_BYTES + LAST_WORDS_BYTES) as u64,
        ),
        bytes(
            OF,
            "room on the disk that is kept for when it is full",
            "`RESERVE_BYTES`",
            RESERVE_BYTES,
        ),
    ]
}

#[cfg(test)]
mod tests;
