//! A batch as columns, and the statements that take them.
//!
//! A batch is a few statements, however many rows it has: each takes arrays, one for each column. The content of messages is
//! encoded when its statement is sent, into what is sent.
//!
//! Invariants: the same batch gives the same rows each time; what is put comes before what goes. In one batch a key is put
//! once at most (`pending`), but for a will and a retained message that go in it.

use std::error::Error;
use std::fmt;

use bytes::{BufMut, BytesMut};
use jam_core::directory::Mark;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{
    Append, OwnerRecord, PushRecord, SessionRecord, Subscription, WillRecord, Write,
};
use jam_core::timekeeping::ClockRecord;
use jam_wire::EncodeError;
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};
use tokio_postgres::{Client, Statement};
use twox_hash::XxHash32;

use super::purging::PurgeRequest;
use super::schema::PARTS;
use crate::mailbox::pending::{Op, Pending};
use crate::mailbox::values as val;

/// Bytes of content in one statement, and rows: what is more goes into another one.
const INSERT_BYTES: usize = 4 << 20;
const INSERT_ROWS: usize = 8_192;

/// The part that a user is in.
pub(super) fn part_of(user: &UserId) -> u16 {
    let hash = XxHash32::oneshot(0, user.as_str().as_bytes());
    u16::try_from(hash % u32::from(PARTS)).expect("there are fewer parts")
}

/// As it stands in the tables.
pub(super) fn part(part: u16) -> i16 {
    i16::try_from(part).expect("there are 4096 parts")
}

fn of(user: &UserId) -> i16 {
    part(part_of(user))
}

macro_rules! statements {
    ($($name:ident: $sql:expr,)*) => {
        /// A statement of a batch.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Sql { $($name,)* }

        impl Sql {
            pub(super) const ALL: &[&str] = &[$($sql,)*];
        }
    };
}

// By key: (part, session) with a third column, or two columns.
macro_rules! delete {
    ($table:literal, $($column:literal $kind:literal),*) => {
        concat!(
            "DELETE FROM ", $table, " t USING unnest(", delete!(@types 1 $($kind)*), ") d(",
            delete!(@list $($column)*), ") WHERE ", delete!(@same $($column)*)
        )
    };
    (@types 1 $a:literal $b:literal) => { concat!("$1::", $a, "[], $2::", $b, "[]") };
    (@types 1 $a:literal $b:literal $c:literal) => { concat!("$1::", $a, "[], $2::", $b, "[], $3::", $c, "[]") };
    (@types 1 $a:literal $b:literal $c:literal $d:literal) => {
        concat!("$1::", $a, "[], $2::", $b, "[], $3::", $c, "[], $4::", $d, "[]")
    };
    (@list $a:literal $($b:literal)*) => { concat!($a, $(", ", $b),*) };
    (@same $a:literal $($b:literal)*) => { concat!("t.", $a, " = d.", $a, $(" AND t.", $b, " = d.", $b),*) };
}

