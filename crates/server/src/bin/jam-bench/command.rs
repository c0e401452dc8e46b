//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jam_mqtt::cli::error::CliError;
use jam_mqtt::cli::output::{Output, table};
use jam_mqtt::settings::Address;
use jam_wire::packet::{QoS, Version};

use crate::idle::{self, Idle};
use crate::offline::{self, Offline};
use crate::pairs::{self, Pairs};
use crate::prepare::prepare;
use crate::reconnect::{self, Reconnect};
use crate::users::Roster;
use crate::{BenchError, Plan, Report, resolve};

const HELP: &str = "\
Example: mkdir -p /tmp/jam-bench
         jam-bench prepare --directory sqlite:/tmp/jam-bench/jam.db --pairs 100
         JAM_MQTT_LIMITS__PUBLISH_RATE=0 jam-mqtt serve --data /tmp/jam-bench &
         jam-bench pairs --pairs 100

Against another broker: jam-bench pairs --broker 127.0.0.1:1884. Users are 1, 2, 3 … with the \
tokens token-1, token-2, token-3 …, unless --users, --directory or --password say otherwise; 1 writes \
to 2, 3 to 4, and so on. The exit status is 1 when messages were lost, came twice or out of order.";

/// What the user `{id}` logs in with, unless something else is said.
const PASSWORD: &str = "token-{id}";

/// The prefix of a directory's URL.
const SQLITE: &str = "sqlite:";

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        Self::failed(&error)
    }
}

/// Load for any MQTT broker: throughput, latency, loss, duplicates, order
#[derive(Debug, Parser)]
#[command(name = "jam-bench", version, propagate_version = true, max_term_width = 100, after_help = HELP)]
pub(crate) struct JamBench {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Make an accounts database with pairs of friends
    #[command(
        after_help = "Example: jam-bench prepare --directory sqlite:/tmp/jam-bench/jam.db --pairs 100"
    )]
    Prepare {
        /// Where: sqlite:PATH; there must be no account in it
        #[arg(long, value_name = "URL", value_parser = sqlite_path)]
        directory: PathBuf,
        /// How many pairs
        #[arg(long, value_name = "N", value_parser = number(1, 1_000_000))]
        pairs: u64,
        /// The tokens; {id} stands for the user id
        #[arg(long, value_name = "TEMPLATE", default_value = PASSWORD)]
        password: String,
    },
    /// Friends write to each other: messages a second and latency
    #[command(after_help = "Example: jam-bench pairs --pairs 1000 --both --rate 2000")]
    Pairs {
        /// How many pairs
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = number(1, 1_000_000))]
        pairs: u64,
        /// Messages of one sender that may be under way
        #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(1, 60_000))]
        window: u64,
        /// Messages a second of all senders, whatever the broker does [default: as the windows allow]
        #[arg(long, value_name = "N", value_parser = number(1, 10_000_000))]
        rate: Option<u64>,
        /// Both of a pair write, not only the first
        #[arg(long)]
        both: bool,
        /// How long to measure
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
        time: Duration,
        /// How long to send before measuring
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
        warmup: Duration,
        /// Messages of all senders at most
        #[arg(long, value_name = "N", default_value_t = 100_000_000, value_parser = number(1, 1_000_000_000))]
        messages: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Messages to receivers who are away, who then come and get them
    #[command(after_help = "Example: jam-bench offline --messages 100000")]
    Offline {
        /// How many pairs
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = number(1, 1_000_000))]
        pairs: u64,
        /// Messages of one sender that may be unacknowledged
        #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(1, 60_000))]
        window: u64,
        /// Messages of all senders
        #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = number(1, 100_000_000))]
        messages: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Clients that connect, subscribe, and then do nothing
    #[command(
        after_help = "Example: jam-bench idle --connections 5000 --broker-pid $(pidof jam-mqtt)"
    )]
    Idle {
        /// How many clients
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = number(1, 1_000_000))]
        connections: u64,
        /// How long they stay
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
        hold: Duration,
        #[command(flatten)]
        target: Target,
    },
    /// All clients lose their connections at once and come back
    #[command(after_help = "Example: jam-bench reconnect --pairs 1000 --rounds 5")]
    Reconnect {
        /// How many pairs
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = number(1, 1_000_000))]
        pairs: u64,
        /// How often
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        #[command(flatten)]
        target: Target,
    },
}

