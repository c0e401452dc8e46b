//! SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK.

use super::Verdict::{Accept, Malformed, Protocol};
use super::{ALL, Table, V3, V3_V4, V4, V5, packet, with_properties};

pub(super) fn fill(t: &mut Table) {
    subscribe(t);
    options(t);
    unsubscribe(t);
    answers(t);
}

/// A SUBSCRIBE of 5.0 to `/a` with these properties.
fn with(properties: &[u8]) -> Vec<u8> {
    packet(0x82, with_properties(b"\0\x01", properties, b"\0\x02/a\0"))
}

fn subscribe(t: &mut Table) {
    t.server(
        V3_V4,
        Accept,
        packet(0x82, b"\0\x01\0\x02/a\x01"),
        "3.8",
        "SUBSCRIBE",
    );
    t.server(
        V3_V4,
        Accept,
        packet(0x82, b"\0\x01\0\x02/a\x01\0\x02/b\x02"),
        "3.8",
        "two filters",
    );
    t.server(
        V5,
        Accept,
        packet(0x82, b"\0\x01\0\0\x02/a\x01\0\x02/b\x2E"),
        "3.8",
        "two filters",
    );
    for filter in [
        &b"#"[..],
        b"/a/#/b",
        b"a+",
        b"$share/g/#",
        b"$share/g",
        b"$share/+/a",
        b"$share",
    ] {
        let len = u8::try_from(filter.len()).unwrap();
        let tail = [&[0, len][..], filter, b"\0"].concat();
        let body = [&b"\0\x01"[..], &tail].concat();
        t.server(
            V3_V4,
            Accept,
            packet(0x82, body),
            "4.7.1: policy",
            "wildcards in a filter",
        );
        let body = [&b"\0\x01\0"[..], &tail].concat();
        t.server(
            V5,
            Accept,
            packet(0x82, body),
            "4.7.1: policy",
            "wildcards in a filter",
        );
    }
    let shared = packet(0x82, b"\0\x01\0\0\x0A$share/g/a\x04");
    t.server(
        V5,
        Accept,
        shared,
        "5 [MQTT-3.8.3-4]: policy",
        "no local on a shared subscription",
    );
    t.server(
        V5,
        Accept,
        with(b"\x0B\x01\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v"),
        "5 3.8.2.1",
        "every property",
    );
    const ID: &str = "4 [MQTT-2.3.1-1]; 5 [MQTT-2.2.1-3]";
    t.server(
        ALL,
        Protocol,
        packet(0x82, b"\0\0\0\0\x02/a\0"),
        ID,
        "SUBSCRIBE identifier 0",
    );
    const NONE: &str = "4 [MQTT-3.8.3-3]; 5 [MQTT-3.8.3-2]";
    t.server(
        V3_V4,
        Protocol,
        packet(0x82, b"\0\x01"),
        NONE,
        "SUBSCRIBE without a filter",
    );
    t.server(
        V5,
        Protocol,
        packet(0x82, b"\0\x01\0"),
        NONE,
        "SUBSCRIBE without a filter",
    );
    t.server(
        V5,
        Malformed,
        packet(0x82, b"\0\x01"),
        "5 3.8.2.1.1",
        "no property length",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0x82, b"\0\x01\0\0\0"),
        "[MQTT-4.7.3-1]",
        "empty filter",
    );
    t.server(
        V5,
        Malformed,
        packet(0x82, b"\0\x01\0\0\0\0"),
        "[MQTT-4.7.3-1]",
        "empty filter",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0x82, b"\0\x01\0\x02/a"),
        "3.8.3",
        "filter without options",
    );
    t.server(
        V5,
        Malformed,
        packet(0x82, b"\0\x01\0\0\x02/a"),
        "3.8.3",
        "filter without options",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0x82, b"\0\x01\0\x09/a\0"),
        "3.8.3",
        "filter cut off",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0x82, b"\0\x01\0\x02\xC3\x28\0"),
        "[MQTT-3.8.3-1]",
        "filter not UTF-8",
    );
    t.server(
        V5,
        Malformed,
        packet(0x82, b"\0\x01\0\0\x02\xC3\x28\0"),
        "[MQTT-3.8.3-1]",
        "filter not UTF-8",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0x82, b"\0\x01\0\x02/\0\0"),
        "[MQTT-4.7.3-2]",
        "NUL in a filter",
    );
    t.server(
        V5,
        Malformed,
        packet(0x82, b"\0\x01\0\0\x02/\0\0"),
        "[MQTT-4.7.3-2]",
        "NUL in a filter",
    );
    t.server(
        V5,
        Protocol,
        with(b"\x0B\x00"),
        "5 3.8.2.1.2",
        "subscription identifier 0",
    );
    t.server(
        V5,
        Protocol,
        with(b"\x0B\x01\x0B\x01"),
        "5 3.8.2.1.2",
        "subscription identifier twice",
    );
    t.server(
        V5,
        Malformed,
        with(b"\x0B\x81\x00"),
        "5 [MQTT-1.5.5-1]",
        "subscription identifier in two bytes",
    );
    t.server(
        V5,
        Malformed,
        with(b"\x0B\x80\x80\x80\x80\x01"),
        "5 1.5.5",
        "subscription identifier in five bytes",
    );
    t.server(
        V5,
        Malformed,
        with(b"\x1F\0\x01r"),
        "5 2.2.2.2",
        "reason string in a SUBSCRIBE",
    );
    t.server(
        V5,
        Malformed,
        with(b"\x23\0\x01"),
        "5 2.2.2.2",
        "topic alias in a SUBSCRIBE",
    );
}

