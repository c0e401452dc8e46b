//! Load, a kill of the server or a fault of the database, restart, over and over; now and then everybody fetches what is
//! theirs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use jam_testkit::random::Random;
use jam_wire::packet::{QoS, Version};

use crate::database::Fault;
use crate::ledger::{Counts, Ledger};
use crate::person::{Habits, Person, World};
use crate::server::{House, Server, Store};

/// How long everybody may take to fetch what is theirs, without any progress. A busy disk has kept one
/// fsync waiting for 15 seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after a fault of the database nothing may be acknowledged: then it is no longer only busy.
const TAKEN_AGAIN: Duration = Duration::from_secs(15);
/// How long a COMMIT may take to come at which a connection is to be cut.
const CUT: Duration = Duration::from_secs(2);
/// Nothing more has come for so long: what clients have said last is in the server's store.
const QUIET: Duration = Duration::from_secs(1);
/// Users who may not write to each other.
const STRANGERS: &[(u16, u16)] = &[(1, 7), (4, 5)];

/// What a campaign is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Kills of the server, and of what it is kept in.
    pub rounds: u32,
    /// Where chance begins.
    pub seed: u64,
    /// Where accounts and mailbox are.
    pub store: Store,
    /// After so many rounds everybody fetches what is theirs.
    pub settle_every: u32,
}

/// Runs a campaign, and tells `out` how it goes.
///
/// # Errors
/// What was broken, with the seed, the round and the messages' histories; or that `out` cannot be written.
pub fn run(options: Options, out: &mut dyn Write) -> Result<Counts, String> {
    writeln!(out, "seed {}, {} rounds", options.seed, options.rounds)
        .map_err(|error| error.to_string())?;
    let mut campaign = Campaign::new(options);
    for round in 1..=options.rounds {
        let settles = round % options.settle_every == 0 || round == options.rounds;
        campaign.round(settles);
        if settles {
            campaign
                .progress(round, out)
                .map_err(|error| error.to_string())?;
        }
        if !campaign.world.ledger.violations().is_empty() {
            return Err(campaign.tell(options.seed, round));
        }
    }
    campaign
        .tell_backs(out)
        .map_err(|error| error.to_string())?;
    Ok(campaign.world.ledger.counts)
}

struct Campaign {
    house: House,
    server: Option<Server>,
    people: Vec<Person>,
    world: World,
    /// By the fault of the database: how long after it was over a message was acknowledged that had been published since.
    backs: BTreeMap<&'static str, Vec<Duration>>,
    began: Instant,
}

/// Who takes part; users are numbered from 1.
fn people() -> Vec<Person> {
    let live = Habits {
        version: Version::V4,
        lasting: true,
        qos: QoS::ExactlyOnce,
        receive_maximum: 32,
        slowness_millis: 3,
        presence: 10,
        pause_micros: 6_000,
        breaks: 0,
        changes_phones: false,
    };
    let slow = Habits {
        slowness_millis: 120,
        receive_maximum: 4,
        ..live
    };
    let v5 = Version::V5;
    let all = [
        live,
        Habits {
            version: v5,
            receive_maximum: 8,
            breaks: 2,
            ..live
        },
        Habits {
            version: v5,
            ..slow
        },
        Habits {
            slowness_millis: 40,
            breaks: 1,
            ..live
        },
        Habits {
            presence: 2,
            breaks: 1,
            ..live
        },
        Habits {
            version: v5,
            presence: 3,
            slowness_millis: 20,
            ..live
        },
        Habits {
            lasting: false,
            breaks: 2,
            ..live
        },
        Habits {
            version: v5,
            lasting: false,
            presence: 7,
            ..live
        },
        Habits {
            qos: QoS::AtLeastOnce,
            breaks: 1,
            ..live
        },
        Habits {
            changes_phones: true,
            breaks: 2,
            ..live
        },
        Habits {
            presence: 0,
            pause_micros: 0,
            ..live
        },
        Habits {
            version: v5,
            qos: QoS::AtLeastOnce,
            presence: 5,
            ..slow
        },
    ];
    (1..)
        .zip(all)
        .map(|(user, habits)| Person::new(user, habits))
        .collect()
}

