//! CONNACK, DISCONNECT and AUTH.

use super::Verdict::{Accept, Malformed, Protocol};
use super::{ALL, Table, V3_V4, V4, V5, packet, with_properties};

pub(super) fn fill(t: &mut Table) {
    connack(t);
    disconnect(t);
    auth(t);
}

fn connack(t: &mut Table) {
    t.client(V3_V4, Accept, packet(0x20, b"\0\0"), "3.2", "CONNACK");
    t.client(
        V4,
        Accept,
        packet(0x20, b"\x01\0"),
        "3.2",
        "CONNACK, session present",
    );
    for code in 1..=5 {
        t.client(
            V3_V4,
            Accept,
            packet(0x20, [0, code]),
            "4 3.2.2.3",
            "CONNACK refuses",
        );
    }
    t.client(
        V3_V4,
        Malformed,
        packet(0x20, b"\0\x06"),
        "4 3.2.2.3",
        "return code 6",
    );
    t.client(
        V4,
        Malformed,
        packet(0x20, b"\x02\0"),
        "3.2.2.1",
        "reserved CONNACK flags",
    );
    t.client(
        V5,
        Malformed,
        packet(0x20, b"\x80\0\0"),
        "5 [MQTT-3.2.2-1]",
        "reserved CONNACK flags",
    );
    t.client(
        V4,
        Protocol,
        packet(0x20, b"\x01\x05"),
        "4 [MQTT-3.2.2-4]",
        "session present in a refusal",
    );
    t.client(
        V5,
        Protocol,
        packet(0x20, b"\x01\x87\0"),
        "5 [MQTT-3.2.2-6]",
        "session present in a refusal",
    );
    t.client(
        V3_V4,
        Malformed,
        packet(0x20, b"\0\0\0"),
        "4 3.2",
        "bytes after a CONNACK",
    );
    t.client(
        V5,
        Malformed,
        packet(0x20, b"\0\0"),
        "5 3.2.2.3.1",
        "CONNACK without property length",
    );
    t.client(
        V5,
        Malformed,
        packet(0x20, b"\0\0\0\0"),
        "5 3.2.3",
        "bytes after a CONNACK",
    );
    for code in [0x01, 0x8B, 0x8E, 0x8F, 0x91, 0x96, 0x9E, 0xA2, 0xFF] {
        t.client(
            V5,
            Malformed,
            packet(0x20, [0, code, 0]),
            "5 [MQTT-3.2.2-8]",
            "reason code of a CONNACK",
        );
    }
    for code in [0x00, 0x80, 0x84, 0x85, 0x8A, 0x8C, 0x90, 0x95, 0x9D, 0x9F] {
        t.client(
            V5,
            Accept,
            packet(0x20, [0, code, 0]),
            "5 3.2.2.2",
            "CONNACK",
        );
    }
    let all = [
        &b"\x11\0\0\0\x01\x21\0\x01\x24\x01\x25\0\x27\0\0\x10\0\x12\0\x01i\x22\0\x01\x1F\0\x01r"[..],
        b"\x26\0\x01k\0\x01v\x28\0\x29\0\x2A\0\x13\0\x0A\x1A\0\x01i\x1C\0\x01s\x15\0\x01m\x16\0\x01d",
    ]
    .concat();
    let one = |properties: &[u8]| packet(0x20, with_properties(b"\0\0", properties, b""));
    t.client(
        V5,
        Accept,
        one(&all),
        "5 3.2.2.3",
        "every property of a CONNACK",
    );
    for (properties, what) in [
        (&b"\x24\x02"[..], "maximum QoS 2"),
        (b"\x25\x02", "retain available 2"),
        (b"\x28\x02", "wildcard available 2"),
        (b"\x29\x02", "subscription identifiers available 2"),
        (b"\x2A\x02", "shared available 2"),
        (b"\x21\0\0", "CONNACK receive maximum 0"),
        (b"\x27\0\0\0\0", "CONNACK maximum packet size 0"),
        (b"\x1F\0\x01r\x1F\0\x01r", "CONNACK reason string twice"),
        (b"\x12\0\x01i\x12\0\x01i", "assigned client id twice"),
        (b"\x13\0\x01\x13\0\x01", "server keep alive twice"),
        (b"\x16\0\x01d", "CONNACK authentication data without method"),
    ] {
        t.client(V5, Protocol, one(properties), "5 3.2.2.3", what);
    }
    t.client(
        V5,
        Malformed,
        one(b"\x17\0"),
        "5 2.2.2.2",
        "request problem information in a CONNACK",
    );
    t.client(
        V5,
        Malformed,
        one(b"\x23\0\x01"),
        "5 2.2.2.2",
        "topic alias in a CONNACK",
    );
}

