//! The API over real sockets: what is refused, and what is done.

use std::collections::BTreeSet;

use axum::http::Method;
use jam_wire::ReasonCode;
use jam_wire::packet::{Packet, Version};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::admin::tests::{Answer, READ_TOKEN, TOKEN, ask, bearer, with_tokens};
use crate::events::Kind;
use crate::serve::tests::house::{Client, HELLO, House, connect, publish, soon, subscribe};
use crate::settings::HIDDEN;

/// A server with an admin address.
struct Office {
    house: House,
}

impl Office {
    async fn open() -> Self {
        let house = House::open(|settings, _| with_tokens(settings)).await;
        Self { house }
    }

    async fn ask_as(&self, token: &str, line: &str, body: &str) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let line = format!("{method} /api/v1/{path}");
        let authorization = bearer(token);
        let mut headers = vec![("Authorization", &*authorization)];
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        let address = self.house.running.admin.unwrap();
        ask(address, &line, &headers, body.as_bytes()).await
    }

    async fn ask(&self, line: &str) -> Answer {
        self.ask_as(TOKEN, line, "").await
    }

    /// The JSON of an answer that is no error.
    #[track_caller]
    fn json(answer: &Answer) -> Value {
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    async fn done(&self, line: &str) -> Value {
        Self::json(&self.ask(line).await)
    }

    async fn description(&self) -> Value {
        self.done("GET openapi.json").await
    }

    /// Every operation with something in the place of each parameter of its path.
    async fn operations(&self) -> Vec<(Method, String, Value)> {
        let description = self.description().await;
        let paths = description["paths"].as_object().unwrap();
        let mut operations = Vec::new();
        for (path, item) in paths {
            let filled = ["{id}", "{a}"]
                .iter()
                .fold(path.clone(), |it, name| it.replace(name, "1"));
            let filled = filled.replace("{b}", "2").replace("{device}", "1:x");
            let filled = filled.replace("{address}", "192.0.2.7");
            for (method, operation) in item.as_object().unwrap() {
                let method = method.to_uppercase().parse().unwrap();
                operations.push((method, filled[1..].to_owned(), operation.clone()));
            }
        }
        operations
    }

    async fn reader(&self, user: &str, version: Version) -> Client<TcpStream> {
        let mut reader = self.house.client(user, version).await;
        reader.send(&[subscribe(&format!("/{user}/inbox"))]).await;
        assert!(matches!(reader.next().await, Some(Packet::SubAck(_))));
        reader
    }
}

fn items(page: &Value) -> &[Value] {
    page["items"].as_array().unwrap()
}

#[tokio::test]
async fn every_route_is_described() {
    let office = Office::open().await;
    let description = office.description().await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let scheme = &description["components"]["securitySchemes"]["bearer"];
    assert_eq!(
        (scheme["type"].as_str(), scheme["scheme"].as_str()),
        (Some("http"), Some("bearer"))
    );
    assert_eq!(description["security"][0]["bearer"], serde_json::json!([]));
    for (method, path, operation) in office.operations().await {
        let text = |value: &Value| value.as_str().is_some_and(|text| text.len() > 5);
        assert!(text(&operation["summary"]), "{method} {path}");
        assert!(text(&operation["description"]), "{method} {path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(
                text(&parameter["description"]),
                "{method} {path} {parameter}"
            );
            if parameter["name"] == "types" {
                let pattern = parameter["schema"]["pattern"].as_str().unwrap();
                assert!(Kind::ALL.iter().all(|kind| pattern.contains(kind.name())));
            }
        }
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            assert!(text(&response["description"]), "{method} {path} {status}");
        }
        let has = |status| responses.contains_key(status);
        assert!(has("401") && has("422"), "{method} {path}");
        assert_eq!(has("403"), method != Method::GET, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let office = Office::open().await;
    for (method, path, _) in office.operations().await {
        for query in ["unknown=1", "=", "limit=1&limit=2", "limit=1&unknown="] {
            let answer = office.ask(&format!("{method} {path}?{query}")).await;
            answer.is_problem(422);
        }
    }
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=1e2",
        "limit=",
        "connected=1",
        "connected=",
    ] {
        office
            .ask(&format!("GET devices?{query}"))
            .await
            .is_problem(422);
    }
    for cursor in ["%2F", "bm9uc2Vuc2U", "", "%FF"] {
        for list in ["devices", "users", "users/1/friends", "lockouts", "pushes"] {
            let line = format!("GET {list}?after={cursor}");
            office.ask(&line).await.is_problem(404);
        }
    }
    let both = "DELETE users/1/mailbox?all=true&from=2";
    office.ask(both).await.is_problem(409);
    for line in [
        "GET mailboxes?sort=size",
        "GET mailboxes?after=x",
        "DELETE users/1/mailbox?all=yes",
        "DELETE users/1/devices/1:x?session=drop",
    ] {
        office.ask(line).await.is_problem(422);
    }
}