fn options(t: &mut Table) {
    for qos in 0..=2 {
        let body = [&b"\0\x01\0\x02/a"[..], &[qos]].concat();
        t.server(
            V3_V4,
            Accept,
            packet(0x82, body),
            "3.8.3",
            "QoS of a filter",
        );
    }
    const RESERVED_4: &str = "4 [MQTT-3.8.3-4]";
    for bits in [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF] {
        let body = [&b"\0\x01\0\x02/a"[..], &[bits]].concat();
        t.server(
            V4,
            Malformed,
            packet(0x82, body),
            RESERVED_4,
            "reserved bits of a filter in 3.1.1",
        );
    }
    let upper = packet(0x82, b"\0\x01\0\x02/a\xFD");
    t.server(
        V3,
        Accept,
        upper,
        "3.1 3.8",
        "unused bits of a filter in 3.1",
    );
    let three = packet(0x82, b"\0\x01\0\x02/a\x03");
    t.server(V3, Malformed, three, "3.1 2.1", "QoS 3 of a filter in 3.1");
    for bits in [0x00, 0x05, 0x0A, 0x1C, 0x2E] {
        let body = [&b"\0\x01\0\0\x02/a"[..], &[bits]].concat();
        t.server(
            V5,
            Accept,
            packet(0x82, body),
            "5 3.8.3.1",
            "options of a filter",
        );
    }
    for bits in [0x40, 0x80, 0xC1] {
        let body = [&b"\0\x01\0\0\x02/a"[..], &[bits]].concat();
        t.server(
            V5,
            Malformed,
            packet(0x82, body),
            "5 [MQTT-3.8.3-5]",
            "reserved option bits",
        );
    }
    t.server(
        V5,
        Protocol,
        packet(0x82, b"\0\x01\0\0\x02/a\x03"),
        "5 3.8.3.1",
        "QoS 3 of a filter",
    );
    t.server(
        V5,
        Protocol,
        packet(0x82, b"\0\x01\0\0\x02/a\x30"),
        "5 3.8.3.1",
        "retain handling 3",
    );
}

fn unsubscribe(t: &mut Table) {
    t.server(
        V3_V4,
        Accept,
        packet(0xA2, b"\0\x01\0\x02/a\0\x02/b"),
        "3.10",
        "UNSUBSCRIBE",
    );
    t.server(
        V5,
        Accept,
        packet(0xA2, b"\0\x01\0\0\x02/a\0\x02/b"),
        "3.10",
        "UNSUBSCRIBE",
    );
    let user = packet(0xA2, b"\0\x01\x07\x26\0\x01k\0\x01v\0\x02/a");
    t.server(
        V5,
        Accept,
        user,
        "5 3.10.2.1",
        "user property of an UNSUBSCRIBE",
    );
    const ID: &str = "4 [MQTT-2.3.1-1]; 5 [MQTT-2.2.1-3]";
    t.server(
        ALL,
        Protocol,
        packet(0xA2, b"\0\0\0\0\x02/a"),
        ID,
        "UNSUBSCRIBE identifier 0",
    );
    const NONE: &str = "[MQTT-3.10.3-2]";
    t.server(
        V3_V4,
        Protocol,
        packet(0xA2, b"\0\x01"),
        NONE,
        "UNSUBSCRIBE without a filter",
    );
    t.server(
        V5,
        Protocol,
        packet(0xA2, b"\0\x01\0"),
        NONE,
        "UNSUBSCRIBE without a filter",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0xA2, b"\0\x01\0\0"),
        "[MQTT-4.7.3-1]",
        "empty filter",
    );
    t.server(
        V5,
        Malformed,
        packet(0xA2, b"\0\x01\0\0\0"),
        "[MQTT-4.7.3-1]",
        "empty filter",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0xA2, b"\0\x01\0\x01\xFF"),
        "[MQTT-3.10.3-1]",
        "filter not UTF-8",
    );
    t.server(
        V5,
        Malformed,
        packet(0xA2, b"\0\x01\0\0\x01\xFF"),
        "[MQTT-3.10.3-1]",
        "filter not UTF-8",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0xA2, b"\0\x01\0\x01\0"),
        "[MQTT-4.7.3-2]",
        "NUL in a filter",
    );
    t.server(
        V5,
        Malformed,
        packet(0xA2, b"\0\x01\0\0\x01\0"),
        "[MQTT-4.7.3-2]",
        "NUL in a filter",
    );
    t.server(
        V3_V4,
        Malformed,
        packet(0xA2, b"\0\x01\0\x02/a\0"),
        "3.10.3",
        "half a filter",
    );
    let misplaced = packet(0xA2, b"\0\x01\x02\x0B\x01\0\x02/a");
    t.server(
        V5,
        Malformed,
        misplaced,
        "5 2.2.2.2",
        "subscription identifier in an UNSUBSCRIBE",
    );
}

