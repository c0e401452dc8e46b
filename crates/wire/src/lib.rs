//! MQTT 3.1, 3.1.1 and 5.0: bytes to [`Packet`] and back.
//!
//! # Layout
//!
//! - [`packet`]: one type for every packet of the three versions.
//! - [`reason`]: the reason codes of MQTT 5.0 and the return codes of MQTT 3.
//! - [`decode`]: bytes to a packet; strict, incremental, copies no payload.
//! - [`mod@encode`]: a packet to bytes, and its length beforehand.
//!
//! Invariants: nothing here reads a socket, a clock or a file, or knows which user may write to which. A packet that was decoded keeps slices of the buffer it came in.

#![forbid(unsafe_code)]

pub mod decode;
pub mod encode;
pub mod packet;
mod property;
pub mod reason;
mod user_properties;

/// The largest value of a variable byte integer, and so of a Remaining Length (section 2.2.3 of
/// 3.1.1, 1.5.5 of 5.0).
pub const MAX_VARINT: u32 = 268_435_455;

pub use bytestring::ByteString;
pub use decode::{DecodeError, Decoder};
pub use encode::{EncodeError, encode, encode_publish_header, encoded_len};
pub use packet::Packet;
pub use reason::{ConnectReturnCode, ReasonCode};
