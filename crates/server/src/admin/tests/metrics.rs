//! `/metrics` of whole servers: what is there from the start, what adds up, who may see it.

use std::collections::{BTreeMap, BTreeSet};

use jam_wire::packet::{Disconnect, Packet, Version};
use tokio::net::TcpStream;

use super::{ask, bearer, with_tokens};
use crate::admin::tests::{READ_TOKEN, TOKEN};
use crate::serve::tests::house::{Client, HELLO, House, connect, publish, soon, subscribe};

/// Name, type, label names and how many series there are: OPERATION's table, with the refusals' rows counted apart.
const TABLE: &[(&str, &str, &str, usize)] = &[
    ("jam_build_info", "gauge", "version,revision", 1),
    ("jam_ready", "gauge", "part", 3),
    ("jam_connections", "gauge", "listener", 3),
    ("jam_connections_max", "gauge", "", 1),
    ("jam_connections_opened_total", "counter", "listener", 3),
    (
        "jam_connections_refused_total",
        "counter",
        "listener,reason",
        15,
    ),
    ("jam_connects_total", "counter", "outcome,version", 32),
    ("jam_disconnects_total", "counter", "reason", 11),
    ("jam_sessions", "gauge", "state", 2),
    ("jam_users_online", "gauge", "", 1),
    ("jam_publishes_total", "counter", "channel,qos,outcome", 12),
    ("jam_refusals_total", "counter", "handler,reason", 24),
    ("jam_deliveries_total", "counter", "channel,qos,again", 12),
    ("jam_acknowledged_total", "counter", "channel", 2),
    ("jam_expired_total", "counter", "", 1),
    ("jam_purged_total", "counter", "", 1),
    ("jam_dropped_total", "counter", "what", 5),
    ("jam_received_bytes_total", "counter", "listener", 3),
    ("jam_sent_bytes_total", "counter", "listener", 3),
    ("jam_delivery_seconds", "histogram", "", 1),
    ("jam_publish_ack_seconds", "histogram", "path", 2),
    ("jam_commit_seconds", "histogram", "", 1),
    ("jam_commit_changes", "histogram", "", 1),
    ("jam_mailbox_messages", "gauge", "", 1),
    ("jam_mailbox_bytes", "gauge", "", 1),
    ("jam_mailbox_oldest_timestamp_seconds", "gauge", "", 1),
    ("jam_mailbox_pending_bytes", "gauge", "", 1),
    ("jam_mailbox_grace_bytes", "gauge", "", 1),
    ("jam_mailbox_file_bytes", "gauge", "file", 2),
    ("jam_postgres_dead_rows", "gauge", "", 1),
    ("jam_postgres_oldest_snapshot_seconds", "gauge", "", 1),
    ("jam_disk_available_bytes", "gauge", "store", 2),
    ("jam_store_errors_total", "counter", "store,kind", 8),
    ("jam_mailbox_lost_batches_total", "counter", "", 1),
    ("jam_directory_loads_total", "counter", "answered", 2),
    ("jam_directory_load_seconds", "histogram", "", 1),
    ("jam_pushes_total", "counter", "outcome", 6),
    ("jam_pushes_owed", "gauge", "", 1),
    ("jam_push_seconds", "histogram", "", 1),
    ("jam_receipts_total", "counter", "", 1),
    ("jam_presence_total", "counter", "", 1),
    ("jam_friends_lists_total", "counter", "", 1),
    ("jam_lockouts", "gauge", "", 1),
    ("jam_log_lines_lost_total", "counter", "", 1),
    (
        "jam_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        "listener",
        2,
    ),
    (
        "jam_http_requests_total",
        "counter",
        "route,method,code",
        35,
    ),
    ("process_cpu_seconds_total", "counter", "", 1),
    ("process_open_fds", "gauge", "", 1),
    ("process_max_fds", "gauge", "", 1),
    ("process_virtual_memory_bytes", "gauge", "", 1),
    ("process_virtual_memory_max_bytes", "gauge", "", 1),
    ("process_resident_memory_bytes", "gauge", "", 1),
    ("process_start_time_seconds", "gauge", "", 1),
];

/// Every line, by name and labels as they stand.
struct Scrape {
    values: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
    helped: BTreeSet<String>,
}

