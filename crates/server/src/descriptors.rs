//! How many connections the limit on open files leaves room for.
//!
//! Each connection takes a descriptor. When `limits.connections` is more than there are, the descriptors are
//! the places: so half-open connections make way before they run out, and files can still be opened
//! (`a_few_are_kept_for_files`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections do not get: databases, listeners, requests of the push service.
const RESERVED: u64 = 160;

/// Descriptors that the runtime of a thread takes: its epoll instance, twice, and what wakes it.
const RESERVED_PER_THREAD: u64 = 3;

/// Raises the process's limit as far as it may, and says how many connections there may be, on so many threads.
pub(crate) fn places(connections: u32, threads: usize) -> u32 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let places = within(connections, threads, limit);
    if places < connections {
        tracing::info!(
            places,
            limits.connections = connections,
            "the limit on open files leaves room for fewer connections; raise LimitNOFILE for more"
        );
    }
    places
}

/// `None` is no limit.
fn within(connections: u32, threads: usize, descriptors: Option<u64>) -> u32 {
    let Some(descriptors) = descriptors else {
        return connections;
    };
    let reserved = RESERVED + RESERVED_PER_THREAD * threads as u64;
    let reserved = reserved.min(descriptors / 2);
    let places = u32::try_from(descriptors - reserved).unwrap_or(u32::MAX);
    connections.min(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_kept_for_files() {
        assert_eq!(within(1_000_000, 1, Some(1024)), 1024 - 160 - 3);
        assert_eq!(within(1_000_000, 64, Some(1024)), 1024 - 160 - 192);
        assert_eq!(within(1_000_000, 1, Some(64)), 32);
        assert_eq!(within(100, 1, Some(1024)), 100);
        assert_eq!(within(1_000_000, 1, None), 1_000_000);
        assert_eq!(within(1_000_000, 1, Some(u64::MAX)), 1_000_000);
    }
}
