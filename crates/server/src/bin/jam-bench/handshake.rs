//! The packets that the generator writes besides its messages.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use jam_wire::Packet;
use jam_wire::packet::{
    Connect, ConnectProperties, Filter, PacketId, QoS, RetainHandling, Subscribe, UserProperties,
    Version,
};

use super::users::User;

/// No client is silent for so long, and none sends pings: workloads are shorter.
const KEEP_ALIVE_SECS: u16 = 3600;

/// Appends a packet.
pub(super) fn put(packet: &Packet, version: Version, output: &mut Vec<u8>) {
    if let Packet::PubAck(ack) = packet {
        // The one packet there is of each message; its shortest form is the same in all versions.
        let [high, low] = ack.packet_id.get().to_be_bytes();
        output.extend_from_slice(&[0x40, 2, high, low]);
        return;
    }
    let mut bytes = BytesMut::new();
    jam_wire::encode(packet, version, &mut bytes)
        .expect("handshakes and answers hold nothing that is too long or of another version");
    output.extend_from_slice(&bytes);
}

/// A CONNECT as the device `bench` of a user.
pub(super) fn connect_packet(user: &User, version: Version, clean: bool) -> Packet {
    let expiry = (version == Version::V5 && !clean).then_some(u32::from(KEEP_ALIVE_SECS));
    Packet::Connect(Box::new(Connect {
        version,
        clean_start: clean,
        keep_alive_secs: KEEP_ALIVE_SECS,
        client_id: ByteString::from(format!("{}:bench", user.id)),
        will: None,
        user_name: Some(ByteString::from(user.id.as_str())),
        password: Some(Bytes::copy_from_slice(user.token.as_bytes())),
        properties: ConnectProperties {
            session_expiry_secs: expiry,
            ..ConnectProperties::default()
        },
    }))
}

/// A SUBSCRIBE to the one filter.
pub(super) fn subscribe_packet(inbox: &str, qos: QoS) -> Packet {
    Packet::Subscribe(Box::new(Subscribe {
        packet_id: PacketId::MIN,
        subscription_id: None,
        user: UserProperties::default(),
        filters: vec![Filter {
            filter: ByteString::from(inbox),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }],
    }))
}