statements! {
    Begin: "SELECT jam_begin($1, $2)",
    PutMessages: r#"INSERT INTO message (part, seq, "user", sender, flags, waits_for, acknowledged, received_at,
        expires_at, size, body, sender_life)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::text[], $4::text[], $5::int2[], $6::int4[], $7::bool[],
            $8::int8[], $9::int8[], $10::int4[], $11::bytea[], $12::bytea[])"#,
    PutRetained: r#"INSERT INTO retained (part, message, "user", topic)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::text[], $4::text[])"#,
    PutSessions: r#"INSERT INTO session (part, id, "user", client, slot, expiry, ends_at, will, will_delay, will_at,
        maybe_sent, token)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::text[], $4::text[], $5::int2[], $6::int8[], $7::int8[],
            $8::bytea[], $9::int8[], $10::int8[], $11::int8[], $12::bytea[])
        ON CONFLICT (part, id) DO UPDATE SET "user" = excluded."user", client = excluded.client, slot = excluded.slot,
            expiry = excluded.expiry, ends_at = excluded.ends_at, will = excluded.will,
            will_delay = excluded.will_delay, will_at = excluded.will_at, maybe_sent = excluded.maybe_sent,
            token = excluded.token"#,
    PutSubscriptions: "INSERT INTO subscription (part, session, topic, options, id)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::text[], $4::int2[], $5::int8[])
        ON CONFLICT (part, session, topic) DO UPDATE SET options = excluded.options, id = excluded.id",
    PutReceived: "INSERT INTO received (part, session, packet_id)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::int4[]) ON CONFLICT DO NOTHING",
    PutInFlight: "INSERT INTO in_flight (part, session, packet_id, state, message, position)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::int4[], $4::int2[], $5::int8[], $6::int8[])
        ON CONFLICT (part, session, packet_id)
            DO UPDATE SET state = excluded.state, message = excluded.message, position = excluded.position",
    PutClaims: "INSERT INTO claim (part, session, message)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::int8[]) ON CONFLICT DO NOTHING",
    PutWills: r#"INSERT INTO will (part, id, "user", body, token)
        SELECT * FROM unnest($1::int2[], $2::int8[], $3::text[], $4::bytea[], $5::bytea[])"#,
    PutPushes: r#"INSERT INTO push (part, "user", sender, message, sent, at, expires_at)
        SELECT * FROM unnest($1::int2[], $2::text[], $3::text[], $4::int8[], $5::bool[], $6::int8[], $7::int8[])
        ON CONFLICT (part, "user", sender) DO UPDATE SET message = excluded.message, sent = excluded.sent,
            at = excluded.at, expires_at = excluded.expires_at"#,
    PutOwners: r#"INSERT INTO owner (part, "user", email, name, password, made_up, gone_since)
        SELECT * FROM unnest($1::int2[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bool[], $7::int8[])
        ON CONFLICT (part, "user") DO UPDATE SET email = excluded.email, name = excluded.name,
            password = excluded.password, made_up = excluded.made_up, gone_since = excluded.gone_since"#,
    Acknowledge: "UPDATE message m SET waits_for = d.waits_for, acknowledged = true
        FROM unnest($1::int2[], $2::int8[], $3::int4[]) d(part, seq, waits_for)
        WHERE m.part = d.part AND m.seq = d.seq",
    EndRetained: delete!("retained", "part" "int2", "message" "int8"),
    EndSubscriptions: delete!("subscription", "part" "int2", "session" "int8", "topic" "text"),
    EndReceived: delete!("received", "part" "int2", "session" "int8", "packet_id" "int4"),
    EndInFlight: delete!("in_flight", "part" "int2", "session" "int8", "packet_id" "int4"),
    EndClaims: delete!("claim", "part" "int2", "session" "int8", "message" "int8"),
    EndWills: delete!("will", "part" "int2", "id" "int8"),
    EndPushes: delete!("push", "part" "int2", "\"user\"" "text", "sender" "text"),
    EndOwners: delete!("owner", "part" "int2", "\"user\"" "text"),
    EndSessions: delete!("session", "part" "int2", "id" "int8"),
    EndSubscriptionsOf: delete!("subscription", "part" "int2", "session" "int8"),
    EndReceivedOf: delete!("received", "part" "int2", "session" "int8"),
    EndInFlightOf: delete!("in_flight", "part" "int2", "session" "int8"),
    EndClaimsOf: delete!("claim", "part" "int2", "session" "int8"),
    RemoveMessages: delete!("message", "part" "int2", "seq" "int8"),
    ForgetPurges: delete!("purge", "part" "int2", "\"user\"" "text", "sender" "text", "up_to" "int8"),
    PutClock: "INSERT INTO clock (node, time, wall_offset, boot, since_boot, proved_offset)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (node) DO UPDATE SET time = excluded.time, wall_offset = excluded.wall_offset,
            boot = excluded.boot, since_boot = excluded.since_boot,
            proved_offset = coalesce(excluded.proved_offset, clock.proved_offset)",
    Trim: "DELETE FROM batch WHERE incarnation = $1 AND n >= $2 AND n < $3",
}

/// The statements of a batch, prepared on a connection.
pub(super) struct PreparedBatch(Vec<Statement>);

impl PreparedBatch {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let all = Sql::ALL.iter().map(|sql| client.prepare(sql));
        futures_util::future::try_join_all(all).await.map(Self)
    }

    pub(super) fn get(&self, sql: Sql) -> &Statement {
        &self.0[sql as usize]
    }
}

type Column<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// A statement with its columns.
pub(super) struct BatchStatement<'a> {
    pub(super) sql: Sql,
    pub(super) columns: Vec<Column<'a>>,
    /// Bytes of content, about.
    pub(super) bytes: usize,
}

impl<'a> BatchStatement<'a> {
    pub(super) fn new(sql: Sql, columns: Vec<Column<'a>>) -> Self {
        Self {
            sql,
            columns,
            bytes: 0,
        }
    }
}