#[tokio::test]
async fn a_path_that_names_nothing_is_not_found() {
    let office = Office::open().await;
    let long = "9".repeat(65);
    for id in [
        "%2e%2e",
        "..",
        "1%2F2",
        "1%00",
        "%FF",
        "%3A",
        "1:x",
        "%2B",
        long.as_str(),
        "3",
    ] {
        for line in [
            format!("GET users/{id}/devices"),
            format!("GET users/{id}/mailbox"),
        ] {
            office.ask(&line).await.is_problem(404);
        }
    }
    for line in [
        "GET users//devices",
        "GET users/1/devices/",
        "GET users/1/mailbox/",
        "GET /users/1/mailbox",
        "DELETE users/1/devices/2:phone",
        "DELETE users/1/devices/phone",
        "DELETE users/1/devices/%FF",
        "GET lockouts/1",
        "GET lockouts/1.2.3.4.5",
        "GET lockouts/localhost",
    ] {
        office.ask(line).await.is_problem(404);
    }
    let answer = office.ask("POST users/1/mailbox").await;
    answer.is_problem(405);
    assert_eq!(answer.header("allow"), Some("GET,HEAD,DELETE"));
}

#[tokio::test]
async fn the_token_that_may_look_gets_through_no_write() {
    let office = Office::open().await;
    let mut reader = office.reader("1", Version::V5).await;
    for (method, path, _) in office.operations().await {
        if path == "events" {
            continue; // has no end: tests/admin/test_events.py
        }
        let answer = office
            .ask_as(READ_TOKEN, &format!("{method} {path}"), "")
            .await;
        if method == Method::GET {
            assert!(
                [200, 404].contains(&answer.status),
                "{path}: {}",
                answer.body
            );
        } else {
            answer.is_problem(403);
        }
        office
            .ask_as("another", &format!("{method} {path}"), "")
            .await
            .is_problem(401);
    }
    reader.send(&[Packet::PingReq]).await;
    assert_eq!(reader.next().await, Some(Packet::PingResp));
}

#[tokio::test]
async fn the_server_is_shown_without_its_secrets() {
    let office = Office::open().await;
    let answer = office.ask("GET server").await;
    for secret in [TOKEN, READ_TOKEN] {
        assert!(!answer.body.contains(secret));
    }
    let server = Office::json(&answer);
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    let admin = office.house.running.admin.unwrap().to_string();
    let listeners = server["listeners"].as_array().unwrap();
    assert!(
        listeners
            .iter()
            .any(|it| it["name"] == "admin" && it["address"] == *admin)
    );
    assert!(server["limits"].as_array().unwrap().len() > 10);
    // As the file and the flags have it, not as the test has changed it.
    let settings = server["settings"].as_array().unwrap();
    let inflight = settings.iter().find(|it| it["name"] == "limits.inflight");
    assert_eq!(inflight.unwrap()["value"], "64");
    assert_ne!(HIDDEN, "");
}

#[tokio::test]
async fn a_device_is_disconnected_and_comes_back() {
    let office = Office::open().await;
    for (session, is_there) in [("", true), ("?session=keep", true), ("?session=end", false)] {
        let mut reader = office.reader("2", Version::V5).await;
        let devices = office.done("GET users/2/devices").await;
        let device = &items(&devices)[0];
        assert_eq!(device["client"], "2:phone");
        assert_eq!(
            (&device["connected"], &device["inbox"]),
            (&true.into(), &true.into())
        );
        assert_eq!(
            (&device["version"], &device["address"]),
            (&"5.0".into(), &"127.0.0.1".into())
        );

        let line = format!("DELETE users/2/devices/2:phone{session}");
        let answer = office.done(&line).await;
        assert_eq!(answer["changed"], true);
        assert!(answer["note"].as_str().unwrap().contains("token"));
        let Some(Packet::Disconnect(disconnect)) = reader.next().await else {
            panic!("no DISCONNECT")
        };
        assert_eq!(disconnect.reason, ReasonCode::AdministrativeAction);
        assert_eq!(reader.next().await, None);
        office.house.settle(0).await;
        assert_eq!(office.done(&line).await["changed"], false, "again");
        // In 5.0 a session ends with its connection, unless its client wants more.
        assert_eq!(
            items(&office.done("GET users/2/devices").await).len(),
            0,
            "{is_there}"
        );
    }
    office.house.client("2", Version::V5).await;
}

