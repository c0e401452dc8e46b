//! What an operator sees of users and devices, and what disconnecting one does.

use std::collections::BTreeSet;
use std::time::Duration;

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::ids::{ClientId, UserId};
use jam_core::router::{DevicePresence, DeviceView, Kicked, SHARDS, UserFilter};
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{ConnectCode, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a user id")
}

fn kick(bench: &Bench, client: &str, ends_session: bool) -> Kicked {
    let client = ClientId::new(client);
    let kicked = bench
        .router()
        .kick(&user(client.user_part()), &client, ends_session);
    bench.run();
    kicked
}

fn devices(bench: &Bench, id: &str) -> Vec<DeviceView> {
    bench
        .router()
        .view(&user(id))
        .map_or_else(Vec::new, |view| view.devices)
}

/// A receiver whose session outlives connections, and a friend.
fn pair(bench: &Bench, version: Version) -> (Client, Client) {
    let friend = bench.client("1:phone", version);
    friend.connect();
    let receiver = bench.client("2:phone", version);
    receiver.connect_lasting();
    receiver.subscribe("/2/inbox", ExactlyOnce);
    (friend, receiver)
}

#[test]
fn a_kicked_device_is_told_and_misses_nothing() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (friend, receiver) = pair(&bench, version);
        friend.write("2", "before", AtLeastOnce);
        receiver.expect_message("1", "before");
        assert_eq!(kick(&bench, "2:phone", false), Kicked::Disconnected);
        receiver.expect_ended(ReasonCode::AdministrativeAction);
        assert!(!bench.router().is_online(&user("2")));
        assert_eq!(kick(&bench, "2:phone", false), Kicked::WasAway);

        friend.write("2", "meanwhile", AtLeastOnce);
        // 3.1 has no word for it.
        let is_told = version != V3;
        assert_eq!(receiver.connect_lasting().session_present, is_told);
        receiver.expect_again("1", "before");
        receiver.expect_message("1", "meanwhile");
        friend.expect_nothing();
    }
}

#[test]
fn with_its_session_goes_what_was_the_sessions() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (friend, receiver) = pair(&bench, version);
        assert_eq!(kick(&bench, "2:phone", true), Kicked::SessionEnded);
        receiver.expect_ended(ReasonCode::AdministrativeAction);
        assert_eq!(devices(&bench, "2"), []);
        assert_eq!(kick(&bench, "2:phone", true), Kicked::Unknown);

        // A message waits for whoever subscribes next, and the client finds no session.
        friend.write("2", "waits", AtLeastOnce);
        assert!(!receiver.connect_lasting().session_present);
        receiver.expect_nothing();
        receiver.subscribe_inbox();
        receiver.read("1", "waits");

        // Of one that is away, too.
        receiver.drop_connection();
        assert_eq!(kick(&bench, "2:phone", true), Kicked::SessionEnded);
        assert!(!receiver.connect_lasting().session_present);
    }
}

#[test]
fn nothing_is_remembered_of_those_who_are_not_there() {
    let bench = Bench::new();
    let (_friend, receiver) = pair(&bench, V5);
    let known = bench.router().known_users();
    for client in ["3:phone", "nobody:x", "2:other", "2", "2:phone2"] {
        for ends_session in [false, true] {
            assert_eq!(kick(&bench, client, ends_session), Kicked::Unknown);
        }
    }
    assert_eq!(bench.router().known_users(), known);
    assert!(bench.router().view(&user("nobody")).is_none());
    receiver.expect_nothing();
}

