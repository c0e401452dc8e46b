//! All numbers at one moment: what `/metrics`, and whatever else shows them, is made of.

use std::collections::BTreeMap;

use jam_core::metrics::{Cells, Family, MetricType, Metrics};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::ServerMetrics;
use super::families::{ALL, Gauge, ValueSource};

/// The numbers that have been gathered: of each series of a family, in their order.
#[derive(Debug, Default)]
pub(crate) struct Gauges(BTreeMap<Gauge, Vec<f64>>);

impl Gauges {
    pub(crate) fn set(&mut self, gauge: Gauge, values: &[f64]) {
        debug_assert_eq!(values.len(), ValueSource::Gathered(gauge).family().count());
        self.0.insert(gauge, values.to_vec());
    }
}

/// A series' number, or numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    Histogram {
        /// Bound and how many values are no larger.
        buckets: Vec<(f64, u64)>,
        sum: f64,
        count: u64,
    },
}

/// All series of a metric.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) family: &'static Family,
    pub(crate) series: Vec<(Vec<&'static str>, Value)>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Snapshot(pub(crate) Vec<Values>);

impl Snapshot {
    pub(crate) fn new(rules: &Metrics, server: &ServerMetrics, gauges: &Gauges) -> Self {
        // What is less is read first, so that no more have left than have come.
        let mut values: Vec<_> = ALL
            .iter()
            .rev()
            .map(|place| Values::of(*place, rules, server, gauges))
            .collect();
        values.reverse();
        Self(values)
    }
}

impl Values {
    fn of(place: ValueSource, rules: &Metrics, server: &ServerMetrics, gauges: &Gauges) -> Self {
        let family = place.family();
        let value = |series: usize| match place {
            ValueSource::Rules(_) => read(family, rules.cells(), place.first_cell(), series),
            ValueSource::Counted(_) => read(family, server.cells(), place.first_cell(), series),
            ValueSource::Gathered(gauge) => {
                let gathered = gauges.0.get(&gauge).and_then(|values| values.get(series));
                Value::Number(gathered.copied().unwrap_or(0.0))
            }
        };
        let series = (0..family.count()).map(|series| (family.values(series), value(series)));
        Self {
            family,
            series: series.collect(),
        }
    }
}

fn read(family: &Family, cells: &Cells, first: usize, series: usize) -> Value {
    let first = first + series * family.cells_of_series();
    match family.kind {
        MetricType::Counter => Value::Number(as_number(cells.sum(first))),
        // A gauge is made of what was added and taken away, which are not read at one moment.
        MetricType::Gauge => Value::Number(as_number(
            cells.sum(first).cast_signed().max(0).cast_unsigned(),
        )),
        MetricType::Histogram(buckets) => {
            let sum = as_number(cells.sum(first + buckets.count())) / buckets.unit;
            let mut count = 0;
            let mut bounded = Vec::new();
            for index in 0..buckets.count() {
                count += cells.sum(first + index);
                if index + 1 < buckets.count() {
                    bounded.push((buckets.bound(index), count));
                }
            }
            Value::Histogram {
                buckets: bounded,
                sum,
                count,
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
pub(super) fn as_number(count: u64) -> f64 {
    count as f64
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for values in &self.0 {
            map.serialize_entry(values.family.name, values)?;
        }
        map.end()
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.series.iter().map(|(values, value)| {
            ShownSeries {
                labels: self
                    .family
                    .labels
                    .iter()
                    .copied()
                    .zip(values.iter().copied())
                    .collect(),
                value,
            }
        }))
    }
}

#[derive(Serialize)]
struct ShownSeries<'a> {
    labels: BTreeMap<&'static str, &'static str>,
    #[serde(flatten)]
    value: &'a Value,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Number(value) => map.serialize_entry("value", value)?,
            Self::Histogram {
                buckets,
                sum,
                count,
            } => {
                map.serialize_entry("count", count)?;
                map.serialize_entry("sum", sum)?;
                map.serialize_entry("buckets", buckets)?;
            }
        }
        map.end()
    }
}