impl Campaign {
    fn new(options: Options) -> Self {
        let people = people();
        let users = u16::try_from(people.len()).expect("few people");
        let world = World {
            ledger: Ledger::default(),
            random: Random::new(options.seed),
            port: 0,
            users,
            strangers: STRANGERS.to_vec(),
            settling: false,
            next: 0,
        };
        Self {
            house: House::on(options.store, users, STRANGERS, &[]),
            server: None,
            people,
            world,
            backs: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    /// Start, load, kill or fault; if it `settles`, everybody fetches what is theirs before that.
    fn round(&mut self, settles: bool) {
        if self.server.is_none() {
            self.start();
        }
        for person in &mut self.people {
            person.present = self.world.below(10) < person.habits().presence;
        }
        // Now and then it does not live long enough for anybody to have come back properly.
        let load = match self.world.below(5) {
            0 => self.world.below(60),
            1 => 700 + self.world.below(700),
            _ => 100 + self.world.below(500),
        };
        self.live(Duration::from_millis(load as u64));
        if settles {
            self.settle();
        }
        if self.house.database.is_none() || self.world.below(5) < 2 {
            self.kill();
        } else {
            let world = &mut self.world;
            let fault = Fault::draw(|below| world.below(below));
            self.befall(fault);
        }
    }

    fn start(&mut self) {
        if self.world.below(5) == 0 {
            // Now and then one is killed while it starts.
            let server = self.house.spawn();
            thread::sleep(Duration::from_micros(self.world.below(30_000) as u64));
            server.kill();
        }
        let server = self.house.start();
        self.world.port = server.port();
        self.server = Some(server);
    }

    fn kill(&mut self) {
        let Some(server) = self.server.take() else {
            return;
        };
        server.kill();
        for person in &mut self.people {
            person.server_was_killed(&mut self.world);
        }
        // What the kernel still had of it arrived before the crash, as far as clients can tell.
        self.world.ledger.crash();
    }

    /// A fault of the database, with clients that go on; now and then the server is killed before it is over.
    fn befall(&mut self, fault: Fault) {
        if !self.world.ledger.violations().is_empty() {
            return;
        }
        let kills = self.world.below(5) == 0;
        self.world.ledger.database_is_away(&format!("{fault:?}"));
        self.begin(fault);
        self.live(fault.lasts());
        if kills {
            self.kill();
        }
        self.end(fault);
        let back = Instant::now();
        self.world.ledger.database_is_back();
        if kills {
            return;
        }
        while !self.world.ledger.is_taken_again() && self.world.ledger.violations().is_empty() {
            if back.elapsed() > TAKEN_AGAIN {
                let seconds = TAKEN_AGAIN.as_secs();
                let what = format!("nothing was acknowledged for {seconds} s after {fault:?}");
                self.world.ledger.trouble(what);
            }
            self.live(Duration::from_millis(1));
        }
        let backs = self.backs.entry(fault.name()).or_default();
        backs.push(back.elapsed());
    }

    fn begin(&mut self, fault: Fault) {
        let Some(database) = &mut self.house.database else {
            return;
        };
        match fault {
            Fault::Stop(_) => database.server.stop_immediately(),
            Fault::Kill(_) => database.server.kill(),
            Fault::Pause(_) => database.server.pause(),
            Fault::Stall(..) => database.proxy.stall(true),
            Fault::Reset => database.proxy.reset(),
            Fault::Cut(cutting) => {
                let cuts = database.proxy.cuts() + 1;
                database.proxy.cut_next(cutting);
                let began = Instant::now();
                let is_cut = |house: &House| {
                    let database = house.database.as_ref();
                    database.is_none_or(|it| it.proxy.cuts() >= cuts)
                };
                while !is_cut(&self.house) && began.elapsed() < CUT {
                    self.live(Duration::from_millis(1));
                }
            }
        }
    }

    fn end(&mut self, fault: Fault) {
        let Self {
            house,
            people,
            world,
            ..
        } = self;
        let Some(database) = &mut house.database else {
            return;
        };
        match fault {
            Fault::Stop(_) | Fault::Kill(_) => {
                let server = &mut database.server;
                // Clients go on while it recovers.
                thread::scope(|scope| {
                    let restart = scope.spawn(|| server.restart());
                    while !restart.is_finished() {
                        turn(people, world);
                        thread::sleep(Duration::from_micros(200));
                    }
                });
            }
            Fault::Pause(_) => database.server.resume(),
            Fault::Stall(_, cuts) => {
                if cuts {
                    database.proxy.reset();
                }
                database.proxy.stall(false);
            }
            Fault::Reset | Fault::Cut(_) => {}
        }
    }

    fn live(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.world.ledger.violations().is_empty() {
            if !self.turn() {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn turn(&mut self) -> bool {
        turn(&mut self.people, &mut self.world)
    }

    /// Everybody comes and fetches what is theirs.
    fn settle(&mut self) {
        self.world.settling = true;
        let mut last = Instant::now();
        while self.world.ledger.violations().is_empty() {
            let now = Instant::now();
            if self.turn() {
                last = now;
            } else {
                let done =
                    self.people.iter().all(Person::is_done) && self.world.ledger.is_complete();
                if now - last > if done { QUIET } else { PATIENCE } {
                    break;
                }
                thread::sleep(Duration::from_micros(500));
            }
        }
        self.world.settling = false;
        if !self.world.ledger.violations().is_empty() {
            return;
        }
        for person in self.people.iter().filter(|person| !person.is_done()) {
            self.world
                .ledger
                .trouble(format!("waited in vain: {}", person.state()));
        }
        self.world.ledger.settle();
    }

    fn progress(&self, round: u32, out: &mut dyn Write) -> io::Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        writeln!(
            out,
            "round {round}, {seconds:.0} s: {}",
            self.world.ledger.counts
        )
    }

    fn tell_backs(&mut self, out: &mut dyn Write) -> io::Result<()> {
        for (fault, backs) in &mut self.backs {
            backs.sort_unstable();
            let of = |share: usize| backs[(backs.len() - 1) * share / 100].as_secs_f64();
            writeln!(
                out,
                "after {fault} ({} times) messages are taken again within {:.2} s at the median, {:.2} s at 90 %, {:.2} s at most",
                backs.len(),
                of(50),
                of(90),
                of(100)
            )?;
        }
        Ok(())
    }

    fn tell(self, seed: u64, round: u32) -> String {
        let mut text = format!("seed {seed}, round {round}: {}", self.world.ledger.counts);
        for violation in self.world.ledger.violations() {
            let _ = write!(text, "\n  {violation}");
        }
        let _ = write!(
            text,
            "\nthe data directory is in {}",
            self.house.keep().display()
        );
        text
    }
}

/// Each does what there is to do; whether there was anything.
fn turn(people: &mut [Person], world: &mut World) -> bool {
    let mut busy = false;
    for person in people {
        busy |= person.turn(world);
    }
    busy
}
