//! PUBLISH.

use super::Verdict::{Accept, Malformed, Protocol};
use super::{ALL, Table, V3_V4, V5, packet, with_properties};

pub(super) fn fill(t: &mut Table) {
    both(t);
    topics(t);
    properties(t);
    subscription_ids(t);
}

fn both(t: &mut Table) {
    t.server(V3_V4, Accept, packet(0x30, b"\0\x02/ahi"), "3.3", "QoS 0");
    t.server(V5, Accept, packet(0x30, b"\0\x02/a\0hi"), "3.3", "QoS 0");
    for first in [0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D] {
        let id: &[u8] = if first == 0x31 { b"" } else { b"\0\x01" };
        let body = [&b"\0\x02/a"[..], id, b"hi"].concat();
        t.server(
            V3_V4,
            Accept,
            packet(first, body),
            "3.3.1",
            "flags of a PUBLISH",
        );
        let body = [&b"\0\x02/a"[..], id, b"\0hi"].concat();
        t.server(
            V5,
            Accept,
            packet(first, body),
            "3.3.1",
            "flags of a PUBLISH",
        );
    }
    t.server(
        V3_V4,
        Accept,
        packet(0x30, b"\0\x02/a"),
        "3.3.3",
        "no payload",
    );
    t.server(
        V5,
        Accept,
        packet(0x30, b"\0\x02/a\0"),
        "3.3.3",
        "no payload",
    );
    t.server(
        V3_V4,
        Accept,
        packet(0x30, b"\0\x02/a\0\xFF\xFE"),
        "3.3.3",
        "payload of any bytes",
    );
    for first in [0x36, 0x37, 0x3E, 0x3F] {
        let body = packet(first, b"\0\x02/a\0\x01\0hi");
        t.server(ALL, Malformed, body, "[MQTT-3.3.1-4]", "QoS 3");
    }
    let dup = packet(0x38, b"\0\x02/a\0hi");
    t.server(ALL, Malformed, dup, "[MQTT-3.3.1-2]", "DUP on QoS 0");
    let dup = packet(0x39, b"\0\x02/a\0hi");
    t.server(
        ALL,
        Malformed,
        dup,
        "[MQTT-3.3.1-2]",
        "DUP on QoS 0, retained",
    );
    const ID: &str = "4 [MQTT-2.3.1-1]; 5 [MQTT-2.2.1-3]";
    t.server(
        ALL,
        Protocol,
        packet(0x32, b"\0\x02/a\0\0\0hi"),
        ID,
        "packet identifier 0, QoS 1",
    );
    t.server(
        ALL,
        Protocol,
        packet(0x34, b"\0\x02/a\0\0\0hi"),
        ID,
        "packet identifier 0, QoS 2",
    );
    t.server(
        ALL,
        Malformed,
        packet(0x32, b"\0\x02/a"),
        ID,
        "no packet identifier",
    );
    t.server(
        ALL,
        Malformed,
        packet(0x32, b"\0\x02/a\0"),
        ID,
        "packet identifier cut off",
    );
}