#[tokio::test]
async fn a_mailbox_is_shown_and_emptied() {
    let office = Office::open().await;
    let empty = office.done("GET users/2/mailbox").await;
    assert_eq!(
        (&empty["messages"], &empty["oldest_secs"]),
        (&0.into(), &Value::Null)
    );
    let mut sender = office.house.client("1", Version::V4).await;
    for id in 1..=3 {
        sender.send(&[publish("/2/inbox", HELLO, Some(id))]).await;
        assert!(matches!(sender.next().await, Some(Packet::PubAck(_))));
    }
    let full = office.done("GET users/2/mailbox").await;
    assert_eq!(
        (&full["messages"], &full["oldest_secs"]),
        (&3.into(), &0.into())
    );
    assert!(full["bytes"].as_u64().unwrap() > 0);
    assert!(!full.to_string().contains("hello"));
    for sort in ["bytes", "oldest"] {
        let all = office.done(&format!("GET mailboxes?sort={sort}")).await;
        assert_eq!(items(&all).len(), 1);
        assert_eq!(items(&all)[0]["user"], "2");
    }
    for (query, removed) in [("?from=2", 0), ("?from=1", 3), ("", 0), ("?all=true", 0)] {
        let line = format!("DELETE users/2/mailbox{query}");
        assert_eq!(office.done(&line).await["removed"], removed, "{query}");
    }
    assert_eq!(office.done("GET users/2/mailbox").await["messages"], 0);
    assert_eq!(items(&office.done("GET mailboxes").await).len(), 0);
    // Everything is the connection too.
    let _reader = office.reader("2", Version::V4).await;
    office.done("DELETE users/2/mailbox?all=true").await;
    office.house.settle(1).await;
}

