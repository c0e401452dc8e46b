//! The figures: as JSON, and as a table for people.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::broker::Usage;
use super::ledger::Ledger;
use super::{BenchError, Plan};

/// What a workload has come to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) workload: &'static str,
    /// The broker's address.
    pub(crate) broker: String,
    /// Of all messages.
    pub(crate) qos: u8,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// How many there were.
    pub(crate) clients: usize,
    /// One after another.
    pub(crate) stages: Vec<Stage>,
    /// What became of the messages of all stages, warming up included.
    pub(crate) messages: Ledger,
    /// What is wrong; empty when nothing was lost, came twice or out of order.
    pub(crate) faults: Vec<String>,
}

/// One thing that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    /// What was done.
    pub(crate) name: &'static str,
    /// How often.
    pub(crate) count: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// How often a second.
    pub(crate) per_second: f64,
    /// CPU time of this process for each.
    pub(crate) generator_cpu_us_each: f64,
    /// From when a message was due to when it arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Latency>,
    /// What the broker used, if its process id is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker: Option<BrokerCost>,
}

/// Microseconds that so many percent of the messages took at most.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    pub(crate) max: f64,
}

/// CPU time and memory of the broker over a stage.
#[derive(Debug, Serialize)]
pub(crate) struct BrokerCost {
    /// Seconds in all.
    pub(crate) cpu_seconds: f64,
    /// Microseconds for each.
    pub(crate) cpu_us_each: f64,
    /// Growth of the proportional set for each.
    pub(crate) pss_kib_each: f64,
    before: Usage,
    after: Usage,
}

/// Measures a stage from its beginning to its end.
pub(super) struct Stopwatch {
    name: &'static str,
    broker_pid: Option<u32>,
    begun: Instant,
    own: Duration,
    broker: Option<Usage>,
}

impl Stopwatch {
    pub(super) fn start(name: &'static str, plan: &Plan) -> Result<Self, BenchError> {
        Ok(Self {
            name,
            broker_pid: plan.broker_pid,
            broker: plan.broker_pid.map(Usage::of).transpose()?,
            own: own_cpu(),
            begun: Instant::now(),
        })
    }

    /// The stage is over after so many of what is counted.
    pub(super) fn stop(
        self,
        count: u64,
        latency: Option<&Histogram<u64>>,
    ) -> Result<Stage, BenchError> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let own = (own_cpu() - self.own).as_secs_f64();
        let after = self.broker_pid.map(Usage::of).transpose()?;
        let each = |total: f64| {
            if count == 0 {
                0.0
            } else {
                total / count as f64
            }
        };
        let broker = self.broker.zip(after).map(|(before, after)| {
            let cpu_seconds = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
            BrokerCost {
                cpu_seconds,
                cpu_us_each: each(cpu_seconds * 1e6),
                pss_kib_each: each(after.pss_kib as f64 - before.pss_kib as f64),
                before,
                after,
            }
        });
        Ok(Stage {
            name: self.name,
            count,
            seconds,
            per_second: count as f64 / seconds,
            generator_cpu_us_each: each(own * 1e6),
            latency_us: latency.filter(|all| !all.is_empty()).map(Latency::of),
            broker,
        })
    }
}

/// Zero where /proc is not there to tell.
fn own_cpu() -> Duration {
    Usage::of(std::process::id()).map_or(Duration::ZERO, |usage| usage.cpu)
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Self {
            p50: micros(histogram.value_at_quantile(0.5)),
            p90: micros(histogram.value_at_quantile(0.9)),
            p99: micros(histogram.value_at_quantile(0.99)),
            p99_9: micros(histogram.value_at_quantile(0.999)),
            max: micros(histogram.max()),
        }
    }
}

impl Report {
    pub(super) fn new(
        workload: &'static str,
        plan: &Plan,
        clients: usize,
        stages: Vec<Stage>,
        messages: Ledger,
    ) -> Self {
        Self {
            workload,
            broker: plan.broker.to_string(),
            qos: plan.qos as u8,
            size: plan.size,
            clients,
            stages,
            faults: messages.faults(plan.qos as u8 == 0),
            messages,
        }
    }

    /// Rows of a table; the first is its heading.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let heading = [
            "stage",
            "count",
            "seconds",
            "per second",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "broker CPU",
            "memory",
            "own CPU",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.stages.iter().map(Stage::row));
        rows
    }

    /// Lines about what became of the messages.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let messages = &self.messages;
        let mut lines = Vec::new();
        if messages.sent > 0 {
            lines.push(format!(
                "sent {}, acknowledged {}, delivered {}, refused {}, lost {}, duplicates {}, redelivered {}, \
                 out of order {}",
                messages.sent,
                messages.acknowledged,
                messages.delivered,
                messages.refused,
                messages.lost,
                messages.duplicates,
                messages.redelivered,
                messages.out_of_order,
            ));
        }
        for (category, count) in &messages.refusals {
            lines.push(format!("refused by {category}: {count}"));
        }
        if messages.refusals.contains_key("authorizePublish/rate") {
            lines.push(
                "the server's limits.publish_rate is in the way; 0 switches it off".to_owned(),
            );
        }
        lines
    }
}

impl Stage {
    fn row(&self) -> Vec<String> {
        let mut row = vec![
            self.name.to_owned(),
            self.count.to_string(),
            format!("{:.2}", self.seconds),
            format!("{:.0}", self.per_second),
        ];
        match &self.latency_us {
            Some(l) => row.extend([l.p50, l.p90, l.p99, l.p99_9, l.max].map(milliseconds)),
            None => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
        }
        match &self.broker {
            Some(broker) => row.extend([
                format!("{:.2} µs each", broker.cpu_us_each),
                format!("{} KiB", broker.after.pss_kib),
            ]),
            None => row.extend(["-".to_owned(), "-".to_owned()]),
        }
        row.push(format!("{:.2} µs each", self.generator_cpu_us_each));
        row
    }
}

fn milliseconds(micros: f64) -> String {
    format!("{:.2} ms", micros / 1e3)
}
