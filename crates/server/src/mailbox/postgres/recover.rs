//! What is in the database when it is opened.
//!
//! Invariants: contents are not read, only numbers and names, and no table is held in memory twice; what cannot be right is an
//! error, for half a mailbox would be taken for a whole one.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jam_core::directory::{Life, Mark};
use jam_core::ids::ClientId;
use jam_core::message::Message;
use jam_core::store::{
    OutboundStates, OwnerRecord, PushRecord, Recovered, RecoveredClaim, RecoveredEntry,
    RetainedTopic, Seq, SessionId, SessionRecord, WillRecord,
};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use jam_wire::packet::PacketId;
use tokio::time::timeout;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::connection::{Database, no_answer};
use super::fence::NODE;
use crate::mailbox::kept::{Kept, PacketKey};
use crate::mailbox::values::{self as val, Wrong, wrong};
use crate::postgres::PostgresError;

/// How long the next row may be missing before nobody waits for it any more: what comes before the first is read and sorted.
const ROW_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a mailbox cannot be read.
#[derive(Debug)]
pub(super) enum RecoverError {
    /// It cannot be asked.
    Database(PostgresError),
    /// What is there is not what this program has written.
    Damaged(String),
}

impl From<tokio_postgres::Error> for RecoverError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<Wrong> for RecoverError {
    fn from(wrong: Wrong) -> Self {
        Self::Damaged(wrong.to_string())
    }
}

/// Bits of a number that a process gives; its incarnation is in those above.
pub(super) const NUMBER_BITS: u32 = 40;

/// The numbers of a process are above those of all before it: messages, sessions and wills.
pub(super) fn last_seq(incarnation: i64) -> Seq {
    val::from_number(incarnation).unwrap_or(0) << NUMBER_BITS
}

/// All but the messages of the logs, and what the writer needs to know.
pub(super) struct WholeDatabase {
    pub(super) recovered: Recovered,
    pub(super) kept: Kept,
    /// The next `in_flight.position`.
    pub(super) position: i64,
}

type OneSession = (SessionRecord, Vec<PacketId>, OutboundStates);

/// Reads everything but contents and the entries of the logs.
pub(super) async fn recover(
    database: &Database,
    incarnation: i64,
) -> Result<WholeDatabase, RecoverError> {
    let client = database.client();
    let mut sessions = sessions(client).await?;
    let mut kept = Kept::default();
    kept.sessions(sessions.iter().map(|(record, ..)| record.id));
    subscriptions(client, &mut sessions).await?;
    received(client, &mut sessions, &mut kept).await?;
    let position = in_flight(client, &mut sessions, &mut kept).await?;
    let claims = claims(client).await?;
    for claim in &claims {
        kept.claim(claim.session, claim.seq);
    }
    let last_seq = last_seq(incarnation);
    let wills = wills(client).await?;
    let numbers = sessions.iter().map(|(record, ..)| record.id);
    if numbers
        .chain(wills.iter().map(|due| due.id))
        .any(|number| number > last_seq)
    {
        return Err(gone_back());
    }
    let recovered = Recovered {
        sessions,
        retained: retained(client).await?,
        claims,
        wills,
        pushes: pushes(client).await?,
        owners: owners(client).await?,
        last_seq,
        clock: clock(client).await?,
    };
    Ok(WholeDatabase {
        recovered,
        kept,
        position,
    })
}

fn gone_back() -> RecoverError {
    RecoverError::Damaged(
        "it has numbers above cluster.epoch, which was set back: restore the whole database, or raise it with \
         UPDATE cluster SET epoch = (SELECT max(seq) >> 40 FROM message) + 1"
            .to_owned(),
    )
}

/// Hands over the rows of a query, one at a time.
async fn each(
    client: &Client,
    sql: &str,
    mut take: impl FnMut(&Row) -> Result<(), Wrong>,
) -> Result<(), RecoverError> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = timeout(ROW_TIMEOUT, client.query_raw(sql, none)).await;
    let mut rows = pin!(rows.map_err(|_| silent())??);
    while let Some(row) = timeout(ROW_TIMEOUT, rows.next())
        .await
        .map_err(|_| silent())?
    {
        take(&row?)?;
    }
    Ok(())
}

fn silent() -> RecoverError {
    RecoverError::Database(no_answer(ROW_TIMEOUT))
}

fn find(sessions: &mut [OneSession], id: SessionId) -> Option<&mut OneSession> {
    let index = sessions.binary_search_by_key(&id, |(record, ..)| record.id);
    index.ok().map(|index| &mut sessions[index])
}

async fn sessions(client: &Client) -> Result<Vec<OneSession>, RecoverError> {
    let sql = r#"SELECT id, "user", client, slot, expiry, ends_at, will, will_delay, will_at, maybe_sent, token
         FROM session ORDER BY id"#;
    let mut sessions: Vec<OneSession> = Vec::new();
    each(client, sql, |row| {
        let record = session(row)?;
        // In different parts the database would not see it.
        if sessions
            .last()
            .is_some_and(|(last, ..)| last.id == record.id)
        {
            return Err(wrong("a number"));
        }
        sessions.push((record, Vec::new(), OutboundStates::new()));
        Ok(())
    })
    .await?;
    Ok(sessions)
}