fn topics(t: &mut Table) {
    for topic in [&b"/a/#"[..], b"+", b"/$SYS", b"#"] {
        let len = u8::try_from(topic.len()).unwrap();
        let body = [&[0, len][..], topic, b"\0"].concat();
        t.server(
            ALL,
            Accept,
            packet(0x30, body),
            "[MQTT-3.3.2-2]: policy",
            "wildcard in a topic",
        );
    }
    let emoji = packet(0x30, b"\0\x04\xF0\x9F\x98\x80\0");
    t.server(ALL, Accept, emoji, "1.5", "four-byte character");
    let bom = packet(0x30, b"\0\x03\xEF\xBB\xBF\0");
    t.server(
        ALL,
        Accept,
        bom,
        "4 [MQTT-1.5.3-3]; 5 [MQTT-1.5.4-3]",
        "byte order mark",
    );
    let not_a_character = packet(0x30, b"\0\x03\xEF\xBF\xBF\0");
    t.server(ALL, Accept, not_a_character, "1.5: should not", "U+FFFF");
    const UTF8: &str = "4 [MQTT-1.5.3-1]; 5 [MQTT-1.5.4-1]";
    for (topic, what) in [
        (&b"\x80"[..], "continuation byte alone"),
        (b"a\xC3", "character cut off"),
        (b"\xC0\x80", "overlong NUL"),
        (b"\xC1\xBF", "overlong two bytes"),
        (b"\xE0\x80\xAF", "overlong three bytes"),
        (b"\xF0\x80\x80\xAF", "overlong four bytes"),
        (b"\xED\xA0\x80", "high surrogate"),
        (b"\xED\xBF\xBF", "low surrogate"),
        (b"\xF4\x90\x80\x80", "above U+10FFFF"),
        (b"\xF8\x88\x80\x80\x80", "five-byte form"),
        (b"\xFF\xFE", "not UTF-8 at all"),
    ] {
        let len = u8::try_from(topic.len()).unwrap();
        let body = [&[0, len][..], topic, b"\0"].concat();
        t.server(ALL, Malformed, packet(0x30, body), UTF8, what);
    }
    const NUL: &str = "4 [MQTT-1.5.3-2]; 5 [MQTT-1.5.4-2]";
    t.server(
        ALL,
        Malformed,
        packet(0x30, b"\0\x03/a\0\0"),
        NUL,
        "NUL in a topic",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0x30, b"\0\0hi"),
        "[MQTT-4.7.3-1]",
        "empty topic",
    );
    t.server(
        V5,
        Protocol,
        packet(0x30, b"\0\0\0hi"),
        "5 3.3.2.1",
        "neither topic nor alias",
    );
    t.server(
        ALL,
        Malformed,
        packet(0x30, b"\0\x09/a"),
        "1.5",
        "topic longer than the packet",
    );
    t.server(
        V5,
        Malformed,
        packet(0x30, b"\0\x02/a"),
        "5 3.3.2.3.1",
        "no property length",
    );
}

/// A QoS 0 PUBLISH to `/a` with these properties.
fn with(properties: &[u8]) -> Vec<u8> {
    packet(0x30, with_properties(b"\0\x02/a", properties, b"hi"))
}

