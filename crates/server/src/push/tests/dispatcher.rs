//! Whole servers, with a push service that does as it is told.

use bytes::Bytes;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::client::Client;
use crate::directory::{self, NewToken};
use crate::serve::{Running, start};
use crate::settings::{DirectorySettings, Settings};

/// More receivers than pushes that are on their way at a time.
const CROWD: usize = 68;

/// A server with the users 1, 2, … who are all friends of 1 and have a notification token each.
struct House {
    dir: TempDir,
    settings: Settings,
    running: Option<Running>,
}

impl House {
    async fn open(users: usize, push: impl FnOnce(&mut settings::Push, &TempDir)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.data = dir.path().to_owned();
        settings.directory = DirectorySettings::in_file(dir.path().join("jam.db"));
        settings.listen.mqtt = Some("127.0.0.1:0".parse().unwrap());
        settings.listen.http = None;
        settings.listen.admin = None;
        push(&mut settings.push, &dir);
        let accounts = directory::administration(&settings.directory).unwrap();
        let user = |id: usize| UserId::parse(id.to_string()).unwrap();
        for id in 1..=users {
            let token = NewToken::chosen(&format!("t{id}")).unwrap();
            accounts.add_user(&user(id), None, &token).await.unwrap();
            if id != 1 {
                accounts.befriend(&user(1), &user(id)).await.unwrap();
            }
        }
        let house = Self {
            running: Some(start(settings.clone()).await.unwrap()),
            settings,
            dir,
        };
        house.run("UPDATE accounts SET user_notification_token = 'phone-of-' || user_id");
        house
    }

    async fn with_firebase(users: usize, firebase: &Firebase) -> Self {
        let key = firebase.key_file().to_string();
        let url = firebase.messages.url("/");
        Self::open(users, |push, dir| {
            let path = dir.path().join("key.json");
            std::fs::write(&path, key).unwrap();
            push.fcm_key = Some(path);
            push.fcm_url = address(&url);
        })
        .await
    }

    /// As another process would.
    fn run(&self, sql: &str) {
        let other = Connection::open(self.dir.path().join("jam.db")).unwrap();
        other.busy_timeout(Duration::from_secs(5)).unwrap();
        other.execute_batch(sql).unwrap();
    }

    fn token(&self, user: &str) -> Option<String> {
        let other = Connection::open(self.dir.path().join("jam.db")).unwrap();
        let sql = "SELECT user_notification_token FROM accounts WHERE user_id = ?1";
        other.query_row(sql, [user], |row| row.get(0)).unwrap()
    }

    async fn client(&self, user: &str) -> Client {
        let at = self.running.as_ref().unwrap().mqtt.unwrap();
        let at = at.to_string().parse().unwrap();
        Client::connect(&at, None, &super::user(user), "phone", &format!("t{user}"))
            .await
            .unwrap()
    }

    async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    async fn start(&mut self) {
        self.running = Some(start(self.settings.clone()).await.unwrap());
    }
}

async fn write(client: &mut Client, receiver: &str) {
    let message = Bytes::from_static(br#"{"from":"1","content":"for nobody else's eyes"}"#);
    client
        .publish(&format!("/{receiver}/inbox"), message)
        .await
        .unwrap();
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn who_is_away_is_told() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(2, &firebase).await;
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    let requests = firebase.messages.until(1).await;
    let body: Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!(body["message"]["token"], "phone-of-2");
    assert_eq!(body["message"]["data"], json!({ "fromId": "1" }));
    assert!(!requests[0].body.contains("nobody else's"));
    // The window: no other one from the same sender.
    write(&mut writer, "2").await;
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(firebase.messages.count(), 1);
}

#[tokio::test]
async fn a_dead_token_is_cleared() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(3, &firebase).await;
    // Another process holds the database meanwhile.
    let other = Connection::open(house.dir.path().join("jam.db")).unwrap();
    other
        .execute_batch("BEGIN; SELECT * FROM accounts")
        .unwrap();
    firebase
        .messages
        .then([Reply::error(404, "NOT_FOUND", "UNREGISTERED")]);
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    until("it is not cleared", || house.token("2").is_none()).await;
    assert_eq!(house.token("3").as_deref(), Some("phone-of-3"));
    // Without a token there is nothing to be sent, and that is seen at once.
    write(&mut writer, "2").await;
    write(&mut writer, "3").await;
    let requests = firebase.messages.until(2).await;
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(firebase.messages.count(), 2);
    assert!(requests[1].body.contains("phone-of-3"));
}

