//! Latencies, counted in buckets.
//!
//! Invariant: a percentile is at least the true one and at most 1/128 more (`tests::percentiles`).
//! Memory does not grow with what is recorded.

/// Buckets for each power of two: 2^7.
const BUCKET_BITS: u32 = 7;
const BUCKETS: usize = 1 << BUCKET_BITS;

/// Enough for every u64.
const ALL: usize = (64 - BUCKET_BITS as usize + 1) * BUCKETS;

/// How often each value, in nanoseconds, was seen.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; ALL].into_boxed_slice(),
            total: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[index(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = 0;
    }

    pub(crate) fn len(&self) -> u64 {
        self.total
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// What so many of a thousand values do not exceed; 0 when nothing was recorded.
    pub(crate) fn per_mille(&self, part: u64) -> u64 {
        let wanted = (self.total * part).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_edge(index).min(self.max);
            }
        }
        0
    }
}

/// Values below 2^7 have a bucket each; above, the highest 8 bits choose it.
fn index(value: u64) -> usize {
    let shift = (64 - BUCKET_BITS - 1).saturating_sub(value.leading_zeros());
    let within = usize::try_from(value >> shift).expect("8 bits fit a usize");
    shift as usize * BUCKETS + within
}

/// The largest value of a bucket.
fn upper_edge(index: usize) -> u64 {
    let shift = (index / BUCKETS).saturating_sub(1);
    let within = (index - shift * BUCKETS) as u64;
    (within << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::{ALL, Histogram, index, upper_edge};

    #[test]
    fn buckets_join() {
        for value in (0..100_000).chain([u64::MAX / 3, u64::MAX - 1, u64::MAX]) {
            let index = index(value);
            assert!(index < ALL);
            let edge = upper_edge(index);
            assert!(edge >= value, "{value} is in a bucket that ends at {edge}");
            assert!(edge - value <= value / 128, "{value}: {edge}");
        }
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.per_mille(500), 0);
        for value in 1..=100_000 {
            histogram.record(value);
        }
        for (part, exact) in [(500, 50_000), (990, 99_000), (999, 99_900), (1000, 100_000)] {
            let found = histogram.per_mille(part);
            assert!(
                (exact..=exact + exact / 128).contains(&found),
                "{part}: {found}"
            );
        }
        assert_eq!(histogram.max(), 100_000);
        assert_eq!(histogram.len(), 100_000);
    }
}
