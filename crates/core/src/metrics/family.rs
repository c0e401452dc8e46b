//! What a metric is called, means and is told apart by; and where its cells are.

/// A metric: all series of one name.
#[derive(Debug)]
pub struct Family {
    /// With its unit, and `_total` if it is a counter.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricType,
    /// What it means, with its unit: one sentence.
    pub help: &'static str,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// Their values.
    pub series: Series,
}

/// What kind of a metric it is.
#[derive(Debug, Clone, Copy)]
pub enum MetricType {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values were of a size.
    Histogram(Buckets),
}

/// The buckets of a histogram: bounds that are powers of two, so that a value finds its bucket without a search.
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    /// The first bound is 2 to this power.
    pub first: u32,
    /// The last bound is 2 to this power.
    pub last: u32,
    /// One of these is 1 in the text: a million where values are in microseconds and told in seconds.
    pub unit: f64,
}

/// The values of a family's labels.
#[derive(Debug)]
pub enum Series {
    /// One series, without labels.
    One,
    /// Each value of the first label with each of the others.
    Product(&'static [&'static [&'static str]]),
    /// These, and no other combinations.
    Listed(&'static [&'static [&'static str]]),
    /// So many, of which each has values by its place.
    Computed(usize, fn(usize) -> Vec<&'static str>),
}

impl Buckets {
    /// Microseconds, told as seconds.
    #[must_use]
    pub const fn of_seconds(first: u32, last: u32) -> Self {
        Self {
            first,
            last,
            unit: 1e6,
        }
    }

    /// Plain numbers.
    #[must_use]
    pub const fn of_numbers(first: u32, last: u32) -> Self {
        Self {
            first,
            last,
            unit: 1.0,
        }
    }

    /// How many, with the one that has no bound.
    #[must_use]
    pub const fn count(&self) -> usize {
        (self.last - self.first) as usize + 2
    }

    /// The first bucket whose bound is no smaller: by how many bits are left of what is below the value when those of the
    /// first bucket are gone. A one behind them spares a look at zero.
    #[must_use]
    pub const fn index(&self, value: u64) -> usize {
        let above = value.saturating_sub(1) >> self.first;
        let index = (above << 1 | 1).ilog2() as usize;
        if index < self.count() {
            index
        } else {
            self.count() - 1
        }
    }

    /// The bound of a bucket that has one.
    #[must_use]
    pub fn bound(&self, index: usize) -> f64 {
        let power = i32::try_from(self.first as usize + index).expect("below 64");
        2f64.powi(power) / self.unit
    }
}

impl Family {
    /// How many series there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self.series {
            Series::One => 1,
            Series::Listed(listed) => listed.len(),
            Series::Computed(len, _) => len,
            Series::Product(values) => {
                let (mut len, mut index) = (1, 0);
                while index < values.len() {
                    len *= values[index].len();
                    index += 1;
                }
                len
            }
        }
    }

    /// How many cells a series takes: one, or one for each bucket and one for the sum of the values.
    #[must_use]
    pub const fn cells_of_series(&self) -> usize {
        match self.kind {
            MetricType::Counter | MetricType::Gauge => 1,
            MetricType::Histogram(buckets) => buckets.count() + 1,
        }
    }

    /// The label values of a series, in the order of [`Self::labels`].
    #[must_use]
    pub fn values(&self, series: usize) -> Vec<&'static str> {
        match self.series {
            Series::One => Vec::new(),
            Series::Listed(listed) => listed[series].to_vec(),
            Series::Computed(_, values) => values(series),
            Series::Product(values) => {
                let mut rest = series;
                let mut found: Vec<_> = values
                    .iter()
                    .rev()
                    .map(|of_label| {
                        let value = of_label[rest % of_label.len()];
                        rest /= of_label.len();
                        value
                    })
                    .collect();
                found.reverse();
                found
            }
        }
    }
}

/// The first cell of a family in a table of them: their cells follow one another.
#[must_use]
pub const fn first_cell(families: &[Family], family: usize) -> usize {
    let (mut cell, mut index) = (0, 0);
    while index < family {
        cell += families[index].count() * families[index].cells_of_series();
        index += 1;
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_holds_it() {
        let buckets = Buckets::of_numbers(2, 5); // 4, 8, 16, 32, more
        assert_eq!(buckets.count(), 5);
        for (value, index) in [
            (0, 0),
            (1, 0),
            (4, 0),
            (5, 1),
            (8, 1),
            (9, 2),
            (32, 3),
            (33, 4),
            (u64::MAX, 4),
        ] {
            assert_eq!(buckets.index(value), index, "{value}");
        }
        assert!((buckets.bound(3) - 32.0).abs() < f64::EPSILON);
        assert!((Buckets::of_seconds(10, 20).bound(0) - 0.001_024).abs() < f64::EPSILON);
    }

    #[test]
    fn the_series_of_a_product_are_all_combinations() {
        let family = Family {
            name: "",
            kind: MetricType::Counter,
            help: "",
            labels: &["a", "b"],
            series: Series::Product(&[&["1", "2"], &["x", "y", "z"]]),
        };
        assert_eq!(family.count(), 6);
        let all: Vec<_> = (0..6).map(|it| family.values(it).concat()).collect();
        assert_eq!(all, ["1x", "1y", "1z", "2x", "2y", "2z"]);
    }
}