#[tokio::test]
async fn a_new_token_is_not_cleared_and_gets_the_push() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(2, &firebase).await;
    firebase
        .messages
        .then([Reply::error(404, "NOT_FOUND", "UNREGISTERED").late(PATIENCE)]);
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    firebase.messages.until(1).await;
    house.run("UPDATE accounts SET user_notification_token = 'the new phone' WHERE user_id = 2");
    let requests = firebase.messages.until(2).await;
    let body: Value = serde_json::from_str(&requests[1].body).unwrap();
    assert_eq!(body["message"]["token"], "the new phone");
    assert_eq!(house.token("2").as_deref(), Some("the new phone"));
}

#[tokio::test]
async fn who_has_been_blocked_since_pushes_no_more() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(2, &firebase).await;
    firebase.messages.then([Reply::plain(503, "")]);
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    firebase.messages.until(1).await;
    house.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(firebase.messages.count(), 1);
}

#[tokio::test]
async fn a_refusal_is_said_once_and_never_again() {
    let (logged, _guard) = Logged::everything();
    let firebase = Firebase::open().await;
    let house = House::with_firebase(5, &firebase).await;
    firebase
        .messages
        .usually(Reply::error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"));
    let mut writer = house.client("1").await;
    for receiver in ["2", "3", "4", "5"] {
        write(&mut writer, receiver).await;
    }
    firebase.messages.until(4).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(firebase.messages.count(), 4, "none is tried again");
    assert_eq!(logged.count("refuses a push: 400 INVALID_ARGUMENT"), 1);
    assert_eq!(
        house.token("2").as_deref(),
        Some("phone-of-2"),
        "nor is a token cleared"
    );
}

#[tokio::test]
async fn a_dead_service_is_left_alone_and_messages_flow() {
    let (logged, _guard) = Logged::everything();
    let firebase = Firebase::open().await;
    let house = House::with_firebase(CROWD + 1, &firebase).await;
    // Slow enough for all to be written before the first one is refused.
    let slow = Duration::from_secs(4);
    firebase.messages.usually(Reply::plain(503, "").late(slow));
    let mut writer = house.client("1").await;
    for receiver in 2..=CROWD + 1 {
        write(&mut writer, &receiver.to_string()).await;
    }
    firebase.messages.until(64).await;
    firebase.messages.usually(Reply::plain(503, ""));
    tokio::time::sleep(slow + Duration::from_secs(3)).await;
    // Those that were on their way, and from then on one at a time, a second and more apart.
    let tried = firebase.messages.count();
    assert!((65..=68).contains(&tried), "{tried} requests");
    assert_eq!(firebase.messages.most_at_a_time(), 64);
    assert_eq!(logged.count("the push service does not answer: 503; "), 1);
    assert_eq!(logged.count("answers again"), 0);
    let mut reader = house.client("2").await;
    reader.subscribe("/2/inbox").await.unwrap();
    assert!(reader.next_message().await.is_ok());

    firebase.messages.usually(Reply::json(200, &json!({})));
    until("not all arrive", || {
        let told = firebase.messages.requests();
        let told: std::collections::HashSet<_> =
            told[tried..].iter().map(|it| it.body.clone()).collect();
        // All but the one who came meanwhile.
        told.len() == CROWD - 1
    })
    .await;
    assert_eq!(logged.count("the push service answers again"), 1);
    assert_eq!(logged.count("phone-of-"), 0);
}

#[tokio::test]
async fn a_phone_that_is_to_be_left_alone_is() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(3, &firebase).await;
    house.run("INSERT INTO user_friends (user_id, friend_id) VALUES (2, 3), (3, 2)");
    firebase.messages.then([Reply::retry_after(429, "3")]);
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    firebase.messages.until(1).await;
    tokio::time::sleep(PATIENCE).await;
    // Another sender waits as well.
    let mut other = house.client("3").await;
    let message = Bytes::from_static(br#"{"from":"3"}"#);
    other.publish("/2/inbox", message).await.unwrap();
    let requests = firebase.messages.until(3).await;
    for later in &requests[1..] {
        assert!(later.at - requests[0].at >= Duration::from_secs(3));
    }
}

#[tokio::test]
async fn one_phones_trouble_holds_up_nobody_else() {
    for trouble in [
        Reply::retry_after(429, "3600"),
        Reply::retry_after(429, "Fri, 06 Nov 2054 08:49:37 GMT"),
        Reply::retry_after(503, "3600"),
        Reply::plain(500, ""),
        Reply::Close,
        Reply::Noise,
        Reply::NoBody(200),
        Reply::Silence,
    ] {
        let (logged, _guard) = Logged::everything();
        let firebase = Firebase::open().await;
        let house = House::with_firebase(12, &firebase).await;
        firebase.messages.when("phone-of-2\"", trouble.clone());
        let mut writer = house.client("1").await;
        write(&mut writer, "2").await;
        firebase.messages.until(1).await;
        tokio::time::sleep(PATIENCE / 5).await;
        for receiver in 3..=12 {
            let before = Instant::now();
            write(&mut writer, &receiver.to_string()).await;
            let told = format!("phone-of-{receiver}\"");
            until(&format!("{trouble:?} holds up {receiver}"), || {
                let requests = firebase.messages.requests();
                requests.iter().any(|it| it.body.contains(&told))
            })
            .await;
            assert!(before.elapsed() < Duration::from_secs(1), "{trouble:?}");
        }
        assert_eq!(logged.count("does not answer"), 0, "{trouble:?}");
    }
}

/// Nobody answers for these: each request takes all of its time. Those who can be reached are told when the first are
/// given up, and from then on at once.
#[tokio::test]
async fn eighty_phones_that_cannot_be_reached_hold_up_nobody_for_long() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(83, &firebase).await;
    firebase.messages.usually(Reply::Silence);
    for reached in [82, 83] {
        let answer = Reply::json(200, &json!({}));
        firebase
            .messages
            .when(&format!("phone-of-{reached}\""), answer);
    }
    let mut writer = house.client("1").await;
    let told = async |receiver: usize, within: Duration| {
        let before = Instant::now();
        let told = format!("phone-of-{receiver}\"");
        while before.elapsed() < within {
            let requests = firebase.messages.requests();
            if requests.iter().any(|it| it.body.contains(&told)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{receiver} is held up");
    };
    for receiver in 2..=82 {
        write(&mut writer, &receiver.to_string()).await;
    }
    told(82, http::TIMEOUT + Duration::from_secs(3)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    write(&mut writer, "83").await;
    told(83, Duration::from_secs(2)).await;
}

/// One by one those who fail would take half a minute.
#[tokio::test]
async fn who_came_last_is_told_while_the_service_fails_for_those_before() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(41, &firebase).await;
    firebase.messages.usually(Reply::plain(500, ""));
    firebase
        .messages
        .when("phone-of-41\"", Reply::json(200, &json!({})));
    let mut writer = house.client("1").await;
    for receiver in 2..=4 {
        write(&mut writer, &receiver.to_string()).await;
    }
    firebase.messages.until(3).await;
    for receiver in 5..=41 {
        write(&mut writer, &receiver.to_string()).await;
    }
    let is_told = || {
        let mut requests = firebase.messages.requests().into_iter();
        requests.any(|it| it.body.contains("phone-of-41\""))
    };
    until("it waits for all before it", is_told).await;
}

#[tokio::test]
async fn three_busy_phones_in_a_row_cost_the_others_two_seconds_at_most() {
    let firebase = Firebase::open().await;
    let house = House::with_firebase(5, &firebase).await;
    for busy in ["2", "3", "4"] {
        let busy = format!("phone-of-{busy}\"");
        firebase
            .messages
            .when(&busy, Reply::retry_after(429, "3600"));
    }
    let mut writer = house.client("1").await;
    for busy in ["2", "3", "4"] {
        write(&mut writer, busy).await;
    }
    firebase.messages.until(3).await;
    let before = Instant::now();
    write(&mut writer, "5").await;
    firebase.messages.until(4).await;
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn what_is_on_its_way_at_a_stop_goes_out_after_the_start() {
    let firebase = Firebase::open().await;
    let mut house = House::with_firebase(2, &firebase).await;
    firebase.messages.then([Reply::Silence]);
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    firebase.messages.until(1).await;
    writer.disconnect().await.unwrap();
    let stopping = std::time::Instant::now();
    house.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(3));
    house.start().await;
    firebase.messages.until(2).await;
    tokio::time::sleep(PATIENCE).await;
    house.stop().await;
    house.start().await;
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(
        firebase.messages.count(),
        2,
        "what has been sent is not sent again"
    );
}

#[tokio::test]
async fn a_webhook_needs_no_token() {
    let server = StandIn::open().await;
    server.usually(Reply::plain(200, ""));
    let webhook = settings::Webhook {
        url: address(&server.url("/hook")),
        secret: SecretString::from("secret"),
    };
    let house = House::open(2, |push, _| push.webhook = Some(webhook)).await;
    house.run("UPDATE accounts SET user_notification_token = NULL");
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    let requests = server.until(1).await;
    assert!(
        requests[0]
            .body
            .starts_with(r#"{"to":"2","fromId":"1","timestamp":"20"#)
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_used_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.data = dir.path().to_owned();
    settings.directory = DirectorySettings::in_file(dir.path().join("jam.db"));
    settings.listen.mqtt = Some("127.0.0.1:0".parse().unwrap());
    settings.listen.http = None;
    settings.listen.admin = None;
    settings.push.fcm_key = Some(dir.path().join("missing.json"));
    let error = start(settings.clone()).await.unwrap_err().to_string();
    assert!(
        error.contains("push.fcm_key") && error.contains("missing.json"),
        "{error}"
    );
    assert!(
        !settings.directory.file().unwrap().path.exists(),
        "nothing is made"
    );
    settings.push.enabled = false;
    start(settings).await.unwrap().stop().await;
}

/// It became due before a server was stopped for two days: what is that old is no news.
#[tokio::test]
async fn after_a_day_nobody_is_told_any_more() {
    let firebase = Firebase::open().await;
    let mut house = House::with_firebase(3, &firebase).await;
    firebase
        .messages
        .then([Reply::plain(503, ""), Reply::plain(503, "")]);
    let mut writer = house.client("1").await;
    write(&mut writer, "2").await;
    firebase.messages.until(1).await;
    house.stop().await;
    let db = Connection::open(house.dir.path().join("mailbox/mailbox.db")).unwrap();
    let older = "UPDATE push SET at = at - 2 * 24 * 3600 * 1000";
    assert_eq!(db.execute(older, []).unwrap(), 1);
    db.close().unwrap();
    let tried = firebase.messages.count();
    house.start().await;
    let mut writer = house.client("1").await;
    write(&mut writer, "3").await;
    let requests = firebase.messages.until(tried + 1).await;
    assert!(requests[tried].body.contains("phone-of-3"));
    tokio::time::sleep(2 * PATIENCE).await;
    assert_eq!(firebase.messages.count(), tried + 1);
}
