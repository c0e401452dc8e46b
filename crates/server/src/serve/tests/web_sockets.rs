//! MQTT over WebSocket.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use jam_wire::packet::{Packet, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::house::{HELLO, House, bytes_of, connect, connect_to, publish, soon, subscribe};
use super::{V4, V5};
use crate::admin::tests::{ask, with_tokens};

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
    assert_eq!(next_bytes(&mut socket).await, [0xE0, 2, 0x8B, 0]);
    assert!(soon(socket.next()).await.unwrap().unwrap().is_close());
    soon(stop).await.unwrap();
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

/// The answer's status to an upgrade with these headers.
async fn upgrade(house: &House, headers: &[&str]) -> String {
    let mut stream = connect_to(house.running.http.unwrap()).await;
    let mut request =
        "GET /mqtt HTTP/1.1\r\nHost: jam\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            .to_owned();
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    soon(stream.read_exact(&mut start)).await.unwrap();
    String::from_utf8_lossy(&start[9..]).into_owned()
}

#[tokio::test]
async fn a_page_of_another_origin_opens_no_web_socket() {
    let ours = "https://chat.example.org";
    let house = House::open(|settings, _| {
        with_tokens(settings);
        settings.listen.origins = vec!["http://localhost:3000".to_owned(), ours.to_owned()];
    })
    .await;
    assert_eq!(upgrade(&house, &[]).await, "101", "no page");
    assert_eq!(upgrade(&house, &[&format!("Origin: {ours}")]).await, "101");
    let wrong = [
        "http://chat.example.org",
        "https://chat.example.org:8443",
        "https://chat.example.org.evil.example",
        "https://evil.example/https://chat.example.org",
        "https://evil.example",
        "null",
        "",
    ];
    for origin in wrong {
        let header = format!("Origin: {origin}");
        assert_eq!(upgrade(&house, &[&header]).await, "403", "{origin}");
    }
    let both = [
        "Origin: https://evil.example",
        "Origin: http://localhost:3000",
    ];
    assert_eq!(upgrade(&house, &both).await, "403");
    let admin = house.running.admin.unwrap();
    let metrics = ask(admin, "GET /metrics", &[], b"").await.body;
    let count = wrong.len() + 1;
    let line =
        format!("jam_connections_refused_total{{listener=\"http\",reason=\"origin\"}} {count}\n");
    assert!(metrics.contains(&line), "{metrics}");
    house.settle(0).await;

    let house = House::open(|_, _| ()).await;
    let anybody = upgrade(&house, &["Origin: https://evil.example"]).await;
    assert_eq!(anybody, "101", "unless they are named, any page may");
}
