use std::collections::HashMap;

use super::*;
use crate::directory::{Account, Answers, Directory, Generation, Life, Lookup, Mark, sha_256};
use crate::push::PushAudience;

/// What the directory knows of one question; what is missing is not in memory.
#[derive(Default)]
struct Memory {
    accounts: HashMap<&'static str, Option<Option<&'static str>>>,
    friends: HashMap<(&'static str, &'static str), Friendship>,
    tokens: HashMap<&'static str, NotificationToken>,
}

impl Memory {
    fn known(&self) -> Known<'_> {
        Known {
            directory: self,
            answers: Answers::NONE,
        }
    }
}

impl Directory for Memory {
    fn account(&self, user: &UserId) -> Lookup<Option<Account>> {
        self.accounts
            .get(user.as_str())
            .map_or(Lookup::Unknown, |account| {
                let token = |token: &str| Token::plain(token.as_bytes(), Mark::new([0; Mark::LEN]));
                let account = account.map(|account| Account {
                    token: account.map(token),
                    life: Life::default(),
                });
                Lookup::Known(account, Generation(1))
            })
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let friends = self.friends.get(&(sender.as_str(), receiver.as_str()));
        friends.map_or(Lookup::Unknown, |it| Lookup::Known(*it, Generation(1)))
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        let token = self.tokens.get(user.as_str());
        token.map_or(Lookup::Unknown, |it| Lookup::Known(*it, Generation(1)))
    }
}

fn user(id: &'static str) -> UserId {
    UserId::parse(id).unwrap()
}

fn connect(client: &'static str, name: &'static str, password: &'static [u8]) -> Result<(), Stop> {
    let mut memory = Memory::default();
    memory.accounts.insert("1", Some(Some("right")));
    memory.accounts.insert("2", Some(None));
    memory.accounts.insert("3", None);
    let client = ClientId::new(ByteString::from_static(client));
    let name = ByteString::from_static(name);
    let (identity, _) = authenticate(&client, Some(&name), Some(password), memory.known())?;
    assert_eq!(
        (identity.client(), identity.user().as_str()),
        (&client, client.user_part())
    );
    Ok(())
}

#[test]
fn a_token_that_is_kept_as_its_hash_is_offered_as_itself() {
    let mark = Mark::new([1; Mark::LEN]);
    let hash = sha_256(b"right");
    let token = Token::hashed(&hash, mark);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    for offered in [&hash[..], hex.as_bytes(), b"righ", b"wrong", b""] {
        assert!(!token.is(offered));
    }
    assert!(token.is(b"right"));
    // A plain token that looks like a hash is itself, and not what it is the hash of.
    let plain = Token::plain(&hash, mark);
    assert!(plain.is(&hash) && !plain.is(b"right"));
    assert_eq!((token.mark(), plain.mark()), (mark, mark));
    let shown = format!("{token:?} {plain:?}");
    assert_eq!(shown, "[a SHA-256] [32 bytes]");
}

#[test]
fn who_connects() {
    let refused = |refusal: Refusal| Err(Stop::Refused(refusal));
    let long = |len: usize| -> &'static str {
        Box::leak(format!("1:{}", "x".repeat(len - 2)).into_boxed_str())
    };
    assert_eq!(connect(long(256), "1", b"right"), Ok(()));
    assert_eq!(connect(long(257), "1", b""), refused(refusals::ID_MISMATCH));
    assert_eq!(connect("1:a", "1", b"right"), Ok(()));
    assert_eq!(connect("1", "1", b"right"), Ok(()));
    assert_eq!(connect("1:a:b", "1", b"right"), Ok(()));
    assert_eq!(connect("1:a", "2", b""), refused(refusals::ID_MISMATCH));
    assert_eq!(
        connect("1:a", "1:a", b"right"),
        refused(refusals::ID_MISMATCH)
    );
    assert_eq!(connect("", "", b"right"), refused(refusals::ID_MISMATCH));
    assert_eq!(connect("1:a", "1", b""), refused(refusals::TOKEN_FORMAT));
    assert_eq!(
        connect("3:a", "3", b"\xff"),
        refused(refusals::TOKEN_FORMAT)
    );
    assert_eq!(connect("3:a", "3", b"x"), refused(refusals::UNKNOWN_USER));
    assert_eq!(
        connect("a+b:a", "a+b", b"x"),
        refused(refusals::UNKNOWN_USER)
    );
    assert_eq!(connect("1:a", "1", b"righ"), refused(refusals::WRONG_TOKEN));
    assert_eq!(
        connect("1:a", "1", b"right "),
        refused(refusals::WRONG_TOKEN)
    );
    assert_eq!(
        connect("2:a", "2", b"right"),
        refused(refusals::WRONG_TOKEN)
    );
    assert_eq!(
        connect("4:a", "4", b"x"),
        Err(Stop::Ask(Question::Account(user("4"))))
    );
    assert_eq!(pre_connect(true), Err(refusals::SPAM));
    assert_eq!(pre_connect(false), Ok(()));
}

