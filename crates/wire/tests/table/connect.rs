//! CONNECT.

use super::Verdict::{Accept, Malformed, Protocol, Unsupported};
use super::{Table, V3, V4, V5, packet, with_properties};

pub(super) fn fill(t: &mut Table) {
    names_and_levels(t);
    connect_3(t);
    connect_5(t);
    connect_5_properties(t);
    will_5_properties(t);
}

fn names_and_levels(t: &mut Table) {
    t.connect(
        Accept,
        b"\0\x06MQIsdp\x03\x02\0\x3C\0\x01a",
        "3.1 3.1",
        "3.1",
    );
    t.connect(Accept, b"\0\x04MQTT\x04\x02\0\x3C\0\x01a", "3.1", "3.1.1");
    t.connect(Accept, b"\0\x04MQTT\x05\x02\0\x3C\0\0\x01a", "3.1", "5.0");
    const LEVEL: &str = "[MQTT-3.1.2-2]";
    for level in [0, 3, 6, 131, 132, 255] {
        let body = [&b"\0\x04MQTT"[..], &[level], b"\x02\0\x3C\0\x01a"].concat();
        t.connect(Unsupported(level), body, LEVEL, "MQTT of another level");
    }
    for level in [0, 4, 5, 131] {
        let body = [&b"\0\x06MQIsdp"[..], &[level], b"\x02\0\x3C\0\x01a"].concat();
        t.connect(Unsupported(level), body, LEVEL, "MQIsdp of another level");
    }
    const NAME: &str = "[MQTT-3.1.2-1]";
    t.connect(
        Protocol,
        b"\0\x04mqtt\x04\x02\0\x3C\0\x01a",
        NAME,
        "name in lower case",
    );
    t.connect(
        Protocol,
        b"\0\x04MQTX\x04\x02\0\x3C\0\x01a",
        NAME,
        "another name",
    );
    t.connect(Protocol, b"\0\0\x04\x02\0\x3C\0\x01a", NAME, "empty name");
    t.connect(
        Malformed,
        b"\0\x04MQ\xFFT\x04\x02\0\x3C\0\x01a",
        "1.5",
        "name not UTF-8",
    );
    t.connect(
        Malformed,
        b"\0\x09MQTT\x04",
        "1.5",
        "name longer than the packet",
    );
    t.server(
        V3,
        Accept,
        packet(0x10, b"\0\x06MQIsdp\x03\x02\0\x3C\0\x01a"),
        "3.1.0",
        "second CONNECT",
    );
    t.server(
        V4,
        Accept,
        packet(0x10, b"\0\x04MQTT\x04\x02\0\x3C\0\x01a"),
        "3.1.0",
        "second CONNECT",
    );
    t.server(
        V5,
        Accept,
        packet(0x10, b"\0\x04MQTT\x05\x02\0\x3C\0\0\x01a"),
        "3.1.0",
        "second CONNECT",
    );
}

/// A CONNECT of 3.1.1 with these flags, keep alive 60.
fn v4(flags: u8, payload: &[u8]) -> Vec<u8> {
    [&b"\0\x04MQTT\x04"[..], &[flags], b"\0\x3C", payload].concat()
}

fn v3(flags: u8, payload: &[u8]) -> Vec<u8> {
    [&b"\0\x06MQIsdp\x03"[..], &[flags], b"\0\x3C", payload].concat()
}