impl Scrape {
    async fn of(house: &House) -> Self {
        let answer = ask(house.running.admin.unwrap(), "GET /metrics", &[], b"").await;
        assert_eq!(answer.status, 200);
        let (mut values, mut kinds, mut helped) = Default::default();
        let _: (&BTreeMap<_, _>, &BTreeMap<_, _>, &BTreeSet<_>) = (&values, &kinds, &helped);
        for line in answer.body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped.insert(help.split(' ').next().unwrap().to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let was = values.insert(series.to_owned(), value.parse::<f64>().unwrap());
                assert_eq!(was, None, "{series} is there twice");
            }
        }
        Self {
            values,
            kinds,
            helped,
        }
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        *self
            .values
            .get(series)
            .unwrap_or_else(|| panic!("there is no {series}"))
    }

    fn sum(&self, name: &str) -> f64 {
        let is_it = |series: &&String| series.split('{').next() == Some(name);
        self.values
            .keys()
            .filter(is_it)
            .map(|series| self.values[series])
            .sum()
    }
}

#[tokio::test]
async fn every_series_is_there_from_the_start() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let scrape = Scrape::of(&house).await;
    for (name, kind, labels, count) in TABLE {
        assert_eq!(
            scrape.kinds.get(*name).map(String::as_str),
            Some(*kind),
            "{name}"
        );
        assert!(scrape.helped.contains(*name));
        let counted = match *kind {
            "histogram" => format!("{name}_count"),
            _ => (*name).to_owned(),
        };
        let series = scrape.values.keys();
        let series: Vec<_> = series
            .filter(|it| it.split('{').next() == Some(&counted))
            .collect();
        assert_eq!(series.len(), *count, "{name}: {series:?}");
        for series in series {
            let names = series.split_once('{').map_or("", |(_, labels)| labels);
            let names: Vec<_> = names
                .split(',')
                .filter_map(|it| it.split('=').next())
                .collect();
            assert_eq!(names.join(","), *labels, "{series}");
            if *kind != "gauge" && !name.starts_with("process_") && !name.contains("commit") {
                assert!(
                    scrape.values[series].abs() < f64::EPSILON,
                    "{series} is not 0"
                );
            }
        }
    }
    assert_eq!(scrape.kinds.len(), TABLE.len(), "no other metric is there");
    for one in ["jam_build_info", "jam_ready"] {
        assert!(scrape.sum(one) >= 1.0);
    }
}