#[tokio::test]
async fn devices_are_paged() {
    let office = Office::open().await;
    let mut clients = Vec::new();
    for user in ["1", "2"] {
        clients.push(office.house.client(user, Version::V4).await);
    }
    let mut seen = BTreeSet::new();
    let mut line = "GET devices?limit=1".to_owned();
    for _ in 0..2 {
        let page = office.done(&line).await;
        assert_eq!(items(&page).len(), 1);
        seen.insert(items(&page)[0]["client"].to_string());
        line = match page["next"].as_str() {
            Some(next) => format!("GET devices?limit=1&after={next}"),
            None => break,
        };
    }
    assert_eq!(seen.len(), 2);
    let last = office.done("GET devices?limit=2").await;
    assert_eq!((items(&last).len(), &last["next"]), (2, &Value::Null));
    for (query, count) in [
        ("connected=true", 2),
        ("connected=false", 0),
        ("prefix=2:", 1),
        ("prefix=2:phone", 1),
        ("prefix=2:x", 0),
        ("prefix=", 2),
        ("prefix=3", 0),
    ] {
        let page = office.done(&format!("GET devices?{query}")).await;
        assert_eq!(items(&page).len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_lockout_is_shown_and_lifted() {
    let office = Office::open().await;
    let none = office.done("GET lockouts/127.0.0.1").await;
    assert_eq!(
        (&none["failures"], &none["locked"]),
        (&0.into(), &false.into())
    );
    for _ in 0..11 {
        let mut client = Client::new(office.house.tcp().await, Version::V4);
        client.send(&[connect("3", Version::V4)]).await;
        soon(async { while client.next().await.is_some() {} }).await;
    }
    // By whatever name of the address.
    let locked = office.done("GET lockouts/%3A%3Affff:127.0.0.1").await;
    assert_eq!(
        (&locked["failures"], &locked["locked"]),
        (&11.into(), &true.into())
    );
    assert!(locked["ends_in_secs"].as_u64().unwrap() > 0);
    let list = office.done("GET lockouts").await;
    assert_eq!((items(&list).len(), &list["next"]), (1, &Value::Null));
    assert_eq!(list["items"][0]["source"], "127.0.0.1");
    assert_eq!(
        office.done("DELETE lockouts/127.0.0.1").await["changed"],
        true
    );
    assert_eq!(items(&office.done("GET lockouts").await).len(), 0);
    assert_eq!(
        office.done("DELETE lockouts/127.0.0.1").await["changed"],
        false
    );
    office.house.client("1", Version::V4).await;
}

/// The JSON of an answer with this status.
#[track_caller]
fn json_of(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_body_that_is_not_understood_changes_nothing() {
    let office = Office::open().await;
    let large = format!(r#"{{"token":"{}"}}"#, "x".repeat(65 * 1024));
    for path in ["users/7", "users/1/token"] {
        let line = format!("PUT {path}");
        for body in [
            "{",
            "[]",
            "1",
            "null x",
            r#"{"token":1}"#,
            r#"{"token":""}"#,
            r#"{"tokn":"x"}"#,
            r#"{"token":"a","token":"b"}"#,
            r#"{"token":"s3cret","x":1}"#,
            "\u{0}",
        ] {
            let answer = office.ask_as(TOKEN, &line, body).await;
            answer.is_problem(422);
            assert!(!answer.body.contains("s3cret"));
        }
        office.ask_as(TOKEN, &line, &large).await.is_problem(413);
        let address = office.house.running.admin.unwrap();
        let authorization = bearer(TOKEN);
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
        ] {
            let headers = [
                ("Authorization", &*authorization),
                ("Content-Type", content_type),
            ];
            let line = format!("PUT /api/v1/{path}");
            ask(address, &line, &headers, b"{}").await.is_problem(415);
        }
    }
    office.ask("GET users/7").await.is_problem(404);
    office.house.client("1", Version::V4).await;
}

#[tokio::test]
async fn an_account_comes_and_goes() {
    let office = Office::open().await;
    office.ask("GET users/7").await.is_problem(404);
    office.ask("PUT users/7/token").await.is_problem(404);
    let made = office
        .ask_as(TOKEN, "PUT users/7", r#"{"name":"Zoë"}"#)
        .await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = json_of(&made, 201);
    assert_eq!(made["token"].as_str().unwrap().len(), 64);

    let again = office
        .ask_as(TOKEN, "PUT users/7", r#"{"name":"Zoë"}"#)
        .await;
    let again = json_of(&again, 200);
    assert_eq!(
        (&again["created"], &again["changed"], &again["token"]),
        (&false.into(), &false.into(), &Value::Null)
    );
    office
        .ask_as(TOKEN, "PUT users/7", r#"{"name":"Zoe"}"#)
        .await
        .is_problem(409);
    office
        .ask_as(TOKEN, "PUT users/ann", "")
        .await
        .is_problem(409);
    let shown = office.ask("GET users/7").await;
    assert!(!shown.body.contains(made["token"].as_str().unwrap()));
    let shown = json_of(&shown, 200);
    assert_eq!(
        (&shown["name"], &shown["token"], &shown["online"]),
        (&"Zoë".into(), &true.into(), &false.into())
    );

    for changed in [true, false] {
        let set = office
            .ask_as(TOKEN, "PUT users/7/token", r#"{"token":"token-7"}"#)
            .await;
        assert_eq!(set.header("cache-control"), Some("no-store"));
        let set = json_of(&set, 200);
        assert_eq!(
            (&set["token"], &set["changed"]),
            (&"token-7".into(), &changed.into())
        );
    }
    let mut client = office.house.client("7", Version::V4).await;
    assert_eq!(office.done("GET users/7").await["online"], true);
    let online = office.done("GET users?online=true").await;
    assert_eq!(
        (items(&online).len(), &items(&online)[0]["id"]),
        (1, &"7".into())
    );
    assert_eq!(items(&office.done("GET users?online=false").await).len(), 2);

    assert_eq!(office.done("DELETE users/7").await["changed"], true);
    assert_eq!(office.done("DELETE users/7").await["changed"], false);
    assert_eq!(client.next().await, None, "its connection ends");
    office.ask("GET users/7").await.is_problem(404);
    office.ask("GET users/7/mailbox").await.is_problem(404);
}

#[tokio::test]
async fn a_token_that_is_changed_lets_its_owner_in_and_nobody_else() {
    let office = Office::open().await;
    let mut old = office.house.client("1", Version::V5).await;
    let new = office.done("PUT users/1/token").await;
    let Some(Packet::Disconnect(disconnect)) = old.next().await else {
        panic!("no DISCONNECT")
    };
    assert_eq!(disconnect.reason, ReasonCode::NotAuthorized);
    let mut client = Client::new(office.house.tcp().await, Version::V4);
    let mut packet = connect("1", Version::V4);
    if let Packet::Connect(connect) = &mut packet {
        let token = new["token"].as_str().unwrap().to_owned();
        connect.password = Some(token.into());
    }
    client.send(&[packet]).await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
    assert_eq!(office.done("GET users/1").await["online"], true);
}

#[tokio::test]
async fn friendships_and_blocks_are_what_they_are_asked_to_be() {
    let office = Office::open().await;
    office.ask("PUT users/3").await;
    for (line, changed) in [
        ("PUT users/1/friends/3", true),
        ("PUT users/3/friends/1", false),
        ("PUT users/1/blocks/3", true),
        ("PUT users/1/blocks/3", false),
        ("PUT users/1/friends/3", false),
        ("DELETE users/3/blocks/1", false),
    ] {
        assert_eq!(office.done(line).await["changed"], changed, "{line}");
    }
    let friends = office.done("GET users/1/friends").await;
    let flags = |page: &Value, id: &str| {
        let friend = items(page)
            .iter()
            .find(|friend| friend["id"] == id)
            .unwrap()
            .clone();
        (
            friend["blocked"].as_bool().unwrap(),
            friend["been_blocked"].as_bool().unwrap(),
        )
    };
    assert_eq!(
        (flags(&friends, "2"), flags(&friends, "3")),
        ((false, false), (true, false))
    );
    assert_eq!(
        flags(&office.done("GET users/3/friends").await, "1"),
        (false, true)
    );
    for (line, changed) in [
        ("DELETE users/1/blocks/3", true),
        ("DELETE users/1/friends/3", true),
        ("DELETE users/3/friends/1", false),
    ] {
        assert_eq!(office.done(line).await["changed"], changed, "{line}");
    }
    for line in [
        "PUT users/1/blocks/3",
        "DELETE users/1/blocks/3",
        "PUT users/1/friends/1",
    ] {
        office.ask(line).await.is_problem(409);
    }
    for line in [
        "PUT users/1/friends/9",
        "PUT users/9/friends/1",
        "GET users/9/friends",
        "PUT users/1/blocks/9",
    ] {
        office.ask(line).await.is_problem(404);
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let office = Office::open().await;
    let users = office.done("GET users?limit=1").await;
    let users = users["next"].as_str().unwrap();
    office.house.client("1", Version::V4).await;
    let _clients = [
        office.house.client("1", Version::V4).await,
        office.house.client("2", Version::V4).await,
    ];
    let devices = office.done("GET devices?limit=1").await;
    let devices = devices["next"].as_str().unwrap();
    for line in [
        format!("GET users?after={devices}"),
        format!("GET users/1/friends?after={devices}"),
        format!("GET devices?after={users}"),
        format!("GET users?online=true&after={users}"),
    ] {
        office.ask(&line).await.is_problem(404);
    }
    let rest = office
        .done(&format!("GET users?limit=1&after={users}"))
        .await;
    assert_eq!(
        (&items(&rest)[0]["id"], &rest["next"]),
        (&"2".into(), &Value::Null)
    );
}

#[tokio::test]
async fn a_diagnosis_names_what_stands_in_the_way() {
    let office = Office::open().await;
    let findings = async |line: &str| {
        let diagnosis = office.done(line).await;
        let findings = diagnosis["findings"].as_array().unwrap().iter();
        findings
            .map(|it| it.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let line = "GET users/2/diagnosis?from=1";
    office
        .ask("GET users/9/diagnosis?from=1")
        .await
        .is_problem(404);
    assert_eq!(
        findings("GET users/2/diagnosis?from=9").await,
        "no_sender no_device"
    );
    assert_eq!(findings(line).await, "no_device");
    let silent = office.house.client("2", Version::V4).await;
    assert_eq!(findings(line).await, "inbox_not_subscribed");
    drop(silent);
    office.house.settle(0).await;
    let reader = office.reader("2", Version::V4).await;
    assert_eq!(findings(line).await, "");
    assert_eq!(findings("GET users/2/diagnosis").await, "");
    office.ask("PUT users/2/blocks/1").await;
    assert_eq!(findings(line).await, "blocked");
    office.ask("PUT users/1/blocks/2").await;
    assert_eq!(findings(line).await, "blocked has_blocked");
    office.ask("DELETE users/2/blocks/1").await;
    assert_eq!(findings(line).await, "has_blocked");
    office.ask("DELETE users/1/friends/2").await;
    assert_eq!(findings(line).await, "not_friends");
    drop(reader);
}

#[tokio::test]
async fn stats_are_the_numbers_of_the_metrics() {
    let office = Office::open().await;
    let _reader = office.reader("1", Version::V5).await;
    let stats = office.done("GET stats").await;
    assert_eq!(stats["jam_users_online"][0]["value"], 1.0);
    let address = office.house.running.admin.unwrap();
    let metrics = ask(address, "GET /metrics", &[], b"").await;
    let lines = metrics.body.lines();
    let names = lines.filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<_> = names.map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.len() > 20);
    for name in names {
        assert!(stats[name].is_array(), "{name}");
    }
}
