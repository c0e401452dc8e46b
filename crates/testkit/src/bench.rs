//! A router, the connections to it, and the time.
//!
//! After everything that a client does or that time brings, the bench runs the connections until none
//! has anything left to do, at most [`MAX_TURNS`] times round. It feeds a connection as the server does:
//! no packet before the last one is dealt with, none that the connection does not want.

use std::cell::{RefCell, RefMut};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Buf;
use jam_core::UserLimits;
use jam_core::connection::Connection;
use jam_core::directory::{Answers, Question};
use jam_core::ids::UserId;
use jam_core::push::{DuePush, MAX_PUSHES, PushAudience, PushOrder, PushOutcome, PushRules};
use jam_core::router::{LONGEST_RIVAL_WAIT, Router, Rules, SHARDS};
use jam_core::store::{MailboxStore as _, Recovered};
use jam_core::time::{Stamp, Time};

use crate::clocks::Clocks;
use crate::directory::{FakeDirectory, Snapshot};
use crate::disk::CrashingStore;
use crate::end::{End, Flag};
use crate::packets::token;
use crate::store::FaultyStore;

/// Rounds over all connections after one event; more is a livelock.
pub const MAX_TURNS: usize = 10_000;

/// When every bench begins: some time in 2023.
const START: Time = Time::from_millis(1_700_000_000_000);

/// Two friends, `1` and `2`, a stranger `3`, and the server between them.
#[derive(Clone)]
pub struct Bench(Rc<Shared>);

struct Shared {
    directory: Arc<FakeDirectory>,
    store: Arc<FaultyStore>,
    /// Takes the place of `store`, if it is there.
    disk: Option<Arc<CrashingStore>>,
    rules: Rules,
    router: RefCell<Arc<Router>>,
    world: RefCell<World>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    clocks: Clocks,
    /// Whether messages wait for their grace; otherwise they go to the store as soon as all is quiet.
    graceful: bool,
    /// Whether presence and friends are told as soon as there is something to tell.
    pub(crate) telling: bool,
    ends: Vec<End>,
}

