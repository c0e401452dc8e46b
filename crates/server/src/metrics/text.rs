//! The snapshot as Prometheus reads it: text format 0.0.4.

use std::fmt::{self, Write};

use jam_core::metrics::MetricType;

use super::snapshot::{Snapshot, Value, Values};

/// Of the text.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Snapshot {
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for values in &self.0 {
            values.write(&mut text).expect("a String takes any text");
        }
        text
    }
}

impl Values {
    fn write(&self, text: &mut String) -> fmt::Result {
        let family = self.family;
        let kind = match family.kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram(_) => "histogram",
        };
        writeln!(text, "# HELP {} {}", family.name, family.help)?;
        writeln!(text, "# TYPE {} {kind}", family.name)?;
        for (values, value) in &self.series {
            let labels: Vec<_> = family
                .labels
                .iter()
                .copied()
                .zip(values.iter().copied())
                .collect();
            match value {
                Value::Number(number) => write_line(text, family.name, "", &labels, *number)?,
                Value::Histogram {
                    buckets,
                    sum,
                    count,
                } => {
                    for (bound, count) in buckets {
                        write_bucket(text, family.name, &labels, &bound.to_string(), *count)?;
                    }
                    write_bucket(text, family.name, &labels, "+Inf", *count)?;
                    write_line(text, family.name, "_sum", &labels, *sum)?;
                    write_line(text, family.name, "_count", &labels, *count)?;
                }
            }
        }
        Ok(())
    }
}

fn write_bucket(
    text: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    bound: &str,
    count: u64,
) -> fmt::Result {
    let mut labels = labels.to_vec();
    labels.push(("le", bound));
    write_line(text, name, "_bucket", &labels, count)
}

/// The values of labels are the table's own: there is nothing in them that would have to be escaped.
fn write_line(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    value: impl fmt::Display,
) -> fmt::Result {
    write!(text, "{name}{suffix}")?;
    for (index, (label, value)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        write!(text, "{before}{label}=\"{value}\"")?;
    }
    let end = if labels.is_empty() { "" } else { "}" };
    writeln!(text, "{end} {value}")
}
