use proptest::prelude::*;

use super::*;

fn subscription(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    }
}

#[test]
fn subscriptions_are_by_exact_name_and_bounded() {
    let mut session = Session::default();
    assert_eq!(session.subscribe(subscription("/1/0")), Some(true));
    assert_eq!(session.subscribe(subscription("/1/0")), Some(false));
    for n in 1..MAX_SUBSCRIPTIONS {
        assert_eq!(
            session.subscribe(subscription(&format!("/1/{n}"))),
            Some(true)
        );
    }
    assert_eq!(session.subscribe(subscription("/1/more")), None);
    assert_eq!(session.subscribe(subscription("/1/0")), Some(false));
    assert!(session.unsubscribe("/1/0"));
    assert!(!session.unsubscribe("/1/0"));
    assert!(session.subscription("/1/0").is_none());
    assert_eq!(session.subscribe(subscription("/1/more")), Some(true));
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_an_error_and_changes_nothing() {
    let mut session = Session::default();
    let one = session.send(1, QoS::AtLeastOnce, SendState::Sent, None);
    let two = session.send(2, QoS::ExactlyOnce, SendState::Sent, None);
    assert_eq!(session.pub_rec(one, false, SendState::Sent), Err(WrongAck));
    assert_eq!(session.pub_comp(one), Err(WrongAck));
    assert_eq!(session.pub_ack(two), Err(WrongAck));
    assert_eq!(session.pub_comp(two), Err(WrongAck));
    let first = Ok(PubRecOutcome::Acked(2));
    assert_eq!(session.pub_rec(two, false, SendState::AwaitingStore), first);
    assert_eq!(session.pub_comp(two), Err(WrongAck), "before its PUBREL");
    session.stored(two);
    session.sent(two);
    let again = Ok(PubRecOutcome::Repeated);
    assert_eq!(session.pub_rec(two, false, SendState::Sent), again);
    assert_eq!(session.pub_ack(two), Err(WrongAck));
    assert_eq!(session.on_the_way(), 2);
    assert_eq!(session.pub_comp(two), Ok(true));
    assert_eq!(session.pub_comp(two), Ok(false));
    assert_eq!(session.pub_ack(one), Ok(Some((1, None))));
    assert_eq!(session.pub_ack(one), Ok(None));
    assert_eq!(session.on_the_way(), 0);
}

/// After a crash it would be sent again, to a client that has been told to forget it.
#[test]
fn a_repeated_pubrec_hurries_no_pubrel_that_waits_for_the_store() {
    let mut session = Session::default();
    let id = session.send(1, QoS::ExactlyOnce, SendState::Sent, None);
    let first = Ok(PubRecOutcome::Acked(1));
    assert_eq!(session.pub_rec(id, false, SendState::AwaitingStore), first);
    let again = Ok(PubRecOutcome::Repeated);
    assert_eq!(session.pub_rec(id, false, SendState::AwaitingStore), again);
    assert_eq!(session.due().count(), 0);
    session.stored(id);
    assert_eq!(session.due().count(), 1);
}

#[test]
fn a_refused_qos_2_message_is_done_with() {
    let mut session = Session::default();
    let id = session.send(1, QoS::ExactlyOnce, SendState::Sent, None);
    let first = Ok(PubRecOutcome::Acked(1));
    assert_eq!(session.pub_rec(id, true, SendState::Sent), first);
    let unknown = Ok(PubRecOutcome::Unknown);
    assert_eq!(session.pub_rec(id, true, SendState::Sent), unknown);
    assert_eq!(session.on_the_way(), 0);
}

/// What is parked takes a packet id and no place in the window: without this there would be no end to looking for one.
#[test]
fn when_all_packet_ids_are_on_their_way_there_is_none_for_something_new() {
    let all = (1..=u16::MAX).filter_map(PacketId::new);
    let flights = all.map(|id| (id, OutboundState::AwaitsPubAck(1))).collect();
    let mut session = Session::restore(Vec::new(), Vec::new(), flights);
    assert!(!session.has_free_packet_id());
    let one = PacketId::new(4711).unwrap();
    session.complete(one);
    assert!(session.has_free_packet_id());
    assert_eq!(
        session.send(2, QoS::AtLeastOnce, SendState::Sent, None),
        one
    );
}

#[test]
fn packet_ids_skip_0_and_those_on_their_way() {
    let mut session = Session {
        last_packet_id: u16::MAX - 1,
        ..Session::default()
    };
    let ids = [(); 3].map(|()| {
        session
            .send(1, QoS::AtLeastOnce, SendState::Sent, None)
            .get()
    });
    assert_eq!(ids, [u16::MAX, 1, 2]);
    session.last_packet_id = u16::MAX - 1;
    assert_eq!(
        session
            .send(1, QoS::AtLeastOnce, SendState::Sent, None)
            .get(),
        3
    );
}

proptest! {
    /// Whatever is answered and however often the connection breaks: what is sent again keeps its order
    /// and its id, and ids are distinct.
    #[test]
    fn what_comes_again_is_in_order(
        steps in prop::collection::vec((0..8u8, any::<prop::sample::Index>()), 0..80)
    ) {
        let mut session = Session::default();
        let mut seq = 0;
        for (step, index) in steps {
            let ids: Vec<_> = session.packets().in_flight.iter().map(|it| it.packet_id).collect();
            let id = (!ids.is_empty()).then(|| *index.get(&ids));
            match (step, id) {
                (0 | 1, _) => {
                    seq += 1;
                    let qos = if step == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                    let id = session.send(seq, qos, SendState::Sent, None);
                    prop_assert!(!ids.contains(&id));
                }
                (2, Some(id)) => { let _ = session.pub_ack(id); },
                (3, Some(id)) => { let _ = session.pub_rec(id, false, SendState::Sent); },
                (4, Some(id)) => { let _ = session.pub_comp(id); },
                (5, _) => {
                    session.disconnected();
                    prop_assert_eq!(session.on_the_way(), 0);
                    let again: Vec<_> = session.due().map(|it| it.packet_id).collect();
                    prop_assert_eq!(&again, &ids);
                    again.into_iter().for_each(|id| session.sent(id));
                }
                (6, _) => session.disconnected(),
                (7, Some(id)) if session.due().any(|it| it.packet_id == id) => session.park(id),
                _ => {}
            }
            let count = |counts: fn(&InFlight) -> bool| {
                session.packets().in_flight.iter().filter(|it| counts(it)).count()
            };
            let packets = session.packets();
            prop_assert_eq!(usize::from(packets.due), count(InFlight::is_due));
            prop_assert_eq!(usize::from(packets.carried_over), count(InFlight::is_carried_over));
            prop_assert_eq!(session.on_the_way(), count(|it| it.in_window));
            prop_assert!(!session.due().any(|it| it.send_state == SendState::Parked));
        }
    }
}

#[test]
fn every_subscription_is_found_as_others_come_and_go() {
    let mut session = Session::default();
    let mut topics = BTreeSet::new();
    for n in 0..5000_u32 {
        let topic = format!("/1/{}", n.wrapping_mul(0x9E37_79B9) % 60);
        if n % 3 == 0 || topics.len() >= 40 {
            assert_eq!(session.unsubscribe(&topic), topics.remove(&topic));
        } else {
            assert_eq!(
                session.subscribe(subscription(&topic)),
                Some(topics.insert(topic))
            );
        }
        if n % 100 == 0 {
            for n in 0..60 {
                let topic = format!("/1/{n}");
                let found = session.subscription(&topic);
                assert_eq!(found.is_some(), topics.contains(&topic));
                assert!(found.is_none_or(|found| found.topic == topic));
            }
        }
    }
}