fn session(row: &Row) -> Result<SessionRecord, Wrong> {
    let will = match row.get::<_, Option<&[u8]>>(6) {
        Some(body) => Some(Box::new(val::decode_will(body, delay(row.get(7))?)?)),
        None => None,
    };
    Ok(SessionRecord {
        id: val::from_number(row.get(0))?,
        user: val::user(row.get(1))?,
        client: ClientId::new(row.get::<_, &str>(2)),
        slot: row
            .get::<_, i16>(3)
            .try_into()
            .map_err(|_| wrong("a slot"))?,
        expiry: val::from_duration(row.get(4))?,
        ends_at: val::time(row.get(5))?,
        will,
        will_at: val::time(row.get(8))?,
        subscriptions: Vec::new(),
        maybe_sent_before_crash: val::from_number(row.get(9))?,
        token: val::mark(row.get(10))?,
    })
}

fn delay(secs: Option<i64>) -> Result<Option<u32>, Wrong> {
    let secs = secs.map(u32::try_from).transpose();
    secs.map_err(|_| wrong("the delay of a will"))
}

async fn subscriptions(client: &Client, sessions: &mut [OneSession]) -> Result<(), RecoverError> {
    let sql = "SELECT session, topic, options, id FROM subscription ORDER BY session, topic";
    each(client, sql, |row| {
        let what = || wrong("the options of a subscription");
        let options = u8::try_from(row.get::<_, i16>(2)).map_err(|_| what())?;
        let id = row.get::<_, Option<i64>>(3).map(u32::try_from).transpose();
        let subscription = val::subscription(row.get(1), options, id.map_err(|_| what())?)?;
        if let Some((record, ..)) = find(sessions, val::from_number(row.get(0))?) {
            record.subscriptions.push(subscription);
        }
        Ok(())
    })
    .await
}

async fn received(
    client: &Client,
    sessions: &mut [OneSession],
    kept: &mut Kept,
) -> Result<(), RecoverError> {
    let sql = "SELECT session, packet_id FROM received ORDER BY session, packet_id";
    each(client, sql, |row| {
        let session = val::from_number(row.get(0))?;
        let id = val::packet_id(row.get::<_, i32>(1).into())?;
        kept.packet(PacketKey::received(session, id));
        if let Some((_, received, _)) = find(sessions, session) {
            received.push(id);
        }
        Ok(())
    })
    .await
}

/// Says the next position.
async fn in_flight(
    client: &Client,
    sessions: &mut [OneSession],
    kept: &mut Kept,
) -> Result<i64, RecoverError> {
    let sql =
        "SELECT session, packet_id, state, message, position FROM in_flight ORDER BY position";
    let mut next = 0;
    each(client, sql, |row| {
        let session = val::from_number(row.get(0))?;
        let id = val::packet_id(row.get::<_, i32>(1).into())?;
        let state = val::from_in_flight(row.get(2), row.get(3))?;
        next = row.get::<_, i64>(4).saturating_add(1);
        kept.packet(PacketKey::in_flight(session, id));
        if let Some((_, _, states)) = find(sessions, session) {
            states.push((id, state));
        }
        Ok(())
    })
    .await?;
    Ok(next)
}

async fn claims(client: &Client) -> Result<Vec<RecoveredClaim>, RecoverError> {
    let sql = r#"SELECT claim.session, claim.message, session."user" FROM claim
         JOIN session ON session.part = claim.part AND session.id = claim.session ORDER BY 1, 2"#;
    let mut claims = Vec::new();
    each(client, sql, |row| {
        claims.push(RecoveredClaim {
            session: val::from_number(row.get(0))?,
            seq: val::from_number(row.get(1))?,
            user: val::user(row.get(2))?,
        });
        Ok(())
    })
    .await?;
    Ok(claims)
}

async fn wills(client: &Client) -> Result<Vec<WillRecord>, RecoverError> {
    let sql = r#"SELECT id, "user", body, token FROM will ORDER BY id"#;
    let mut wills = Vec::new();
    each(client, sql, |row| {
        wills.push(WillRecord {
            id: val::from_number(row.get(0))?,
            user: val::user(row.get(1))?,
            will: Box::new(val::decode_will(row.get(2), None)?),
            token: val::mark(row.get(3))?,
        });
        Ok(())
    })
    .await?;
    Ok(wills)
}

async fn retained(client: &Client) -> Result<Vec<RetainedTopic>, RecoverError> {
    let sql = r#"SELECT message, "user", topic FROM retained ORDER BY message"#;
    let mut retained = Vec::new();
    each(client, sql, |row| {
        retained.push(RetainedTopic {
            seq: val::from_number(row.get(0))?,
            user: val::user(row.get(1))?,
            topic: row.get::<_, &str>(2).into(),
        });
        Ok(())
    })
    .await?;
    Ok(retained)
}

