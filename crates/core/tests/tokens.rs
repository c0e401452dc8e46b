//! A session belongs to the token it was made with (PROTOCOL.md, section 6): its will and its place among the devices too.

use std::time::Duration;

use Version::{V3, V4, V5};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, FakeDirectory, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Connect, ConnectCode, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];
const WRONG: ConnectCode = ConnectCode::V5(ReasonCode::NotAuthorized);
const HOUR: Duration = Duration::from_secs(3600);

fn many() -> Bench {
    let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
    bench.disk().expect("a disk").at_once(true);
    bench
}

fn leave_will(connect: &mut Connect) {
    let mut will = packets::will("/2/inbox", r#"{"from":"1","content":"bye"}"#);
    will.qos = QoS::AtLeastOnce;
    connect.will = Some(will);
}

/// A client that logs in with the new token.
fn owner(bench: &Bench, client_id: &str, version: Version) -> Client {
    let client = bench.client(client_id, version);
    let conn_ack = client.connect_with(|connect| {
        lasting(connect);
        connect.password = Some("new".into());
    });
    assert!(!conn_ack.session_present, "{client_id}");
    client
}

/// What may happen between a new token and the moment at which somebody could notice that a session is old.
const BETWEEN: [fn(&Bench); 4] = [
    |_| (),
    |bench| bench.recheck(),
    |bench| bench.crash(),
    |bench| {
        bench.crash();
        bench.recheck();
    },
];

#[test]
fn no_will_goes_out_that_was_left_with_an_old_token() {
    type Leaves = fn(&mut Connect);
    let at_once: Leaves = leave_will;
    let later: Leaves = |connect| {
        lasting(connect);
        leave_will(connect);
        if connect.version == V5 {
            connect.will.as_mut().expect("a will").delay_secs = Some(3);
        }
    };
    for token in [Some("new"), None] {
        for version in VERSIONS {
            for leaves in [at_once, later] {
                for away in [false, true] {
                    let bench = many();
                    let friend = bench.at_inbox("2:phone", V5);
                    let thief = bench.client("1:thief", version);
                    thief.connect_with(leaves);
                    bench.directory().set_account("1", token);
                    if away {
                        thief.drop_connection();
                    } else {
                        bench.recheck();
                        thief.expect_ended(ReasonCode::NotAuthorized);
                    }
                    bench.pass(HOUR * 48);
                    friend.expect_nothing();
                }
            }
        }
    }
}

#[test]
fn a_will_that_is_due_when_the_token_changes_stays_unsaid() {
    for between in BETWEEN {
        let bench = many();
        let friend = bench.at_inbox("2:phone", V5);
        let thief = bench.client("1:thief", V5);
        thief.connect_with(|connect| {
            lasting(connect);
            leave_will(connect);
        });
        bench.directory().forget();
        bench.directory().fail(true);
        thief.drop_connection();
        bench.directory().set_account("1", Some("new"));
        bench.directory().fail(false);
        between(&bench);
        bench.pass(HOUR);
        friend.drop_connection();
        bench.at_inbox("2:phone", V5).expect_nothing();
    }
}

#[test]
fn no_session_is_present_that_was_made_with_an_old_token() {
    for version in [V4, V5] {
        for between in BETWEEN {
            let bench = many();
            let thief = bench.client("1:phone", version);
            thief.connect_with(lasting);
            thief.subscribe("/1/notes", QoS::AtLeastOnce);
            thief.drop_connection();
            bench.directory().set_account("1", Some("new"));
            between(&bench);
            let owner = owner(&bench, "1:phone", version);
            owner.publish("/1/notes", "mine", QoS::AtLeastOnce);
            owner.drop_connection();
            // The next one has the same token: that session goes on.
            let conn_ack = bench.client("1:phone", version).connect_with(|connect| {
                lasting(connect);
                connect.password = Some("new".into());
            });
            assert!(conn_ack.session_present);
        }
    }
}

#[test]
fn sessions_of_an_old_token_take_no_place_and_no_messages() {
    for between in BETWEEN {
        let bench = many();
        for n in 0..32 {
            let thief = bench.client(&format!("1:thief{n}"), V5);
            thief.connect_with(lasting);
            thief.subscribe_inbox();
            thief.drop_connection();
        }
        bench.directory().set_account("1", Some("new"));
        between(&bench);
        let friend = bench.client("2:phone", V5);
        friend.connect();
        friend.publish("/1/inbox", r#"{"from":"2"}"#, QoS::AtLeastOnce);
        let owner = owner(&bench, "1:phone", V5);
        owner.subscribe_inbox();
        let publish = owner.expect_payload("/1/inbox", br#"{"from":"2"}"#);
        owner.ack(&publish);
        bench.run();
        // Nobody else is waited for.
        assert_eq!(bench.disk().expect("a disk").kept(), 0);
    }
}

#[test]
fn a_further_device_ends_the_one_that_has_been_away_longest() {
    for crashes in [false, true] {
        let bench = many();
        let name = |n: usize| format!("1:{n}");
        let devices: Vec<_> = (0..32).map(|n| bench.client(&name(n), V5)).collect();
        for device in &devices {
            device.connect_lasting();
        }
        for n in [7, 3, 12] {
            bench.pass(Duration::from_secs(10));
            devices[n].drop_connection();
        }
        if crashes {
            bench.crash();
            devices.iter().for_each(Client::drop_connection);
        }
        bench.client(&name(32), V5).connect_lasting();
        for (n, present) in [(3, true), (12, true), (7, false)] {
            devices[31].drop_connection();
            let conn_ack = bench.client(&name(n), V5).connect_lasting();
            assert_eq!(conn_ack.session_present, present, "{n}, crash: {crashes}");
        }
    }
}

#[test]
fn a_login_with_a_token_that_was_changed_meanwhile_ends_nothing_of_the_new_one() {
    for unnoticed in [false, true] {
        for one_device in [false, true] {
            let bench = Bench::on_disk(|rules| rules.user.many_devices = !one_device);
            bench.disk().expect("a disk").at_once(true);
            let before = bench.directory().snapshot();
            let change = |directory: &FakeDirectory| directory.set_account("1", Some("new"));
            if unnoticed {
                bench.directory().unnoticed(change);
            } else {
                change(bench.directory());
            }
            let owner = owner(&bench, "1:phone", V5);
            owner.subscribe_inbox();
            bench.directory().answer_once_as(&before);
            let thief = bench.client("1:thief", V5);
            assert_eq!(thief.try_connect(lasting).code, WRONG);
            owner.expect_nothing();
            owner.drop_connection();
            let conn_ack = bench.client("1:phone", V5).connect_with(|connect| {
                lasting(connect);
                connect.password = Some("new".into());
            });
            assert!(conn_ack.session_present, "unnoticed: {unnoticed}");
        }
    }
}

#[test]
fn nobody_is_let_in_by_what_everybody_has_been_checked_for() {
    let bench = many();
    let before = bench.directory().snapshot();
    bench.directory().set_account("1", Some("new"));
    bench.recheck();
    bench.directory().answer_once_as(&before);
    let thief = bench.client("1:thief", V5);
    assert_eq!(thief.try_connect(lasting).code, WRONG);
}

#[test]
fn a_look_at_an_old_token_ends_nothing_of_the_new_one() {
    for unnoticed in [false, true] {
        let bench = many();
        let before = bench.directory().snapshot();
        let change = |directory: &FakeDirectory| directory.set_account("1", Some("new"));
        if unnoticed {
            bench.directory().unnoticed(change);
        } else {
            change(bench.directory());
        }
        let owner = owner(&bench, "1:phone", V5);
        owner.subscribe("/1/notes", QoS::AtLeastOnce);
        bench.directory().answer_once_as(&before);
        bench.recheck_seeing(&before, false);
        owner.publish("/1/notes", "mine", QoS::AtLeastOnce);
        owner.expect_payload("/1/notes", b"mine");
    }
}

/// Of a server that did not remember tokens yet.
#[test]
fn what_was_made_with_a_token_that_was_not_kept_belongs_to_the_one_that_is_found_first() {
    type Finds = fn(&Bench);
    let finds: [Finds; 2] = [
        |bench| bench.recheck(),
        |bench| {
            bench.client("1:other", V5).connect_lasting();
        },
    ];
    for find in finds {
        for changes in [false, true] {
            let bench = many();
            let friend = bench.at_inbox("2:phone", V5);
            let phone = bench.client("1:phone", V5);
            phone.connect_with(|connect| {
                lasting(connect);
                leave_will(connect);
                connect.will.as_mut().expect("a will").delay_secs = Some(60);
            });
            phone.subscribe_inbox();
            phone.drop_connection();
            bench.disk().expect("a disk").forget_tokens();
            bench.crash();
            find(&bench);
            bench.crash();
            let disk = bench.disk().expect("a disk");
            assert!(disk.session_tokens().iter().all(Option::is_some));
            if changes {
                bench.directory().set_account("1", Some("new"));
                bench.recheck();
                assert!(!owner(&bench, "1:phone", V5).is_closed());
            } else {
                assert!(
                    bench
                        .client("1:phone", V5)
                        .connect_lasting()
                        .session_present
                );
            }
            bench.pass(HOUR);
            friend.drop_connection();
            bench.at_inbox("2:phone", V5).expect_nothing();
        }
    }
}
