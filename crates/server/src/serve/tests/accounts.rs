//! An accounts database that changes, is locked, or hangs.

use std::time::{Duration, Instant};

use jam_wire::packet::{ConnectCode, Packet};
use jam_wire::reason::ReasonCode;

use super::house::{Client, HELLO, House, connect, publish, soon};
use super::{V4, V5, get, is_pub_ack, payload};
use crate::directory;
use crate::directory::sqlite::tests::hang;

#[tokio::test]
async fn a_new_token_disconnects_within_a_second() {
    let house = House::open(|_, _| ()).await;
    let mut client = house.client("1", V5).await;
    let changed = Instant::now();
    house.renew_token("1").await;
    let Some(Packet::Disconnect(last)) = client.next().await else {
        panic!("no DISCONNECT")
    };
    assert_eq!(last.reason, ReasonCode::NotAuthorized);
    assert!(changed.elapsed() < Duration::from_secs(1));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_locked_directory_holds_up_only_who_asks_it() {
    let house = House::open(|settings, _| {
        let path = &settings.directory.file().unwrap().path;
        directory::create(path).unwrap();
        let file = rusqlite::Connection::open(path).unwrap();
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
        let reason = "the accounts database does not answer";
        while !get(&house, "/readyz").await.contains(reason) {
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