/// What user 1 hears upon publishing; `online` are those who are connected.
fn publish(
    memory: &Memory,
    audience: PushAudience,
    online: &[&str],
    topic: &'static str,
    payload: &str,
) -> Result<Permit, Stop> {
    let is_connected = |user: &UserId| online.contains(&user.as_str());
    let facts = Facts {
        known: memory.known(),
        audience,
        is_connected: &is_connected,
    };
    let topic = ByteString::from_static(topic);
    authorize_publish(&user("1"), &topic, None, payload.as_bytes(), &facts)
}

const OK: &str = r#"{"from":"1"}"#;

#[test]
fn a_permit_says_where_to() {
    let mut memory = Memory::default();
    memory
        .friends
        .insert(("1", "2"), Friendship::Friends(Life::default()));
    for (topic, receiver, destination) in [
        ("/2/inbox", "2", Destination::Inbox),
        ("/1/inbox", "1", Destination::Inbox),
        ("/1/inbox/", "1", Destination::OwnChannel),
        ("/1/devices/1:a", "1", Destination::OwnChannel),
        ("/1/", "1", Destination::OwnChannel),
    ] {
        let permit = publish(&memory, PushAudience::Off, &[], topic, OK).unwrap();
        assert_eq!(permit.destination(), destination);
        let (from, to) = permit.into_users();
        assert_eq!((from.as_str(), to.as_str()), ("1", receiver));
    }
}

#[test]
fn a_rule_asks_for_nothing_that_an_earlier_one_makes_needless() {
    // A directory that knows nothing: whatever is answered was answered without it.
    let nothing = Memory::default();
    let hear = |topic, payload| {
        publish(&nothing, PushAudience::NoService, &[], topic, payload).unwrap_err()
    };
    assert_eq!(hear("/2", OK), refusals::TOPIC_LEVELS.into());
    assert_eq!(hear("/2/#", OK), refusals::TOPIC_WILDCARDS.into());
    assert_eq!(hear("/2/x", OK), refusals::TOPIC_FOREIGN.into());
    assert_eq!(hear("/2/inbox", "x"), refusals::PAYLOAD_NOT_JSON.into());
    assert_eq!(hear("/2/inbox", "{}"), refusals::PAYLOAD_SENDER.into());
    let friendship = Question::Friendship {
        sender: user("1"),
        receiver: user("2"),
    };
    assert_eq!(hear("/2/inbox", OK), Stop::Ask(friendship));
    assert!(publish(&nothing, PushAudience::NoService, &[], "/1/inbox", OK).is_ok());
    assert!(publish(&nothing, PushAudience::NoService, &[], "/1/x", "anything").is_ok());
}

#[test]
fn the_notification_token_is_asked_for_only_when_a_push_is_due() {
    let mut memory = Memory::default();
    memory
        .friends
        .insert(("1", "2"), Friendship::Friends(Life::default()));
    memory.friends.insert(("1", "3"), Friendship::NotFriends);
    let asks = Stop::Ask(Question::NotificationToken(user("2")));
    assert_eq!(
        publish(&memory, PushAudience::NoService, &["1"], "/2/inbox", OK).unwrap_err(),
        asks
    );
    assert!(publish(&memory, PushAudience::Off, &[], "/2/inbox", OK).is_ok());
    assert!(publish(&memory, PushAudience::NoService, &["2"], "/2/inbox", OK).is_ok());
    let stranger = publish(&memory, PushAudience::NoService, &[], "/3/inbox", OK).unwrap_err();
    assert_eq!(stranger, refusals::NOT_FRIENDS.into());
    for (token, allowed) in [
        (NotificationToken::Present, true),
        (NotificationToken::Absent, true),
        (NotificationToken::Unreadable, false),
    ] {
        memory.tokens.insert("2", token);
        let verdict = publish(&memory, PushAudience::NoService, &[], "/2/inbox", OK);
        assert_eq!(verdict.is_ok(), allowed);
        if let Err(stop) = verdict {
            assert_eq!(stop, refusals::NOTIFICATION_TOKEN.into());
        }
    }
}

#[test]
fn a_receiver_that_cannot_be_is_no_receiver() {
    let nothing = Memory::default();
    let long: &'static str = Box::leak(format!("/{}/inbox", "x".repeat(65)).into_boxed_str());
    for topic in [
        "//inbox",
        "/a:b/inbox",
        "/2\0/inbox",
        "/2/inbox/",
        "2/inbox/",
        long,
    ] {
        let stop = publish(&nothing, PushAudience::Off, &[], topic, OK).unwrap_err();
        assert_eq!(stop, refusals::TOPIC_FOREIGN.into(), "{topic}");
    }
}

