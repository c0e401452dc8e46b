//! The chain of a process's batches: how it is known what became of a COMMIT whose answer is missing.
//!
//! A batch has a number, one more than the last, and its transaction writes that into `batch` (`jam_begin`). A batch that may
//! have been committed is never changed: it is in the table or not, and the highest number there says which. One that is
//! there is kept only when a later one is: it may be on the primary's disk and not on the standby's, where the next COMMIT
//! waits for both.
//!
//! Invariants: a batch counts as committed only if every answer is Ok and the server has not warned meanwhile (a COMMIT
//! whose wait for the standby was cut short says so in a WARNING, and is Ok; `connection` knows which warnings say nothing of
//! it); before a number is sent on another connection,
//! every connection that could still send it has ended (`tests::cutting`, `tests::zombies`).

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use jam_wire::EncodeError;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;

use super::connection::{BEGIN, Database, Purpose, name, no_answer};
use super::error::{CHAIN, FENCED, UNIQUE, refusal};
use super::fence::terminate;
use super::rows::{BatchStatement, PreparedBatch, Sql};
use super::tenure::Tenure;
use crate::postgres::{Address, FailureKind, PostgresError};

/// How long a commit may take before nobody waits for it any more, plus what its content takes.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of content that a database takes in a second, if nothing else is known of it.
const RATE: usize = 8 << 20;

/// Each time that a batch has not been answered, the next try of it has twice the time for its content, so often at most: at
/// a sixty-fourth of [`RATE`] no line is of use.
const DOUBLED_AT_MOST: u32 = 6;

/// Bytes of content that are sent before earlier ones are answered: they are in memory once more meanwhile, about twice.
const SENT_AHEAD: usize = 8 << 20;

/// How long a new connection may take to look at the fence and the chain: it waits for others to end.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what a start does before it reads may take.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// So many numbers stay in `batch`; what is older is deleted now and then.
const KEEP_NUMBERS: i64 = 1_000;

/// A connection that batches are sent on.
pub(super) struct Link {
    database: Database,
    statements: PreparedBatch,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// Numbers of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) incarnation: i64,
    /// The highest number that is known to be kept.
    kept: i64,
    /// The highest that is in the table, as it was last looked at.
    last: i64,
    /// The highest that was ever sent.
    sent: i64,
    /// Numbers below this are deleted.
    trimmed: i64,
    /// How often the batch that is sent now has not been answered.
    unanswered: u32,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Commit {
    Kept,
    /// It is rolled back, and may be changed.
    Refused(PostgresError),
    /// It may be there or not, now or later.
    Unknown(PostgresError),
    /// Another server has taken over.
    Fenced,
}

/// What a new connection finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastBatch {
    /// The last batch sent is not there, and will not come: it can be sent again.
    Missing,
    /// It is there; it is kept when the one after it is.
    There,
    /// So many batches that were kept are gone: the database has gone back.
    Lost(u64),
    /// Another server has taken over.
    Fenced,
}

impl Chain {
    pub(super) fn new(incarnation: i64) -> Self {
        Self {
            incarnation,
            kept: 0,
            last: 0,
            sent: 0,
            trimmed: 0,
            unanswered: 0,
        }
    }

    /// The number that comes next.
    fn next(&self) -> i64 {
        self.last + 1
    }

    /// The highest number that is known to be kept.
    pub(super) fn kept(&self) -> i64 {
        self.kept
    }

    /// What a look at the tables says.
    fn look(&mut self, tenure: Tenure) -> LastBatch {
        if let Some(lost) = tenure.lost(self.kept) {
            return LastBatch::Lost(lost);
        }
        let Tenure::Ours(last) = tenure else {
            return LastBatch::Fenced;
        };
        self.last = last;
        match last {
            // Somebody else's.
            last if last > self.sent => LastBatch::Lost(1),
            last if last > self.kept => LastBatch::There,
            _ => LastBatch::Missing,
        }
    }

