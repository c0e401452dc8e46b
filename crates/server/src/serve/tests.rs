mod house;

use std::io;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use jam_wire::packet::{ConnectCode, Packet, Publish, Version};
use jam_wire::reason::{ConnectReturnCode, ReasonCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::*;
use crate::directory::Administration;
use crate::directory::sqlite::tests::hang;
use crate::settings::Identity;
use crate::tls::tests::write_identity;
use house::{Client, HELLO, House, bytes_of, connect, connect_to, publish, soon, subscribe};

const V4: Version = Version::V4;
const V5: Version = Version::V5;

fn is_pub_ack(packet: Option<Packet>, id: u16) -> bool {
    matches!(packet, Some(Packet::PubAck(ack)) if ack.packet_id == NonZeroU16::new(id).unwrap())
}

fn payload(packet: Option<Packet>) -> Bytes {
    match packet {
        Some(Packet::Publish(Publish { payload, .. })) => payload,
        other => panic!("not a PUBLISH: {other:?}"),
    }
}

#[tokio::test]
async fn one_segment() {
    let house = House::open(|_, _| ()).await;
    let mut receiver = house.client("2", V4).await;
    receiver.send(&[subscribe("/2/inbox")]).await;
    assert!(matches!(receiver.next().await, Some(Packet::SubAck(_))));

    let mut sender = Client::new(house.tcp().await, V4);
    let packets = [
        connect("1", V4),
        subscribe("/1/inbox"),
        publish("/2/inbox", HELLO, Some(7)),
    ];
    sender.send(&packets).await;
    assert!(matches!(sender.next().await, Some(Packet::ConnAck(_))));
    assert!(matches!(sender.next().await, Some(Packet::SubAck(_))));
    assert!(is_pub_ack(sender.next().await, 7));
    assert_eq!(payload(receiver.next().await), HELLO);
}

#[tokio::test]
async fn byte_by_byte() {
    let house = House::open(|_, _| ()).await;
    let mut client = Client::new(house.tcp().await, V5);
    let packets = [
        connect("1", V5),
        publish("/2/inbox", HELLO, Some(9)),
        Packet::PingReq,
    ];
    for byte in bytes_of(&packets, V5) {
        client.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
    let rest = [client.next().await, client.next().await]; // in either order
    assert!(rest.contains(&Some(Packet::PingResp)));
    assert!(rest.into_iter().any(|packet| is_pub_ack(packet, 9)));
}

#[tokio::test]
async fn a_large_packet_arrives_whole() {
    let house = House::open(|_, _| ()).await;
    let mut client = house.client("1", V4).await;
    let picture: Bytes = (0..3_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    client.send(&[subscribe("/1/pictures")]).await;
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    client
        .send(&[
            publish("/1/pictures", picture.clone(), None),
            Packet::PingReq,
        ])
        .await;
    let mut got = [client.next().await, client.next().await];
    got.sort_by_key(|packet| matches!(packet, Some(Packet::PingResp)));
    let [message, ping] = got;
    assert!(payload(message) == picture);
    assert_eq!(ping, Some(Packet::PingResp));
}

#[tokio::test]
async fn the_last_words_arrive() {
    let house = House::open(|_, _| ()).await;
    let mut client = Client::new(house.tcp().await, V4);
    let mut bytes = bytes_of(&[connect("3", V4)], V4);
    bytes.extend_from_slice(&[0; 300_000]); // what is unread when a socket is closed resets it
    client.stream.write_all(&bytes).await.unwrap();
    let Some(Packet::ConnAck(ack)) = client.next().await else {
        panic!("no CONNACK")
    };
    assert_eq!(ack.code, ConnectCode::V3(ConnectReturnCode::NotAuthorized));
    assert_eq!(client.next().await, None);
    drop(client);
    house.settle(0).await;
}

#[tokio::test]
async fn leaving_at_any_byte_leaves_nothing() {
    let house = House::open(|_, _| ()).await;
    let packets = [
        connect("1", V5),
        subscribe("/1/inbox"),
        publish("/2/inbox", HELLO, Some(7)),
    ];
    let bytes = bytes_of(&packets, V5);
    for end in 0..bytes.len() {
        let mut stream = house.tcp().await;
        stream.write_all(&bytes[..end]).await.unwrap();
        if end % 2 == 0 {
            stream.set_zero_linger().unwrap(); // leaves with a reset
        }
    }
    house.settle(0).await;
    let mut client = house.client("1", V5).await;
    client.send(&[Packet::PingReq]).await;
    assert_eq!(client.next().await, Some(Packet::PingResp));
}

#[tokio::test]
async fn garbage_ends_only_its_own_connection() {
    let house = House::open(|_, _| ()).await;
    let mut bystander = house.client("2", V4).await;
    let mut client = house.client("1", V5).await;
    client
        .stream
        .write_all(&[0xF7, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
        .await
        .unwrap();
    let Some(Packet::Disconnect(last)) = client.next().await else {
        panic!("no DISCONNECT")
    };
    assert!(last.reason.is_error());
    assert_eq!(client.next().await, None);
    bystander.send(&[Packet::PingReq]).await;
    assert_eq!(bystander.next().await, Some(Packet::PingResp));
}

/// On the one thread that this test has.
#[tokio::test]
async fn a_flood_lets_others_in() {
    let house = House::open(|_, _| ()).await;
    let mut other = house.client("2", V4).await;
    let flooder = house.client("1", V4).await;
    let (mut reading, mut writing) = flooder.stream.into_split();
    let pings = bytes_of(&vec![Packet::PingReq; 500_000], V4);
    let flood = tokio::spawn(async move {
        loop {
            writing.write_all(&pings).await.unwrap();
        }
    });
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 20];
        while reading.read(&mut buffer).await.unwrap() > 0 {}
    });
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        other.send(&[Packet::PingReq]).await;
        assert_eq!(other.next().await, Some(Packet::PingResp));
        slowest = slowest.max(asked.elapsed());
    }
    println!("slowest answer beside a flood: {slowest:?}");
    assert!(slowest < Duration::from_millis(500));
    flood.abort();
    answers.abort();
}

/// Sends more than all buffers hold to a subscriber that reads none of it.
async fn flood(house: &House) -> TcpStream {
    let mut silent = house.client("1", V4).await;
    silent.send(&[subscribe("/1/flood")]).await;
    let message = publish("/1/flood", vec![b'x'; 100_000], None);
    let bytes = bytes_of(&[message], V4);
    let flooding = async {
        loop {
            silent.stream.write_all(&bytes).await.unwrap();
        }
    };
    // It gets stuck when nobody takes its bytes any more.
    let stuck = tokio::time::timeout(Duration::from_secs(2), flooding).await;
    assert!(stuck.is_err());
    silent.stream
}

#[tokio::test]
async fn who_never_reads() {
    let house = House::open(|_, _| ()).await;
    let silent = flood(&house).await;

    // Others notice nothing.
    let mut other = house.client("2", V5).await;
    let start = Instant::now();
    for _ in 0..50 {
        other.send(&[Packet::PingReq]).await;
        assert_eq!(other.next().await, Some(Packet::PingResp));
    }
    assert!(start.elapsed() < Duration::from_secs(1));

    // An eviction reaches it, though nothing can be written to it.
    assert_eq!(house.running.connections(), 2);
    house.accounts().set_token("1", Some("another")).unwrap();
    house.settle(1).await;
    drop(silent);
}

#[tokio::test]
async fn the_end_of_who_never_reads_is_noticed() {
    let house = House::open(|_, _| ()).await;
    drop(flood(&house).await);
    house.settle(0).await;
}

#[tokio::test]
async fn a_new_token_disconnects_within_a_second() {
    let house = House::open(|_, _| ()).await;
    let mut client = house.client("1", V5).await;
    let changed = Instant::now();
    house.accounts().set_token("1", Some("another")).unwrap();
    let Some(Packet::Disconnect(last)) = client.next().await else {
        panic!("no DISCONNECT")
    };
    assert_eq!(last.reason, ReasonCode::NotAuthorized);
    assert!(changed.elapsed() < Duration::from_secs(1));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn the_limit_of_connections_holds() {
    let house = House::open(|settings, _| settings.limits.connections = 2).await;
    let first = house.client("1", V4).await;
    let _second = house.client("2", V4).await;
    let mut third = Client::new(house.tcp().await, V4);
    third.send(&[connect("1", V4)]).await;
    let served = tokio::time::timeout(Duration::from_millis(200), third.next()).await;
    assert!(served.is_err(), "there is no permit for a third one");
    drop(first);
    assert!(
        matches!(third.next().await, Some(Packet::ConnAck(_))),
        "now there is one"
    );
}

#[tokio::test]
async fn the_limit_of_an_address_holds() {
    let house = House::open(|settings, _| settings.limits.connections_per_address = 1).await;
    let _first = house.client("1", V4).await;
    let mut second = house.tcp().await;
    let mut bytes = Vec::new();
    soon(second.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.is_empty(), "the second one is closed at once");
}

#[tokio::test]
async fn silence_is_ended() {
    let house = House::open(|settings, dir| {
        settings.limits.connect_timeout = Duration::from_millis(300);
        settings.listen.mqtts = Some("127.0.0.1:0".parse().unwrap());
        settings.tls.identity = Some(write_identity(dir.path(), "localhost"));
    })
    .await;
    let Running {
        mqtt, mqtts, http, ..
    } = &house.running;
    for address in [mqtt, mqtts, http] {
        let mut silent = connect_to(address.unwrap()).await;
        let opened = Instant::now();
        let mut bytes = Vec::new();
        soon(silent.read_to_end(&mut bytes)).await.ok(); // an end by reset is one too
        assert!(opened.elapsed() >= Duration::from_millis(250));
        assert!(opened.elapsed() < Duration::from_secs(3));
    }
    house.settle(0).await;
}

/// Neither a slow request nor one that was answered before gives a connection more time for its CONNECT.
#[tokio::test]
async fn a_web_socket_has_no_more_time_than_others() {
    let allowed = Duration::from_secs(3);
    let house = House::open(|settings, _| settings.limits.connect_timeout = allowed).await;
    let upgrade =
        b"GET /mqtt HTTP/1.1\r\nHost: jam\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let address = house.running.http.unwrap();
    let opened = Instant::now();
    let (mut late, mut never) = (connect_to(address).await, connect_to(address).await);
    for stream in [&mut late, &mut never] {
        stream.write_all(&upgrade[..30]).await.unwrap();
    }
    tokio::time::sleep(allowed * 2 / 3).await;
    late.write_all(&upgrade[30..]).await.unwrap();
    let mut bytes = Vec::new();
    soon(late.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 101"), "it was in time");
    soon(never.read_to_end(&mut Vec::new())).await.ok();
    let took = opened.elapsed();
    assert!(took > allowed / 2 && took < allowed * 4 / 3, "{took:?}");

    let mut again = connect_to(address).await;
    let health = b"GET /healthz HTTP/1.1\r\nHost: jam\r\n\r\n";
    again.write_all(health).await.unwrap();
    let opened = Instant::now();
    let mut bytes = Vec::new();
    soon(again.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200"));
    assert!(opened.elapsed() < allowed / 2, "one request, and its end");
    house.settle(0).await;
}

#[tokio::test]
async fn stopping_leaves_nothing() {
    let house = House::open(|_, _| ()).await;
    let address = house.running.mqtt.unwrap();
    let mut modern = house.client("1", V5).await;
    let mut old = house.client("2", V4).await;
    let mut stranger = house.tcp().await;
    house.settle(3).await;
    let permits = house.running.parts.permits.clone();

    // What is queued when the server stops is written all the same.
    modern.send(&[subscribe("/1/pictures")]).await;
    assert!(matches!(modern.next().await, Some(Packet::SubAck(_))));
    let picture = vec![b'x'; 2_000_000];
    modern
        .send(&[
            publish("/1/pictures", picture.clone(), None),
            Packet::PingReq,
        ])
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let began = Instant::now();
    let stop = tokio::spawn(house.running.stop());
    let (mut pictures, mut reason) = (0, None);
    while let Some(packet) = modern.next().await {
        match packet {
            Packet::Publish(publish) => pictures += publish.payload.len(),
            Packet::Disconnect(last) => reason = Some(last.reason),
            _ => {}
        }
    }
    assert_eq!(pictures, picture.len());
    assert_eq!(reason, Some(ReasonCode::ServerShuttingDown));
    assert_eq!(old.next().await, None);
    let mut bytes = Vec::new();
    soon(stranger.read_to_end(&mut bytes)).await.unwrap();
    drop((modern, old, stranger));
    soon(stop).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(permits.len(), 0);
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens there any more"
    );
}

#[tokio::test]
async fn what_was_taken_is_acknowledged_before_the_stop() {
    let house = House::open(|_, _| ()).await;
    let mut receiver = house.client("2", V4).await;
    receiver.send(&[subscribe("/2/inbox")]).await;
    assert!(matches!(receiver.next().await, Some(Packet::SubAck(_))));
    let mut sender = house.client("1", V5).await;
    sender
        .send(&[publish("/2/inbox", HELLO, Some(7)), Packet::PingReq])
        .await;
    // The receiver does not acknowledge it: it is in its grace.
    assert_eq!(sender.next().await, Some(Packet::PingResp));
    let stop = tokio::spawn(house.running.stop());
    assert!(is_pub_ack(sender.next().await, 7));
    assert!(matches!(sender.next().await, Some(Packet::Disconnect(_))));
    stop.await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let house = House::open(|_, _| ()).await;
    let mut settings = Settings::default();
    settings.directory.path = house.dir.path().join("jam.db");
    settings.listen.mqtt = Some(house.running.mqtt.unwrap().to_string().parse().unwrap());
    settings.listen.http = None;
    let text = start(settings).await.unwrap_err().to_string();
    assert!(
        text.contains("listen.mqtt") && text.contains("127.0.0.1"),
        "{text}"
    );
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects; shows the given identity, if the server asks for one.
async fn tls_client(house: &House, identity: Option<&Identity>) -> io::Result<Client<TlsStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let cert = house.dir.path().join("cert.pem");
    roots
        .add(CertificateDer::from_pem_file(cert).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key, .. }) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connect_to(house.running.mqtts.unwrap()).await;
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Client::new(
        soon(connector.connect(name, stream)).await?,
        V4,
    ))
}

#[tokio::test]
async fn client_certificates_are_required_where_set() {
    let elsewhere = tempfile::tempdir().unwrap();
    let trusted = write_identity(elsewhere.path(), "phone");
    let house = House::open(|settings, dir| {
        settings.listen.mqtts = Some("127.0.0.1:0".parse().unwrap());
        settings.tls.identity = Some(write_identity(dir.path(), "localhost"));
        settings.tls.client_ca = Some(trusted.cert.clone());
    })
    .await;
    let mut client = tls_client(&house, Some(&trusted)).await.unwrap();
    client.send(&[connect("1", V4)]).await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));

    let strangers = tempfile::tempdir().unwrap();
    let stranger = write_identity(strangers.path(), "phone");
    for identity in [None, Some(&stranger)] {
        // In TLS 1.3 a client learns of it when it reads.
        let Ok(mut client) = tls_client(&house, identity).await else {
            continue;
        };
        let mut bytes = Vec::new();
        let ended = soon(client.stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_err() && bytes.is_empty());
    }
    house.settle(1).await;
}

