//! Whole servers on port 0, in this process.

mod accounts;
pub(crate) mod house;
mod stopping;
mod tls;
mod web_sockets;

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jam_wire::packet::{ConnectCode, Packet, Publish, Version};
use jam_wire::reason::ConnectReturnCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::settings::DirectorySettings;
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
    house.renew_token("1").await;
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

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let house = House::open(|_, _| ()).await;
    let mut settings = Settings::default();
    settings.directory = DirectorySettings::in_file(house.dir.path().join("jam.db"));
    settings.listen.mqtt = Some(house.running.mqtt.unwrap().to_string().parse().unwrap());
    settings.listen.http = None;
    settings.listen.admin = None;
    let text = start(settings).await.unwrap_err().to_string();
    assert!(
        text.contains("listen.mqtt") && text.contains("127.0.0.1"),
        "{text}"
    );
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