    /// What deletes old numbers, if there are many.
    fn trim(&self) -> Option<BatchStatement<'static>> {
        let below = self.kept - KEEP_NUMBERS;
        // Without a lower bound it would walk over all that have been deleted.
        (below - self.trimmed >= KEEP_NUMBERS).then(|| {
            BatchStatement::new(
                Sql::Trim,
                vec![
                    Box::new(self.incarnation),
                    Box::new(self.trimmed),
                    Box::new(below),
                ],
            )
        })
    }

    fn keep(&mut self, number: i64) {
        if self.trim().is_some() {
            self.trimmed = self.kept - KEEP_NUMBERS;
        }
        (self.kept, self.last, self.unanswered) = (number, number, 0);
    }

    /// How long a batch with so many bytes of content may take.
    fn limit(&self, bytes: usize) -> Duration {
        let content = Duration::from_secs((bytes / RATE) as u64);
        COMMIT_TIMEOUT + content * 2_u32.pow(self.unanswered.min(DOUBLED_AT_MOST))
    }
}

impl Link {
    /// A connection on which no batch is in doubt but the last one sent; what became of that.
    pub(super) async fn open(
        address: &Address,
        chain: &mut Chain,
    ) -> Result<(Self, LastBatch), PostgresError> {
        let name = name(chain.incarnation, Purpose::Writer);
        let database = Database::connect(address, &name, Purpose::Writer).await?;
        let look = async {
            // Those of before this one: half-received requests, and waits for a standby, which no time-out ends.
            let is_alone = terminate(database.client(), &name).await?;
            let statements = PreparedBatch::prepare(database.client()).await?;
            let tenure = Tenure::look(database.client(), chain.incarnation).await?;
            Ok((is_alone, statements, tenure))
        };
        let looked = database.within(LOOK_TIMEOUT, look).await;
        let (is_alone, statements, tenure) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                database.give_up().await;
                return Err(error);
            }
        };
        if !is_alone {
            database.give_up().await;
            let what = "a connection of before does not end: its back end is frozen";
            return Err(PostgresError::new(FailureKind::Busy, what));
        }
        let found = chain.look(tenure);
        let link = Self {
            database,
            statements,
        };
        Ok((link, found))
    }

    /// Whether it is of use, as far as that has been heard.
    pub(super) fn is_closed(&self) -> bool {
        self.database.is_closed()
    }

    /// Sends a batch and waits for all of its answers. `bytes` of content may take their time.
    pub(super) async fn commit(
        &self,
        chain: &mut Chain,
        requests: Vec<BatchStatement<'_>>,
        bytes: usize,
    ) -> Commit {
        let number = chain.next();
        chain.sent = chain.sent.max(number);
        let limit = chain.limit(bytes);
        let until = Instant::now() + limit;
        let warnings = self.database.warnings();
        let answers = timeout_at(until, self.send(chain, number, requests)).await;
        let Ok(answers) = answers else {
            chain.unanswered += 1;
            return Commit::Unknown(no_answer(limit));
        };
        let warned = self.database.warnings() != warnings;
        let outcome = outcome(answers, warned);
        match &outcome {
            Commit::Kept => chain.keep(number),
            Commit::Refused(_) => {
                chain.unanswered = 0;
                let rolled_back = self.database.client().batch_execute("ROLLBACK");
                // It is aborted whether that arrives or not; without it, the connection is of no use.
                if timeout_at(until, rolled_back).await.is_err() {
                    tracing::debug!("ROLLBACK was not answered");
                }
            }
            Commit::Unknown(_) | Commit::Fenced => {}
        }
        outcome
    }

    /// What a start does before it reads: plain statements, as one batch. It is kept when this is Ok.
    pub(super) async fn begin_with(
        &self,
        chain: &mut Chain,
        sql: &str,
    ) -> Result<(), PostgresError> {
        let number = chain.next();
        chain.sent = number;
        let warnings = self.database.warnings();
        let incarnation = chain.incarnation;
        let batch =
            format!("{BEGIN}; SELECT jam_begin({incarnation}, {number}); {sql}; SELECT 1; COMMIT");
        let begun = self.database.client().batch_execute(&batch);
        self.database.within(START_TIMEOUT, begun).await?;
        if self.database.warnings() != warnings {
            return Err(unconfirmed());
        }
        chain.keep(number);
        Ok(())
    }

    /// All in one go: everything is sent before anything is waited for, in this order; but for content beyond [`SENT_AHEAD`].
    async fn send(&self, chain: &Chain, number: i64, requests: Vec<BatchStatement<'_>>) -> Answers {
        let client = self.database.client();
        let incarnation = chain.incarnation;
        let numbers: [&(dyn ToSql + Sync); 2] = [&incarnation, &number];
        let trim = chain.trim();
        let mut pipeline = Pipeline::default();
        pipeline.put(0, Sent::of(client.batch_execute(BEGIN)).await);
        let begin = self.statements.get(Sql::Begin);
        let joined = async { client.execute(begin, &numbers).await.map(drop) };
        pipeline.put(0, Sent::of(joined).await);
        for request in requests.iter().chain(&trim) {
            pipeline.make_room(request.bytes).await;
            let statement = self.statements.get(request.sql);
            let columns = request
                .columns
                .iter()
                .map(|column| &**column as &(dyn ToSql + Sync));
            let columns: Vec<_> = columns.collect();
            let answer = async move { client.execute_raw(statement, columns).await.map(drop) };
            match Sent::of(answer).await {
                // What is not even sent must not be missing in what is committed: without COMMIT it is rolled back.
                Sent::Answered(Err(error)) => {
                    return Answers {
                        within: pipeline.heard,
                        commit: Err(error),
                    };
                }
                sent => pipeline.put(request.bytes, sent),
            }
        }
        // In a transaction that is aborted, COMMIT alone would be Ok.
        let commit = Sent::of(client.batch_execute("SELECT 1; COMMIT")).await;
        Answers {
            within: pipeline.hear_all().await,
            commit: commit.answer().await,
        }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) async fn give_up(self) {
        self.database.give_up().await;
    }

    pub(super) async fn close(self) {
        self.database.close().await;
    }
}