#[tokio::test]
async fn a_locked_directory_holds_up_only_who_asks_it() {
    let house = House::open(|settings, _| {
        drop(Administration::open_or_create(&settings.directory.path).unwrap());
        let file = rusqlite::Connection::open(&settings.directory.path).unwrap();
        // In this mode a writer locks readers out, as the first implementation's web server does.
        file.pragma_update(None, "journal_mode", "DELETE").unwrap();
    })
    .await;
    let mut inside = house.client("1", V4).await;

    let writer = rusqlite::Connection::open(house.dir.path().join("jam.db")).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut outside = Client::new(house.tcp().await, V4);
    outside.send(&[connect("2", V4), Packet::PingReq]).await;
    let answered = tokio::time::timeout(Duration::from_millis(300), outside.next()).await;
    assert!(answered.is_err(), "its account cannot be read yet");
    inside.send(&[Packet::PingReq]).await;
    assert_eq!(inside.next().await, Some(Packet::PingResp));

    writer.execute_batch("COMMIT").unwrap();
    assert!(matches!(outside.next().await, Some(Packet::ConnAck(_))));
    assert_eq!(outside.next().await, Some(Packet::PingResp));
}

#[tokio::test]
async fn a_directory_that_hangs_is_told_and_keeps_nobody() {
    let house = House::open(|_, _| ()).await;
    let mut sender = house.client("1", V4).await;
    sender.send(&[publish("/2/inbox", HELLO, Some(1))]).await;
    assert!(is_pub_ack(sender.next().await, 1), "now it is known");

    let hang = hang(&*house.running.parts.shared.directory).await;
    soon(async {
        while !get(&house, "/readyz").await.starts_with("HTTP/1.1 503") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // What is known is not believed for ever, and the answer does not take for ever.
    sender.send(&[publish("/2/inbox", HELLO, Some(2))]).await;
    let error = payload(sender.next().await);
    assert!(
        error
            .windows(20)
            .any(|part| part == b"fatal database error")
    );
    assert!(is_pub_ack(sender.next().await, 2));
    let mut late = Client::new(house.tcp().await, V5);
    late.send(&[connect("2", V5)]).await;
    assert!(matches!(late.next().await, Some(Packet::ConnAck(ack))
        if ack.code == ConnectCode::V5(ReasonCode::ServerUnavailable)));

    soon(house.running.stop()).await;
    drop(hang);
}

#[tokio::test]
async fn tls_is_served_and_reloaded() {
    let house = House::open(|settings, dir| {
        settings.listen.mqtts = Some("127.0.0.1:0".parse().unwrap());
        settings.tls.identity = Some(write_identity(dir.path(), "localhost"));
    })
    .await;
    let mut client = tls_client(&house, None).await.unwrap();
    let picture = vec![b'x'; 500_000];
    client
        .send(&[connect("1", V4), subscribe("/1/pictures")])
        .await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    client
        .send(&[publish("/1/pictures", picture.clone(), None)])
        .await;
    assert!(payload(client.next().await) == picture);

    write_identity(house.dir.path(), "localhost");
    assert!(
        tls_client(&house, None).await.is_err(),
        "still the old certificate"
    );
    house.running.reload().await;
    let mut renewed = tls_client(&house, None).await.unwrap();
    renewed.send(&[connect("2", V4)]).await;
    assert!(matches!(renewed.next().await, Some(Packet::ConnAck(_))));
    client.send(&[Packet::PingReq]).await;
    assert_eq!(
        client.next().await,
        Some(Packet::PingResp),
        "who is connected stays connected"
    );
}

type WebSocket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn web_socket(house: &House, protocol: &'static str) -> WebSocket {
    let address = house.running.http.unwrap();
    let mut request = format!("ws://{address}/mqtt")
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = connect_to(address).await;
    let (socket, response) = soon(tokio_tungstenite::client_async(request, stream))
        .await
        .unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

async fn next_bytes(socket: &mut WebSocket) -> Vec<u8> {
    match soon(socket.next()).await.unwrap().unwrap() {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("not a binary frame: {other:?}"),
    }
}

#[tokio::test]
async fn packets_straddle_frames() {
    let house = House::open(|_, _| ()).await;
    let mut socket = web_socket(&house, "mqtt").await;
    let packets = [
        connect("1", V4),
        publish("/2/inbox", HELLO, Some(3)),
        Packet::PingReq,
    ];
    for part in bytes_of(&packets, V4).chunks(17) {
        socket.send(Message::binary(part.to_vec())).await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 10 {
        got.extend(next_bytes(&mut socket).await);
    }
    got[4..].sort_unstable(); // PUBACK and PINGRESP may come in either order
    assert_eq!(got, [0x20, 2, 0, 0, 0, 0, 2, 3, 0x40, 0xD0]);

    // Several packets in one frame, and their answers in one.
    let many = bytes_of(&[Packet::PingReq, Packet::PingReq, Packet::PingReq], V4);
    socket.send(Message::binary(many.to_vec())).await.unwrap();
    assert_eq!(next_bytes(&mut socket).await, [0xD0, 0, 0xD0, 0, 0xD0, 0]);

    socket
        .send(Message::Ping(Bytes::from_static(b"there?")))
        .await
        .unwrap();
    let pong = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
    drop(socket);
    house.settle(0).await;
}

#[tokio::test]
async fn a_picture_goes_through_a_web_socket() {
    let house = House::open(|_, _| ()).await;
    let mut socket = web_socket(&house, "mqttv3.1").await;
    let picture = vec![b'x'; 1_000_000];
    let packets = [connect("1", Version::V3), subscribe("/1/pictures")];
    socket
        .send(Message::binary(bytes_of(&packets, Version::V3).to_vec()))
        .await
        .unwrap();
    let packets = bytes_of(&[publish("/1/pictures", picture, None)], Version::V3);
    socket
        .send(Message::binary(packets.to_vec()))
        .await
        .unwrap();
    let mut got = 0;
    while got < packets.len() + 4 + 5 {
        got += next_bytes(&mut socket).await.len();
    }
}

#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    let house = House::open(|_, _| ()).await;
    let mut socket = web_socket(&house, "mqtt").await;
    socket.send(Message::text("hello")).await.unwrap();
    let ended = soon(async {
        while let Some(Ok(message)) = socket.next().await {
            assert!(message.is_close());
        }
    });
    ended.await;
    house.settle(0).await;
}

#[tokio::test]
async fn a_web_socket_is_told_that_the_server_stops() {
    let house = House::open(|_, _| ()).await;
    let mut socket = web_socket(&house, "mqtt").await;
    socket
        .send(Message::binary(bytes_of(&[connect("1", V5)], V5).to_vec()))
        .await
        .unwrap();
    assert_eq!(next_bytes(&mut socket).await[0], 0x20);
    let stop = tokio::spawn(house.running.stop());
    assert_eq!(next_bytes(&mut socket).await, [0xE0, 1, 0x8B]);
    assert!(soon(socket.next()).await.unwrap().unwrap().is_close());
    soon(stop).await.unwrap();
}

async fn get(house: &House, path: &str) -> String {
    let mut stream = connect_to(house.running.http.unwrap()).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: jam\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn health_is_served() {
    let house = House::open(|_, _| ()).await;
    for (path, code) in [
        ("/healthz", "200"),
        ("/readyz", "200"),
        ("/other", "404"),
        ("/mqtt", "400"),
    ] {
        let answer = get(&house, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{path}: {answer}"
        );
    }
    house.settle(0).await;
}
