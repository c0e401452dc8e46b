//! The generator's parts that need no broker; [`workloads`] have one.

mod workloads;

use jam_wire::packet::{Packet, QoS, Version};

use super::message::{Stamp, Template};
use super::prepare::prepare;
use super::users::Roster;

#[test]
fn a_message_is_what_the_protocol_says() {
    for (version, qos) in [
        (Version::V4, QoS::AtLeastOnce),
        (Version::V5, QoS::ExactlyOnce),
        (Version::V4, QoS::AtMostOnce),
    ] {
        let template = Template::new("17", "18", 300, qos, version).unwrap();
        let mut bytes = Vec::new();
        template.put(4_242, 123_456_789, 513, &mut bytes);
        let mut bytes = bytes.as_slice().into();
        let mut decoder = jam_wire::Decoder::client(version, 1000);
        let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut bytes) else {
            panic!("not a PUBLISH");
        };
        assert_eq!(&*publish.topic, "/18/inbox");
        assert_eq!(
            publish.packet_id.map(|id| id.get()),
            (qos != QoS::AtMostOnce).then_some(513)
        );
        assert_eq!(publish.payload.len(), 300);
        let json: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
        assert_eq!(json["from"], "17");
        assert_eq!(json["type"], 0);
        let stamp = Stamp::read(&publish.payload).unwrap();
        assert_eq!(
            (stamp.from, stamp.time, stamp.number),
            (&b"17"[..], 123_456_789, 4_242)
        );
    }
}

#[test]
fn a_message_has_a_least_size() {
    let error = Template::new("1", "2", 60, QoS::AtLeastOnce, Version::V4).unwrap_err();
    assert!(error.to_string().contains("--size"), "{error}");
}

#[test]
fn what_is_not_ours_has_no_stamp() {
    for payload in [
        "",
        "{}",
        r#"{"from":"1"#,
        r#"{"from":"1","timestamp":"now"}"#,
    ] {
        assert_eq!(Stamp::read(payload.as_bytes()), None, "{payload}");
    }
}

#[test]
fn what_is_prepared_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jam.db");
    prepare(&path, 3, "secret {id}").unwrap();
    let roster = Roster::of_directory(&path).unwrap();
    assert_eq!(
        roster.take(6).unwrap(),
        Roster::numbered(6, "secret {id}").take(6).unwrap()
    );
    assert!(roster.take(7).is_err());
    let again = prepare(&path, 3, "x").unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");
}

#[test]
fn users_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let lines = "1,one\n{\"id\":\"2\",\"token\":\"two\"}\n\n{\"user\":3,\"token\":\"three\"}\n";
    std::fs::write(&path, lines).unwrap();
    let roster = Roster::read(&path).unwrap();
    let users = roster.take(3).unwrap();
    assert_eq!(
        (users[1].id.as_str(), users[1].token.as_str()),
        ("2", "two")
    );
    assert_eq!(
        (users[2].id.as_str(), users[2].token.as_str()),
        ("3", "three")
    );
    std::fs::write(&path, "no token\n").unwrap();
    let error = Roster::read(&path).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}
