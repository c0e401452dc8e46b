//! One connection to the server, packet by packet.
//!
//! [`Wire::poll`] never waits; [`Wire::expect_any`] and what is built on it do, for cases that are told step by
//! step.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use jam_wire::packet::{
    Ack, ConnAck, Connect, ConnectProperties, Filter, Packet, PacketId, Publish, QoS,
    RetainHandling, Subscribe, UserProperties, Version,
};
use jam_wire::{Decoder, ReasonCode, encode};

use crate::server::token;

/// What a client takes.
const MAX_PACKET: usize = 16 * 1024 * 1024;
/// How long a step of a told case may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    open: bool,
}

impl Wire {
    /// A connection on which nothing has been said; `None` if nobody listens.
    #[must_use]
    pub fn open(port: u16, version: Version) -> Option<Self> {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self {
            stream,
            version,
            decoder: Decoder::client(version, MAX_PACKET),
            input: BytesMut::new(),
            output: BytesMut::new(),
            open: true,
        })
    }

    /// Whether the connection is there, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Bytes that the kernel has not taken yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Sends a packet, or as much of it as the kernel takes; the rest follows with [`Self::poll`].
    ///
    /// # Panics
    /// If the version has no such packet.
    pub fn send(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.output).expect("a packet of this version");
        self.flush();
    }

    fn flush(&mut self) {
        while self.open && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => self.output.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.output.clear(),
            }
        }
    }

    /// The next packet that has come, if there is one.
    ///
    /// # Errors
    /// What came is no packet that a server may send.
    pub fn poll(&mut self) -> Result<Option<Packet>, String> {
        self.flush();
        loop {
            let packet = self.decoder.decode(&mut self.input);
            if let Some(packet) = packet.map_err(|error| error.to_string())? {
                return Ok(Some(packet));
            }
            if !self.open {
                return Ok(None);
            }
            let mut some = [0; 32 * 1024];
            match self.stream.read(&mut some) {
                Ok(0) => self.open = false,
                Ok(count) => self.input.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.open = false,
            }
        }
    }

    // For cases that are told step by step.

    /// The next packet within `patience`.
    ///
    /// # Panics
    /// If what came is no packet.
    pub fn next_within(&mut self, patience: Duration) -> Option<Packet> {
        let deadline = Instant::now() + patience;
        loop {
            let packet = self.poll().expect("a packet that a server may send");
            if packet.is_some() || !self.open || Instant::now() > deadline {
                return packet;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next packet.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn expect_any(&mut self) -> Packet {
        let packet = self.next_within(PATIENCE);
        packet.unwrap_or_else(|| panic!("nothing came; connection open: {}", self.open))
    }

    /// Expects this packet next.
    #[track_caller]
    pub fn expect(&mut self, packet: &Packet) {
        assert_eq!(self.expect_any(), *packet);
    }

    /// Expects a PUBLISH next.
    #[track_caller]
    pub fn expect_publish(&mut self) -> Publish {
        match self.expect_any() {
            Packet::Publish(publish) => publish,
            other => panic!("expected a PUBLISH, got {other:?}"),
        }
    }

    /// Lets a client in that is told step by step; its session lasts.
    #[track_caller]
    #[must_use]
    pub fn connect(port: u16, user: u16, device: &str, version: Version) -> (Self, ConnAck) {
        Self::connect_with(port, user, device, version, |_| ())
    }

    /// As [`Self::connect`], with what `change` makes of the CONNECT.
    ///
    /// # Panics
    /// If it is not let in.
    #[track_caller]
    #[must_use]
    pub fn connect_with(
        port: u16,
        user: u16,
        device: &str,
        version: Version,
        change: impl FnOnce(&mut Connect),
    ) -> (Self, ConnAck) {
        let mut wire = Self::open(port, version).expect("the server listens");
        let mut packet = connect(user, device, version, true);
        change(&mut packet);
        wire.send(&Packet::Connect(Box::new(packet)));
        match wire.expect_any() {
            Packet::ConnAck(conn_ack) => {
                assert_eq!(u8::from(conn_ack.code), 0, "{conn_ack:?}");
                (wire, *conn_ack)
            }
            other => panic!("expected a CONNACK, got {other:?}"),
        }
    }

    /// Subscribes to one topic.
    #[track_caller]
    pub fn subscribe(&mut self, topic: &str, qos: QoS) {
        self.send(&subscribe(packet_id(60_000), topic, qos));
        match self.expect_any() {
            Packet::SubAck(ack) => assert!(!ack.codes[0].is_error(), "{ack:?}"),
            other => panic!("expected a SUBACK, got {other:?}"),
        }
    }

    /// Publishes, and waits for nothing.
    pub fn publish(&mut self, topic: &str, payload: &str, qos: QoS, id: u16) {
        let packet = publish(topic, payload, qos, packet_id(id));
        self.send(&Packet::Publish(packet));
    }

    /// Acknowledges a QoS 1 message.
    #[track_caller]
    pub fn ack(&mut self, publish: &Publish) {
        let id = publish.packet_id.expect("a packet id");
        self.send(&Packet::PubAck(Ack::success(id)));
    }

    /// A PINGREQ and its answer: the server has taken what was sent before it.
    #[track_caller]
    pub fn sync(&mut self) {
        self.send(&Packet::PingReq);
        self.expect(&Packet::PingResp);
    }
}

/// A CONNECT of a device of a user.
#[must_use]
pub fn connect(user: u16, device: &str, version: Version, lasting: bool) -> Connect {
    let mut properties = ConnectProperties::default();
    if lasting && version == Version::V5 {
        properties.session_expiry_secs = Some(24 * 3600);
    }
    Connect {
        version,
        clean_start: !lasting,
        keep_alive_secs: 0,
        client_id: format!("{user}:{device}").into(),
        will: None,
        user_name: Some(user.to_string().into()),
        password: Some(token(user).into_bytes().into()),
        properties,
    }
}

/// A SUBSCRIBE to one topic.
#[must_use]
pub fn subscribe(packet_id: PacketId, topic: &str, qos: QoS) -> Packet {
    let filter = Filter {
        filter: topic.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Packet::Subscribe(Box::new(Subscribe {
        packet_id,
        subscription_id: None,
        user: UserProperties::default(),
        filters: vec![filter],
    }))
}

/// A PUBLISH.
#[must_use]
pub fn publish(topic: &str, payload: &str, qos: QoS, packet_id: PacketId) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
        properties: None,
        payload: payload.as_bytes().to_vec().into(),
    }
}

/// A user's inbox.
#[must_use]
pub fn inbox(user: u16) -> String {
    format!("/{user}/inbox")
}

/// A message as apps write it, numbered, with some bytes more.
#[must_use]
pub fn message(from: u16, number: u64, padding: usize) -> String {
    let pad = "x".repeat(padding);
    format!(r#"{{"from":"{from}","content":"{number}","pad":"{pad}"}}"#)
}

/// The number of a message.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u64> {
    let head = &payload[..payload.len().min(80)];
    let text = std::str::from_utf8(head).ok()?;
    let (_, rest) = text.split_once(r#""content":""#)?;
    rest.split('"').next()?.parse().ok()
}

/// What an error on the device channel says, and the packet id that it is about.
#[must_use]
pub fn error(payload: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(payload).ok()?;
    let (said, id) = text.split_once(r#","messageId":"#)?;
    let (_, said) = said.split_once(r#""category":"#)?;
    Some((id.strip_suffix('}')?.parse().ok()?, said.to_owned()))
}

/// Whether a CONNACK says that somebody is not who they say.
#[must_use]
pub fn is_about_login(conn_ack: &ConnAck) -> bool {
    matches!(u8::from(conn_ack.code), 4 | 5 | 0x85..=0x87 | 0x9F)
}

/// A packet id.
///
/// # Panics
/// If it is 0.
#[must_use]
pub fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("a packet id is not 0")
}

/// Whether an acknowledgement says yes.
#[must_use]
pub fn is_success(ack: &Ack) -> bool {
    ack.reason == ReasonCode::Success
}
