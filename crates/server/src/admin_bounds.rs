//! What connections to the `admin` address may take; `admin` keeps to it, and `limits` says it.

/// Connections at once; more wait in the kernel.
pub(crate) const MAX_CONNECTIONS: usize = 128;

/// How many bytes the head of a request may have.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Bytes that the body of a request may have.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Bytes that the kernel keeps for a client that does not read, twice.
pub(crate) const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Memory of all connections at their worst, besides what they are answered: for each what is read, a request's body, and
/// what the kernel keeps.
pub(crate) const CONNECTIONS_BYTES: usize =
    MAX_CONNECTIONS * (MAX_HEAD_BYTES + MAX_BODY_BYTES + 2 * SEND_BUFFER_BYTES);
