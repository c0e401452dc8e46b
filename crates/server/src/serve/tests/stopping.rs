//! What becomes of clients, messages and permits when the server stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jam_core::router::OnCommit;
use jam_wire::packet::Packet;
use jam_wire::reason::ReasonCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::house::{HELLO, House, publish, soon, subscribe};
use super::{V4, V5, is_pub_ack};
use crate::mailbox;
use crate::settings::Settings;

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

/// It is all that the next start knows of the time until then, if the machine's clocks are lost.
#[tokio::test]
async fn the_time_of_the_stop_is_kept() {
    let House { running, dir, .. } = House::open(|_, _| ()).await;
    let clock = running.parts.shared.clock.clone();
    tokio::time::sleep(Duration::from_millis(600)).await; // it has been kept once by now
    let at_stop = clock.now();
    running.stop().await;
    let mut settings = Settings::default();
    settings.data = dir.path().to_owned();
    let (_mailbox, recovered) = mailbox::open::<OnCommit>(&settings, Arc::default()).unwrap();
    assert!(recovered.clock.unwrap().time >= at_stop);
}
