//! What commands see and remove, with a server running or not.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use jam_core::message::Message;
use jam_core::store::{MailboxStore as _, OutboundState, Write};
use jam_core::time::Time;

use super::setting::{
    Hooks, Kind, PATIENCE, Setting, append, append_of, id, record, retain_of, seqs, subscription,
    user,
};
use crate::mailbox::PurgeScope::{Inbox, InboxFrom};
use crate::mailbox::Purged;

pub(in crate::mailbox) fn an_overview_counts_and_shows_nothing<K: Kind>() {
    let setting = Setting::<K>::new();
    setting.write([
        append_of(1, "1", "abc"),
        append_of(2, "2", "abc"),
        append_of(3, "1", "de"),
    ]);
    setting.write([
        Write::Session(record(4)),
        Write::Subscribe(4, Box::new(subscription("/1/inbox"))),
        Write::InFlight(4, id(1), OutboundState::AwaitsPubAck(1)),
    ]);
    setting.flush();
    let overview = setting.admin().show(&user("1")).unwrap();
    assert_eq!(
        (overview.messages, overview.bytes, overview.retained),
        (2, 5 + 2 * "/1/inbox".len() as u64, 0)
    );
    assert_eq!(overview.oldest, Some(Time::from_millis(1_700_000_000_000)));
    let session = &overview.sessions[0];
    assert_eq!(
        (session.subscriptions, session.received, session.in_flight),
        (1, 0, 1)
    );
    assert_eq!(session.client, "1:phone");
    let nobody = setting.admin().show(&user("3")).unwrap();
    assert_eq!((nobody.messages, nobody.oldest), (0, None));
}

pub(in crate::mailbox) fn a_server_is_asked_to_purge<K: Kind>() {
    let mut setting = Setting::<K>::new();
    let (to, asked) = sync_channel(10);
    let on_purge = move |user, up_to, from| to.send((user, up_to, from)).unwrap();
    setting.mailbox().attach(Box::new(Hooks {
        on_purge: Some(Box::new(on_purge)),
        ..Hooks::default()
    }));
    setting.write([append(1), append(3)]);
    setting.write([append_of(2, "2", "x")]);
    setting.flush();
    assert_eq!(
        setting.admin().purge(&user("1"), Inbox).unwrap(),
        Purged::Asked
    );
    assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), (user("1"), 3, None));
    // The router has them removed; here nobody does.
    assert_eq!(setting.reopen().entries.len(), 3);
    setting.close();
    assert_eq!(
        setting.admin().purge(&user("1"), Inbox).unwrap(),
        Purged::Removed(2)
    );
    let left: Vec<_> = setting
        .reopen()
        .entries
        .iter()
        .map(|entry| entry.seq)
        .collect();
    assert_eq!(left, [2]);
    // Nobody listens: it is done at the next start.
    assert_eq!(
        setting.admin().purge(&user("2"), Inbox).unwrap(),
        Purged::Asked
    );
    assert!(setting.reopen().entries.is_empty());
}

pub(in crate::mailbox) fn one_sender_s_messages_are_purged<K: Kind>() {
    let mut setting = Setting::<K>::new();
    setting.write([append(1), append(2), append_of(3, "2", "x")]);
    setting.flush();
    let (receiver, sender, other) = (user("1"), user("7"), user("8"));
    let count = |scope| setting.admin().count(&receiver, scope).unwrap();
    assert_eq!(
        (
            count(Inbox),
            count(InboxFrom(&sender)),
            count(InboxFrom(&other))
        ),
        (2, 2, 0)
    );
    // Nobody listens: it is done at the next start.
    for from in [&other, &sender] {
        let asked = setting.admin().purge(&receiver, InboxFrom(from)).unwrap();
        assert_eq!(asked, Purged::Asked);
        assert!(
            setting
                .admin()
                .is_purge_due(&receiver, InboxFrom(from))
                .unwrap()
        );
    }
    assert_eq!(setting.reopen().entries.len(), 1);
    setting.close();
    let stopped = |from| setting.admin().purge(&user("2"), InboxFrom(from)).unwrap();
    assert_eq!(stopped(&other), Purged::Removed(0));
    assert_eq!(stopped(&sender), Purged::Removed(1));
}

pub(in crate::mailbox) fn a_purge_at_the_start_takes_one_sender_s_messages_up_to_the_request<
    K: Kind,
>() {
    let mut setting = Setting::<K>::new();
    let of_another = |seq| match append(seq) {
        Write::Append(mut append) => {
            let message = &append.message;
            let (publish, at) = (message.to_stored(), message.received_at());
            let message = Message::from_stored(publish, user("8"), None, at, Time::NEVER);
            append.message = Arc::new(message);
            Write::Append(append)
        }
        other => other,
    };
    setting.write([append(1), of_another(2)]);
    setting.flush();
    let admin = setting.admin();
    let seven = user("7");
    let asked = admin.purge(&user("1"), InboxFrom(&seven));
    assert_eq!(asked.unwrap(), Purged::Asked);
    setting.write([append(3), of_another(4)]);
    assert_eq!(seqs(&setting.reopen()), [2, 3, 4]);
    let asked = admin.purge(&user("1"), Inbox);
    assert_eq!(asked.unwrap(), Purged::Asked);
    setting.write([append(5)]);
    assert_eq!(seqs(&setting.reopen()), [5]);
}

pub(in crate::mailbox) fn a_purge_leaves_what_is_retained<K: Kind>() {
    let mut setting = Setting::<K>::new();
    setting.write([append(1), retain_of(2, "/1/a", "a")]);
    setting.flush();
    let overview = setting.admin().show(&user("1")).unwrap();
    assert_eq!(
        (overview.messages, overview.bytes, overview.retained),
        (1, 9, 1)
    );
    setting.close();
    let purge = |setting: &Setting<K>| setting.admin().purge(&user("1"), Inbox).unwrap();
    assert_eq!(purge(&setting), Purged::Removed(1));
    setting.reopen();
    setting.write([append(3)]);
    setting.flush();
    // Done at the next start.
    assert_eq!(purge(&setting), Purged::Asked);
    let recovered = setting.reopen();
    let left: Vec<_> = recovered.entries.iter().map(|it| it.seq).collect();
    assert_eq!((left, recovered.retained.len()), (vec![2], 1));
}
