//! A server with two friends in a directory of its own, and a client that speaks packets.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jam_core::ids::UserId;
use jam_wire::decode::Decoder;
use jam_wire::encode::encode;
use jam_wire::packet::{
    Connect, ConnectProperties, Filter, Packet, Publish, QoS, RetainHandling, Subscribe,
    UserProperties, Version,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::directory::{self, Administration, NewToken};
use crate::serve::{Running, start};
use crate::settings::{DirectorySettings, Settings};

/// No step of a test takes longer, unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this takes too long")
}

pub(crate) struct House {
    pub(crate) running: Running,
    pub(crate) dir: TempDir,
    accounts: Arc<dyn Administration>,
}

impl House {
    /// With users 1 and 2, tokens `token-1` and `token-2`, who are friends.
    pub(crate) async fn open(change: impl FnOnce(&mut Settings, &TempDir)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.limits.publish_rate = None; // tests publish as fast as they can
        settings.data = dir.path().to_owned();
        settings.directory = DirectorySettings::in_file(dir.path().join("jam.db"));
        settings.listen.mqtt = Some("127.0.0.1:0".parse().unwrap());
        settings.listen.http = Some("localhost:0".parse().unwrap());
        settings.listen.admin = None;
        change(&mut settings, &dir);
        let accounts = directory::administration(&settings.directory).unwrap();
        let users = ["1", "2"].map(|id| UserId::parse(id).unwrap());
        for id in &users {
            let token = NewToken::chosen(&format!("token-{id}")).unwrap();
            accounts.add_user(id, None, &token).await.unwrap();
        }
        accounts.befriend(&users[0], &users[1]).await.unwrap();
        Self {
            running: start(settings).await.unwrap(),
            dir,
            accounts,
        }
    }

    /// Gives a user another token.
    pub(crate) async fn renew_token(&self, user: &str) {
        let user = UserId::parse(user).unwrap();
        let token = NewToken::random().unwrap();
        assert_eq!(self.accounts.set_token(&user, &token).await, Ok(true));
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        connect_to(self.running.mqtt.unwrap()).await
    }

    /// A client that is logged in.
    pub(crate) async fn client(&self, user: &str, version: Version) -> Client<TcpStream> {
        let mut client = Client::new(self.tcp().await, version);
        client.send(&[connect(user, version)]).await;
        assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
        client
    }

    /// Waits until there are so many connections.
    pub(crate) async fn settle(&self, connections: usize) {
        soon(async {
            while self.running.connections() != connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

pub(crate) async fn connect_to(address: SocketAddr) -> TcpStream {
    let stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client that shows every packet.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S, version: Version) -> Self {
        let decoder = Decoder::client(version, 64 * 1024 * 1024);
        Self {
            stream,
            version,
            decoder,
            input: BytesMut::new(),
        }
    }

    /// Writes the packets at once.
    pub(crate) async fn send(&mut self, packets: &[Packet]) {
        soon(self.stream.write_all(&bytes_of(packets, self.version)))
            .await
            .unwrap();
        soon(self.stream.flush()).await.unwrap();
    }

    /// The next packet; `None` at an orderly end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(packet);
            }
            if soon(self.stream.read_buf(&mut self.input)).await.unwrap() == 0 {
                assert!(self.input.is_empty(), "the stream ends within a packet");
                return None;
            }
        }
    }
}

pub(crate) fn bytes_of(packets: &[Packet], version: Version) -> BytesMut {
    let mut bytes = BytesMut::new();
    for packet in packets {
        encode(packet, version, &mut bytes).unwrap();
    }
    bytes
}

pub(crate) fn connect(user: &str, version: Version) -> Packet {
    Packet::Connect(Box::new(Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: format!("{user}:phone").into(),
        will: None,
        user_name: Some(user.into()),
        password: Some(Bytes::from(format!("token-{user}"))),
        properties: ConnectProperties::default(),
    }))
}

pub(crate) fn subscribe(topic: &str) -> Packet {
    Packet::Subscribe(Box::new(Subscribe {
        packet_id: NonZeroU16::new(1).unwrap(),
        subscription_id: None,
        user: UserProperties::default(),
        filters: vec![Filter {
            filter: topic.into(),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }],
    }))
}

/// At QoS 1, or 0 without an id.
pub(crate) fn publish(topic: &str, payload: impl Into<Bytes>, packet_id: Option<u16>) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: if packet_id.is_some() {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        },
        retain: false,
        topic: topic.into(),
        packet_id: packet_id.map(|id| NonZeroU16::new(id).unwrap()),
        properties: None,
        payload: payload.into(),
    })
}

/// What user 1 writes to user 2.
pub(crate) const HELLO: &[u8] = br#"{"from":"1","content":"hello"}"#;
