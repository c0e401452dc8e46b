//! Load, kill, restart, over and over; now and then everybody fetches what is theirs.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use jam_testkit::random::Random;
use jam_wire::packet::{QoS, Version};

use crate::ledger::{Counts, Ledger};
use crate::person::{Habits, Person, World};
use crate::server::House;

/// How long everybody may take to fetch what is theirs, without any progress. A busy disk has kept one
/// fsync waiting for 15 seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing more has come for so long: what clients have said last is in the server's store.
const QUIET: Duration = Duration::from_secs(1);
/// Users who may not write to each other.
const STRANGERS: &[(u16, u16)] = &[(1, 7), (4, 5)];

/// What a campaign is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Kills.
    pub rounds: u32,
    /// Where chance begins.
    pub seed: u64,
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
    let mut campaign = Campaign::new(options.seed);
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
    Ok(campaign.world.ledger.counts)
}

struct Campaign {
    house: House,
    people: Vec<Person>,
    world: World,
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
    fn new(seed: u64) -> Self {
        let people = people();
        let users = u16::try_from(people.len()).expect("few people");
        let world = World {
            ledger: Ledger::default(),
            random: Random::new(seed),
            port: 0,
            users,
            strangers: STRANGERS.to_vec(),
            settling: false,
            next: 0,
        };
        Self {
            house: House::new(users, STRANGERS, &[]),
            people,
            world,
            began: Instant::now(),
        }
    }

    /// Start, load, kill; if it `settles`, everybody fetches what is theirs before the kill.
    fn round(&mut self, settles: bool) {
        if self.world.below(5) == 0 {
            // Now and then one is killed while it starts.
            let server = self.house.spawn();
            thread::sleep(Duration::from_micros(self.world.below(30_000) as u64));
            server.kill();
        }
        let server = self.house.start();
        self.world.port = server.port();
        for person in &mut self.people {
            person.present = self.world.below(10) < person.habits().presence;
        }
        // Now and then it does not live long enough for anybody to have come back properly.
        let load = match self.world.below(5) {
            0 => self.world.below(60),
            1 => 700 + self.world.below(700),
            _ => 100 + self.world.below(500),
        };
        self.live_until(Instant::now() + Duration::from_millis(load as u64));
        if settles {
            self.settle();
        }
        server.kill();
        for person in &mut self.people {
            person.server_was_killed(&mut self.world);
        }
        // What the kernel still had of it arrived before the crash, as far as clients can tell.
        self.world.ledger.crash();
    }

    fn live_until(&mut self, end: Instant) {
        while Instant::now() < end && self.world.ledger.violations().is_empty() {
            if !self.turn() {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn turn(&mut self) -> bool {
        let mut busy = false;
        for person in &mut self.people {
            busy |= person.turn(&mut self.world);
        }
        busy
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