/// The content of a message.
enum MessageBody<'a> {
    Of(&'a Message),
    Zeros(usize),
}

impl fmt::Debug for MessageBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageBody")
    }
}

impl ToSql for MessageBody<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Of(message) => val::append_message(message, out)?,
            Self::Zeros(count) => out.put_bytes(0, *count),
        }
        Ok(IsNull::No)
    }

    accepts!(BYTEA);
    to_sql_checked!();
}

/// A message of nobody, with so many bytes, that goes in the batch in which it comes. No other has its number.
pub(super) fn trial(bytes: usize) -> Vec<BatchStatement<'static>> {
    let mut requests = Vec::new();
    let message = Messages {
        part: vec![0],
        seq: vec![0],
        user: vec![""],
        sender: vec![""],
        flags: vec![0],
        waits_for: vec![0],
        acknowledged: vec![false],
        received_at: vec![0],
        expires_at: vec![None],
        size: vec![0],
        body: vec![MessageBody::Zeros(bytes)],
        sender_life: vec![None],
        of: std::marker::PhantomData,
    };
    message.request(&mut requests);
    let columns: Vec<Column<'_>> = vec![Box::new([0_i16].as_slice()), Box::new([0_i64].as_slice())];
    requests.push(BatchStatement::new(Sql::RemoveMessages, columns));
    requests
}