#[test]
fn who_subscribes() {
    let hear = |filter: &'static str| {
        let filter = ByteString::from_static(filter);
        match authorize_subscribe(&user("1"), &filter) {
            Ok(()) => None,
            Err(refusal) => {
                assert_eq!(refusal.category, filter);
                Some((refusal.message, u8::from(refusal.reason)))
            }
        }
    };
    for own in [
        "/1",
        "/1/",
        "/1/inbox",
        "/1/inbox/",
        "/1/devices/1:a",
        "/1//x",
    ] {
        assert_eq!(hear(own), None);
    }
    for wildcard in ["#", "/1/#", "/2/+", "a$"] {
        assert_eq!(
            hear(wildcard),
            Some(("wildcards are not allowed in topic", 0xA2))
        );
    }
    assert_eq!(hear("inbox"), Some(("not enough topic levels", 0x8F)));
    for foreign in ["/", "//1", "/2/inbox", "/11", "1/", "1/inbox"] {
        assert_eq!(hear(foreign), Some(("not authorized", 0x87)));
    }
}

#[test]
fn a_topic_has_at_most_1024_bytes() {
    let mut memory = Memory::default();
    memory
        .friends
        .insert(("1", "2"), Friendship::Friends(Life::default()));
    let of = |len: usize, start: &str, fill: &str| -> &'static str {
        let mut topic = start.to_owned();
        while topic.len() < len {
            topic.push_str(fill);
        }
        Box::leak(topic.into_boxed_str())
    };
    for topic in [of(1024, "/1/", "x"), of(1024, "/1/1", "\u{e9}")] {
        assert_eq!(topic.len(), 1024);
        assert!(publish(&memory, PushAudience::Off, &[], topic, "x").is_ok());
    }
    // The first row: whatever else may be said of it.
    for topic in [
        of(1025, "/1/", "x"),
        of(1025, "", "#"),
        of(65_535, "/2/inbox", "+"),
    ] {
        let stop = publish(&memory, PushAudience::Off, &[], topic, "x").unwrap_err();
        assert_eq!(stop, refusals::TOPIC_TOO_LONG.into());
    }
    let own = ByteString::from_static(of(1024, "/1/", "x"));
    assert_eq!(authorize_subscribe(&user("1"), &own), Ok(()));
    for filter in [
        of(1025, "/1/", "x"),
        of(1026, "/1/", "\u{20ac}"),
        of(65_535, "", "#"),
    ] {
        let refusal =
            authorize_subscribe(&user("1"), &ByteString::from_static(filter)).unwrap_err();
        assert_eq!(
            (refusal.message, u8::from(refusal.reason)),
            ("topic is too long", 0x8F)
        );
        assert!(filter.starts_with(&*refusal.category));
        assert!((254..=256).contains(&refusal.category.len()));
    }
}

#[test]
fn properties_are_few() {
    let mut memory = Memory::default();
    memory
        .friends
        .insert(("1", "2"), Friendship::Friends(Life::default()));
    let facts = Facts {
        known: memory.known(),
        audience: PushAudience::Off,
        is_connected: &|_| true,
    };
    let judge = |count: usize, bytes: usize, topic: &'static str, payload: &str| {
        let mut properties = PublishProperties {
            user: (0..count).map(|_| ("k", "v")).collect(),
            ..PublishProperties::default()
        };
        let left = bytes.saturating_sub(encode::properties_len(&properties) + 3);
        properties.correlation_data = (left > 0).then(|| vec![0; left].into());
        let topic = ByteString::from_static(topic);
        authorize_publish(
            &user("1"),
            &topic,
            Some(&properties),
            payload.as_bytes(),
            &facts,
        )
        .map(drop)
    };
    let refused = || Err(Stop::Refused(refusals::PROPERTIES));
    for topic in ["/1/x", "/1/inbox", "/2/inbox"] {
        assert_eq!(judge(64, 16 * 1024, topic, OK), Ok(()));
        assert_eq!(judge(65, 0, topic, OK), refused());
        assert_eq!(judge(0, 16 * 1024 + 1, topic, OK), refused());
        // Before the rows about the payload, after those about the topic.
        assert_eq!(judge(65, 0, topic, "x"), refused());
    }
    assert_eq!(
        judge(65, 0, "/2/x", "x"),
        Err(refusals::TOPIC_FOREIGN.into())
    );
}

