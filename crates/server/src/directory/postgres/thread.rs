//! The thread that has the connections.
//!
//! It never blocks: it has a runtime of its own, does the I/O of all connections, asks again and again whether the database
//! is there, connects anew when it is not, and answers questions, each in a task of its own. Those who ask wait elsewhere,
//! so a thread that hangs holds up no connection.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use jam_core::directory::{Account, Answer, Fact};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::cache::Key;
use super::DirectoryError;
use super::requests::{PostgresRequest, Wanted};
use super::session::{DatabaseIdentity, STATEMENT_TIMEOUT, ServerSession};
use super::shared::{PostgresShared, now};
use crate::metrics::StoreFailure;
use crate::postgres::{Address, FailureKind, PostgresError};

/// How often the LISTENing connection is asked whether it is alive.
const BEAT: Duration = Duration::from_millis(250);

/// How long it may take to answer before the connections are given up.
const BEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two tries to connect.
const REST: Duration = Duration::from_millis(250);

/// Questions that are sent to the database before the first of them is answered. Others wait for their turn.
const AT_ONCE: usize = 256;

/// How long a question may wait for its answer, its turn included, while the database shows signs of life. Longer than
/// it gives a statement.
pub(super) const PATIENCE: Duration = STATEMENT_TIMEOUT.saturating_add(Duration::from_secs(1));