/// What goes into one statement: the columns of so many rows.
macro_rules! columns {
    ($name:ident { $($column:ident: $kind:ty,)* } $sql:expr) => {
        #[derive(Default)]
        struct $name<'a> { $($column: Vec<$kind>,)* of: std::marker::PhantomData<&'a ()> }

        impl<'a> $name<'a> {
            fn request(self, requests: &mut Vec<BatchStatement<'a>>) {
                if !self.part.is_empty() {
                    requests.push(BatchStatement::new($sql, vec![$(Box::new(self.$column) as Column<'a>,)*]));
                }
            }
        }
    };
}

columns!(Messages {
    part: i16, seq: i64, user: &'a str, sender: &'a str, flags: i16, waits_for: i32, acknowledged: bool,
    received_at: i64, expires_at: Option<i64>, size: i32, body: MessageBody<'a>, sender_life: Option<Vec<u8>>,
} Sql::PutMessages);
columns!(Retained { part: i16, message: i64, user: &'a str, topic: &'a str, } Sql::PutRetained);
columns!(Sessions {
    part: i16, id: i64, user: &'a str, client: &'a str, slot: i16, expiry: i64, ends_at: Option<i64>,
    will: Option<Vec<u8>>, will_delay: Option<i64>, will_at: Option<i64>, maybe_sent: i64, token: Option<Vec<u8>>,
} Sql::PutSessions);
columns!(Subscriptions {
    part: i16, session: i64, topic: &'a str, options: i16, id: Option<i64>,
} Sql::PutSubscriptions);
columns!(InFlight {
    part: i16, session: i64, packet_id: i32, state: i16, message: i64, position: i64,
} Sql::PutInFlight);
columns!(Wills { part: i16, id: i64, user: &'a str, body: Vec<u8>, token: Option<Vec<u8>>, } Sql::PutWills);
columns!(Pushes {
    part: i16, user: &'a str, sender: &'a str, message: i64, sent: bool, at: i64, expires_at: Option<i64>,
} Sql::PutPushes);
columns!(Owners {
    part: i16, user: &'a str, email: Option<Vec<u8>>, name: Option<Vec<u8>>, password: Option<Vec<u8>>,
    made_up: bool, gone_since: Option<i64>,
} Sql::PutOwners);
columns!(Acknowledged { part: i16, seq: i64, waits_for: i32, } Sql::Acknowledge);
columns!(Unsubscribed { part: i16, session: i64, topic: &'a str, } Sql::EndSubscriptions);
columns!(EndedPushes { part: i16, user: &'a str, sender: &'a str, } Sql::EndPushes);
columns!(EndedOwners { part: i16, user: &'a str, } Sql::EndOwners);

/// Two or three numbers that are a key.
#[derive(Default)]
struct Pairs {
    part: Vec<i16>,
    number: Vec<i64>,
}

impl Pairs {
    fn push(&mut self, part: i16, number: u64) {
        self.part.push(part);
        self.number.push(val::number(number));
    }

    fn request(self, sql: Sql, requests: &mut Vec<BatchStatement<'_>>) {
        if !self.part.is_empty() {
            let columns: Vec<Column<'_>> = vec![Box::new(self.part), Box::new(self.number)];
            requests.push(BatchStatement::new(sql, columns));
        }
    }
}

#[derive(Default)]
struct Packets {
    part: Vec<i16>,
    session: Vec<i64>,
    packet_id: Vec<i32>,
}

impl Packets {
    fn push(&mut self, part: i16, session: u64, id: jam_wire::packet::PacketId) {
        self.part.push(part);
        self.session.push(val::number(session));
        self.packet_id.push(id.get().into());
    }

    fn request(self, sql: Sql, requests: &mut Vec<BatchStatement<'_>>) {
        if !self.part.is_empty() {
            let columns: Vec<Column<'_>> = vec![
                Box::new(self.part),
                Box::new(self.session),
                Box::new(self.packet_id),
            ];
            requests.push(BatchStatement::new(sql, columns));
        }
    }
}

#[derive(Default)]
struct Claims {
    part: Vec<i16>,
    session: Vec<i64>,
    message: Vec<i64>,
}

impl Claims {
    fn push(&mut self, part: i16, session: u64, message: u64) {
        self.part.push(part);
        self.session.push(val::number(session));
        self.message.push(val::number(message));
    }

    fn request(self, sql: Sql, requests: &mut Vec<BatchStatement<'_>>) {
        if !self.part.is_empty() {
            let columns: Vec<Column<'_>> = vec![
                Box::new(self.part),
                Box::new(self.session),
                Box::new(self.message),
            ];
            requests.push(BatchStatement::new(sql, columns));
        }
    }
}

/// All that one batch puts and ends.
#[derive(Default)]
struct Rows<'a> {
    messages: Vec<(&'a Append, &'a Op)>,
    retained: Retained<'a>,
    sessions: Sessions<'a>,
    subscriptions: Subscriptions<'a>,
    received: Packets,
    in_flight: InFlight<'a>,
    claims: Claims,
    wills: Wills<'a>,
    pushes: Pushes<'a>,
    owners: Owners<'a>,
    acknowledged: Acknowledged<'a>,
    unretained: Pairs,
    unsubscribed: Unsubscribed<'a>,
    released: Packets,
    ended_in_flight: Packets,
    ended_claims: Claims,
    ended_wills: Pairs,
    ended_pushes: EndedPushes<'a>,
    ended_owners: EndedOwners<'a>,
    ended_sessions: Pairs,
    removed: Pairs,
    /// Of the next row of `in_flight`.
    position: i64,
}

/// The changes of a batch, in the order in which they are made. `position` is that of its first row of `in_flight`; the one
/// after its last comes back.
pub(super) fn requests<C>(
    batch: &Pending<C>,
    position: i64,
) -> Result<(Vec<BatchStatement<'_>>, i64), EncodeError> {
    let mut rows = Rows {
        position,
        ..Rows::default()
    };
    for op in &batch.ops {
        if let Some(write) = &op.write {
            rows.take(op, write)?;
        }
    }
    let position = rows.position;
    Ok((rows.requests()?, position))
}

impl<'a> Rows<'a> {
    fn take(&mut self, op: &'a Op, write: &'a Write) -> Result<(), EncodeError> {
        let part = part(op.part);
        match write {
            Write::Append(append) => self.messages.push((append, op)),
            Write::Retain(append) => {
                self.messages.push((append, op));
                self.retained.push(append);
            }
            Write::Session(record) => self.sessions.push(record)?,
            Write::Subscribe(session, subscription) => {
                self.subscriptions.push(part, *session, subscription);
            }
            Write::Received(user, session, id) => self.received.push(of(user), *session, *id),
            Write::InFlight(session, id, state) => {
                let (state, message) = val::in_flight(*state);
                let to = &mut self.in_flight;
                to.part.push(part);
                to.session.push(val::number(*session));
                to.packet_id.push(id.get().into());
                to.state.push(state);
                to.message.push(message);
                to.position.push(self.position);
                self.position += 1;
            }
            Write::Claim(session, seq) => self.claims.push(part, *session, *seq),
            Write::Will(due) => self.wills.push(due)?,
            Write::Push(push) => self.pushes.push(push),
            Write::Owner(owner) => self.owners.push(owner),
            Write::Acknowledged { seq, waits_for } => {
                self.acknowledged.part.push(part);
                self.acknowledged.seq.push(val::number(*seq));
                self.acknowledged.waits_for.push(waits_for.cast_signed());
            }
            Write::AnswerAfter(..) => {}
            ends => self.end(part, ends),
        }
        Ok(())
    }

    /// What goes.
    fn end(&mut self, part: i16, write: &'a Write) {
        match write {
            Write::Unretain(seq) => self.unretained.push(part, *seq),
            Write::Unsubscribe(session, topic) => {
                self.unsubscribed.part.push(part);
                self.unsubscribed.session.push(val::number(*session));
                self.unsubscribed.topic.push(topic);
            }
            Write::Released(session, id) => self.released.push(part, *session, *id),
            Write::EndInFlight(session, id) => self.ended_in_flight.push(part, *session, *id),
            Write::EndClaim(session, seq) => self.ended_claims.push(part, *session, *seq),
            Write::EndWill(user, id) => self.ended_wills.push(of(user), *id),
            Write::EndPush(user, sender) => {
                self.ended_pushes.part.push(of(user));
                self.ended_pushes.user.push(user.as_str());
                self.ended_pushes.sender.push(sender.as_str());
            }
            Write::EndOwner(user) => {
                self.ended_owners.part.push(of(user));
                self.ended_owners.user.push(user.as_str());
            }
            Write::EndSession(session) => self.ended_sessions.push(part, *session),
            Write::Remove(seq) => self.removed.push(part, *seq),
            _ => {}
        }
    }

    fn requests(self) -> Result<Vec<BatchStatement<'a>>, EncodeError> {
        let mut all = Vec::new();
        put_messages(self.messages, &mut all);
        self.retained.request(&mut all);
        self.sessions.request(&mut all);
        self.subscriptions.request(&mut all);
        self.received.request(Sql::PutReceived, &mut all);
        self.in_flight.request(&mut all);
        self.claims.request(Sql::PutClaims, &mut all);
        self.wills.request(&mut all);
        self.pushes.request(&mut all);
        self.owners.request(&mut all);
        self.acknowledged.request(&mut all);
        self.unretained.request(Sql::EndRetained, &mut all);
        self.unsubscribed.request(&mut all);
        self.released.request(Sql::EndReceived, &mut all);
        self.ended_in_flight.request(Sql::EndInFlight, &mut all);
        self.ended_claims.request(Sql::EndClaims, &mut all);
        self.ended_wills.request(Sql::EndWills, &mut all);
        self.ended_pushes.request(&mut all);
        self.ended_owners.request(&mut all);
        let Pairs { part, number } = self.ended_sessions;
        for sql in [
            Sql::EndSubscriptionsOf,
            Sql::EndReceivedOf,
            Sql::EndInFlightOf,
            Sql::EndClaimsOf,
            Sql::EndSessions,
        ] {
            let (part, number) = (part.clone(), number.clone());
            Pairs { part, number }.request(sql, &mut all);
        }
        self.removed.request(Sql::RemoveMessages, &mut all);
        Ok(all)
    }
}

/// By ascending numbers, in as many statements as their content takes.
fn put_messages<'a>(mut messages: Vec<(&'a Append, &'a Op)>, all: &mut Vec<BatchStatement<'a>>) {
    messages.sort_unstable_by_key(|(append, _)| append.seq);
    let (mut rows, mut bytes) = (Messages::default(), 0);
    let mut put = |rows: Messages<'a>, bytes| {
        rows.request(all);
        if let Some(statement) = all.last_mut() {
            statement.bytes = bytes;
        }
    };
    for (append, op) in messages {
        rows.push(append, op);
        bytes += op.size;
        if bytes >= INSERT_BYTES || rows.part.len() >= INSERT_ROWS {
            put(std::mem::take(&mut rows), bytes);
            bytes = 0;
        }
    }
    if !rows.part.is_empty() {
        put(rows, bytes);
    }
}

fn token(mark: Option<&Mark>) -> Option<Vec<u8>> {
    mark.map(|mark| mark.bytes().to_vec())
}

impl<'a> Messages<'a> {
    fn push(&mut self, append: &'a Append, op: &Op) {
        let message = &append.message;
        let flags = val::Flags::of(append, message.qos()).to_number();
        let life = message.sender_life().as_ref().map(val::life);
        self.part.push(of(&append.user));
        self.seq.push(val::number(append.seq));
        self.user.push(append.user.as_str());
        self.sender.push(message.sender().as_str());
        self.flags
            .push(i16::try_from(flags).expect("there are few flags"));
        self.waits_for.push(append.waits_for.cast_signed());
        self.acknowledged.push(op.acknowledged);
        self.received_at.push(val::received(message.received_at()));
        self.expires_at.push(val::expiry(message.expires_at()));
        self.size.push(i32::try_from(op.size).unwrap_or(i32::MAX));
        self.body.push(MessageBody::Of(message));
        self.sender_life.push(life.map(|life| life.to_vec()));
    }
}

impl<'a> Retained<'a> {
    fn push(&mut self, append: &'a Append) {
        self.part.push(of(&append.user));
        self.message.push(val::number(append.seq));
        self.user.push(append.user.as_str());
        self.topic.push(append.message.topic().as_ref());
    }
}

impl<'a> Sessions<'a> {
    fn push(&mut self, record: &'a SessionRecord) -> Result<(), EncodeError> {
        let will = record.will.as_deref();
        self.part.push(of(&record.user));
        self.id.push(val::number(record.id));
        self.user.push(record.user.as_str());
        self.client.push(record.client.as_str());
        self.slot.push(record.slot.into());
        self.expiry.push(val::duration(record.expiry));
        self.ends_at.push(val::optional_time(record.ends_at));
        self.will.push(will.map(val::encode_will).transpose()?);
        self.will_delay
            .push(will.and_then(|will| will.delay_secs).map(i64::from));
        self.will_at.push(val::optional_time(record.will_at));
        self.maybe_sent
            .push(val::number(record.maybe_sent_before_crash));
        self.token.push(token(record.token.as_ref()));
        Ok(())
    }
}

impl<'a> Subscriptions<'a> {
    fn push(&mut self, part: i16, session: u64, subscription: &'a Subscription) {
        let (topic, options, id) = val::subscription_row(subscription);
        self.part.push(part);
        self.session.push(val::number(session));
        self.topic.push(topic);
        self.options.push(options.into());
        self.id.push(id.map(i64::from));
    }
}

impl<'a> Wills<'a> {
    fn push(&mut self, due: &'a WillRecord) -> Result<(), EncodeError> {
        self.part.push(of(&due.user));
        self.id.push(val::number(due.id));
        self.user.push(due.user.as_str());
        self.body.push(val::encode_will(&due.will)?);
        self.token.push(token(due.token.as_ref()));
        Ok(())
    }
}

impl<'a> Pushes<'a> {
    fn push(&mut self, push: &'a PushRecord) {
        self.part.push(of(&push.receiver));
        self.user.push(push.receiver.as_str());
        self.sender.push(push.sender.as_str());
        self.message.push(val::number(push.seq));
        self.sent.push(push.sent);
        self.at.push(val::coming(push.at));
        self.expires_at.push(val::expiry(push.expires_at));
    }
}

impl<'a> Owners<'a> {
    fn push(&mut self, owner: &'a OwnerRecord) {
        let life = &owner.life;
        self.part.push(of(&owner.user));
        self.user.push(owner.user.as_str());
        self.email.push(token(life.email.as_ref()));
        self.name.push(token(life.name.as_ref()));
        self.password.push(token(life.password.as_ref()));
        self.made_up.push(life.made_up);
        self.gone_since.push(val::optional_time(owner.gone_since));
    }
}

/// That what an operator asked for is done.
pub(super) fn forget<'a>(purges: &'a [PurgeRequest], all: &mut Vec<BatchStatement<'a>>) {
    if purges.is_empty() {
        return;
    }
    let columns: Vec<Column<'a>> = vec![
        Box::new(purges.iter().map(|purge| purge.part).collect::<Vec<_>>()),
        Box::new(
            purges
                .iter()
                .map(|purge| purge.user.as_str())
                .collect::<Vec<_>>(),
        ),
        Box::new(
            purges
                .iter()
                .map(|purge| purge.sender.as_str())
                .collect::<Vec<_>>(),
        ),
        Box::new(purges.iter().map(|purge| purge.up_to).collect::<Vec<_>>()),
    ];
    all.push(BatchStatement::new(Sql::ForgetPurges, columns));
}

/// What is to be remembered of the clocks.
pub(super) fn clock(node: &'static str, record: &ClockRecord, all: &mut Vec<BatchStatement<'_>>) {
    let columns: Vec<Column<'_>> = vec![
        Box::new(node),
        Box::new(val::coming(record.time)),
        Box::new(record.offset_millis),
        Box::new(val::number(record.boot)),
        Box::new(val::duration(record.since_boot)),
        Box::new(record.proved_offset_millis),
    ];
    all.push(BatchStatement::new(Sql::PutClock, columns));
}