#[test]
fn an_error_s_json() {
    assert_eq!(
        refusals::NOT_FRIENDS.to_json(Some(65_535)),
        r#"{"type":"error","handler":"authorizePublish","category":"friends","message":"not friends with the receiver","messageId":65535}"#
    );
    assert_eq!(
        refusals::LOGOUT.to_json(None),
        r#"{"type":"error","handler":"authenticate","category":"logout","message":"a new device has connected","messageId":null}"#
    );
}

#[test]
fn what_could_not_be_loaded_is_an_error_of_its_handler() {
    let friendship = Question::Friendship {
        sender: user("1"),
        receiver: user("2"),
    };
    let of = |question: &Question| {
        let refusal = without_directory(question);
        (refusal.handler, refusal.category, refusal.message)
    };
    let failed = |handler, category| {
        let category = ByteString::from_static(category);
        (handler, category, "fatal database error")
    };
    assert_eq!(
        of(&friendship),
        failed(Handler::AuthorizePublish, "friends")
    );
    let token = Question::NotificationToken(user("2"));
    let expected = failed(Handler::AuthorizePublish, "notification_token");
    assert_eq!(of(&token), expected);
    let account = of(&Question::Account(user("2")));
    assert_eq!(account.0, Handler::Authenticate);
}

/// Deployed apps know these texts and numbers (PROTOCOL.md, sections 2 to 5, 7 and 8).
#[test]
fn every_row_as_the_protocol_has_it() {
    use Handler::{Authenticate, AuthorizePublish, AuthorizeSubscribe, PreConnect};
    use refusals::*;
    let rows = [
        (
            SPAM,
            PreConnect,
            "spam",
            "too many failed auth attempts",
            4,
            0x9F,
        ),
        (
            ID_MISMATCH,
            Authenticate,
            "id",
            "client id and user id don't match",
            4,
            0x85,
        ),
        (
            TOKEN_FORMAT,
            Authenticate,
            "api_token",
            "wrong api token format",
            4,
            0x86,
        ),
        (
            UNKNOWN_USER,
            Authenticate,
            "api_token",
            "unknown user id",
            5,
            0x87,
        ),
        (
            WRONG_TOKEN,
            Authenticate,
            "api_token",
            "wrong api token",
            5,
            0x87,
        ),
        (
            LOGOUT,
            Authenticate,
            "logout",
            "a new device has connected",
            5,
            0x8E,
        ),
        (
            TOPIC_TOO_LONG,
            AuthorizePublish,
            "topic",
            "topic is too long",
            5,
            0x90,
        ),
        (
            TOPIC_LEVELS,
            AuthorizePublish,
            "topic",
            "not enough topic levels",
            5,
            0x90,
        ),
        (
            TOPIC_WILDCARDS,
            AuthorizePublish,
            "topic",
            "wildcards are not allowed in topic",
            5,
            0x90,
        ),
        (
            TOPIC_FOREIGN,
            AuthorizePublish,
            "topic",
            "can't publish to other user's channel except inbox",
            5,
            0x87,
        ),
        (
            PROPERTIES,
            AuthorizePublish,
            "properties",
            "too many user properties",
            5,
            0x97,
        ),
        (
            PAYLOAD_NOT_JSON,
            AuthorizePublish,
            "payload",
            "payload is not valid json",
            5,
            0x99,
        ),
        (
            PAYLOAD_SENDER,
            AuthorizePublish,
            "payload",
            "payload sender id mismatch",
            5,
            0x87,
        ),
        (
            NOT_FRIENDS,
            AuthorizePublish,
            "friends",
            "not friends with the receiver",
            5,
            0x87,
        ),
        (
            NOTIFICATION_TOKEN,
            AuthorizePublish,
            "notification_token",
            "fatal database error",
            5,
            0x83,
        ),
        (
            QUOTA,
            AuthorizePublish,
            "quota",
            "the receiver's inbox is full",
            5,
            0x97,
        ),
        (RATE, AuthorizePublish, "rate", "sending too fast", 5, 0x97),
        (
            FILTER_TOO_LONG,
            AuthorizeSubscribe,
            "",
            "topic is too long",
            5,
            0x8F,
        ),
        (
            FILTER_WILDCARDS,
            AuthorizeSubscribe,
            "",
            "wildcards are not allowed in topic",
            5,
            0xA2,
        ),
        (
            FILTER_LEVELS,
            AuthorizeSubscribe,
            "",
            "not enough topic levels",
            5,
            0x8F,
        ),
        (
            FILTER_FOREIGN,
            AuthorizeSubscribe,
            "",
            "not authorized",
            5,
            0x87,
        ),
    ];
    for (refusal, handler, category, message, return_code, reason) in rows {
        assert_eq!(
            (refusal.handler, &*refusal.category, refusal.message),
            (handler, category, message)
        );
        assert_eq!(u8::from(refusal.return_code), return_code, "{message}");
        assert_eq!(u8::from(refusal.reason), reason, "{message}");
    }
}
