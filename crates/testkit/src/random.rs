//! Where decisions come from: a seeded generator for tests, or the bytes of a fuzzer.

/// A source of decisions.
pub trait Source {
    /// A number below `bound`, which is not 0; `None` when there are no more decisions.
    fn below(&mut self, bound: usize) -> Option<usize>;
}

/// A splitmix64 generator: the same seed, the same decisions, without end.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Source for Random {
    fn below(&mut self, bound: usize) -> Option<usize> {
        usize::try_from(self.next() % bound as u64).ok()
    }
}

/// Decisions of one byte each, until the bytes are used up.
#[derive(Debug, Clone)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// From what a fuzzer made.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Source for Bytes<'_> {
    fn below(&mut self, bound: usize) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(*first) % bound)
    }
}