fn answers(t: &mut Table) {
    for code in [0, 1, 2, 0x80] {
        let body = [0, 1, code];
        t.client(V3_V4, Accept, packet(0x90, body), "3.9.3", "SUBACK");
    }
    for code in [3, 4, 0x7F, 0x81, 0x87, 0xFF] {
        let body = [0, 1, code];
        t.client(
            V3_V4,
            Malformed,
            packet(0x90, body),
            "4 [MQTT-3.9.3-2]",
            "reserved SUBACK code",
        );
    }
    for code in [
        0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
    ] {
        let body = [0, 1, 0, code];
        t.client(V5, Accept, packet(0x90, body), "5 3.9.3", "SUBACK");
    }
    for code in [3, 0x10, 0x11, 0x81, 0x90, 0x96, 0xFF] {
        let body = [0, 1, 0, code];
        t.client(
            V5,
            Malformed,
            packet(0x90, body),
            "5 [MQTT-3.9.3-2]",
            "reason code of a SUBACK",
        );
    }
    t.client(
        V3_V4,
        Malformed,
        packet(0x90, b"\0\x01"),
        "3.9.3",
        "SUBACK without a code",
    );
    t.client(
        V5,
        Malformed,
        packet(0x90, b"\0\x01\0"),
        "3.9.3",
        "SUBACK without a code",
    );
    t.client(
        ALL,
        Protocol,
        packet(0x90, b"\0\0\0\0"),
        "2.3.1",
        "SUBACK identifier 0",
    );
    t.client(V3_V4, Accept, packet(0xB0, b"\0\x01"), "4 3.11", "UNSUBACK");
    t.client(
        V3_V4,
        Malformed,
        packet(0xB0, b"\0\x01\0"),
        "4 3.11.3",
        "UNSUBACK with a code in 3",
    );
    for code in [0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91] {
        t.client(
            V5,
            Accept,
            packet(0xB0, [0, 1, 0, code]),
            "5 3.11.3",
            "UNSUBACK",
        );
    }
    for code in [1, 2, 0x10, 0x97, 0xA2] {
        let body = packet(0xB0, [0, 1, 0, code]);
        t.client(
            V5,
            Malformed,
            body,
            "5 [MQTT-3.11.3-2]",
            "reason code of an UNSUBACK",
        );
    }
    t.client(
        V5,
        Malformed,
        packet(0xB0, b"\0\x01\0"),
        "5 3.11.3",
        "UNSUBACK without a code",
    );
    let all = packet(0x90, b"\0\x01\x0B\x1F\0\x01r\x26\0\x01k\0\x01v\0");
    t.client(V5, Accept, all, "5 3.9.2.1", "every property of a SUBACK");
    let twice = packet(0x90, b"\0\x01\x06\x1F\0\0\x1F\0\0\0");
    t.client(
        V5,
        Protocol,
        twice,
        "5 3.9.2.1.2",
        "SUBACK reason string twice",
    );
    let misplaced = packet(0xB0, b"\0\x01\x02\x0B\x01\0");
    t.client(
        V5,
        Malformed,
        misplaced,
        "5 2.2.2.2",
        "subscription identifier in an UNSUBACK",
    );
}