/// What all workloads take.
#[derive(Debug, Args)]
struct Target {
    /// HOST:PORT of MQTT over TCP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    broker: Address,
    /// Users and tokens from a file: lines of user,token, or of JSON objects with id and token; two
    /// lines after another are friends
    #[arg(long, value_name = "FILE", conflicts_with_all = ["directory", "password"])]
    users: Option<PathBuf>,
    /// Users and tokens from a jam database: sqlite:PATH
    #[arg(long, value_name = "URL", value_parser = sqlite_path, conflicts_with = "password")]
    directory: Option<PathBuf>,
    /// What users 1, 2, 3 … log in with; {id} stands for the user id
    #[arg(long, value_name = "TEMPLATE", default_value = PASSWORD)]
    password: String,
    /// Quality of service of messages and subscriptions
    #[arg(long, value_name = "0|1|2", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = number(1, 64 * 1024 * 1024))]
    size: u64,
    /// Speak MQTT 5.0 instead of 3.1.1
    #[arg(long)]
    mqtt5: bool,
    /// Clients that may be connecting at the same time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = number(1, 10_000))]
    concurrency: u64,
    /// How long connecting may take, and how long to wait for a message that does not come
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Read the CPU time and the memory of this process, the broker
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl JamBench {
    pub(crate) fn run(self, output: &Output) -> Result<(), CliError> {
        self.workload.run(output)
    }
}

impl Workload {
    fn run(self, output: &Output) -> Result<(), CliError> {
        match self {
            Self::Prepare {
                directory,
                pairs,
                password,
            } => {
                prepare(&directory, count(pairs), &password)?;
                output.note(&format!("{} users, befriended in pairs", 2 * pairs));
                Ok(())
            }
            Self::Pairs {
                pairs,
                window,
                rate,
                both,
                time,
                warmup,
                messages,
                target,
            } => {
                let pairs = count(pairs);
                let work = Pairs {
                    pairs,
                    window,
                    rate,
                    both,
                    time,
                    warmup,
                    messages,
                };
                target.run(2 * pairs, output, |plan| pairs::run(plan, &work))
            }
            Self::Offline {
                pairs,
                window,
                messages,
                target,
            } => {
                let pairs = count(pairs);
                let work = Offline {
                    pairs,
                    window,
                    messages,
                };
                target.run(2 * pairs, output, |plan| offline::run(plan, &work))
            }
            Self::Idle {
                connections,
                hold,
                target,
            } => {
                let connections = count(connections);
                let work = Idle { connections, hold };
                target.run(connections, output, |plan| idle::run(plan, &work))
            }
            Self::Reconnect {
                pairs,
                rounds,
                target,
            } => {
                let pairs = count(pairs);
                let work = Reconnect { pairs, rounds };
                target.run(2 * pairs, output, |plan| reconnect::run(plan, &work))
            }
        }
    }
}

impl Target {
    fn run(
        self,
        users: usize,
        output: &Output,
        work: impl FnOnce(&Plan) -> Result<Report, BenchError>,
    ) -> Result<(), CliError> {
        let json = self.json;
        let report = work(&self.plan(users)?)?;
        if json {
            output.json(&report)?;
        } else {
            output.text(&table(&report.rows()))?;
            for line in report.verdict() {
                output.line(&line)?;
            }
        }
        match report.faults.as_slice() {
            [] => Ok(()),
            faults => Err(CliError::Failed(format!(
                "the broker failed: {}",
                faults.join(", ")
            ))),
        }
    }

    fn plan(self, users: usize) -> Result<Plan, BenchError> {
        let roster = match (&self.users, &self.directory) {
            (Some(file), _) => Roster::read(file)?,
            (None, Some(path)) => Roster::of_directory(path)?,
            (None, None) => Roster::numbered(users, &self.password),
        };
        Ok(Plan {
            broker: resolve(self.broker.as_str())?,
            version: if self.mqtt5 { Version::V5 } else { Version::V4 },
            qos: match self.qos {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            size: count(self.size),
            broker_pid: self.broker_pid,
            concurrency: count(self.concurrency),
            patience: self.patience,
            progress: !self.json,
            roster,
        })
    }
}

fn number(least: u64, most: u64) -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(least..=most)
}

/// Every count on the command line has a bound far below.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn sqlite_path(url: &str) -> Result<PathBuf, String> {
    match url.strip_prefix(SQLITE) {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("expected sqlite:PATH, such as sqlite:/tmp/jam-bench/jam.db".to_owned()),
    }
}
