//! The friendship story as rumqttc tells it: 3.1.1 and 5.0 over TCP, TLS and WebSocket.
//!
//! Against the release binary (`JAM_MQTT_BIN`, or `target/release/jam-mqtt`); without it every
//! test fails. Each test starts a server of its own.

mod documented;
mod phone;
mod server;

use phone::{Event, Login, Phone, Version, Way};
use server::{Outcome, Server, User};

const LOGOUT: &[u8] = br#"{"type":"error","handler":"authenticate","category":"logout","message":"a new device has connected","messageId":null}"#;

fn not_friends(message_id: Option<u16>) -> Vec<u8> {
    let id = message_id.map_or("null".to_owned(), |id| id.to_string());
    format!(
        r#"{{"type":"error","handler":"authorizePublish","category":"friends","message":"not friends with the receiver","messageId":{id}}}"#
    )
    .into_bytes()
}

struct Home {
    server: Server,
    version: Version,
    way: Way,
}

impl Home {
    fn start(version: Version, way: Way) -> Outcome<Self> {
        // The first test to get here decides; the others find it decided alike.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            server: Server::start(way.is_tls())?,
            version,
            way,
        })
    }

    fn phone(&self, user: &User, login: Login<'_>) -> Outcome<Phone> {
        Phone::start(&self.server, self.version, self.way, user, login)
    }

    async fn listening(&self, user: &User, login: Login<'_>) -> Outcome<Phone> {
        let mut phone = self.phone(user, login)?;
        assert_eq!(phone.event().await?, Event::In);
        assert_eq!(
            phone.subscribe(&user.inbox()).await?,
            "[Success(ExactlyOnce)]"
        );
        Ok(phone)
    }
}

async fn friends_write_to_each_other(home: Home) -> Outcome {
    let (alice, bob) = home.server.friends()?;
    let mut a = home.listening(&alice, Login::default()).await?;
    let mut b = home.listening(&bob, Login::default()).await?;
    for qos in 0..3 {
        let body = alice.message(format!("ü☃😀 {qos}"));
        let id = a.publish(&bob.inbox(), body.clone(), qos).await?;
        if qos > 0 {
            assert_eq!(a.acknowledged(id).await?, "Success");
        }
        let got = b.event().await?;
        assert_eq!(
            got,
            Event::Message {
                topic: bob.inbox(),
                payload: body,
                qos
            }
        );
        b.send(&alice.inbox(), bob.message(qos)).await?;
        a.message(&alice.inbox(), &bob.message(qos)).await?;
    }
    a.quiet().await?;
    b.quiet().await
}

async fn a_stranger_is_refused_and_stays(home: Home) -> Outcome {
    let (bob, stranger) = (home.server.user()?, home.server.user()?);
    let mut b = home.listening(&bob, Login::default()).await?;
    let mut s = home.listening(&stranger, Login::default()).await?;
    for qos in 0..3 {
        let id = s
            .publish(&bob.inbox(), stranger.message("hello"), qos)
            .await?;
        let error = not_friends((qos > 0).then_some(id));
        s.message(&stranger.channel("phone"), &error).await?;
        if qos > 0 {
            let reason = s.acknowledged(id).await?;
            let refused = if home.version == Version::V5 {
                "NotAuthorized"
            } else {
                "Success"
            };
            assert_eq!(reason, refused);
        }
    }
    s.quiet().await?;
    b.quiet().await?;
    home.server.befriend(&bob, &stranger)?;
    s.send(&bob.inbox(), stranger.message("now")).await?;
    b.message(&bob.inbox(), &stranger.message("now")).await
}