type StatementAnswer = Result<(), tokio_postgres::Error>;

/// A request that is on its way.
enum Sent<'a> {
    Answered(StatementAnswer),
    Waiting(Pin<Box<dyn Future<Output = StatementAnswer> + 'a>>),
}

impl<'a> Sent<'a> {
    /// Polls once: that sends it.
    async fn of(request: impl Future<Output = StatementAnswer> + 'a) -> Self {
        let mut request: Pin<Box<dyn Future<Output = StatementAnswer> + 'a>> = Box::pin(request);
        let early = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
        match early {
            Poll::Ready(answer) => Self::Answered(answer),
            Poll::Pending => Self::Waiting(request),
        }
    }

    async fn answer(self) -> StatementAnswer {
        match self {
            Self::Answered(answer) => answer,
            Self::Waiting(request) => request.await,
        }
    }
}

/// Requests on their way, each with its bytes of content. They are heard in their order: a connection reads nothing more while an
/// answer is not fetched.
#[derive(Default)]
struct Pipeline<'a> {
    sent: VecDeque<(usize, Sent<'a>)>,
    bytes: usize,
    heard: Vec<StatementAnswer>,
}

impl<'a> Pipeline<'a> {
    /// Hears answers until so much more content may be sent.
    async fn make_room(&mut self, bytes: usize) {
        while self.bytes > 0 && self.bytes + bytes > SENT_AHEAD {
            let Some((bytes, sent)) = self.sent.pop_front() else {
                return;
            };
            self.heard.push(sent.answer().await);
            self.bytes -= bytes;
        }
    }

