//! Packets with the verdict the standard gives them: bytes, verdict, clause.
//!
//! A clause is a conformance statement `[MQTT-…]` or a section; "3.1" before it means MQTT 3.1, "4"
//! MQTT 3.1.1, "5" MQTT 5.0, nothing the same number in 3.1.1 and 5.0. Each entry counts once for
//! every version it names. Used by `vectors.rs` and `differential.rs`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "the helpers of a test are the test")]

mod answers;
mod connect;
mod framing;
mod publish;
mod session;
mod subscribe;

use jam_wire::packet::Version;

pub(crate) const V3: &[Version] = &[Version::V3];
pub(crate) const V4: &[Version] = &[Version::V4];
pub(crate) const V5: &[Version] = &[Version::V5];
pub(crate) const V3_V4: &[Version] = &[Version::V3, Version::V4];
pub(crate) const V4_V5: &[Version] = &[Version::V4, Version::V5];
pub(crate) const ALL: &[Version] = &[Version::V3, Version::V4, Version::V5];

/// What a decoder has to say about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Malformed,
    Protocol,
    Unsupported(u8),
}

/// Who decodes, and after what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A server, at the first packet of a connection.
    First,
    /// A server, after a CONNECT of this version.
    Server(Version),
    /// A client that speaks this version.
    Client(Version),
}

#[derive(Debug, Clone)]
pub(crate) struct Vector {
    pub(crate) stage: Stage,
    pub(crate) bytes: Vec<u8>,
    pub(crate) verdict: Verdict,
    pub(crate) clause: &'static str,
    pub(crate) what: &'static str,
}

#[derive(Default)]
pub(crate) struct Table {
    vectors: Vec<Vector>,
}

impl Table {
    /// A CONNECT with this body.
    fn connect(
        &mut self,
        verdict: Verdict,
        body: impl AsRef<[u8]>,
        clause: &'static str,
        what: &'static str,
    ) {
        self.raw(Stage::First, verdict, packet(0x10, body), clause, what);
    }

    /// A packet to a server that has had a CONNECT, in each of the versions.
    fn server(
        &mut self,
        versions: &[Version],
        verdict: Verdict,
        bytes: impl AsRef<[u8]>,
        clause: &'static str,
        what: &'static str,
    ) {
        for &version in versions {
            self.raw(
                Stage::Server(version),
                verdict,
                bytes.as_ref(),
                clause,
                what,
            );
        }
    }

    /// A packet to a client, in each of the versions.
    fn client(
        &mut self,
        versions: &[Version],
        verdict: Verdict,
        bytes: impl AsRef<[u8]>,
        clause: &'static str,
        what: &'static str,
    ) {
        for &version in versions {
            self.raw(
                Stage::Client(version),
                verdict,
                bytes.as_ref(),
                clause,
                what,
            );
        }
    }

    fn raw(
        &mut self,
        stage: Stage,
        verdict: Verdict,
        bytes: impl AsRef<[u8]>,
        clause: &'static str,
        what: &'static str,
    ) {
        let bytes = bytes.as_ref().to_vec();
        self.vectors.push(Vector {
            stage,
            bytes,
            verdict,
            clause,
            what,
        });
    }
}

/// A fixed header and a body.
pub(crate) fn packet(first: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let more = if rest > 0x7F { 0x80 } else { 0 };
        bytes.push(u8::try_from(rest & 0x7F).unwrap() | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A body with properties in the middle, whose length is at most 127.
pub(crate) fn with_properties(
    before: impl AsRef<[u8]>,
    properties: impl AsRef<[u8]>,
    after: impl AsRef<[u8]>,
) -> Vec<u8> {
    let properties = properties.as_ref();
    assert!(properties.len() < 0x80);
    let mut body = before.as_ref().to_vec();
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    body.extend_from_slice(after.as_ref());
    body
}

/// The CONNECT that opens a connection of that version.
pub(crate) fn opening(version: Version) -> &'static [u8] {
    match version {
        Version::V3 => b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01a",
        Version::V4 => b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01a",
        Version::V5 => b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01a",
    }
}

/// Every vector.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut table = Table::default();
    framing::fill(&mut table);
    connect::fill(&mut table);
    session::fill(&mut table);
    publish::fill(&mut table);
    subscribe::fill(&mut table);
    answers::fill(&mut table);
    table.vectors
}