fn disconnect(t: &mut Table) {
    t.server(ALL, Accept, b"\xE0\x00", "3.14", "DISCONNECT");
    t.server(
        V3_V4,
        Malformed,
        b"\xE0\x01\x00",
        "4 3.14",
        "DISCONNECT with a body in 3",
    );
    t.server(
        V5,
        Accept,
        b"\xE0\x01\x04",
        "5 3.14.2.1",
        "DISCONNECT with a reason",
    );
    t.server(
        V5,
        Accept,
        b"\xE0\x02\x00\x00",
        "5 3.14.2.2",
        "DISCONNECT without properties",
    );
    t.client(
        V5,
        Accept,
        b"\xE0\x01\x8E",
        "5 3.14.2.1",
        "DISCONNECT by the server",
    );
    for code in [
        0x01, 0x10, 0x84, 0x85, 0x86, 0x88, 0x8A, 0x8C, 0x91, 0x92, 0xFF,
    ] {
        t.server(
            V5,
            Malformed,
            [0xE0, 1, code],
            "5 [MQTT-3.14.2-1]",
            "reason code of a DISCONNECT",
        );
    }
    let one = |properties: &[u8]| packet(0xE0, with_properties(b"\0", properties, b""));
    let all = b"\x11\0\0\0\x01\x1F\0\x01r\x26\0\x01k\0\x01v\x1C\0\x01s";
    t.server(
        V5,
        Accept,
        one(all),
        "5 3.14.2.2",
        "every property of a DISCONNECT",
    );
    t.client(
        V5,
        Protocol,
        one(b"\x11\0\0\0\x01"),
        "5 [MQTT-3.14.2-2]",
        "session expiry by the server",
    );
    let twice = one(b"\x11\0\0\0\x01\x11\0\0\0\x01");
    t.server(
        V5,
        Protocol,
        twice,
        "5 3.14.2.2.2",
        "DISCONNECT session expiry twice",
    );
    t.server(
        V5,
        Protocol,
        one(b"\x1F\0\0\x1F\0\0"),
        "5 3.14.2.2.3",
        "DISCONNECT reason string twice",
    );
    t.server(
        V5,
        Malformed,
        one(b"\x21\0\x01"),
        "5 2.2.2.2",
        "receive maximum in a DISCONNECT",
    );
    t.server(
        V5,
        Malformed,
        b"\xE0\x03\x00\x00\x00",
        "5 3.14.3",
        "bytes after a DISCONNECT",
    );
    t.server(
        V5,
        Malformed,
        b"\xE0\x02\x00\x01",
        "5 2.2.2.1",
        "DISCONNECT properties cut off",
    );
}

fn auth(t: &mut Table) {
    t.server(V5, Accept, b"\xF0\x00", "5 3.15.2.1", "AUTH without a body");
    let one = |code: u8, p: &[u8]| packet(0xF0, with_properties([code], p, b""));
    t.server(
        V5,
        Accept,
        one(0x18, b"\x15\0\x01m\x16\0\x01d"),
        "5 3.15",
        "AUTH",
    );
    let all = b"\x15\0\x01m\x16\0\x01d\x1F\0\x01r\x26\0\x01k\0\x01v";
    t.server(
        V5,
        Accept,
        one(0x19, all),
        "5 3.15.2.2",
        "every property of an AUTH",
    );
    t.server(
        V5,
        Malformed,
        one(0x01, b"\x15\0\x01m"),
        "5 [MQTT-3.15.2-1]",
        "reason code of an AUTH",
    );
    t.server(
        V5,
        Malformed,
        one(0x87, b"\x15\0\x01m"),
        "5 [MQTT-3.15.2-1]",
        "reason code of an AUTH",
    );
    t.server(
        V5,
        Protocol,
        one(0x18, b""),
        "5 3.15.2.2.2",
        "AUTH without a method",
    );
    t.server(
        V5,
        Protocol,
        one(0x18, b"\x16\0\x01d"),
        "5 3.15.2.2.2",
        "AUTH data without a method",
    );
    t.server(
        V5,
        Protocol,
        one(0x18, b"\x15\0\x01m\x15\0\x01m"),
        "5 3.15.2.2.2",
        "AUTH method twice",
    );
    t.server(
        V5,
        Malformed,
        one(0x18, b"\x11\0\0\0\x01"),
        "5 2.2.2.2",
        "session expiry in an AUTH",
    );
    t.server(
        V5,
        Malformed,
        b"\xF0\x01\x18",
        "5 3.15.2.1",
        "AUTH with a reason only",
    );
}