/// Starts the thread and waits until it is connected. It ends when nobody can send requests any more.
///
/// # Errors
/// If there is no thread for it, or it cannot connect.
pub(super) fn start(
    address: Address,
    shared: Arc<PostgresShared>,
    requests: mpsc::Receiver<PostgresRequest>,
) -> Result<(), DirectoryError> {
    let no_thread = |error: io::Error| {
        DirectoryError::new(format!("no thread for the accounts database: {error}"))
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(no_thread)?;
    let (begun, wait) = blocking::sync_channel(1);
    let thread = thread::Builder::new().name("directory".to_owned());
    let run = async move {
        tokio::select! {
            () = serve(Arc::clone(&shared), requests) => {}
            never = keep_connected(address, shared, begun) => match never {},
        }
    };
    thread
        .spawn(move || LocalSet::new().block_on(&runtime, run))
        .map_err(no_thread)?;
    let begun = wait.recv();
    begun.expect("the thread says how it began")
}

/// Something that never is.
enum Never {}

/// Connects, and again whenever a connection ends. Says how the first time went.
async fn keep_connected(
    address: Address,
    shared: Arc<PostgresShared>,
    begun: blocking::SyncSender<Result<(), DirectoryError>>,
) -> Never {
    let mut begun = Some(begun);
    let mut last: Option<DatabaseIdentity> = None;
    loop {
        let mut drivers = JoinSet::new();
        let beginning = ServerSession::begin(&address, &shared.cache, &mut drivers);
        let ended = match beginning.await {
            Ok(session) => {
                let session = Arc::new(session);
                note_identity(&shared, &mut last, &session.identity);
                // What was read before is not believed: changes may have been missed.
                shared.doubt();
                shared.hear();
                shared.set_trouble(None);
                shared.session.send_replace(Some(Arc::clone(&session)));
                if let Some(begun) = begun.take() {
                    drop(begun.send(Ok(())));
                }
                let ended = stay_connected(&shared, &session, &mut drivers, &mut last).await;
                shared.session.send_replace(None);
                shared.doubt();
                ended
            }
            Err(error) => error,
        };
        drivers.abort_all();
        let error = DirectoryError::from(ended);
        tracing::debug!(%error, "no connection to the accounts database");
        shared.set_trouble(Some(error.clone()));
        if let Some(begun) = begun.take() {
            drop(begun.send(Err(error)));
        }
        sleep(REST).await;
    }
}

/// A commit that was seen may be missing in another database than before.
fn note_identity(
    shared: &PostgresShared,
    last: &mut Option<DatabaseIdentity>,
    now: &DatabaseIdentity,
) {
    if last.as_ref().is_some_and(|last| !now.goes_on_from(last)) {
        shared.replacements.fetch_add(1, Ordering::AcqRel);
        tracing::warn!(
            "the accounts database is another one than before, or has lost what was committed; accounts that are \
             missing in it are hidden before they count as gone"
        );
    }
    *last = Some(now.clone());
}

/// Asks whether the database is there until it is not. Comes back with why.
async fn stay_connected(
    shared: &PostgresShared,
    session: &ServerSession,
    drivers: &mut JoinSet<PostgresError>,
    last: &mut Option<DatabaseIdentity>,
) -> PostgresError {
    loop {
        let sent = now();
        let beat = timeout(BEAT_TIMEOUT, session.beat());
        let next = Instant::now() + BEAT;
        let written = tokio::select! {
            biased;
            ended = drivers.join_next() => return why(ended),
            answered = beat => match answered {
                Ok(Ok(written)) => written,
                Ok(Err(error)) => return error,
                Err(_) => {
                    let why = format!("PostgreSQL has not answered for {} s", BEAT_TIMEOUT.as_secs());
                    return PostgresError::new(FailureKind::Unreachable, why);
                }
            },
        };
        if let Some(last) = last {
            last.written = written;
        }
        shared.believe(sent);
        tokio::select! {
            biased;
            ended = drivers.join_next() => return why(ended),
            () = shared.stale.notified() => {
                let why = "a table of the accounts database may be another one; connecting anew";
                return PostgresError::new(FailureKind::Other, why);
            }
            () = shared.wanted.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

fn why(ended: Option<Result<PostgresError, JoinError>>) -> PostgresError {
    match ended {
        Some(Ok(error)) => error,
        Some(Err(_)) | None => {
            PostgresError::new(FailureKind::Unreachable, "the connection has ended")
        }
    }
}

/// Answers requests until nobody can send any.
async fn serve(shared: Arc<PostgresShared>, mut requests: mpsc::Receiver<PostgresRequest>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(request) = requests.recv().await {
        let turn = Arc::clone(&turns).acquire_owned().await;
        let turn = turn.expect("nobody closes it");
        let shared = Arc::clone(&shared);
        spawn_local(async move {
            answer(&shared, request).await;
            drop(turn);
        });
    }
}

async fn answer(shared: &PostgresShared, request: PostgresRequest) {
    let ends = request.asked + PATIENCE;
    // A failed send: the connection that asked is gone.
    let _ = match request.what {
        Wanted::Answer(key, reply) => {
            let read = async |session: &ServerSession| read_fact(shared, session, key).await;
            reply.send(perform(shared, ends, read).await).is_ok()
        }
        Wanted::Accounts(ids, reply) => {
            let read = async |session: &ServerSession| read_accounts(shared, session, &ids).await;
            reply.send(perform(shared, ends, read).await).is_ok()
        }
        Wanted::Friends(user, who, after, reply) => {
            let read =
                async |session: &ServerSession| session.lists.friends(user, who, after).await;
            reply.send(perform(shared, ends, read).await).is_ok()
        }
        Wanted::Shown(user, after, reply) => {
            let read = async |session: &ServerSession| session.lists.shown(user, after).await;
            reply.send(perform(shared, ends, read).await).is_ok()
        }
        Wanted::PushAddress(from, to, reply) => {
            let read =
                async |session: &ServerSession| session.questions.push_address(from, to).await;
            reply.send(perform(shared, ends, read).await).is_ok()
        }
        Wanted::ClearNotificationToken(user, token, reply) => {
            let clear = async |session: &ServerSession| {
                session.lists.clear_notification_token(user, &token).await
            };
            reply.send(perform(shared, ends, clear).await).is_ok()
        }
    };
}

async fn read_fact(
    shared: &PostgresShared,
    session: &ServerSession,
    key: Key,
) -> Result<Answer, PostgresError> {
    // Before it is read: what changes meanwhile is told of a later generation.
    let as_of = shared.cache.generation();
    let began = Instant::now();
    let fact = session.questions.fact(key).await?;
    if let Some(metrics) = shared.metrics.get() {
        metrics.read_fact(began.elapsed());
    }
    shared.cache.insert(key, fact.clone(), as_of);
    Ok(Answer { fact, as_of })
}

/// In the order of `ids`.
async fn read_accounts(
    shared: &PostgresShared,
    session: &ServerSession,
    ids: &[i64],
) -> Result<Vec<Answer>, PostgresError> {
    let as_of = shared.cache.generation();
    let found: HashMap<i64, Account> = session.lists.accounts(ids).await?.into_iter().collect();
    let answers = ids.iter().map(|id| {
        let fact = Fact::Account(found.get(id).cloned());
        shared
            .cache
            .insert_if_room(Key::Account(*id), fact.clone(), as_of);
        Answer { fact, as_of }
    });
    Ok(answers.collect())
}

/// Does it over the connections that there are, once more if those end; until `ends`, or until the database is silent.
async fn perform<T>(
    shared: &PostgresShared,
    ends: Instant,
    attempt: impl AsyncFn(&ServerSession) -> Result<T, PostgresError>,
) -> Result<T, DirectoryError> {
    let mut failed: Option<Arc<ServerSession>> = None;
    let attempts = async {
        loop {
            let session = next_session(shared, failed.as_ref()).await;
            match attempt(&session).await {
                Ok(done) => {
                    shared.hear();
                    return Ok(done);
                }
                Err(error) if error.kind() == FailureKind::Unreachable => failed = Some(session),
                Err(error) => {
                    if may_be_stale(&error) {
                        shared.stale.notify_one();
                    }
                    return Err(DirectoryError::from(error));
                }
            }
        }
    };
    tokio::select! {
        biased;
        done = attempts => done,
        () = shared.fell_silent() => Err(shared.silence()),
        () = sleep_until(ends) => Err(busy()),
    }
}

/// The connections that there are, or will be, other than those that have failed.
async fn next_session(
    shared: &PostgresShared,
    failed: Option<&Arc<ServerSession>>,
) -> Arc<ServerSession> {
    let is_other = |it: &Arc<ServerSession>| failed.is_none_or(|failed| !Arc::ptr_eq(it, failed));
    let mut sessions = shared.session.subscribe();
    let found = sessions.wait_for(|now| now.as_ref().is_some_and(is_other));
    let found = found.await.expect("what sends them is in `shared`");
    Arc::clone(found.as_ref().expect("it was waited for"))
}

/// Whether the tables may be others than those that the statements were prepared for. What is wrong with one row is not that.
pub(super) fn may_be_stale(error: &PostgresError) -> bool {
    match error.kind() {
        FailureKind::SchemaMissing | FailureKind::NotPermitted => true,
        // "cached plan must not change result type", wrong types and names; what the driver itself cannot read has no code.
        FailureKind::Other => error
            .sqlstate()
            .is_none_or(|code| code == "0A000" || code.starts_with("42")),
        _ => false,
    }
}

fn busy() -> DirectoryError {
    let secs = PATIENCE.as_secs();
    let why = format!(
        "PostgreSQL has not read the accounts for {secs} s: another session has locked their tables, or it has too much to do"
    );
    DirectoryError::of(StoreFailure::Busy, why)
}
