//! One party: what it sends, and what it expects to be sent.
//!
//! A client acknowledges nothing by itself; the methods that do say so. `expecting`: what has to come.

mod expecting;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use jam_core::connection::RefusalCount;
use jam_core::time::Time;
use jam_wire::packet::{
    Ack, ConnAck, Connect, ConnectCode, Disconnect, Filter, Packet, PacketId, Publish, QoS, Version,
};
use jam_wire::{ConnectReturnCode, Decoder, ReasonCode, encode};

use crate::bench::Bench;
use crate::end::INPUT;
use crate::packets;

/// What a client takes; the server has its own limits.
const MAX_PACKET: usize = 64 * 1024 * 1024;

/// A client of the bench.
pub struct Client {
    bench: Bench,
    id: String,
    version: Version,
    address: Cell<IpAddr>,
    end: Cell<Option<usize>>,
    decoder: RefCell<Decoder>,
    next_id: Cell<u16>,
}

impl Bench {
    /// A client that has not connected.
    #[must_use]
    pub fn client(&self, client_id: &str, version: Version) -> Client {
        Client::new(self.clone(), client_id, version)
    }

    /// A friend's or the user's own client that has connected and subscribed to its inbox at QoS 1.
    #[must_use]
    #[track_caller]
    pub fn at_inbox(&self, client_id: &str, version: Version) -> Client {
        let client = self.client(client_id, version);
        client.connect();
        client.subscribe_inbox();
        client
    }
}

impl Client {
    fn new(bench: Bench, id: &str, version: Version) -> Self {
        Self {
            bench,
            id: id.into(),
            version,
            address: Cell::new(IpAddr::from([192, 0, 2, 1])),
            end: Cell::new(None),
            decoder: RefCell::new(Decoder::client(version, MAX_PACKET)),
            next_id: Cell::new(1),
        }
    }

    /// The client id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What stands before the first `:` of the client id.
    #[must_use]
    pub fn user(&self) -> &str {
        self.id.split(':').next().unwrap_or_default()
    }

    /// The user's inbox.
    #[must_use]
    pub fn inbox(&self) -> String {
        format!("/{}/inbox", self.user())
    }

    /// The device channel.
    #[must_use]
    pub fn channel(&self) -> String {
        format!("/{}/devices/{}", self.user(), self.id)
    }

    /// The version it speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it connects from next time.
    pub fn set_address(&self, address: [u8; 4]) {
        self.address.set(address.into());
    }

    // Connecting.

    /// Opens a connection and says nothing. The last one is cut; to keep it, use another client.
    pub fn open(&self) {
        self.drop_connection();
        self.end.set(Some(self.bench.open(self.address.get())));
        *self.decoder.borrow_mut() = Decoder::client(self.version, MAX_PACKET);
    }

    /// Connects with [`packets::connect`] and expects to be let in.
    #[track_caller]
    pub fn connect(&self) -> ConnAck {
        self.connect_with(|_| ())
    }

    /// Connects with a session that outlives the connection (a day), takes it up if it is there, and
    /// expects to be let in.
    #[track_caller]
    pub fn connect_lasting(&self) -> ConnAck {
        self.connect_with(lasting)
    }

    /// Connects with what `change` makes of [`packets::connect`] and expects to be let in.
    #[track_caller]
    pub fn connect_with(&self, change: impl FnOnce(&mut Connect)) -> ConnAck {
        let conn_ack = self.try_connect(change);
        let code = match self.version {
            Version::V5 => ConnectCode::V5(ReasonCode::Success),
            Version::V3 | Version::V4 => ConnectCode::V3(ConnectReturnCode::Accepted),
        };
        assert_eq!(conn_ack.code, code, "{conn_ack:?}");
        conn_ack
    }

    /// Connects with what `change` makes of [`packets::connect`] and expects a CONNACK.
    #[track_caller]
    pub fn try_connect(&self, change: impl FnOnce(&mut Connect)) -> ConnAck {
        self.open();
        let mut connect = packets::connect(&self.id, self.version);
        change(&mut connect);
        self.send(Packet::Connect(Box::new(connect)));
        match self.next() {
            Some(Packet::ConnAck(conn_ack)) => *conn_ack,
            other => panic!("expected a CONNACK, got {other:?}"),
        }
    }