    fn put(&mut self, bytes: usize, sent: Sent<'a>) {
        self.bytes += bytes;
        self.sent.push_back((bytes, sent));
    }

    async fn hear_all(mut self) -> Vec<StatementAnswer> {
        for (_, sent) in self.sent {
            self.heard.push(sent.answer().await);
        }
        self.heard
    }
}

/// What the statements of a transaction have answered.
struct Answers {
    /// In it.
    within: Vec<StatementAnswer>,
    commit: StatementAnswer,
}

/// `warned`: the server has said something by itself that may be about the COMMIT.
fn outcome(answers: Answers, warned: bool) -> Commit {
    let mut unheard = None;
    for answer in answers.within {
        let Err(error) = answer else { continue };
        match refusal(&error) {
            Some(FENCED) => return Commit::Fenced,
            // Not the batch's own doing: what is in the table has to be looked at.
            Some(CHAIN | UNIQUE) => return Commit::Unknown(error.into()),
            Some(_) => return Commit::Refused(error.into()),
            None => unheard = unheard.or(Some(error)),
        }
    }
    match (unheard, answers.commit) {
        // Nothing that another try would change. What came as a packet goes into one, so this is a defect.
        (None, Err(error)) if is_unsendable(&error) => Commit::Refused(error.into()),
        (Some(error), _) | (None, Err(error)) => Commit::Unknown(error.into()),
        (None, Ok(())) if warned => Commit::Unknown(unconfirmed()),
        (None, Ok(())) => Commit::Kept,
    }
}

fn is_unsendable(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|why| why.is::<EncodeError>())
}

fn unconfirmed() -> PostgresError {
    let what = "the COMMIT was not confirmed: PostgreSQL gave a warning with it, as it does when its wait for the standby is cut \
                short; the log has the warning";
    PostgresError::new(FailureKind::Other, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::postgres::{PostgresMailboxAdministration, runtime};
    use crate::postgres::testing::{HasAddress as _, database};

    #[test]
    fn what_cannot_be_sent_is_missing_in_nothing_that_is_committed() {
        let database = database();
        let address = database.address();
        let administration = PostgresMailboxAdministration::of(address.clone());
        administration.create().unwrap();
        database.run("INSERT INTO fence (incarnation) VALUES (1)");
        let mut chain = Chain::new(1);
        let found = runtime(&address).unwrap().block_on(async {
            let (link, _) = Link::open(&address, &mut chain).await.unwrap();
            let columns: Vec<Box<dyn ToSql + Sync + Send>> =
                vec![Box::new("1"), Box::new("2"), Box::new("3")];
            let of_another_type = BatchStatement::new(Sql::Trim, columns);
            let commit = link.commit(&mut chain, vec![of_another_type], 0).await;
            assert!(matches!(commit, Commit::Unknown(_)), "{commit:?}");
            link.give_up().await;
            let (link, found) = Link::open(&address, &mut chain).await.unwrap();
            link.close().await;
            found
        });
        assert_eq!(found, LastBatch::Missing);
    }

    #[test]
    fn a_slow_line_gets_more_time_with_each_try_and_one_that_hangs_does_not() {
        let mut chain = Chain::new(1);
        let large = 256 << 20;
        assert_eq!(chain.limit(0), COMMIT_TIMEOUT);
        assert_eq!(chain.limit(large), COMMIT_TIMEOUT + Duration::from_secs(32));
        chain.unanswered = 3;
        assert_eq!(chain.limit(0), COMMIT_TIMEOUT);
        assert_eq!(
            chain.limit(large),
            COMMIT_TIMEOUT + Duration::from_secs(8 * 32)
        );
        chain.unanswered = u32::MAX;
        assert_eq!(
            chain.limit(large),
            COMMIT_TIMEOUT + Duration::from_secs(64 * 32)
        );
        chain.keep(1);
        assert_eq!(chain.limit(large), COMMIT_TIMEOUT + Duration::from_secs(32));
    }
}
