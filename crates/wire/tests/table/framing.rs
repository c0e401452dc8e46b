//! The fixed header: packet types, flags, lengths.

use super::Verdict::{Accept, Malformed, Protocol};
use super::{ALL, Stage, Table, V3, V3_V4, V4, V4_V5, V5, packet};

pub(super) fn fill(t: &mut Table) {
    types(t);
    flags(t);
    lengths(t);
}

fn types(t: &mut Table) {
    t.server(
        ALL,
        Malformed,
        b"\x00\x00",
        "4 2.2.1; 5 2.1.2",
        "packet type 0",
    );
    t.server(
        V3_V4,
        Malformed,
        b"\xF0\x00",
        "4 2.2.1",
        "packet type 15 in 3",
    );
    for first in [0x00, 0x20, 0x30, 0x40, 0x82, 0xC0, 0xE0, 0xF0] {
        let bytes = packet(first, b"");
        t.raw(
            Stage::First,
            Protocol,
            bytes,
            "[MQTT-3.1.0-1]",
            "first packet is no CONNECT",
        );
    }
    t.server(ALL, Accept, b"\xC0\x00", "3.12", "PINGREQ");
    t.client(ALL, Accept, b"\xD0\x00", "3.13", "PINGRESP");
    t.server(
        ALL,
        Malformed,
        b"\xC0\x01\x00",
        "3.12.2",
        "PINGREQ with a body",
    );
    t.client(
        ALL,
        Malformed,
        b"\xD0\x01\x00",
        "3.13.2",
        "PINGRESP with a body",
    );
}

fn flags(t: &mut Table) {
    const CLAUSE: &str = "4 [MQTT-2.2.2-2]; 5 [MQTT-2.1.3-1]";
    for flags in [1, 2, 4, 8] {
        let connect = packet(0x10 | flags, b"\0\x04MQTT\x04\x02\0\x3C\0\x01a");
        t.raw(Stage::First, Malformed, connect, CLAUSE, "CONNECT flags");
        let connect = packet(0x10 | flags, b"\0\x04MQTT\x05\x02\0\x3C\0\0\x01a");
        t.raw(Stage::First, Malformed, connect, CLAUSE, "CONNECT flags");
        let ack = packet(0x40 | flags, b"\0\x01");
        t.server(V4_V5, Malformed, ack, CLAUSE, "PUBACK flags");
        let ping = packet(0xC0 | flags, b"");
        t.server(V4_V5, Malformed, ping, CLAUSE, "PINGREQ flags");
    }
    let connack = packet(0x21, b"\0\0");
    t.client(V4, Malformed, connack, CLAUSE, "CONNACK flags");
    t.client(
        V5,
        Malformed,
        packet(0x21, b"\0\0\0"),
        CLAUSE,
        "CONNACK flags",
    );
    t.server(
        V4_V5,
        Malformed,
        packet(0x51, b"\0\x01"),
        CLAUSE,
        "PUBREC flags",
    );
    t.server(
        V4_V5,
        Malformed,
        packet(0x72, b"\0\x01"),
        CLAUSE,
        "PUBCOMP flags",
    );
    t.client(
        V4,
        Malformed,
        packet(0x92, b"\0\x01\0"),
        CLAUSE,
        "SUBACK flags",
    );
    t.client(
        V5,
        Malformed,
        packet(0x92, b"\0\x01\0\0"),
        CLAUSE,
        "SUBACK flags",
    );
    t.client(
        V4,
        Malformed,
        packet(0xB2, b"\0\x01"),
        CLAUSE,
        "UNSUBACK flags",
    );
    t.client(
        V5,
        Malformed,
        packet(0xB2, b"\0\x01\0\0"),
        CLAUSE,
        "UNSUBACK flags",
    );
    t.client(
        V4_V5,
        Malformed,
        packet(0xD1, b""),
        CLAUSE,
        "PINGRESP flags",
    );
    t.server(
        V4_V5,
        Malformed,
        packet(0xE1, b""),
        "[MQTT-3.14.1-1]",
        "DISCONNECT flags",
    );
    t.server(
        V5,
        Malformed,
        packet(0xF1, b""),
        "5 [MQTT-3.15.1-1]",
        "AUTH flags",
    );
    for flags in [0, 1, 3, 4, 6, 10] {
        let release = packet(0x60 | flags, b"\0\x01");
        t.server(V4_V5, Malformed, release, "[MQTT-3.6.1-1]", "PUBREL flags");
        let subscribe = packet(0x80 | flags, b"\0\x01\0\x02/a\0");
        t.server(
            V4,
            Malformed,
            subscribe,
            "[MQTT-3.8.1-1]",
            "SUBSCRIBE flags",
        );
        let subscribe = packet(0x80 | flags, b"\0\x01\0\0\x02/a\0");
        t.server(
            V5,
            Malformed,
            subscribe,
            "[MQTT-3.8.1-1]",
            "SUBSCRIBE flags",
        );
        let unsubscribe = packet(0xA0 | flags, b"\0\x01\0\x02/a");
        t.server(
            V4,
            Malformed,
            unsubscribe,
            "[MQTT-3.10.1-1]",
            "UNSUBSCRIBE flags",
        );
        let unsubscribe = packet(0xA0 | flags, b"\0\x01\0\0\x02/a");
        t.server(
            V5,
            Malformed,
            unsubscribe,
            "[MQTT-3.10.1-1]",
            "UNSUBSCRIBE flags",
        );
    }
    // 3.1 has DUP and QoS 1 in these, and calls the other flags unused.
    t.server(
        V3,
        Accept,
        packet(0x8A, b"\0\x01\0\x02/a\0"),
        "3.1 3.8",
        "DUP of a SUBSCRIBE",
    );
    t.server(
        V3,
        Accept,
        packet(0xAA, b"\0\x01\0\x02/a"),
        "3.1 3.10",
        "DUP of an UNSUBSCRIBE",
    );
    t.server(
        V3,
        Accept,
        packet(0x6A, b"\0\x01"),
        "3.1 3.6",
        "DUP of a PUBREL",
    );
    t.server(
        V3,
        Accept,
        packet(0x4B, b"\0\x01"),
        "3.1 3.4",
        "unused flags of a PUBACK",
    );
    t.server(
        V3,
        Malformed,
        packet(0x80, b"\0\x01\0\x02/a\0"),
        "3.1 3.8",
        "SUBSCRIBE of QoS 0",
    );
    t.server(
        V3,
        Malformed,
        packet(0x64, b"\0\x01"),
        "3.1 3.6",
        "PUBREL of QoS 2",
    );
}

