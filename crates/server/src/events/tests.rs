//! What cannot be seen from outside within a minute: bounds, rates, and what is lost.

use std::thread;

use jam_core::connection::{End, Ended, RefusalCount};
use jam_core::link::Eviction;
use jam_core::policy::{Handler, refusals};
use jam_wire::ReasonCode;
use jam_wire::decode::DecodeError;

use super::book::Room;
use super::rates::{MINUTE, OF_SOURCE, OF_STRANGERS, OF_USER, SUMS};
use super::*;

const NOW: Stamp = Stamp::from_millis(1_700_000_000_000);

const ROOM: Room = Room {
    stream: 20,
    pushes: 5,
    of_user: 4,
    rings_bytes: 1 << 20,
};

fn events_with(room: Room) -> Arc<Events> {
    Arc::new(Events::with(Book::with(7, room), 2))
}

fn address(n: u32) -> IpAddr {
    IpAddr::from(n.to_be_bytes())
}

fn client(name: &str) -> ClientId {
    ClientId::new(name)
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn refused_as(client_id: Option<&str>, why: End) -> Ended {
    Ended {
        client: client_id.map(client),
        why,
        refused: Vec::new(),
    }
}

impl Events {
    fn connects(&self, name: &str) {
        self.connected(&client(name), address(1), NOW);
    }

    fn is_refused(&self, name: &str, slug: &'static str, count: u64) {
        let row = RefusalCount {
            handler: Handler::AuthorizePublish,
            slug,
            count,
        };
        self.refused(&client(name), address(1), &[row], NOW);
    }

    fn ends(&self, name: Option<&str>, why: End, from: u32) {
        self.ended(&refused_as(name, why), address(from), NOW);
    }

    async fn told_of(&self, name: &str) -> Vec<String> {
        self.collect(NOW).await;
        self.of_user(&user(name))
            .iter()
            .map(|it| told(it))
            .collect()
    }

    async fn minute(&self) {
        self.collect(NOW).await;
        self.book().tick(Instant::now() + MINUTE, NOW);
        self.collect(NOW).await;
    }
}

fn told(entry: &Entry) -> String {
    let Event {
        kind,
        reason,
        count,
        is_sum,
        ..
    } = &entry.event;
    let more = if *is_sum { "more " } else { "" };
    let reason = reason.map_or(String::new(), |reason| format!(" {reason}"));
    format!("{more}{}{reason} {count}", kind.name())
}

impl EventReader {
    /// What there is at the moment.
    async fn rest(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(next) = self.look() {
            all.push(match next {
                Told::Event(entry) => told(&entry),
                Told::Dropped(count) => format!("dropped {count}"),
            });
        }
        all
    }
}

#[tokio::test]
async fn a_flood_of_one_user_leaves_the_others_their_room() {
    let events = events_with(Room { stream: 40, ..ROOM });
    let mut reader = events.follow(Some(0), Filter::default()).unwrap();
    events.connects("2:phone");
    for _ in 0..1000 {
        events.is_refused("1:phone", "not_friends", 3);
        events.collect(NOW).await;
    }
    events.is_refused("2:phone", "rate", 1);
    events.collect(NOW).await;
    let all = reader.rest().await;
    assert_eq!(all.len(), 1 + usize::from(OF_USER) + 1, "{all:?}");
    assert_eq!(all.first().unwrap(), "connect 1");
    assert_eq!(all.last().unwrap(), "refused rate 1");
    // What else they do is told: only refusals were too many.
    events.connects("1:phone");
    events.minute().await;
    let sum = format!("more refused {}", 3 * (1000 - u64::from(OF_USER)));
    assert_eq!(reader.rest().await, ["connect 1", &sum]);
    assert_eq!(
        events.told_of("1").await[..2],
        [sum, "connect 1".to_owned()]
    );
    events.is_refused("1:phone", "not_friends", 1);
    events.collect(NOW).await;
    assert_eq!(
        reader.rest().await,
        ["refused not_friends 1"],
        "a new minute"
    );
}

#[tokio::test]
async fn strangers_make_no_ring_and_hide_nothing() {
    let events = events_with(Room {
        stream: 4096,
        ..ROOM
    });
    let mut reader = events.follow(Some(0), Filter::default()).unwrap();
    for n in 0..1000 {
        let name = format!("made-up-{n}:phone");
        events.ends(Some(&name), End::Refused(refusals::UNKNOWN_USER), 1);
        events.ends(None, End::Malformed(DecodeError::Malformed("x")), 2 + n);
        events.collect(NOW).await;
    }
    assert_eq!(events.book().rings(), (0, 0));
    let all = reader.rest().await;
    assert_eq!(all.len(), OF_STRANGERS as usize);
    let of_one = |all: &[String]| {
        all.iter()
            .filter(|it| *it == "refused unknown_user 1")
            .count()
    };
    assert_eq!(of_one(&all), OF_SOURCE as usize);
    events.minute().await;
    let sum = format!("more refused {}", 2000 - OF_STRANGERS);
    assert_eq!(reader.rest().await, [sum]);

    // A stranger with a user's name takes the room of other strangers, and not of the user's own refusals.
    events.connects("1:phone");
    for n in 0..100 {
        events.ends(Some("1:x"), End::Refused(refusals::WRONG_TOKEN), n);
        events.ends(Some("1:x"), End::Refused(refusals::SPAM), n);
    }
    events.is_refused("1:phone", "rate", 1);
    events.collect(NOW).await;
    let all = reader.rest().await;
    assert_eq!(all.len(), 1 + 2 * usize::from(OF_USER) + 1, "{all:?}");
    assert_eq!(events.told_of("1").await[0], "refused rate 1");
    // Who has a wrong token has an account.
    events.ends(Some("2:x"), End::Refused(refusals::WRONG_TOKEN), 1);
    assert_eq!(events.told_of("2").await, ["refused wrong_token 1"]);
}

#[tokio::test]
async fn sums_of_many_users_are_one() {
    let events = events_with(Room {
        stream: 1 << 20,
        ..ROOM
    });
    let mut reader = events.follow(None, Filter::default()).unwrap();
    for n in 0..2 * SUMS {
        for _ in 0..=OF_USER {
            events.is_refused(&format!("{n}:phone"), "rate", 1);
        }
        events.collect(NOW).await;
    }
    reader.rest().await;
    events.minute().await;
    let sums = reader.rest().await;
    assert_eq!(sums.len(), SUMS + 1);
    assert_eq!(*sums.last().unwrap(), format!("more refused {SUMS}"));
}

#[tokio::test]
async fn rings_stay_within_their_bytes() {
    let few = 64 * 1024;
    let events = events_with(Room {
        rings_bytes: few,
        ..ROOM
    });
    events.connects("first:phone");
    for n in 0..10_000 {
        events.connects(&format!("{n}:{}", "x".repeat(200)));
        events.is_refused("first:phone", "rate", 1);
        events.collect(NOW).await;
        let (_, bytes) = events.book().rings();
        assert!(bytes <= few, "{bytes}");
    }
    let (rings, bytes) = events.book().rings();
    assert!(
        rings > few / 4096 && bytes > few / 2,
        "{rings} rings, {bytes} bytes"
    );
    assert_eq!(events.told_of("0").await, [""; 0], "the oldest has gone");
    assert_eq!(events.told_of("9999").await, ["connect 1"]);
    // Who floods is not forgotten meanwhile: the flood would begin anew.
    events.minute().await;
    let flood = events.told_of("first").await;
    assert_eq!(
        flood[0],
        format!("more refused {}", 10_000 - u64::from(OF_USER))
    );
    for _ in 0..100 {
        events.connects("1:phone");
        events.minute().await;
    }
    assert_eq!(events.told_of("1").await.len(), ROOM.of_user);
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_has_missed() {
    let events = events_with(ROOM);
    let mut slow = events.follow(None, Filter::default()).unwrap();
    for n in 0..50 {
        events.connects(&format!("{n}:phone"));
    }
    events.collect(NOW).await;
    let all = slow.rest().await;
    assert_eq!(all.len(), 1 + ROOM.stream);
    assert_eq!(all[0], "dropped 30");
    // Whoever comes back goes on where they were.
    let of = |number: u64| format!("7.{number}");
    for (id, first, len) in [
        (of(48), "connect 1", 2),
        (of(50), "", 0),
        (of(51), "", 0),
        (of(u64::MAX), "", 0),
        (of(10), "dropped 20", 21),
        ("0".to_owned(), "dropped 30", 21),
        ("6.48".to_owned(), "dropped 30", 21), // of another run
    ] {
        let after = events.number_of(&id).unwrap();
        let mut reader = events.follow(Some(after), Filter::default()).unwrap();
        let all = reader.rest().await;
        assert_eq!(
            (all.first().map_or("", |it| it), all.len()),
            (first, len),
            "{id}"
        );
    }
    for wrong in [
        "",
        ".",
        "7",
        "7.",
        "7.x",
        "x.1",
        "7.-1",
        "7.1.1",
        "7.18446744073709551616",
    ] {
        assert_eq!(events.number_of(wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn a_filter_hides_what_is_not_asked_for_but_not_that_something_is_missing() {
    let events = events_with(ROOM);
    let filter = |kinds: &[Kind], name: Option<&str>| Filter {
        kinds: kinds.to_vec(),
        user: name.map(user),
    };
    let mut readers = [
        filter(&[Kind::Logout, Kind::Refused], None),
        filter(&[], Some("1")),
        filter(&[Kind::Connect], Some("2")),
    ]
    .map(|filter| events.follow(None, filter).unwrap());
    events.connects("1:a");
    events.is_refused("2:a", "rate", 1);
    events.ends(Some("1:a"), End::Evicted(Eviction::Logout), 1);
    for n in 0..LANE_EVENTS {
        events.connects(&format!("many-{n}:a"));
    }
    events.book().add_all(Vec::new(), 5, NOW);
    for reader in &mut readers {
        assert_eq!(reader.rest().await.last().unwrap(), "more dropped 5");
    }
    events.collect(NOW).await;
    let lost = "more dropped 3";
    let missed = format!("dropped {}", LANE_EVENTS + 1 - ROOM.stream);
    for reader in &mut readers {
        assert_eq!(reader.rest().await, [&missed, lost]);
    }
}

#[tokio::test]
async fn there_are_so_many_readers_and_a_stop_ends_them() {
    let events = events_with(ROOM);
    let follow = || events.follow(None, Filter::default());
    let mut readers: Vec<_> = (0..READERS).map(|_| follow().unwrap()).collect();
    assert!(follow().is_none());
    drop(readers.pop());
    readers.push(follow().unwrap());
    assert!(follow().is_none());

    let waiting = tokio::spawn(async move {
        let mut ends = 0;
        for mut reader in readers {
            while reader.next().await.is_some() {}
            ends += 1;
        }
        ends
    });
    tokio::task::yield_now().await;
    let (stop, stopped) = watch::channel(false);
    let clock = Arc::new(Clock::start(Arc::default(), None).0);
    let taking = tokio::spawn(collect(events.clone(), clock, stopped));
    events.connects("1:phone");
    stop.send_replace(true);
    taking.await.unwrap();
    assert_eq!(waiting.await.unwrap(), READERS);
    assert_eq!(
        events.told_of("1").await,
        ["connect 1"],
        "recorded before the stop"
    );
}

#[tokio::test]
async fn a_reader_lets_others_in() {
    let events = events_with(Room {
        stream: 1 << 20,
        ..ROOM
    });
    for n in 0..LANE_EVENTS {
        events.connects(&format!("{n}:phone"));
    }
    events.collect(NOW).await;
    let mut reader = events.follow(Some(0), Filter::default()).unwrap();
    let began = tokio::time::Instant::now();
    for _ in 0..LANE_EVENTS {
        reader.next().await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert!(began.elapsed() <= Duration::from_secs(1));
}

#[tokio::test]
async fn threads_that_flood_wait_for_nobody_and_what_is_lost_is_counted() {
    let events = events_with(Room {
        stream: 1 << 20,
        ..ROOM
    });
    let mut reader = events.follow(None, Filter::default()).unwrap();
    const EACH: usize = 3 * LANE_EVENTS;
    thread::scope(|scope| {
        for number in 0..2 {
            let events = &events;
            scope.spawn(move || {
                for n in 0..EACH {
                    events.connects(&format!("{number}-{n}:phone"));
                }
            });
        }
    });
    events.collect(NOW).await;
    let all = reader.rest().await;
    let connects = all.iter().filter(|it| *it == "connect 1").count();
    let lost = all.iter().filter_map(|it| it.strip_prefix("more dropped "));
    let lost: usize = lost.map(|count| count.parse::<usize>().unwrap()).sum();
    assert_eq!(connects + lost, 2 * EACH);
    assert!(connects <= 2 * LANE_EVENTS && lost > 0);
}

#[tokio::test]
async fn pushes_are_remembered_apart() {
    let events = events_with(ROOM);
    let (receiver, sender) = (user("2"), user("1"));
    for n in 0..7 {
        events.pushed(
            PushResult {
                receiver: &receiver,
                sender: &sender,
                outcome: if n == 6 { "refused" } else { "sent" },
                detail: (n == 6).then_some("400 INVALID_ARGUMENT"),
            },
            NOW,
        );
    }
    for n in 0..100 {
        events.connects(&format!("other-{n}:phone"));
    }
    events.collect(NOW).await;
    let pushes = events.pushes();
    assert_eq!(pushes.len(), ROOM.pushes);
    let last = &pushes[0].event;
    assert_eq!((&last.user, &last.sender), (&Some(receiver), &Some(sender)));
    assert_eq!(
        (last.reason, last.detail.as_deref()),
        (Some("refused"), Some("400 INVALID_ARGUMENT"))
    );
    assert_eq!(events.told_of("2").await[0], "push refused 1");
    assert_eq!(
        events.told_of("1").await,
        [""; 0],
        "the sender has not been pushed to"
    );
}

#[tokio::test]
async fn every_end_is_told_for_what_it_is() {
    let malformed = || End::Malformed(DecodeError::Malformed("x"));
    let denied = |reason| End::Denied(reason);
    for (name, why, is) in [
        (
            Some("1:a"),
            End::Disconnect(ReasonCode::Success),
            "disconnect client 1",
        ),
        (Some("1:a"), End::Lost, "disconnect lost 1"),
        (None, End::Lost, ""),
        (Some("1:a"), End::KeepAlive, "disconnect keepalive 1"),
        (Some("1:a"), End::Stalled, "disconnect stalled 1"),
        (Some("1:a"), malformed(), "disconnect protocol 1"),
        (None, malformed(), "refused malformed 1"),
        (
            Some("1:a"),
            End::ProtocolError(ReasonCode::ProtocolError),
            "disconnect protocol 1",
        ),
        (Some("1:a"), End::Evicted(Eviction::Logout), "logout 1"),
        (Some("1:a"), End::Evicted(Eviction::Kicked), "kick 1"),
        (
            Some("1:a"),
            End::Evicted(Eviction::TakenOver),
            "disconnect takeover 1",
        ),
        (
            Some("1:a"),
            End::Evicted(Eviction::NotAuthorized),
            "disconnect revoked 1",
        ),
        (Some("1:a"), End::Evicted(Eviction::ShuttingDown), ""),
        (
            Some("1:a"),
            denied(ReasonCode::QuotaExceeded),
            "refused too_many_devices 1",
        ),
        (
            Some("1:a"),
            denied(ReasonCode::BadAuthenticationMethod),
            "refused protocol 1",
        ),
        (None, End::NoConnect, "refused timeout 1"),
        (Some("1:a"), End::NoRoomForConnAck, "refused too_large 1"),
        (Some("1:a"), End::Refused(refusals::SPAM), "lockout spam 1"),
        (
            Some("1:a"),
            End::Refused(refusals::TOKEN_FORMAT),
            "refused token_format 1",
        ),
        (
            Some("1:a"),
            End::Refused(refusals::CONNECT_WITHOUT_DIRECTORY),
            "refused database 1",
        ),
    ] {
        let events = events_with(ROOM);
        let mut reader = events.follow(None, Filter::default()).unwrap();
        events.ends(name, why.clone(), 1);
        events.collect(NOW).await;
        assert_eq!(reader.rest().await.concat(), is, "{why:?}");
    }
    // What was refused before the end is told before it, with how often.
    let events = events_with(ROOM);
    let row = RefusalCount {
        handler: Handler::AuthorizeSubscribe,
        slug: "filter_foreign",
        count: 9,
    };
    let ended = Ended {
        refused: vec![row],
        ..refused_as(Some("1:a"), End::Lost)
    };
    events.ended(&ended, address(1), NOW);
    assert_eq!(
        events.told_of("1").await,
        ["disconnect lost 1", "refused filter_foreign 9"]
    );
    assert_eq!(
        events.of_user(&user("1"))[1].event.packet,
        Some("subscribe")
    );
}

#[tokio::test]
async fn a_strangers_text_is_shown_as_in_the_log() {
    let events = events_with(ROOM);
    let mut reader = events.follow(None, Filter::default()).unwrap();
    let name = format!("1:\u{1b}[2J\u{202e}{}", "x".repeat(200));
    events.ends(Some(&name), End::Refused(refusals::TOKEN_FORMAT), 1);
    events.ends(Some("a/b:c"), End::Refused(refusals::ID_MISMATCH), 1);
    events.collect(NOW).await;
    let Some(Told::Event(entry)) = reader.next().await else {
        panic!("an event")
    };
    let shown = entry.event.client.as_ref().unwrap().as_str();
    assert!(shown.starts_with("1:??2J?x") && shown.len() < 80, "{shown}");
    let Some(Told::Event(entry)) = reader.next().await else {
        panic!("an event")
    };
    assert_eq!(entry.event.user, None, "no user can be called so");
}

#[test]
fn who_cannot_be_asked_records_nothing() {
    let events = Events::off();
    for _ in 0..10 {
        events.record(|| unreachable!("nothing is made of it"));
    }
}

#[test]
fn an_event_takes_no_more_than_is_said() {
    let longest = "x".repeat(ClientId::MAX_LEN);
    let text = longest.len() + 2 * UserId::MAX_LEN + 128;
    assert!(
        size_of::<Entry>() + 16 + text <= EVENT_BYTES,
        "{}",
        size_of::<Entry>()
    );
}