fn properties(t: &mut Table) {
    let all = [
        &b"\x01\x01\x02\0\0\0\x0A\x23\0\x01\x08\0\x01r\x09\0\x02\0\xFF"[..],
        b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v\x03\0\x01c",
    ]
    .concat();
    t.server(
        V5,
        Accept,
        with(&all),
        "5 3.3.2.3",
        "every property of a PUBLISH",
    );
    let alias = packet(0x30, b"\0\0\x03\x23\0\x01hi");
    t.server(
        V5,
        Accept,
        alias,
        "5 3.3.2.3.4",
        "topic alias instead of a topic",
    );
    let text = packet(0x30, b"\0\x02/a\x02\x01\x01\xFF\xFE");
    t.server(
        V5,
        Accept,
        text,
        "5 3.3.2.3.2: policy",
        "payload is not the UTF-8 it says",
    );
    for (properties, clause, what) in [
        (&b"\x01\0\x01\0"[..], "5 3.3.2.3.2", "payload format twice"),
        (b"\x01\x02", "5 3.3.2.3.2", "payload format 2"),
        (
            b"\x02\0\0\0\x01\x02\0\0\0\x01",
            "5 3.3.2.3.3",
            "expiry twice",
        ),
        (b"\x23\0\x01\x23\0\x02", "5 3.3.2.3.4", "topic alias twice"),
        (b"\x23\0\0", "5 [MQTT-3.3.2-8]", "topic alias 0"),
        (
            b"\x08\0\x01r\x08\0\x01r",
            "5 3.3.2.3.5",
            "response topic twice",
        ),
        (
            b"\x08\0\x02a#",
            "5 [MQTT-3.3.2-14]",
            "# in the response topic",
        ),
        (
            b"\x08\0\x01+",
            "5 [MQTT-3.3.2-14]",
            "+ in the response topic",
        ),
        (b"\x08\0\0", "5 [MQTT-4.7.3-1]", "empty response topic"),
        (b"\x09\0\0\x09\0\0", "5 3.3.2.3.6", "correlation data twice"),
        (
            b"\x03\0\x01c\x03\0\x01c",
            "5 3.3.2.3.9",
            "content type twice",
        ),
    ] {
        t.server(V5, Protocol, with(properties), clause, what);
    }
    for (properties, clause, what) in [
        (&b"\x02\0\0"[..], "5 2.2.2.1", "expiry cut off"),
        (
            b"\x08\0\x01\xFF",
            "5 [MQTT-3.3.2-13]",
            "response topic not UTF-8",
        ),
        (
            b"\x08\0\x01\0",
            "5 [MQTT-1.5.4-2]",
            "NUL in the response topic",
        ),
        (
            b"\x03\0\x01\xFF",
            "5 [MQTT-3.3.2-19]",
            "content type not UTF-8",
        ),
        (
            b"\x26\0\x01\xFF\0\0",
            "5 [MQTT-1.5.7-1]",
            "name of a user property not UTF-8",
        ),
        (b"\x26\0\x09k", "5 1.5.7", "user property cut off"),
        (
            b"\x11\0\0\0\x01",
            "5 2.2.2.2",
            "session expiry in a PUBLISH",
        ),
        (b"\x18\0\0\0\x01", "5 2.2.2.2", "will delay in a PUBLISH"),
        (b"\x1F\0\x01r", "5 2.2.2.2", "reason string in a PUBLISH"),
        (
            b"\x22\0\x01",
            "5 2.2.2.2",
            "topic alias maximum in a PUBLISH",
        ),
        (b"\x05\0", "5 2.2.2.2", "unknown property in a PUBLISH"),
        (
            b"\x81\0\x01",
            "5 2.2.2.2",
            "property identifier in two bytes",
        ),
    ] {
        t.server(V5, Malformed, with(properties), clause, what);
    }
    let non_minimal = packet(0x30, b"\0\x02/a\x82\x00\x01\x01hi");
    t.server(
        V5,
        Malformed,
        non_minimal,
        "5 [MQTT-1.5.5-1]",
        "property length 2 in two bytes",
    );
    let five = packet(0x30, b"\0\x02/a\x80\x80\x80\x80\x01hi");
    t.server(
        V5,
        Malformed,
        five,
        "5 1.5.5",
        "property length in five bytes",
    );
    let past = packet(0x30, b"\0\x02/a\x7Fhi");
    t.server(
        V5,
        Malformed,
        past,
        "5 2.2.2.1",
        "property length past the end",
    );
}

fn subscription_ids(t: &mut Table) {
    let from_client = with(b"\x0B\x01");
    t.server(
        V5,
        Protocol,
        from_client,
        "5 [MQTT-3.3.4-6]",
        "subscription identifier from a client",
    );
    t.client(
        V5,
        Accept,
        with(b"\x0B\x01\x0B\xFF\xFF\xFF\x7F"),
        "5 3.3.2.3.8",
        "two subscription identifiers",
    );
    t.client(
        V5,
        Protocol,
        with(b"\x0B\x00"),
        "5 3.3.2.3.8",
        "subscription identifier 0",
    );
    let non_minimal = with(b"\x0B\x81\x00");
    t.client(
        V5,
        Malformed,
        non_minimal,
        "5 [MQTT-1.5.5-1]",
        "subscription identifier in two bytes",
    );
    let five = with(b"\x0B\x80\x80\x80\x80\x01");
    t.client(
        V5,
        Malformed,
        five,
        "5 1.5.5",
        "subscription identifier in five bytes",
    );
}
