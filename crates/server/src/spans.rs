//! Spans for OpenTelemetry: how long logins, messages, commits and pushes took. The default build has none (feature `otel`;
//! ADR 32).
//!
//! A span is made when what it tells of is over, where that is counted, out of the time that it took. `export` sends them.
//!
//! Invariants: nobody waits for a collector, for a span goes into a bounded queue or is lost; no span holds a payload, a
//! token, a user, an address or a topic (`tests/otel.rs`).

#[cfg(feature = "otel")]
mod export;

#[cfg(feature = "otel")]
pub(crate) use export::{committed, connected, published, pushed, start};

/// What the default build has in its place.
#[cfg(not(feature = "otel"))]
mod none {
    use std::time::Duration;

    pub(crate) struct Spans;

    impl Spans {
        pub(crate) fn end(self) {}
    }

    #[expect(clippy::unnecessary_wraps, reason = "with the feature it may fail")]
    pub(crate) fn start() -> Result<Spans, String> {
        Ok(Spans)
    }

    #[inline]
    pub(crate) fn committed(_changes: usize, _took: Duration) {}

    #[inline]
    pub(crate) fn pushed(_outcome: &'static str, _took: Duration) {}
}

#[cfg(not(feature = "otel"))]
pub(crate) use none::{committed, pushed, start};