/// The rules a bench has if nothing else is said: one device, windows of 10, a day of session, no push.
#[must_use]
pub fn rules() -> Rules {
    Rules {
        user: UserLimits {
            many_devices: false,
            max_messages: 1000,
            max_bytes: 4 * 1024 * 1024,
            max_age: Duration::from_secs(30 * 24 * 3600),
            push: PushRules {
                audience: PushAudience::Off,
                deadline: Duration::from_secs(10),
                collapse: Duration::from_secs(30),
            },
        },
        session_expiry: Duration::from_secs(24 * 3600),
        packet: 1024 * 1024,
        inflight: 10,
        longest_rival_wait: LONGEST_RIVAL_WAIT,
        publish_rate: None,
        connect_timeout: Duration::from_secs(10),
        failed_auth: 10,
        failed_auth_window: Duration::from_secs(600),
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// With [`rules`].
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// With [`rules`] as `change` changes them.
    pub fn with(change: impl FnOnce(&mut Rules)) -> Self {
        Self::on(None, change)
    }

    /// With [`rules`] as `change` changes them, and a store that survives a [`Self::crash`].
    pub fn on_disk(change: impl FnOnce(&mut Rules)) -> Self {
        Self::on(Some(Arc::new(CrashingStore::default())), change)
    }

    fn on(disk: Option<Arc<CrashingStore>>, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = rules();
        change(&mut rules);
        let directory = Arc::new(FakeDirectory::default());
        for user in ["1", "2", "3"] {
            directory.set_account(user, Some(&token(user)));
        }
        directory.befriend("1", "2");
        let store = Arc::new(FaultyStore::default());
        let router = match &disk {
            Some(disk) => Router::new(rules.clone(), directory.clone(), disk.clone()),
            None => Router::new(rules.clone(), directory.clone(), store.clone()),
        };
        router.restore(Recovered::default(), START);
        let world = RefCell::new(World {
            now: START,
            clocks: Clocks::new(START),
            graceful: false,
            telling: true,
            ends: Vec::new(),
        });
        Self(Rc::new(Shared {
            directory,
            store,
            disk,
            rules,
            router: RefCell::new(router),
            world,
        }))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &FakeDirectory {
        &self.0.directory
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &FaultyStore {
        &self.0.store
    }

    /// The router.
    #[must_use]
    pub fn router(&self) -> Arc<Router> {
        self.0.router.borrow().clone()
    }

    /// The store with a file, if the bench is [`Self::on_disk`].
    #[must_use]
    pub fn disk(&self) -> Option<&CrashingStore> {
        self.0.disk.as_deref()
    }

    /// The push that is due first, if there is one.
    #[must_use]
    pub fn next_push(&self) -> Option<DuePush> {
        self.next_push_in(PushOrder::OldestFirst)
    }

    /// The push that is next in this order, if there is one.
    #[must_use]
    pub fn next_push_in(&self, order: PushOrder) -> Option<DuePush> {
        let context = Context::from_waker(Waker::noop());
        match self.router().poll_push(&context, self.now(), order) {
            Poll::Ready(push) => Some(push),
            Poll::Pending => None,
        }
    }

    /// Sends what is due: receivers and senders.
    pub fn send_pushes(&self) -> Vec<(String, String)> {
        let mut sent = Vec::new();
        while let Some(push) = self.next_push() {
            assert!(sent.len() <= MAX_PUSHES, "pushes are due for ever");
            sent.push((push.receiver().to_string(), push.sender().to_string()));
            self.settle_push(push, PushOutcome::Sent);
        }
        sent
    }

    /// Says what came of a push.
    pub fn settle_push(&self, push: DuePush, outcome: PushOutcome) {
        self.router().push_settled(push, outcome, self.now());
        self.run();
    }

    /// The server is killed and started again, a second later, on what its store has kept.
    ///
    /// # Panics
    /// If the bench is not [`Self::on_disk`].
    pub fn crash(&self) {
        let disk = self.0.disk.clone().expect("a store with a file");
        for end in &mut self.world().ends {
            end.die();
        }
        let found = disk.crash();
        let router = Router::new(self.0.rules.clone(), self.0.directory.clone(), disk.clone());
        let now = {
            let mut world = self.world();
            world.clocks.restart(Duration::from_secs(1));
            world.now = world.clocks.now(&router);
            world.now
        };
        disk.recover_entries(&|entry| router.restore_entry(&entry))
            .expect("a model of a file can be read");
        router.restore(found, now);
        disk.attach(Box::new(Arc::downgrade(&router)));
        *self.0.router.borrow_mut() = router;
        self.run();
    }

    /// The server stops: every connection is told.
    pub fn shut_down(&self) {
        let mut world = self.world();
        let now = world.now;
        for end in &mut world.ends {
            end.shut_down(now);
        }
        drop(world);
        self.run();
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.world().now
    }

    /// Time passes, second by second, and everybody who waits for it is told.
    pub fn advance(&self, by: Duration) {
        let step = Duration::from_secs(1);
        let mut left = by;
        while !left.is_zero() {
            let step = left.min(step);
            left -= step;
            self.pass(step);
        }
    }

    /// Time passes in one step, however long.
    pub fn pass(&self, by: Duration) {
        self.world().clocks.pass(by);
        self.tell_time();
    }

    /// The machine sleeps, and nobody with it.
    pub fn sleep(&self, by: Duration) {
        self.world().clocks.sleep(by);
        self.tell_time();
    }

    /// Somebody sets the wall clock, so many milliseconds forward or back. The server sees it when time passes
    /// next, or when it is started.
    pub fn step_wall_clock(&self, by_millis: i64) {
        self.world().clocks.step(by_millis);
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn wall_clock(&self) -> Stamp {
        Stamp::from_millis(self.world().clocks.reading.wall.as_millis())
    }

    /// Connections and timers whose time has come are told.
    fn tell_time(&self) {
        {
            let router = self.router();
            let mut world = self.world();
            world.now = world.clocks.now(&router);
            let now = world.now;
            for end in &mut world.ends {
                end.handle_timeout(&self.0.directory, now);
            }
            let timers = self.router().pending_timers();
            for _ in 0..=timers {
                if !self.router().handle_timeout(now) {
                    break;
                }
            }
            assert!(!self.router().handle_timeout(now), "timers ring for ever");
            self.router().hand_over(now);
        }
        self.run();
    }

    /// Time passes, and nobody is told.
    pub fn let_time_pass(&self, by: Duration) {
        let mut world = self.world();
        world.now = world.now + by;
    }

    /// From now on messages wait for their grace (`jam_core::router::GRACE`) before they are stored.
    pub fn be_graceful(&self) {
        self.world().graceful = true;
    }

    /// Ends every grace; whether anybody has something to do because of it.
    fn hand_over(&self) -> bool {
        self.router().hand_over(Time::NEVER);
        self.world().ends.iter().any(End::is_called)
    }

    /// Looks again at the account of each user that is remembered, as the server does when the directory changes.
    pub fn recheck(&self) {
        self.recheck_that(false);
    }

    /// The same; accounts that are gone `may_come_back`, as after the directory has been replaced.
    pub fn recheck_that(&self, may_come_back: bool) {
        let now = self.0.directory.snapshot();
        self.recheck_seeing(&now, may_come_back);
    }

    /// The same, with what was read at some time before.
    pub fn recheck_seeing(&self, then: &Snapshot, may_come_back: bool) {
        let router = self.router();
        router.begin_check(self.0.directory.generation());
        for user in (0..SHARDS).flat_map(|part| router.users_of(part)) {
            let mut answers = Answers::of(then.answer(&Question::Account(user.clone())));
            while let Err(question) = router.recheck(&user, &answers, may_come_back, self.now()) {
                let answer = self.0.directory.answer(&question);
                if answer.and_then(|answer| answers.add(answer)).is_err() {
                    break;
                }
            }
        }
        self.run();
    }

    /// Whether a user has a device connected.
    #[must_use]
    pub fn is_connected(&self, user: &str) -> bool {
        let user = UserId::parse(user).expect("a user id");
        self.router()
            .connected_users()
            .any(|users| users.contains(&user))
    }

    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.0.world.borrow_mut()
    }

    pub(crate) fn open(&self, address: IpAddr) -> usize {
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let mut world = self.world();
        let connection = Connection::new(self.router(), address, waker, world.now);
        let end = End::new(connection, flag);
        match world.ends.iter().position(|end| end.forgotten) {
            Some(index) => {
                world.ends[index] = end;
                index
            }
            None => {
                world.ends.push(end);
                world.ends.len() - 1
            }
        }
    }

    /// Bytes from a client.
    pub(crate) fn input(&self, end: usize, bytes: &[u8]) {
        {
            let mut world = self.world();
            let now = world.now;
            let end = &mut world.ends[end];
            end.input.extend_from_slice(bytes);
            if let Some(connection) = &mut end.connection {
                connection.handle_input(now);
            }
        }
        self.run();
    }

    /// The client's socket is gone.
    pub(crate) fn cut(&self, end: usize) {
        {
            let mut world = self.world();
            let now = world.now;
            world.ends[end].cut(&self.0.directory, now);
        }
        self.run();
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&self, end: usize) -> bool {
        self.world().ends[end].connection.is_none()
    }

    pub(crate) fn with_end<T>(&self, end: usize, what: impl FnOnce(&mut End) -> T) -> T {
        what(&mut self.world().ends[end])
    }

    /// Bytes that the server has for a client that it has not taken.
    pub(crate) fn pending(&self, end: usize) -> usize {
        let mut world = self.world();
        let connection = world.ends[end].connection.as_mut();
        connection.map_or(0, |connection| connection.output().len())
    }

    /// The client takes some of what is written for it.
    pub(crate) fn take_output(&self, end: usize, count: usize, now: Time) {
        self.with_end(end, |end| {
            if let Some(connection) = &mut end.connection {
                let count = count.min(connection.output().len());
                let bytes = connection.output().copy_to_bytes(count);
                end.output.extend_from_slice(&bytes);
                connection.handle_flushed(now);
            }
        });
    }

    pub(crate) fn with_connection<T>(
        &self,
        end: usize,
        what: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        self.world().ends[end].connection.as_mut().map(what)
    }

    /// Runs every connection until none has anything to do.
    ///
    /// # Panics
    /// If that never comes.
    pub fn run(&self) {
        for _ in 0..MAX_TURNS {
            let mut world = self.world();
            let now = world.now;
            let mut busy = false;
            for end in &mut world.ends {
                busy |= end.turn(&self.0.directory, now);
            }
            drop(world);
            busy |= self.publish_wills(now);
            while self.world().telling && (self.tell_presence() || self.tell_friends()) {
                busy = true;
            }
            if !busy && (self.world().graceful || !self.hand_over()) {
                return;
            }
        }
        panic!("livelock: the connections still have something to do after {MAX_TURNS} turns");
    }
}

impl Bench {
    /// As housekeeping does; whether there was a will that has been judged.
    fn publish_wills(&self, now: Time) -> bool {
        let mut busy = false;
        for turn in 0.. {
            let Some(will) = self.router().next_will() else {
                break;
            };
            assert!(turn < MAX_TURNS, "livelock: a will is due again and again");
            let mut answers = Answers::default();
            while let Err(question) = self.router().publish_will(&will, &answers, now) {
                let answer = self.0.directory.answer(&question);
                if answer.and_then(|answer| answers.add(answer)).is_err() {
                    self.router().put_back_will(will);
                    return busy;
                }
            }
            busy = true;
        }
        busy
    }
}
