//! The workloads against this server.

use std::path::Path;
use std::time::Duration;

use jam_wire::packet::{QoS, Version};

use crate::idle::{self, Idle};
use crate::offline::{self, Offline};
use crate::pairs::{self, Pairs};
use crate::prepare::prepare;
use crate::reconnect::{self, Reconnect};
use crate::users::Roster;
use crate::{BenchError, Plan, Report};
use jam_mqtt::serve;
use jam_mqtt::settings::{Flag, Settings, Sources};

/// How many pairs of friends the directory has.
const PAIRS: usize = 4;

const BRISK: Pairs = Pairs {
    pairs: PAIRS,
    window: 16,
    rate: None,
    both: true,
    time: Duration::from_secs(20),
    warmup: Duration::ZERO,
    messages: 400,
};

fn settings(data: &Path) -> Settings {
    let set = |path, value: &str| Flag {
        name: "test",
        path,
        value: value.to_owned(),
    };
    let flags = vec![
        set("data", data.to_str().unwrap()),
        set("listen.mqtt", "127.0.0.1:0"),
        set("listen.http", ""),
        set("listen.admin", ""),
        set("push.enabled", "false"),
        set("limits.publish_rate", "0"),
    ];
    Settings::load(&Sources {
        flags,
        ..Sources::default()
    })
    .unwrap()
}

/// Runs a workload on a server of its own. The plan may be changed before.
async fn run(
    change: impl FnOnce(&mut Plan),
    work: impl FnOnce(&Plan) -> Result<Report, BenchError> + Send + 'static,
) -> Result<Report, BenchError> {
    let dir = tempfile::tempdir().unwrap();
    prepare(&dir.path().join("jam.db"), PAIRS, "token-{id}").unwrap();
    let running = serve::start(settings(dir.path())).await.unwrap();
    let mut plan = Plan {
        broker: running.mqtt.unwrap(),
        version: Version::V4,
        qos: QoS::AtLeastOnce,
        size: 300,
        broker_pid: Some(std::process::id()),
        concurrency: 3,
        patience: Duration::from_secs(10),
        progress: false,
        roster: Roster::numbered(2 * PAIRS, "token-{id}"),
    };
    change(&mut plan);
    let report = tokio::task::spawn_blocking(move || work(&plan))
        .await
        .unwrap();
    running.stop().await;
    report
}

fn assert_sound(report: &Report, messages: u64) {
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let books = &report.messages;
    assert_eq!((books.sent, books.acknowledged), (messages, messages));
    assert_eq!((books.delivered, books.redelivered), (messages, 0));
    assert!(books.refusals.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_at_every_quality() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for version in [Version::V4, Version::V5] {
            let change = |plan: &mut Plan| (plan.qos, plan.version) = (qos, version);
            let report = run(change, |plan| pairs::run(plan, &BRISK)).await.unwrap();
            assert_sound(&report, 400);
            assert_eq!(report.stages[0].count, 400);
            let latency = report.stages[0].latency_us.as_ref().unwrap();
            let micros = report.stages[0].seconds * 1e6;
            assert!(1.0 < latency.p50 && latency.p50 < micros, "{latency:?}");
            assert!(
                latency.p50 <= latency.max && latency.max < micros,
                "{latency:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_at_a_rate() {
    let work = Pairs {
        rate: Some(2000),
        time: Duration::from_millis(400),
        messages: 300,
        ..BRISK
    };
    let report = run(|_| (), move |plan| pairs::run(plan, &work))
        .await
        .unwrap();
    assert_sound(&report, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages() {
    let work = Pairs {
        messages: 40,
        ..BRISK
    };
    let report = run(
        |plan| plan.size = 300_000,
        move |plan| pairs::run(plan, &work),
    );
    assert_sound(&report.await.unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_then_there() {
    let work = Offline {
        pairs: PAIRS,
        window: 16,
        messages: 203,
    };
    let report = run(|_| (), move |plan| offline::run(plan, &work))
        .await
        .unwrap();
    assert_sound(&report, 203);
    assert_eq!(report.stages.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_back_again() {
    let work = Idle {
        connections: 2 * PAIRS,
        hold: Duration::from_millis(50),
    };
    let report = run(|_| (), move |plan| idle::run(plan, &work))
        .await
        .unwrap();
    assert_sound(&report, 0);
    let work = Reconnect {
        pairs: PAIRS,
        rounds: 3,
    };
    let report = run(|_| (), move |plan| reconnect::run(plan, &work))
        .await
        .unwrap();
    assert_sound(&report, 3 * PAIRS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_counted() {
    for version in [Version::V4, Version::V5] {
        let change = |plan: &mut Plan| {
            let users = plan.roster.take(4).unwrap().to_vec();
            plan.roster = Roster::from([0, 2, 1, 3].map(|at| users[at].clone()).to_vec());
            plan.version = version;
        };
        let work = Pairs {
            pairs: 2,
            messages: 20,
            ..BRISK
        };
        let report = run(change, move |plan| pairs::run(plan, &work))
            .await
            .unwrap();
        assert_eq!((report.messages.refused, report.messages.lost), (20, 0));
        assert_eq!(report.messages.refusals["authorizePublish/friends"], 20);
        assert_eq!(report.faults, ["nothing was delivered"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_log_in_is_told() {
    let change = |plan: &mut Plan| plan.roster = Roster::numbered(2 * PAIRS, "wrong");
    let error = run(change, |plan| pairs::run(plan, &BRISK))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused the login"), "{error}");
    let change = |plan: &mut Plan| plan.broker.set_port(1);
    let error = run(change, |plan| pairs::run(plan, &BRISK))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("could not connect"), "{error}");
}