#[tokio::test]
async fn what_a_message_does_is_seen() {
    let house = House::open(|settings, _| with_tokens(settings)).await;
    let mut two = house.client("2", Version::V4).await;
    two.send(&[subscribe("/2/inbox")]).await;
    assert!(matches!(two.next().await, Some(Packet::SubAck(_))));
    let mut one = house.client("1", Version::V5).await;
    one.send(&[publish("/2/inbox", HELLO, Some(7))]).await;
    let Some(Packet::Publish(message)) = two.next().await else {
        panic!("no message");
    };
    let ack = jam_wire::packet::Ack::success(message.packet_id.unwrap());
    two.send(&[Packet::PubAck(ack)]).await;
    assert!(matches!(one.next().await, Some(Packet::PubAck(_))));
    one.send(&[publish("/9/inbox", HELLO, Some(8))]).await;
    while !matches!(one.next().await, Some(Packet::PubAck(_))) {}
    let scrape = Scrape::of(&house).await;
    let is = |series: &str, value: f64| {
        assert!(
            (scrape.get(series) - value).abs() < f64::EPSILON,
            "{series} is {}",
            scrape.get(series)
        );
    };
    is(r#"jam_connections{listener="mqtt"}"#, 2.0);
    is(r#"jam_sessions{state="connected"}"#, 2.0);
    is("jam_users_online", 2.0);
    is(
        r#"jam_publishes_total{channel="inbox",qos="1",outcome="accepted"}"#,
        1.0,
    );
    is(
        r#"jam_publishes_total{channel="inbox",qos="1",outcome="refused"}"#,
        1.0,
    );
    is(
        r#"jam_refusals_total{handler="publish",reason="not_friends"}"#,
        1.0,
    );
    is(
        r#"jam_deliveries_total{channel="inbox",qos="1",again="false"}"#,
        1.0,
    );
    is(r#"jam_acknowledged_total{channel="inbox"}"#, 1.0);
    is("jam_delivery_seconds_count", 1.0);
    assert!((scrape.sum("jam_publish_ack_seconds_count") - 1.0).abs() < f64::EPSILON);
    assert!(scrape.get(r#"jam_received_bytes_total{listener="mqtt"}"#) > HELLO.len() as f64);
    assert!(scrape.get(r#"jam_sent_bytes_total{listener="mqtt"}"#) > HELLO.len() as f64);
    assert!(scrape.sum("jam_directory_loads_total") >= 1.0);
}

/// A scrape while clients come and go: what has come is what is there and what has gone, and nothing goes back.
#[tokio::test]
async fn clients_that_come_and_go_add_up() {
    const CLIENTS: usize = 1000;
    let house = House::open(|settings, _| {
        with_tokens(settings);
        settings.limits.connections_per_address = 5000;
        settings.sessions.devices = crate::settings::Devices::Many;
    })
    .await;
    let address = house.running.mqtt.unwrap();
    let coming = async {
        for round in 0..CLIENTS / 20 {
            let mut clients = Vec::new();
            for number in 0..20 {
                let mut client =
                    Client::new(TcpStream::connect(address).await.unwrap(), Version::V4);
                let Packet::Connect(mut packet) = connect("1", Version::V4) else {
                    unreachable!()
                };
                packet.client_id = format!("1:{number}").into();
                client.send(&[Packet::Connect(packet)]).await;
                assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
                clients.push(client);
            }
            for (number, client) in clients.iter_mut().enumerate() {
                if (round + number) % 2 == 0 {
                    let goodbye = Disconnect::with_reason(jam_wire::ReasonCode::Success);
                    client.send(&[Packet::Disconnect(Box::new(goodbye))]).await;
                }
            }
        }
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let scraping = async {
        let mut last = Scrape::of(&house).await;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let scrape = Scrape::of(&house).await;
            for (series, value) in &scrape.values {
                let name = series.split('{').next().unwrap();
                if name.ends_with("_total") || name.ends_with("_count") || name.ends_with("_bucket")
                {
                    assert!(*value >= last.values[series], "{series} goes back");
                }
            }
            last = scrape;
        }
    };
    tokio::join!(
        async {
            coming.await;
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        },
        scraping
    );
    soon(house.settle(0)).await;
    let scrape = Scrape::of(&house).await;
    let accepted = scrape.get(r#"jam_connects_total{outcome="accepted",version="3.1.1"}"#);
    assert!(
        (accepted - CLIENTS as f64).abs() < f64::EPSILON,
        "{accepted}"
    );
    for (left, right) in [
        (accepted, scrape.sum("jam_disconnects_total")),
        (
            scrape.get(r#"jam_connections_opened_total{listener="mqtt"}"#),
            accepted,
        ),
        (scrape.sum("jam_connections"), 0.0),
        (scrape.get(r#"jam_sessions{state="connected"}"#), 0.0),
        (scrape.get("jam_users_online"), 0.0),
    ] {
        assert!((left - right).abs() < f64::EPSILON, "{left} is not {right}");
    }
    assert!(scrape.get(r#"jam_disconnects_total{reason="client"}"#) >= 500.0);
}

#[tokio::test]
async fn metrics_may_need_a_token() {
    let house = House::open(|settings, _| {
        with_tokens(settings);
        settings.admin.metrics_open = false;
    })
    .await;
    let address = house.running.admin.unwrap();
    ask(address, "GET /metrics", &[], b"").await.is_problem(401);
    for token in [TOKEN, READ_TOKEN] {
        let headers = [("Authorization", &*bearer(token))];
        let answer = ask(address, "GET /metrics", &headers, b"").await;
        assert_eq!(answer.status, 200);
        let line = r#"jam_http_requests_total{route="metrics",method="GET",code="4xx"} 1"#;
        assert!(answer.body.contains(line));
    }
    let headers = [("Authorization", &*bearer(TOKEN))];
    ask(address, "POST /metrics", &headers, b"")
        .await
        .is_problem(405);
}
