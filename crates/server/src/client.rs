//! A small MQTT 5.0 client over TCP, TLS and WebSocket, for the commands `send` and `listen`.
//!
//! [`url`] says where a server is, `transport` brings bytes there.
//!
//! One connection, one thing at a time; nothing is kept between connections: a clean start, and a
//! session that ends with the connection. What the server writes to the device channel is told as an
//! error, in the server's words.

mod transport;
pub mod url;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use jam_core::ids::{ClientId, UserId};
use jam_wire::packet::{
    Ack, ConnAck, Connect, ConnectCode, ConnectProperties, Disconnect, Filter, Packet, PacketId,
    Publish, QoS, RetainHandling, Subscribe, UserProperties, Version,
};
use jam_wire::{Decoder, ReasonCode};
use serde::Deserialize;
use tokio::time::timeout;

use transport::ClientTransport;
pub use url::ServerUrl;

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two signs of life; half of what is promised to the server.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What is promised to the server, in seconds.
const KEEP_ALIVE_SECS: u16 = 60;

/// The largest packet taken: what MQTT allows, since the server bounds what others may send.
const MAX_PACKET: usize = jam_wire::MAX_VARINT as usize + 5;

/// A connection to a server, logged in.
#[derive(Debug)]
pub struct Client {
    transport: ClientTransport,
    decoder: Decoder,
    received: BytesMut,
    device_channel: ByteString,
    last_id: u16,
    /// Messages that came while something else was waited for. Bounded by the inflight window.
    early: VecDeque<Publish>,
}

/// An error of the protocol (PROTOCOL.md, section 2).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolError {
    /// Who refused.
    pub handler: String,
    /// What it is about.
    pub category: String,
    /// For people.
    pub message: String,
}