fn connect_3(t: &mut Table) {
    t.connect(
        Accept,
        v4(0x02, b"\0\0"),
        "4 [MQTT-3.1.3-6]",
        "empty client id, clean",
    );
    t.connect(
        Accept,
        v4(0x00, b"\0\0"),
        "4 [MQTT-3.1.3-8]: policy",
        "empty client id, not clean",
    );
    t.connect(
        Accept,
        v3(0x00, b"\0\0"),
        "3.1 3.1: policy",
        "empty client id in 3.1",
    );
    let long = [&b"\0\x28"[..], &[b'a'; 40]].concat();
    t.connect(
        Accept,
        v3(0x02, &long),
        "3.1 3.1: policy",
        "client id over 23 characters",
    );
    t.connect(
        Accept,
        v4(0xC2, b"\0\x01a\0\x01u\0\x02\xFF\0"),
        "3.1.3.5",
        "password of any bytes",
    );
    t.connect(
        Accept,
        v4(0x82, b"\0\x01a\0\x01u"),
        "[MQTT-3.1.2-21]",
        "user name alone",
    );
    t.connect(
        Accept,
        v4(0x2E, b"\0\x01a\0\x01w\0\0"),
        "3.1.3.3",
        "will with empty payload",
    );
    t.connect(
        Accept,
        v4(0x16, b"\0\x01a\0\x02+#\0\x01x"),
        "4.7: policy",
        "will to wildcards",
    );
    t.connect(
        Malformed,
        v4(0x03, b"\0\x01a"),
        "[MQTT-3.1.2-3]",
        "reserved connect flag",
    );
    t.connect(
        Malformed,
        v4(0x0A, b"\0\x01a"),
        "4 [MQTT-3.1.2-13]",
        "will QoS without will",
    );
    t.connect(
        Malformed,
        v4(0x22, b"\0\x01a"),
        "4 [MQTT-3.1.2-15]",
        "will retain without will",
    );
    t.connect(
        Malformed,
        v4(0x1E, b"\0\x01a\0\x01w\0\x01x"),
        "4 [MQTT-3.1.2-14]",
        "will QoS 3",
    );
    t.connect(
        Malformed,
        v4(0x42, b"\0\x01a\0\x01p"),
        "4 [MQTT-3.1.2-22]",
        "password without user",
    );
    t.connect(
        Malformed,
        v3(0x42, b"\0\x01a\0\x01p"),
        "3.1 3.1",
        "password without user",
    );
    t.connect(Malformed, v4(0x02, b""), "4 [MQTT-3.1.3-3]", "no client id");
    t.connect(
        Malformed,
        v4(0x02, b"\0\x02\xC0\x80"),
        "4 [MQTT-3.1.3-4]",
        "client id not UTF-8",
    );
    t.connect(
        Malformed,
        v4(0x02, b"\0\x02a\0"),
        "4 [MQTT-1.5.3-2]",
        "NUL in the client id",
    );
    t.connect(
        Malformed,
        v4(0x82, b"\0\x01a"),
        "4 [MQTT-3.1.2-19]",
        "user name missing",
    );
    t.connect(
        Malformed,
        v4(0xC2, b"\0\x01a\0\x01u"),
        "4 [MQTT-3.1.2-21]",
        "password missing",
    );
    t.connect(
        Malformed,
        v4(0x82, b"\0\x01a\0\x01\xFF"),
        "4 [MQTT-3.1.3-11]",
        "user not UTF-8",
    );
    t.connect(
        Malformed,
        v4(0x82, b"\0\x01a\0\x01\0"),
        "4 [MQTT-1.5.3-2]",
        "NUL in the user name",
    );
    t.connect(
        Malformed,
        v4(0x06, b"\0\x01a\0\x01\xFF\0\0"),
        "4 [MQTT-3.1.3-10]",
        "will topic not UTF-8",
    );
    t.connect(
        Malformed,
        v4(0x06, b"\0\x01a\0\x02w\0\0\0"),
        "4 [MQTT-4.7.3-2]",
        "NUL in the will topic",
    );
    t.connect(
        Malformed,
        v4(0x06, b"\0\x01a\0\0\0\0"),
        "[MQTT-4.7.3-1]",
        "empty will topic",
    );
    t.connect(
        Malformed,
        v4(0x06, b"\0\x01a\0\x01w"),
        "[MQTT-3.1.2-9]",
        "will payload missing",
    );
    t.connect(
        Malformed,
        v4(0x02, b"\0\x01a\0"),
        "3.1.3",
        "bytes after a CONNECT",
    );
    t.connect(
        Malformed,
        v4(0x02, b"\0\x01a\0\x01u"),
        "4 [MQTT-3.1.2-18]",
        "user name without its flag",
    );
    t.connect(
        Malformed,
        b"\0\x04MQTT\x04",
        "3.1.2",
        "CONNECT cut after the level",
    );
    t.connect(
        Malformed,
        b"\0\x04MQTT\x04\x02\0",
        "3.1.2",
        "CONNECT cut in keep alive",
    );
    // What 3.1 says of these: not used, or disregarded.
    t.connect(
        Accept,
        v3(0x03, b"\0\x01a"),
        "3.1 3.1",
        "unused connect flag of 3.1",
    );
    t.connect(
        Accept,
        v3(0x3A, b"\0\x01a"),
        "3.1 3.1",
        "will flags without will in 3.1",
    );
    t.connect(
        Accept,
        v3(0xC2, b"\0\x01a"),
        "3.1 3.1",
        "user name and password missing in 3.1",
    );
    t.connect(
        Accept,
        v3(0xC2, b"\0\x01a\0\x01u"),
        "3.1 3.1",
        "password missing in 3.1",
    );
    t.connect(
        Malformed,
        v3(0x1E, b"\0\x01a\0\x01w\0\x01x"),
        "3.1 2.1",
        "will QoS 3 in 3.1",
    );
    t.connect(
        Malformed,
        v3(0x02, b"\0\x01a\0\x01u"),
        "3.1 3.1",
        "user name without its flag",
    );
}