    /// The connection breaks.
    pub fn drop_connection(&self) {
        if let Some(end) = self.end.take() {
            self.bench.cut(end);
        }
    }

    /// DISCONNECT, and the connection is gone.
    pub fn disconnect(&self) {
        self.disconnect_with(|_| ());
    }

    /// A DISCONNECT as `change` makes it; the connection is left open for an answer.
    pub fn disconnect_with(&self, change: impl FnOnce(&mut Disconnect)) {
        let mut disconnect = Disconnect::with_reason(ReasonCode::Success);
        change(&mut disconnect);
        self.send(Packet::Disconnect(Box::new(disconnect)));
    }

    // Sending.

    /// Sends a packet.
    #[track_caller]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a scenario makes the packet where it sends it"
    )]
    pub fn send(&self, packet: Packet) {
        let mut bytes = BytesMut::new();
        encode(&packet, self.version, &mut bytes).expect("a packet of this version");
        self.send_raw(&bytes);
    }

    /// Sends several packets in one segment.
    #[track_caller]
    pub fn send_all(&self, packets: &[Packet]) {
        let mut bytes = BytesMut::new();
        for packet in packets {
            encode(packet, self.version, &mut bytes).expect("a packet of this version");
        }
        self.send_raw(&bytes);
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send_raw(&self, bytes: &[u8]) {
        self.bench.input(self.end(), bytes);
    }

    /// Publishes under the next packet id, which is returned, and waits for nothing.
    #[track_caller]
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: QoS) -> Option<u16> {
        self.publish_with(topic, payload, qos, |_| ())
    }

    /// As [`Self::publish`], with what `change` makes of it.
    #[track_caller]
    pub fn publish_with(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        qos: QoS,
        change: impl FnOnce(&mut Publish),
    ) -> Option<u16> {
        let id = (qos != QoS::AtMostOnce).then(|| self.take_id());
        let mut publish = packets::publish(topic, payload, qos, id);
        change(&mut publish);
        self.send(Packet::Publish(publish));
        id.map(PacketId::get)
    }

    /// Writes a message to a friend's inbox and completes the handshake.
    #[track_caller]
    pub fn write(&self, to: &str, content: &str, qos: QoS) {
        let message = packets::message(self.user(), content);
        let id = self.publish(&format!("/{to}/inbox"), message, qos);
        self.expect_accepted(qos, id);
    }

    /// Subscribes to one topic; the code that the SUBACK, which must come next, gives.
    #[track_caller]
    pub fn subscribe(&self, topic: &str, qos: QoS) -> ReasonCode {
        self.subscribe_with(vec![packets::filter(topic, qos)])[0]
    }

    /// Subscribes to the user's own inbox at QoS 1.
    #[track_caller]
    pub fn subscribe_inbox(&self) {
        let code = self.subscribe(&self.inbox(), QoS::AtLeastOnce);
        assert_eq!(code, ReasonCode::GrantedQoS1);
    }

    /// Subscribes to filters; the codes that the SUBACK, which must come next, gives.
    #[track_caller]
    pub fn subscribe_with(&self, filters: Vec<Filter>) -> Vec<ReasonCode> {
        self.send_subscribe(filters);
        self.expect_sub_ack()
    }

    /// Subscribes to filters and waits for nothing.
    #[track_caller]
    pub fn send_subscribe(&self, filters: Vec<Filter>) {
        let subscribe = packets::subscribe(self.take_id(), filters);
        self.send(Packet::Subscribe(Box::new(subscribe)));
    }

    /// Unsubscribes from one topic and expects the UNSUBACK.
    #[track_caller]
    pub fn unsubscribe(&self, topic: &str) {
        let unsubscribe = packets::unsubscribe(self.take_id(), &[topic]);
        self.send(Packet::Unsubscribe(Box::new(unsubscribe)));
        match self.next() {
            Some(Packet::UnsubAck(_)) => {}
            other => panic!("expected an UNSUBACK, got {other:?}"),
        }
    }

    /// The next packet id.
    pub fn take_id(&self) -> PacketId {
        let id = self.next_id.get();
        self.next_id.set(if id == u16::MAX { 1 } else { id + 1 });
        packets::id(id)
    }

    /// PUBACK.
    #[track_caller]
    pub fn ack(&self, publish: &Publish) {
        let id = publish.packet_id.expect("a packet id");
        self.send(Packet::PubAck(Ack::success(id)));
    }

    /// Acknowledges a message as its QoS requires, to the end.
    #[track_caller]
    pub fn acknowledge(&self, publish: &Publish) {
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.ack(publish),
            QoS::ExactlyOnce => {
                let id = publish.packet_id.expect("a packet id");
                self.send(Packet::PubRec(Ack::success(id)));
                self.expect(Packet::PubRel(Ack::success(id)));
                self.send(Packet::PubComp(Ack::success(id)));
            }
        }
    }

    // Being sent something.

    /// The next packet, if there is one.
    ///
    /// # Panics
    /// If what was sent is no packet that a server may send.
    #[track_caller]
    pub fn next(&self) -> Option<Packet> {
        let end = self.end.get()?;
        let mut decoder = self.decoder.borrow_mut();
        self.bench
            .with_end(end, |end| decoder.decode(&mut end.output))
            .unwrap_or_else(|error| panic!("the server sent what is no packet: {error}"))
    }

    /// All bytes that the server has sent and that were not looked at.
    #[must_use]
    pub fn take_raw(&self) -> Bytes {
        self.bench
            .with_end(self.end(), |end| end.output.split().freeze())
    }

    /// Whether the server has closed the connection, or there never was one.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.end.get().is_none_or(|end| self.bench.is_closed(end))
    }

    /// Whether the client has a connection, closed by the server or not.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.end.get().is_some()
    }

    /// Whether the client takes what the server writes.
    pub fn set_reading(&self, reading: bool) {
        self.bench.with_end(self.end(), |end| end.reading = reading);
        self.bench.run();
    }

    /// Whether the server has something of this client's that it has not handled.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let end = self.end.get();
        end.is_some_and(|end| self.bench.with_end(end, |end| end.is_behind()))
    }

    /// Whether the server is busy with others: it looks at what this client sends when it is no longer, when the
    /// connection ends or when another one is to take its place.
    pub fn set_busy(&self, busy: bool) {
        self.bench.with_end(self.end(), |end| end.busy = busy);
        self.bench.run();
    }

    /// Takes so many bytes of what the server has written, while [`Self::set_reading`] is off.
    pub fn read_some(&self, count: usize) {
        let now = self.bench.now();
        self.bench.take_output(self.end(), count, now);
        self.bench.run();
    }

    /// Bytes that the server has for this client that it has not taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bench.pending(self.end())
    }

    /// Whether the server wants more of this client.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let wants = |connection: &mut jam_core::connection::Connection| connection.wants_input();
        self.bench.with_connection(self.end(), wants) == Some(true)
    }

    /// Work that the server has done for this client's packets since this was last asked.
    #[must_use]
    pub fn take_work(&self) -> u32 {
        let take = |connection: &mut jam_core::connection::Connection| connection.take_work();
        self.bench
            .with_connection(self.end(), take)
            .unwrap_or_default()
    }

    /// What the server has refused to this client since that was last told.
    #[must_use]
    pub fn take_refusals(&self) -> Vec<RefusalCount> {
        let now = self.bench.now();
        let take =
            |connection: &mut jam_core::connection::Connection| connection.take_refusals(now);
        self.bench
            .with_connection(self.end(), take)
            .unwrap_or_default()
    }

    /// Whether the server holds nothing of the buffer in which this client's packets arrived. What it
    /// keeps for long must be a copy, or a few bytes keep a whole buffer.
    #[must_use]
    pub fn input_is_free(&self) -> bool {
        self.bench.with_end(self.end(), |end| {
            end.input.is_empty() && end.input.try_reclaim(INPUT)
        })
    }

    /// When the server's patience ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let deadline = |connection: &mut jam_core::connection::Connection| connection.deadline();
        self.bench.with_connection(self.end(), deadline).flatten()
    }

    #[track_caller]
    fn end(&self) -> usize {
        self.end.get().expect("the client has connected")
    }
}

/// A CONNECT for a session that outlives the connection, and that resumes the one that is there.
pub fn lasting(connect: &mut Connect) {
    connect.clean_start = false;
    if connect.version == Version::V5 {
        connect.properties.session_expiry_secs = Some(24 * 3600);
    }
}