#[test]
fn a_view_says_what_a_device_has() {
    let bench = Bench::on_disk(|_| ());
    bench.disk().unwrap().at_once(true);
    let receiver = bench.client("2:phone", V5);
    receiver.connect_lasting();
    let begun = bench.now();
    let [device] = &devices(&bench, "2")[..] else {
        panic!("one device")
    };
    assert_eq!((device.subscriptions, device.reads_inbox), (0, false));
    let DevicePresence::Connected { peer, .. } = &device.presence else {
        panic!("{device:?}")
    };
    assert_eq!((peer.version, peer.since), (V5, begun));
    assert_eq!(peer.address.to_string(), "192.0.2.1");

    receiver.subscribe("/2/other", AtLeastOnce);
    assert!(!devices(&bench, "2")[0].reads_inbox);
    receiver.subscribe_inbox();
    let friend = bench.client("1:phone", V4);
    friend.connect();
    for content in ["a", "b"] {
        friend.write("2", content, AtLeastOnce);
        receiver.expect_message("1", content);
    }
    let device = &devices(&bench, "2")[0];
    assert_eq!(
        (device.subscriptions, device.reads_inbox, device.in_flight),
        (2, true, 2)
    );
    let mailbox = bench.router().view(&user("2")).unwrap().mailbox;
    assert_eq!((mailbox.messages, mailbox.retained), (2, 0));
    assert!(mailbox.bytes > 0 && mailbox.oldest.is_some());

    bench.pass(Duration::from_secs(60));
    receiver.drop_connection();
    let left = bench.now();
    bench.pass(Duration::from_secs(60));
    let is_away_since_then = |bench: &Bench| {
        let DevicePresence::Away {
            since,
            session_ends_at,
        } = devices(bench, "2")[0].presence
        else {
            panic!("it is away")
        };
        assert_eq!(since, left);
        assert_eq!(session_ends_at, left + Duration::from_secs(24 * 3600));
    };
    is_away_since_then(&bench);
    bench.crash();
    is_away_since_then(&bench);
    let device = &devices(&bench, "2")[0];
    assert_eq!((device.subscriptions, device.reads_inbox), (2, true));
}

#[test]
fn room_is_told_as_the_limits_have_it() {
    let bench = Bench::with(|rules| rules.user.max_messages = 4);
    bench.directory().befriend("3", "2");
    let has_room = |sender: &str| bench.router().has_room(&user("2"), &user(sender));
    let senders = [bench.client("1:a", V4), bench.client("3:a", V4)];
    senders.iter().for_each(|sender| drop(sender.connect()));
    assert!(has_room("1"));
    senders[0].write("2", "a", AtLeastOnce);
    senders[0].write("2", "b", AtLeastOnce);
    assert!(!has_room("1"), "half of it is theirs");
    assert!(has_room("3"));
    senders[1].write("2", "c", AtLeastOnce);
    senders[1].write("2", "d", AtLeastOnce);
    assert!(!has_room("3"));
}

/// All of them, a part after another, while others come and go.
#[test]
fn a_walk_finds_everybody_who_stays_once() {
    let bench = Bench::new();
    let ids: Vec<_> = (100..400).map(|n| n.to_string()).collect();
    for id in &ids {
        bench.directory().set_account(id, Some(&packets::token(id)));
    }
    let clients: Vec<_> = ids
        .iter()
        .map(|id| bench.client(&format!("{id}:phone"), V4))
        .collect();
    let (stay, change) = clients.split_at(150);
    stay.iter().for_each(|client| drop(client.connect()));
    let mut found = Vec::new();
    for part in 0..SHARDS {
        let change = &change[part % change.len()];
        if change.is_open() {
            change.drop_connection();
        } else {
            change.connect();
        }
        let of_part = bench.router().users_who_are(UserFilter::Connected, part);
        assert!(of_part.is_sorted());
        assert!(of_part.iter().all(|it| bench.router().part_of(it) == part));
        found.extend(of_part);
    }
    let set: BTreeSet<_> = found.iter().map(UserId::as_str).collect();
    assert_eq!(set.len(), found.len(), "nobody twice");
    assert!(stay.iter().all(|client| set.contains(client.user())));
}

#[test]
fn a_lifted_lockout_lets_in_at_once() {
    let bench = Bench::new();
    let (here, there) = ([192, 0, 2, 7], [192, 0, 2, 8]);
    let guess = |from| {
        let client = bench.client("2:guess", V5);
        client.set_address(from);
        client.try_connect(|connect| connect.password = Some("guess".into()))
    };
    let source = |address: [u8; 4]| std::net::IpAddr::from(address).into();
    let lockout = |from| bench.router().lockout(source(from), bench.now());
    assert_eq!(lockout(here), None);
    for n in 1..=11 {
        guess(here);
        let lockout = lockout(here).unwrap();
        assert_eq!((lockout.failures, lockout.is_locked), (n, n > 10));
        assert_eq!(lockout.until, bench.now() + Duration::from_secs(600));
    }
    guess(there);
    let owner = bench.client("2:phone", V5);
    owner.set_address(here);
    let refused = owner.try_connect(|_| ());
    assert_ne!(refused.code, ConnectCode::V5(ReasonCode::Success));
    assert!(bench.router().lift_lockout(source(here)));
    assert!(!bench.router().lift_lockout(source(here)));
    assert_eq!(lockout(here), None);
    assert_eq!(lockout(there).unwrap().failures, 1, "others stay");
    owner.connect();
}