/// A CONNECT of 5.0 with these flags and properties.
fn v5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    with_properties(
        [&b"\0\x04MQTT\x05"[..], &[flags], b"\0\x3C"].concat(),
        properties,
        payload,
    )
}

fn connect_5(t: &mut Table) {
    t.connect(
        Accept,
        v5(0x02, b"", b"\0\0"),
        "5 [MQTT-3.1.3-6]",
        "empty client id",
    );
    t.connect(
        Accept,
        v5(0x42, b"", b"\0\x01a\0\x01p"),
        "5 3.1.2.9",
        "password without user in 5.0",
    );
    t.connect(
        Accept,
        v5(0xEE, b"", b"\0\x01a\0\0\x01w\0\x01x\0\x01u\0\x01p"),
        "5 3.1.3",
        "all fields",
    );
    t.connect(
        Malformed,
        v5(0x03, b"", b"\0\x01a"),
        "[MQTT-3.1.2-3]",
        "reserved connect flag",
    );
    t.connect(
        Malformed,
        v5(0x0A, b"", b"\0\x01a"),
        "5 [MQTT-3.1.2-11]",
        "will QoS without will",
    );
    t.connect(
        Malformed,
        v5(0x22, b"", b"\0\x01a"),
        "5 [MQTT-3.1.2-13]",
        "will retain without will",
    );
    t.connect(
        Malformed,
        v5(0x1E, b"", b"\0\x01a\0\0\x01w\0\0"),
        "5 [MQTT-3.1.2-12]",
        "will QoS 3",
    );
    t.connect(
        Malformed,
        v5(0x02, b"", b"\0\x01\xED"),
        "5 [MQTT-3.1.3-4]",
        "client id not UTF-8",
    );
    t.connect(
        Malformed,
        v5(0x02, b"", b"\0\x03\xED\xA0\x80"),
        "5 [MQTT-1.5.4-1]",
        "surrogate in the client id",
    );
    t.connect(
        Malformed,
        v5(0x02, b"", b"\0\x01\0"),
        "5 [MQTT-1.5.4-2]",
        "NUL in the client id",
    );
    t.connect(
        Malformed,
        v5(0x02, b"", b"\0\x01a\0"),
        "5 3.1.3",
        "bytes after a CONNECT",
    );
    t.connect(
        Malformed,
        v5(0x06, b"", b"\0\x01a\0\0\0\0\0"),
        "[MQTT-4.7.3-1]",
        "empty will topic",
    );
    t.connect(
        Malformed,
        v5(0x06, b"", b"\0\x01a\0\0\x01\xFF\0\0"),
        "5 [MQTT-3.1.3-11]",
        "will topic not UTF-8",
    );
    t.connect(
        Malformed,
        v5(0x82, b"", b"\0\x01a\0\x01\xFF"),
        "5 [MQTT-3.1.3-12]",
        "user not UTF-8",
    );
    t.connect(
        Malformed,
        b"\0\x04MQTT\x05\x02\0\x3C",
        "5 3.1.2.11.1",
        "no property length",
    );
    t.connect(
        Malformed,
        b"\0\x04MQTT\x05\x02\0\x3C\x80\0\0\x01a",
        "5 [MQTT-1.5.5-1]",
        "property length 0 in two bytes",
    );
    t.connect(
        Malformed,
        b"\0\x04MQTT\x05\x02\0\x3C\x80\x80\x80\x80\x01\0\x01a",
        "5 1.5.5",
        "property length in five bytes",
    );
    t.connect(
        Malformed,
        b"\0\x04MQTT\x05\x02\0\x3C\x09\0\x01a",
        "5 2.2.2.1",
        "property length past the end",
    );
}