async fn a_block_takes_effect(home: Home) -> Outcome {
    let (alice, bob) = home.server.friends()?;
    let mut a = home.listening(&alice, Login::default()).await?;
    let mut b = home.listening(&bob, Login::default()).await?;
    a.send(&bob.inbox(), alice.message("before")).await?;
    b.message(&bob.inbox(), &alice.message("before")).await?;
    home.server.block(&bob, &alice, true)?;
    let id = a.publish(&bob.inbox(), alice.message("blocked"), 1).await?;
    a.message(&alice.channel("phone"), &not_friends(Some(id)))
        .await?;
    a.acknowledged(id).await?;
    b.quiet().await?;
    home.server.block(&bob, &alice, false)?;
    a.send(&bob.inbox(), alice.message("after")).await?;
    b.message(&bob.inbox(), &alice.message("after")).await
}

async fn the_second_phone_logs_the_first_one_out(home: Home) -> Outcome {
    let alice = home.server.user()?;
    let mut first = home.listening(&alice, Login::default()).await?;
    let mut second = home
        .listening(
            &alice,
            Login {
                device: "new",
                ..Login::default()
            },
        )
        .await?;
    first.message(&alice.channel("phone"), LOGOUT).await?;
    if home.version == Version::V5 {
        assert_eq!(first.event().await?, Event::Told("SessionTakenOver".into()));
    }
    let end = first.event().await?;
    assert!(matches!(end, Event::Gone(_)), "{end:?}");
    second.quiet().await
}

async fn the_will_topic_of_deployed_apps(home: Home) -> Outcome {
    let (alice, bob) = home.server.friends()?;
    let login = Login {
        will: Some("willtopic"),
        ..Login::default()
    };
    let mut a = home.listening(&alice, login).await?;
    let mut b = home.listening(&bob, Login::default()).await?;
    a.send(&bob.inbox(), alice.message("hello")).await?;
    b.message(&bob.inbox(), &alice.message("hello")).await
}

async fn who_is_not_let_in(home: Home) -> Outcome {
    let (alice, bob) = home.server.friends()?;
    let (wrong, foreign) = match home.version {
        Version::V311 => ("NotAuthorized", "BadUserNamePassword"),
        Version::V5 => ("NotAuthorized", "ClientIdentifierNotValid"),
    };
    let login = Login {
        token: Some("wrong"),
        ..Login::default()
    };
    let got = home.phone(&alice, login)?.event().await?;
    assert_eq!(got, Event::Refused(wrong.into()));
    let login = Login {
        client_id: Some(bob.client_id("phone")),
        ..Login::default()
    };
    let got = home.phone(&alice, login)?.event().await?;
    assert_eq!(got, Event::Refused(foreign.into()));
    Ok(())
}

async fn a_picture_passes_byte_for_byte(home: Home) -> Outcome {
    let (alice, bob) = home.server.friends()?;
    let mut a = home.listening(&alice, Login::default()).await?;
    let mut b = home.listening(&bob, Login::default()).await?;
    let bytes: Vec<String> = (0..300_000).map(|n| (n % 256).to_string()).collect();
    let body = format!(
        r#"{{"from":"{}","content":[{}]}}"#,
        alice.id,
        bytes.join(",")
    )
    .into_bytes();
    assert!(body.len() > 1_000_000);
    a.send(&bob.inbox(), body.clone()).await?;
    b.message(&bob.inbox(), &body).await
}

macro_rules! told {
    ($($name:ident: $version:ident, $way:ident;)*) => { $(
        mod $name {
            use super::{Home, Outcome, Version, Way};

            told!(@ $version, $way:
                friends_write_to_each_other,
                a_stranger_is_refused_and_stays,
                a_block_takes_effect,
                the_second_phone_logs_the_first_one_out,
                the_will_topic_of_deployed_apps,
                who_is_not_let_in,
                a_picture_passes_byte_for_byte,
            );
        }
    )* };
    (@ $version:ident, $way:ident: $($story:ident,)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $story() -> Outcome {
            super::$story(Home::start(Version::$version, Way::$way)?).await
        }
    )* };
}

told! {
    v311_tcp: V311, Tcp;
    v311_tls: V311, Tls;
    v311_ws: V311, Ws;
    v311_wss: V311, Wss;
    v5_tcp: V5, Tcp;
    v5_tls: V5, Tls;
    v5_ws: V5, Ws;
    v5_wss: V5, Wss;
}