async fn pushes(client: &Client) -> Result<Vec<PushRecord>, RecoverError> {
    let sql =
        r#"SELECT "user", sender, message, sent, at, expires_at FROM push ORDER BY "user", sender"#;
    let mut pushes = Vec::new();
    each(client, sql, |row| {
        pushes.push(PushRecord {
            receiver: val::user(row.get(0))?,
            sender: val::user(row.get(1))?,
            seq: val::from_number(row.get(2))?,
            sent: row.get(3),
            at: Time::from_millis(val::from_number(row.get(4))?),
            expires_at: val::from_expiry(row.get(5))?,
        });
        Ok(())
    })
    .await?;
    Ok(pushes)
}

async fn owners(client: &Client) -> Result<Vec<OwnerRecord>, RecoverError> {
    let sql =
        r#"SELECT "user", email, name, password, made_up, gone_since FROM owner ORDER BY "user""#;
    let mut owners = Vec::new();
    each(client, sql, |row| {
        let mark = |at: usize| -> Result<Option<Mark>, Wrong> { val::mark(row.get(at)) };
        owners.push(OwnerRecord {
            user: val::user(row.get(0))?,
            life: Life {
                email: mark(1)?,
                name: mark(2)?,
                password: mark(3)?,
                made_up: row.get(4),
            },
            gone_since: val::time(row.get(5))?,
        });
        Ok(())
    })
    .await?;
    Ok(owners)
}

/// What was remembered of the clocks; `None` of a mailbox that has never been served.
pub(super) async fn clock(client: &Client) -> Result<Option<ClockRecord>, RecoverError> {
    let sql =
        "SELECT time, wall_offset, boot, since_boot, proved_offset FROM clock WHERE node = $1";
    let row = client.query_opt(sql, &[&NODE]).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ClockRecord {
        time: Time::from_millis(val::from_number(row.get(0))?),
        offset_millis: row.get(1),
        boot: val::from_number(row.get(2))?,
        since_boot: val::from_duration(row.get(3))?,
        proved_offset_millis: row.get(4),
    }))
}

/// Takes every message of the logs, in any order. How many there are. `last` is the highest number that there can be.
pub(super) async fn all_entries(
    client: &Client,
    last: Seq,
    take: &(dyn Fn(RecoveredEntry) + Sync),
) -> Result<usize, RecoverError> {
    let sql = r#"COPY (SELECT seq, "user", sender, flags, waits_for, acknowledged, received_at, expires_at, size
         FROM message) TO STDOUT (FORMAT binary)"#;
    let types = [
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::INT2,
        Type::INT4,
        Type::BOOL,
        Type::INT8,
        Type::INT8,
        Type::INT4,
    ];
    let copy = timeout(ROW_TIMEOUT, client.copy_out(sql))
        .await
        .map_err(|_| silent())??;
    let mut rows = pin!(BinaryCopyOutStream::new(copy, &types));
    let mut count = 0;
    while let Some(row) = timeout(ROW_TIMEOUT, rows.try_next())
        .await
        .map_err(|_| silent())??
    {
        let flags = val::Flags::from_number(row.get::<i16>(3).into())?;
        let entry = RecoveredEntry {
            seq: val::from_number(row.get(0))?,
            user: val::user(row.get(1))?,
            sender: val::user(row.get(2))?,
            inbox: flags.inbox,
            retained: flags.retained,
            qos: flags.qos,
            waits_for: row.get::<i32>(4).cast_unsigned(),
            acknowledged: row.get(5),
            received_at: Time::from_millis(val::from_number(row.get(6))?),
            expires_at: val::from_expiry(row.get(7))?,
            size: u32::try_from(row.get::<i32>(8)).map_err(|_| wrong("a size"))?,
        };
        if entry.seq > last {
            return Err(gone_back());
        }
        take(entry);
        count += 1;
    }
    Ok(count)
}

/// Reads everything there is, contents too, and keeps nothing of it but the number of messages that wait.
pub(super) async fn contents(database: &Database) -> Result<u64, RecoverError> {
    let client = database.client();
    let found = recover(database, i64::MAX >> 40).await?;
    all_entries(client, Seq::MAX, &drop).await?;
    let sql = "SELECT sender, received_at, expires_at, body, sender_life FROM message";
    let mut messages = 0;
    each(client, sql, |row| {
        message(row, false)?;
        messages += 1;
        Ok(())
    })
    .await?;
    let retained = found.recovered.retained.len() as u64;
    Ok(messages.max(retained) - retained)
}

/// A message of a row that begins with sender, times, content, and whose account the sender's was.
pub(super) fn message(row: &Row, has_packet_id: bool) -> Result<Arc<Message>, Wrong> {
    let life = row
        .get::<_, Option<&[u8]>>(4)
        .map(val::from_life)
        .transpose()?;
    let sender = (val::user(row.get(0))?, life);
    val::decode_message(row.get(3), has_packet_id, sender, row.get(1), row.get(2))
}
