//! PROTOCOL.md, section 8, first bullet: how many guesses at a token are answered, however they come.

use std::net::IpAddr;
use std::task::Waker;
use std::time::Duration;

use Version::{V3, V4, V5};
use bytes::Buf;
use jam_core::connection::{Connection, Progress};
use jam_core::directory::Question;
use jam_testkit::{Bench, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{ConnectCode, Packet, Version};

/// With the testkit's limit of more than ten.
const ANSWERED: usize = 11;

fn guess(bench: &Bench, client_id: &str, from: [u8; 4]) -> ConnectCode {
    let client = bench.client(client_id, V5);
    client.set_address(from);
    let conn_ack = client.try_connect(|connect| connect.password = Some("guess".into()));
    conn_ack.code
}

#[test]
fn a_login_of_ones_own_wins_no_guesses() {
    let bench = Bench::new();
    let here = [192, 0, 2, 7];
    let own = bench.client("1:a", V4);
    own.set_address(here);
    let mut answered = 0;
    for n in 0..100 {
        let code = guess(&bench, &format!("2:device-{n}"), here);
        answered += usize::from(code == ConnectCode::V5(ReasonCode::NotAuthorized));
        own.try_connect(|_| ());
    }
    assert_eq!(answered, ANSWERED);
    // The owner is elsewhere, and is let in.
    bench.client("2:phone", V4).connect();
}

#[test]
fn after_the_window_there_are_as_many_again() {
    let bench = Bench::new();
    let here = [192, 0, 2, 7];
    let mut answered = 0;
    for n in 0..100 {
        let code = guess(&bench, &format!("2:{n}"), here);
        answered += usize::from(code == ConnectCode::V5(ReasonCode::NotAuthorized));
        bench.pass(Duration::from_secs(30));
    }
    // 50 minutes are five windows.
    assert!(answered <= 5 * ANSWERED + ANSWERED, "{answered}");
}

/// A connection from `address` whose CONNECT waits for the directory, and what it asks.
fn waiting(
    bench: &Bench,
    address: [u8; 4],
    version: Version,
    password: &str,
) -> (Connection, Question) {
    let (router, now) = (bench.router(), bench.now());
    let mut connection = Connection::new(router, address.into(), Waker::noop().clone(), now);
    let mut connect = packets::connect("2:phone", version);
    connect.password = Some(password.to_owned().into());
    let progress = connection.handle_packet(Packet::Connect(Box::new(connect)), now);
    let Progress::Ask(question) = progress else {
        panic!("{progress:?}");
    };
    (connection, question)
}

/// The directory has answered: the code of the CONNACK.
fn resume(bench: &Bench, (connection, question): &mut (Connection, Question)) -> u8 {
    let answer = bench.directory().answer(question);
    assert_eq!(connection.resume(answer, bench.now()), Progress::Ready);
    let output = connection.output();
    output.copy_to_bytes(output.len())[3]
}

#[test]
fn guesses_that_arrive_together() {
    for (version, wrong, spam, accepted) in [(V3, 5, 4, 0), (V4, 5, 4, 0), (V5, 0x87, 0x9F, 0)] {
        let bench = Bench::new();
        let (here, elsewhere) = ([192, 0, 2, 7], [192, 0, 2, 8]);
        bench.directory().forget();
        let mut guesses: Vec<_> = (0..100)
            .map(|_| waiting(&bench, here, version, "guess"))
            .collect();
        // The last guess is right, and over the limit.
        guesses.push(waiting(&bench, here, version, &packets::token("2")));
        let mut owner = waiting(&bench, elsewhere, version, &packets::token("2"));
        let codes: Vec<_> = guesses.iter_mut().map(|it| resume(&bench, it)).collect();
        assert_eq!(codes[..ANSWERED], [wrong; ANSWERED]);
        assert!(codes[ANSWERED..].iter().all(|it| *it == spam), "{codes:?}");
        assert_eq!(resume(&bench, &mut owner), accepted);
    }
}

#[test]
fn addresses_of_one_ipv6_host_share_their_count() {
    let bench = Bench::new();
    bench.directory().forget();
    let from = |text: &str| text.parse::<IpAddr>().expect("an address");
    let mut codes = Vec::new();
    for n in 0..30 {
        let (router, now) = (bench.router(), bench.now());
        let address = from(&format!("2001:db8::{n:x}"));
        let mut connection = Connection::new(router, address, Waker::noop().clone(), now);
        let mut connect = packets::connect(&format!("2:{n}"), V5);
        connect.password = Some("guess".into());
        let mut progress = connection.handle_packet(Packet::Connect(Box::new(connect)), now);
        while let Progress::Ask(question) = progress {
            let answer = bench.directory().answer(&question);
            progress = connection.resume(answer, now);
        }
        let output = connection.output();
        codes.push(output.copy_to_bytes(output.len())[3]);
    }
    let answered = codes.iter().filter(|code| **code == 0x87).count();
    assert_eq!(answered, ANSWERED, "{codes:?}");
}