fn lengths(t: &mut Table) {
    const MINIMAL: &str = "4 2.2.3 table 2.4; 5 [MQTT-1.5.5-1]";
    t.server(
        ALL,
        Malformed,
        b"\xC0\x80\x00",
        MINIMAL,
        "length 0 in two bytes",
    );
    t.server(
        ALL,
        Malformed,
        b"\x40\x82\x00\0\x01",
        MINIMAL,
        "length 2 in two bytes",
    );
    t.server(
        ALL,
        Malformed,
        b"\x40\x82\x80\x00\0\x01",
        MINIMAL,
        "length 2 in three bytes",
    );
    t.server(
        ALL,
        Malformed,
        b"\x40\x82\x80\x80\x00\0\x01",
        MINIMAL,
        "length 2 in four bytes",
    );
    const FOUR: &str = "4 2.2.3; 5 1.5.5";
    t.server(
        ALL,
        Malformed,
        b"\x30\x80\x80\x80\x80\x01",
        FOUR,
        "length in five bytes",
    );
    t.server(
        ALL,
        Malformed,
        b"\x30\xFF\xFF\xFF\xFF",
        FOUR,
        "length in more than four bytes",
    );
    let first = b"\x10\x80\x80\x80\x80\x01";
    t.raw(Stage::First, Malformed, first, FOUR, "length in five bytes");
    t.raw(
        Stage::First,
        Malformed,
        b"\x10\x00",
        "3.1.2",
        "CONNECT without a body",
    );
    for first in [0x30, 0x32, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2] {
        t.server(ALL, Malformed, packet(first, b""), "2", "no body");
        t.server(
            ALL,
            Malformed,
            packet(first, b"\0"),
            "2",
            "body of one byte",
        );
    }
    for first in [0x20, 0x90, 0xB0] {
        t.client(ALL, Malformed, packet(first, b""), "2", "no body");
        t.client(
            ALL,
            Malformed,
            packet(first, b"\0"),
            "2",
            "body of one byte",
        );
    }
    let long = packet(0x30, [&b"\0\x02/a"[..], &[b'x'; 300]].concat());
    t.server(V3_V4, Accept, long, "2.2.3", "length of two bytes");
    let long = packet(0x30, [&b"\0\x02/a\0"[..], &[b'x'; 20_000]].concat());
    t.server(V5, Accept, long, "1.5.5", "length of three bytes");
}