/// Why something did not work.
#[derive(Debug)]
pub enum ClientError {
    /// The server said no.
    Refused(ProtocolError),
    /// The server said no without saying why.
    Reason(&'static str, ReasonCode),
    /// The network.
    Io(io::Error),
    /// The server is silent, or not an MQTT server.
    Unexpected(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(ProtocolError {
                handler,
                category,
                message,
            }) => {
                write!(f, "refused: {message} ({handler}, {category})")
            }
            Self::Reason(what, reason) => write!(f, "{what}: {reason}"),
            Self::Io(error) => write!(f, "connection lost: {error}"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Client {
    /// Connects and logs in. `ca` is the file of the authorities that may have signed the server's certificate; without
    /// it, those that this machine knows.
    ///
    /// # Errors
    /// If there is no server, it cannot show who it is, or it refuses.
    pub async fn connect(
        server: &ServerUrl,
        ca: Option<&Path>,
        user: &UserId,
        device: &str,
        token: &str,
    ) -> Result<Self, ClientError> {
        let client_id = ClientId::new(format!("{user}:{device}"));
        let transport = timeout(ANSWER_TIMEOUT, ClientTransport::connect(server, ca))
            .await
            .map_err(|_| ClientError::Unexpected(format!("{server} does not answer")))??;
        let mut client = Self {
            transport,
            decoder: Decoder::client(Version::V5, MAX_PACKET),
            received: BytesMut::new(),
            device_channel: client_id.device_channel(),
            last_id: 0,
            early: VecDeque::new(),
        };
        client
            .write(&connect_packet(&client_id, user, token))
            .await?;
        let answer = client.answer().await.map_err(|error| match error {
            ClientError::Refused(_) | ClientError::Reason(..) => error,
            error if server.is_plain_mqtt() => ClientError::Unexpected(format!(
                "{error}; is MQTT served on this port, and without TLS? With TLS it is mqtts://HOST:PORT"
            )),
            error => error,
        })?;
        match answer {
            Packet::ConnAck(ack) => connected(&ack)?,
            _ => {
                return Err(ClientError::Unexpected(format!(
                    "{server} is no MQTT server"
                )));
            }
        }
        Ok(client)
    }

    /// Publishes at QoS 1 and waits until the server has it.
    ///
    /// # Errors
    /// If the server refuses it or goes away.
    pub async fn publish(&mut self, topic: &str, payload: Bytes) -> Result<(), ClientError> {
        let packet_id = self.next_id();
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: ByteString::from(topic),
            packet_id: Some(packet_id),
            properties: None,
            payload,
        };
        self.write(&Packet::Publish(publish)).await?;
        let mut refusal = None;
        loop {
            match self.answer().await? {
                Packet::Publish(publish) if publish.topic == self.device_channel => {
                    refusal = refusal.or(protocol_error(&publish.payload));
                }
                Packet::Publish(publish) => self.early.push_back(publish),
                Packet::PubAck(ack) if ack.packet_id == packet_id => {
                    return match refusal {
                        _ if !ack.reason.is_error() => Ok(()),
                        Some(error) => Err(ClientError::Refused(error)),
                        None => Err(ClientError::Reason("refused", ack.reason)),
                    };
                }
                // What came on the device channel before says more than the reason.
                other => match (ended(&other), refusal.take()) {
                    (Err(_), Some(error)) => return Err(ClientError::Refused(error)),
                    (result, before) => {
                        result?;
                        refusal = before;
                    }
                },
            }
        }
    }

    /// Subscribes at QoS 1.
    ///
    /// # Errors
    /// If the server refuses it or goes away.
    pub async fn subscribe(&mut self, filter: &str) -> Result<(), ClientError> {
        let subscribe = Subscribe {
            packet_id: self.next_id(),
            subscription_id: None,
            user: UserProperties::default(),
            filters: vec![Filter {
                filter: ByteString::from(filter),
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            }],
        };
        self.write(&Packet::Subscribe(Box::new(subscribe))).await?;
        loop {
            match self.answer().await? {
                Packet::SubAck(ack) => {
                    let code = ack.codes.first().copied().unwrap_or(ReasonCode::Success);
                    if code.is_error() {
                        return Err(ClientError::Reason("subscription refused", code));
                    }
                    return Ok(());
                }
                Packet::Publish(publish) => self.early.push_back(publish),
                other => ended(&other)?,
            }
        }
    }

    /// Waits for the next message, however long it takes. It is not acknowledged: see
    /// [`Self::acknowledge`].
    ///
    /// # Errors
    /// If the server logs this device out or goes away.
    pub async fn next_message(&mut self) -> Result<Publish, ClientError> {
        loop {
            let publish = match self.early.pop_front() {
                Some(publish) => publish,
                None => match timeout(PING_INTERVAL, self.read()).await {
                    Ok(Ok(Packet::Publish(publish))) => publish,
                    Ok(other) => {
                        ended(&other?)?;
                        continue;
                    }
                    Err(_) => {
                        self.write(&Packet::PingReq).await?;
                        continue;
                    }
                },
            };
            if publish.topic != self.device_channel {
                return Ok(publish);
            }
            if let Some(error) = protocol_error(&publish.payload) {
                return Err(ClientError::Refused(error));
            }
        }
    }

    /// Tells the server that a message has been taken: it will not come again.
    ///
    /// # Errors
    /// If the server has gone away.
    pub async fn acknowledge(&mut self, message: &Publish) -> Result<(), ClientError> {
        match message.packet_id {
            Some(id) => self.write(&Packet::PubAck(Ack::success(id))).await,
            None => Ok(()),
        }
    }

    /// Says goodbye and waits until all that was written has been taken.
    ///
    /// # Errors
    /// If the server has gone away.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        let goodbye = Disconnect::with_reason(ReasonCode::Success);
        self.write(&Packet::Disconnect(Box::new(goodbye))).await?;
        self.transport.shutdown().await?;
        let drain = async {
            let mut rest = BytesMut::new();
            while matches!(self.transport.read(&mut rest).await, Ok(1..)) {
                rest.clear();
            }
        };
        // Whether the server closes at once or not: it has been told.
        let _ = timeout(ANSWER_TIMEOUT, drain).await;
        Ok(())
    }

    fn next_id(&mut self) -> PacketId {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.last_id).expect("1 follows the last id")
    }

    async fn answer(&mut self) -> Result<Packet, ClientError> {
        let silent = |_| ClientError::Unexpected("the server does not answer".to_owned());
        timeout(ANSWER_TIMEOUT, self.read()).await.map_err(silent)?
    }

    /// Cancelling loses nothing: what was read stays in the buffer.
    async fn read(&mut self) -> Result<Packet, ClientError> {
        loop {
            let decoded = self.decoder.decode(&mut self.received);
            if let Some(packet) = decoded.map_err(|e| ClientError::Unexpected(e.to_string()))? {
                return Ok(packet);
            }
            if self.transport.read(&mut self.received).await? == 0 {
                let closed = "the server closed the connection".to_owned();
                return Err(ClientError::Unexpected(closed));
            }
        }
    }

    async fn write(&mut self, packet: &Packet) -> Result<(), ClientError> {
        let mut bytes = BytesMut::new();
        jam_wire::encode(packet, Version::V5, &mut bytes)
            .map_err(|error| ClientError::Unexpected(format!("this cannot be sent: {error}")))?;
        Ok(self.transport.write(bytes.freeze()).await?)
    }
}

fn connect_packet(client_id: &ClientId, user: &UserId, token: &str) -> Packet {
    Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_secs: KEEP_ALIVE_SECS,
        client_id: client_id.as_str().into(),
        will: None,
        user_name: Some(user.to_byte_string()),
        password: Some(Bytes::copy_from_slice(token.as_bytes())),
        properties: ConnectProperties::default(),
    }))
}

fn connected(ack: &ConnAck) -> Result<(), ClientError> {
    let reason = match ack.code {
        ConnectCode::V5(reason) => reason,
        ConnectCode::V3(code) => {
            return Err(ClientError::Unexpected(format!(
                "no MQTT 5.0 there: {code}"
            )));
        }
    };
    if !reason.is_error() {
        return Ok(());
    }
    let said = ack.properties.reason_string.as_ref();
    Err(
        match said.and_then(|json| protocol_error(json.as_bytes())) {
            Some(error) => ClientError::Refused(error),
            None => ClientError::Reason("connection refused", reason),
        },
    )
}

/// A packet that is nobody's answer: only DISCONNECT matters.
fn ended(packet: &Packet) -> Result<(), ClientError> {
    match packet {
        Packet::Disconnect(disconnect) => Err(ClientError::Reason(
            "the server ended the connection",
            disconnect.reason,
        )),
        _ => Ok(()),
    }
}

fn protocol_error(payload: &[u8]) -> Option<ProtocolError> {
    serde_json::from_slice(payload).ok()
}