fn connect_5_properties(t: &mut Table) {
    const A: &[u8] = b"\0\x01a";
    let all = [
        &b"\x11\0\0\0\x0A\x21\0\x0A\x27\0\0\x10\0\x22\0\x05\x19\x01\x17\0"[..],
        b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v\x15\0\x01m\x16\0\x02\0\xFF",
    ]
    .concat();
    t.connect(
        Accept,
        v5(2, &all, A),
        "5 3.1.2.11",
        "every property of a CONNECT",
    );
    for (properties, what) in [
        (&b"\x11\0\0\0\x01\x11\0\0\0\x01"[..], "session expiry twice"),
        (b"\x21\0\x01\x21\0\x01", "receive maximum twice"),
        (b"\x27\0\0\0\x01\x27\0\0\0\x01", "maximum packet size twice"),
        (b"\x22\0\x01\x22\0\x01", "topic alias maximum twice"),
        (b"\x19\x01\x19\x01", "request response information twice"),
        (b"\x17\x01\x17\x01", "request problem information twice"),
        (b"\x15\0\x01m\x15\0\x01m", "authentication method twice"),
        (b"\x15\0\x01m\x16\0\0\x16\0\0", "authentication data twice"),
        (b"\x21\0\0", "receive maximum 0"),
        (b"\x27\0\0\0\0", "maximum packet size 0"),
        (b"\x19\x02", "request response information 2"),
        (b"\x17\xFF", "request problem information 255"),
        (b"\x16\0\x01d", "authentication data without method"),
    ] {
        t.connect(Protocol, v5(2, properties, A), "5 3.1.2.11", what);
    }
    for (properties, what) in [
        (&b"\x11\0\0\0"[..], "property cut off"),
        (b"\x15\0\x05m", "property string cut off"),
        (b"\x26\0\x01k", "user property without value"),
        (b"\x26\0\x01\0\0\x01v", "NUL in a user property"),
        (b"\x26\0\x01k\0\x01\xFF", "user property not UTF-8"),
        (b"\x15\0\x01\xFF", "authentication method not UTF-8"),
        (b"\x00\0", "property 0"),
        (b"\x04\0", "unknown property"),
        (b"\x7F\0", "unknown property 127"),
        (b"\x91\0\0\0\0\x01", "property identifier in two bytes"),
        (b"\x18\0\0\0\x01", "will delay in a CONNECT"),
        (b"\x23\0\x01", "topic alias in a CONNECT"),
        (b"\x01\0", "payload format in a CONNECT"),
        (b"\x1F\0\x01r", "reason string in a CONNECT"),
        (b"\x24\x01", "maximum QoS in a CONNECT"),
        (b"\x0B\x01", "subscription identifier in a CONNECT"),
    ] {
        t.connect(Malformed, v5(2, properties, A), "5 2.2.2.2", what);
    }
}

/// The payload of a CONNECT of 5.0 whose will has these properties.
fn will(properties: &[u8]) -> Vec<u8> {
    v5(
        6,
        b"",
        &with_properties(b"\0\x01a", properties, b"\0\x01w\0\x01x"),
    )
}

fn will_5_properties(t: &mut Table) {
    let all = [
        &b"\x18\0\0\0\x05\x01\x01\x02\0\0\0\x0A\x03\0\x01c\x08\0\x01r\x09\0\x01\0"[..],
        b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v",
    ]
    .concat();
    t.connect(Accept, will(&all), "5 3.1.3.2", "every property of a will");
    for (properties, what) in [
        (&b"\x18\0\0\0\x01\x18\0\0\0\x01"[..], "will delay twice"),
        (b"\x01\0\x01\0", "will payload format twice"),
        (b"\x01\x02", "will payload format 2"),
        (b"\x02\0\0\0\x01\x02\0\0\0\x01", "will expiry twice"),
        (b"\x03\0\0\x03\0\0", "will content type twice"),
        (b"\x08\0\x01r\x08\0\x01r", "will response topic twice"),
        (b"\x09\0\0\x09\0\0", "will correlation data twice"),
        (b"\x08\0\x01#", "wildcard in the will's response topic"),
    ] {
        t.connect(Protocol, will(properties), "5 3.1.3.2", what);
    }
    for (properties, what) in [
        (&b"\x23\0\x01"[..], "topic alias in a will"),
        (b"\x0B\x01", "subscription identifier in a will"),
        (b"\x11\0\0\0\x01", "session expiry in a will"),
        (b"\x15\0\x01m", "authentication method in a will"),
    ] {
        t.connect(Malformed, will(properties), "5 2.2.2.2", what);
    }
}
