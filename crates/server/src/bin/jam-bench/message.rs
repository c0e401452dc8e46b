//! What is sent: a private message of the protocol with a number and a time in it.
//!
//! `{"from":"<sender>","timestamp":"<15 digits>","content":"<10 digits> xxx…","type":0}`: the timestamp
//! is when it was due, in nanoseconds since the start, the content its number among those of its sender.
//! Each sender's PUBLISH is encoded once; for each message the digits and the packet id are overwritten.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use jam_wire::packet::{PacketId, Publish, QoS, Version};

use super::BenchError;

const FROM: &str = "{\"from\":\"";
const TIME: &str = "\",\"timestamp\":\"";
const TIME_DIGITS: usize = 15;
const NUMBER: &str = "\",\"content\":\"";
const NUMBER_DIGITS: usize = 10;
const END: &str = "\",\"type\":0}";

/// A sender's PUBLISH.
#[derive(Debug)]
pub(crate) struct Template {
    packet: Vec<u8>,
    /// Where the packet id stands; none at QoS 0.
    id_at: Option<usize>,
    time_at: usize,
    number_at: usize,
}

/// What a message that has arrived says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp<'a> {
    /// The sender.
    pub(crate) from: &'a [u8],
    /// When it was due.
    pub(crate) time: u64,
    /// Which of the sender's messages it is, from 0.
    pub(crate) number: u64,
}

impl Template {
    /// A message of `size` bytes from `from` to `to`.
    pub(crate) fn new(
        from: &str,
        to: &str,
        size: usize,
        qos: QoS,
        version: Version,
    ) -> Result<Self, BenchError> {
        let payload = payload(from, size)?;
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: ByteString::from(format!("/{to}/inbox")),
            packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
            properties: None,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        let mut packet = BytesMut::new();
        jam_wire::encode(&jam_wire::Packet::Publish(publish), version, &mut packet)
            .map_err(|error| BenchError::new(format!("this cannot be sent: {error}")))?;
        let payload_at = packet.len() - payload.len();
        let properties_len = usize::from(version == Version::V5);
        let time_at = payload_at + FROM.len() + from.len() + TIME.len();
        Ok(Self {
            packet: packet.to_vec(),
            id_at: (qos != QoS::AtMostOnce).then_some(payload_at - properties_len - 2),
            time_at,
            number_at: time_at + TIME_DIGITS + NUMBER.len(),
        })
    }

    /// Appends the message with these digits.
    pub(crate) fn put(&self, number: u64, time: u64, id: u16, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.packet);
        let packet = &mut out[at..];
        if let Some(id_at) = self.id_at {
            packet[id_at..id_at + 2].copy_from_slice(&id.to_be_bytes());
        }
        put_digits(&mut packet[self.time_at..][..TIME_DIGITS], time);
        put_digits(&mut packet[self.number_at..][..NUMBER_DIGITS], number);
    }
}

impl<'a> Stamp<'a> {
    /// `None` if the payload is not one of ours.
    pub(crate) fn read(payload: &'a [u8]) -> Option<Self> {
        let rest = payload.strip_prefix(FROM.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let (from, rest) = rest.split_at(end);
        let (time, rest) = digits(rest.strip_prefix(TIME.as_bytes())?, TIME_DIGITS)?;
        let (number, _) = digits(rest.strip_prefix(NUMBER.as_bytes())?, NUMBER_DIGITS)?;
        Some(Self { from, time, number })
    }
}

fn payload(from: &str, size: usize) -> Result<String, BenchError> {
    let (time, number) = ("0".repeat(TIME_DIGITS), "0".repeat(NUMBER_DIGITS));
    let head = format!("{FROM}{from}{TIME}{time}{NUMBER}{number} ");
    let least = head.len() + END.len();
    let filler = size.checked_sub(least).ok_or_else(|| {
        BenchError::new(format!(
            "a message of user {from} has at least {least} bytes, not {size}; raise --size"
        ))
    })?;
    Ok(format!("{head}{}{END}", "x".repeat(filler)))
}

/// Writes the last `out.len()` digits.
fn put_digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn digits(bytes: &[u8], count: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(count)?;
    let mut value = 0;
    for digit in digits {
        value = value * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    Some((value, rest))
}
