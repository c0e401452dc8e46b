//! The parts of a server on an accounts database that is no SQLite file, and that has nothing in memory.

mod administration;
mod copying;

use std::sync::Mutex;
use std::time::Duration;

use bytes::BytesMut;
use jam_core::directory::NotificationToken;
use jam_core::push::PushAudience;
use jam_core::time::Time;
use jam_testkit::store::FaultyStore;
use jam_testkit::{FakeDirectory, packets};
use jam_wire::Decoder;
use jam_wire::packet::{Packet, Publish, QoS, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fake::notification_token;
use super::*;
use crate::connection::tests::{permit, shared_with};
use crate::connection::{Shared, serve};
use crate::health::Health;
use crate::housekeeping::{self, Household};
use crate::permits::ConnectionPermits;
use crate::push::dispatcher::send_pushes;
use crate::push::{Delivering, Delivery, Notifier, Push};
use crate::threads::Threads;
use crate::{friends, presence};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// Users 1, 2 and 3: 1 and 2 are friends, and so are 1 and 3.
fn script() -> Arc<FakeDirectory> {
    let directory = Arc::new(FakeDirectory::default());
    for user in ["1", "2", "3"] {
        directory.set_account(user, Some(&packets::token(user)));
    }
    directory.befriend("1", "2");
    directory.befriend("1", "3");
    directory.forget();
    directory
}

/// The parts of a server that ask an accounts database.
struct House {
    directory: Arc<FakeDirectory>,
    shared: Arc<Shared>,
    health: Arc<Health>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl House {
    fn new(audience: PushAudience) -> Self {
        let directory = script();
        let shared = shared_with(directory.clone(), audience);
        let permits = ConnectionPermits::new(10, 10);
        let threads = Arc::new(Threads::start(1, 50, || ()).unwrap());
        let health = Health::new(permits, Arc::new(FaultyStore::default()), threads);
        Self {
            directory,
            shared,
            health: Arc::new(health),
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
        }
    }

    fn household(&self) -> Household {
        Household {
            clock: self.shared.clock.clone(),
            router: self.shared.router.clone(),
            directory: self.directory.clone(),
            events: self.shared.events.clone(),
        }
    }

    fn watch_directory(&mut self) {
        let (household, health) = (self.household(), self.health.clone());
        let stop = self.stop.subscribe();
        self.tasks
            .spawn(housekeeping::watch_directory(household, health, stop));
    }

    /// Logs a user in.
    async fn client(&mut self, user: &str) -> Client {
        let (permit, address) = permit().await;
        let (stream, client) = tokio::io::duplex(64 * 1024);
        let now = self.shared.clock.now();
        let task = serve(self.shared.clone(), permit, address, now, stream);
        self.tasks.spawn(task);
        let mut client = Client {
            stream: client,
            decoder: Decoder::client(Version::V4, 1024 * 1024),
            input: BytesMut::new(),
        };
        let connect = packets::connect(&format!("{user}:phone"), Version::V4);
        client.send(Packet::Connect(Box::new(connect))).await;
        assert!(matches!(
            client.next(&self.shared).await,
            Some(Packet::ConnAck(_))
        ));
        client
    }
}

struct Client {
    stream: DuplexStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Client {
    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        jam_wire::encode(&packet, Version::V4, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn publish(&mut self, receiver: &str) {
        let topic = format!("/{receiver}/inbox");
        let message = packets::message("1", "hello");
        let id = Some(packets::id(7));
        self.send(Packet::Publish(packets::publish(
            &topic,
            message,
            QoS::AtLeastOnce,
            id,
        )))
        .await;
    }

    /// `None` when the connection has ended. Messages are stored meanwhile.
    async fn next(&mut self, shared: &Shared) -> Option<Packet> {
        soon(async {
            loop {
                if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                    return Some(packet);
                }
                let read = self.stream.read_buf(&mut self.input);
                match tokio::time::timeout(Duration::from_millis(10), read).await {
                    Ok(Ok(0)) => return None,
                    Ok(read) => drop(read.unwrap()),
                    Err(_) => shared.router.hand_over(Time::NEVER),
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_connection_asks_once_for_each_fact() {
    let mut house = House::new(PushAudience::Off);
    let mut client = house.client("1").await;
    assert_eq!(house.directory.questions(), 1);
    client.publish("2").await;
    let answer = client.next(&house.shared).await;
    assert!(matches!(answer, Some(Packet::PubAck(_))), "{answer:?}");
    assert_eq!(house.directory.questions(), 2);
}

#[tokio::test]
async fn a_message_waits_for_an_answer_that_does_not_come_and_the_next_one_too() {
    let mut house = House::new(PushAudience::Off);
    let mut client = house.client("1").await;
    house.directory.hang(true);
    client.publish("2").await;
    client.send(Packet::PingReq).await;
    let answer = client.next(&house.shared);
    let answer = tokio::time::timeout(Duration::from_millis(200), answer).await;
    assert!(answer.is_err(), "{answer:?}");
    house.directory.hang(false);
    let mut answers = [
        client.next(&house.shared).await,
        client.next(&house.shared).await,
    ];
    answers.sort_by_key(|answer| matches!(answer, Some(Packet::PingResp)));
    assert!(
        matches!(answers, [Some(Packet::PubAck(_)), Some(Packet::PingResp)]),
        "{answers:?}"
    );
}

#[tokio::test]
async fn presence_is_told_to_friends() {
    let mut house = House::new(PushAudience::Off);
    let (household, stop) = (house.household(), house.stop.subscribe());
    house.tasks.spawn(presence::tell_presence(household, stop));
    let mut client = house.client("1").await;
    let filter = packets::filter("/1/presence", QoS::AtMostOnce);
    let subscribe = packets::subscribe(packets::id(1), vec![filter]);
    client.send(Packet::Subscribe(Box::new(subscribe))).await;
    let answer = client.next(&house.shared).await;
    assert!(matches!(answer, Some(Packet::SubAck(_))), "{answer:?}");
    house.directory.block("3", "1", true);
    let _blocks = house.client("3").await;
    let _friend = house.client("2").await;
    let Some(Packet::Publish(Publish { payload, .. })) = client.next(&house.shared).await else {
        panic!("presence is told");
    };
    let told = String::from_utf8(payload.to_vec()).unwrap();
    assert!(told.contains(r#""user":"2","online":true"#), "{told}");
}

#[tokio::test]
async fn users_are_told_who_their_friends_are_and_what_changes() {
    let mut house = House::new(PushAudience::Off);
    let (household, stop) = (house.household(), house.stop.subscribe());
    house.tasks.spawn(friends::tell_friends(household, stop));
    house.watch_directory();
    let mut client = house.client("1").await;
    let filter = packets::filter("/1/friends", QoS::AtMostOnce);
    let subscribe = packets::subscribe(packets::id(1), vec![filter]);
    client.send(Packet::Subscribe(Box::new(subscribe))).await;
    let answer = client.next(&house.shared).await;
    assert!(matches!(answer, Some(Packet::SubAck(_))), "{answer:?}");
    for (name, hangs) in [(None, false), (Some("ben"), false), (Some("eve"), true)] {
        house.directory.hang(hangs);
        house.directory.set_profile("2", name, None);
        if hangs {
            let told = client.next(&house.shared);
            let told = tokio::time::timeout(Duration::from_millis(700), told).await;
            assert!(told.is_err(), "{told:?}");
            house.directory.hang(false);
        }
        let Some(Packet::Publish(Publish { payload, .. })) = client.next(&house.shared).await
        else {
            panic!("friends are told");
        };
        let told = String::from_utf8(payload.to_vec()).unwrap();
        let name = name.map_or("null".to_owned(), |name| format!("\"{name}\""));
        let expected = format!(r#""user":"2","name":{name},"blocked":false,"publicKey":null"#);
        assert!(told.contains(&expected), "{told}");
    }
}

/// A service for which every token is dead.
#[derive(Debug, Default)]
struct Graveyard(Mutex<Vec<String>>);

impl Notifier for Graveyard {
    fn deliver<'a>(&'a self, push: &'a Push) -> Delivering<'a> {
        use secrecy::ExposeSecret;
        let token = push.token.as_ref().expect("needs one").expose_secret();
        self.0.lock().unwrap().push(token.to_owned());
        Box::pin(async { Delivery::Unregistered })
    }

    fn needs_token(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        "a graveyard".to_owned()
    }
}

#[tokio::test]
async fn a_push_goes_where_the_database_says_and_a_dead_token_is_cleared() {
    let mut house = House::new(PushAudience::TokenHolders);
    let service = Arc::new(Graveyard::default());
    let (household, stop) = (house.household(), house.stop.subscribe());
    house.tasks.spawn(send_pushes(
        household,
        service.clone(),
        Arc::default(),
        stop,
    ));
    house
        .directory
        .set_notification("2", NotificationToken::Present);
    let mut client = house.client("1").await;
    client.publish("2").await;
    let answer = client.next(&house.shared).await;
    assert!(matches!(answer, Some(Packet::PubAck(_))), "{answer:?}");
    let question = Question::NotificationToken(user("2"));
    soon(async {
        while !matches!(
            house.directory.answer(&question).unwrap().fact,
            jam_core::directory::Fact::NotificationToken(NotificationToken::Absent)
        ) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(*service.0.lock().unwrap(), [notification_token(&user("2"))]);
}

#[tokio::test]
async fn a_removed_account_ends_its_connection() {
    let mut house = House::new(PushAudience::Off);
    house.watch_directory();
    let mut client = house.client("2").await;
    let mut other = house.client("3").await;
    house.directory.remove_account("2");
    assert_eq!(client.next(&house.shared).await, None);
    other.send(Packet::PingReq).await;
    assert_eq!(other.next(&house.shared).await, Some(Packet::PingResp));
}

#[tokio::test]
async fn that_the_database_does_not_answer_is_told_and_that_it_does_again() {
    let mut house = House::new(PushAudience::Off);
    house.watch_directory();
    for failing in [true, false] {
        house.directory.fail(failing);
        soon(async {
            while house.health.troubles().is_empty() == failing {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}
