//! PUBACK, PUBREC, PUBREL, PUBCOMP.

use super::Verdict::{Accept, Malformed, Protocol};
use super::{ALL, Table, V3_V4, V5, packet};

const FIRST_BYTES: [u8; 4] = [0x40, 0x50, 0x62, 0x70];

pub(super) fn fill(t: &mut Table) {
    for first in FIRST_BYTES {
        t.server(
            ALL,
            Accept,
            packet(first, b"\0\x01"),
            "3.4 to 3.7",
            "acknowledgement",
        );
        t.server(
            ALL,
            Accept,
            packet(first, b"\xFF\xFF"),
            "2.3.1",
            "acknowledgement of 65535",
        );
        t.server(
            ALL,
            Protocol,
            packet(first, b"\0\0"),
            "2.3.1",
            "acknowledgement of 0",
        );
        t.server(
            V3_V4,
            Malformed,
            packet(first, b"\0\x01\0"),
            "4 3.4 to 3.7",
            "bytes after an acknowledgement",
        );
        t.server(
            V5,
            Accept,
            packet(first, b"\0\x01\0"),
            "5 3.4.2.1",
            "Success said",
        );
        t.server(
            V5,
            Accept,
            packet(first, b"\0\x01\0\0"),
            "5 3.4.2.2",
            "no properties said",
        );
        let all = packet(
            first,
            b"\0\x01\0\x12\x1F\0\x01r\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v",
        );
        t.server(
            V5,
            Accept,
            all,
            "5 3.4.2.2",
            "every property of an acknowledgement",
        );
        t.server(
            V5,
            Malformed,
            packet(first, b"\0\x01\0\0\0"),
            "5 3.4.3",
            "bytes after an acknowledgement",
        );
        t.server(
            V5,
            Malformed,
            packet(first, b"\0\x01\0\x05\x1F\0\x01r"),
            "5 2.2.2.1",
            "properties cut off",
        );
        let twice = packet(first, b"\0\x01\0\x08\x1F\0\x01r\x1F\0\x01r");
        t.server(V5, Protocol, twice, "5 3.4.2.2.2", "reason string twice");
        t.server(
            V5,
            Malformed,
            packet(first, b"\0\x01\0\x03\x23\0\x01"),
            "5 2.2.2.2",
            "topic alias in it",
        );
        t.server(
            V5,
            Malformed,
            packet(first, b"\0\x01\0\x80\0"),
            "5 [MQTT-1.5.5-1]",
            "property length 0 in two bytes",
        );
        t.server(
            V5,
            Malformed,
            packet(first, b"\0\x01\0\x04\x1F\0\x01\xFF"),
            "5 [MQTT-1.5.4-1]",
            "reason string not UTF-8",
        );
        t.server(
            V5,
            Protocol,
            packet(first, b"\0\0\x80"),
            "2.2.1",
            "acknowledgement of 0 with a reason",
        );
    }
    reasons(t);
}

fn reasons(t: &mut Table) {
    for first in [0x40, 0x50] {
        for code in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
            t.server(
                V5,
                Accept,
                packet(first, [0, 1, code]),
                "5 3.4.2.1",
                "reason code",
            );
        }
        for code in [0x01, 0x11, 0x81, 0x82, 0x8F, 0x92, 0x96, 0x98, 0xFF] {
            let bytes = packet(first, [0, 1, code]);
            t.server(
                V5,
                Malformed,
                bytes,
                "5 [MQTT-3.4.2-1], [MQTT-3.5.2-1]",
                "reason code of a PUBACK or PUBREC",
            );
        }
    }
    for first in [0x62, 0x70] {
        t.server(
            V5,
            Accept,
            packet(first, b"\0\x01\x92"),
            "5 3.6.2.1",
            "reason code",
        );
        for code in [0x01, 0x10, 0x80, 0x91, 0x93, 0xFF] {
            let bytes = packet(first, [0, 1, code]);
            t.server(
                V5,
                Malformed,
                bytes,
                "5 [MQTT-3.6.2-1], [MQTT-3.7.2-1]",
                "reason code of a PUBREL or PUBCOMP",
            );
        }
    }
}
