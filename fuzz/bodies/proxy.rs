//! Any bytes where a proxy's header is expected: it takes its own bytes and no more, however they are split, and what it
//! says is what a second reader finds in the specification.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::header::{Header, HeaderFault, MAX_V1_BYTES, MAX_V2_BYTES, V1_BEGINS, V2_BEGINS};

/// What came of a header.
#[derive(Debug, PartialEq)]
enum Said {
    Source(Option<IpAddr>),
    Fault(HeaderFault),
    /// More of it is to come.
    Unfinished,
}

/// The first byte is the size of the pieces; the second puts a beginning before the rest, which is what arrives.
pub(crate) fn run(data: &[u8]) {
    let [piece, begins, rest @ ..] = data else {
        return;
    };
    let begins = match begins % 4 {
        0 => V1_BEGINS,
        1 => V2_BEGINS,
        _ => b"",
    };
    let bytes = [begins, rest].concat();
    let (said, taken) = read(&bytes, bytes.len().max(1));
    let (said_of_pieces, taken_of_pieces) = read(&bytes, usize::from(*piece).max(1));
    assert_eq!(said, said_of_pieces, "pieces make a difference");
    let (expected, len) = expected(&bytes);
    assert_eq!(said, expected, "it means something else");
    if !matches!(said, Said::Fault(_)) {
        assert_eq!((taken, taken_of_pieces), (len, len), "bytes of the header");
    }
    let limit = if bytes.first() == V1_BEGINS.first() {
        MAX_V1_BYTES
    } else {
        MAX_V2_BYTES
    };
    assert!(taken <= limit && taken_of_pieces <= limit, "too many bytes");
}

/// What it says, and how many bytes it took.
fn read(bytes: &[u8], piece: usize) -> (Said, usize) {
    let (mut header, mut taken) = (Header::default(), 0);
    for arrived in bytes.chunks(piece) {
        let mut arrived = arrived;
        // What is left of a piece is seen again, as by who looks before they take.
        while !arrived.is_empty() && !header.is_whole() {
            match header.take(arrived) {
                Ok(some) => {
                    assert!(some > 0, "it takes nothing");
                    taken += some;
                    arrived = &arrived[some..];
                }
                Err(fault) => return (Said::Fault(fault), taken),
            }
        }
    }
    if !header.is_whole() {
        return (Said::Unfinished, taken);
    }
    let said = match header.source() {
        Ok(source) => Said::Source(source),
        Err(fault) => Said::Fault(fault),
    };
    (said, taken)
}

/// The same, from the specification and with all of it there: what it says, and how long it is or may be.
fn expected(bytes: &[u8]) -> (Said, usize) {
    let begins = |greeting: &[u8]| bytes.starts_with(greeting) || greeting.starts_with(bytes);
    if bytes.starts_with(V2_BEGINS) {
        return version_2(bytes);
    }
    if !begins(V1_BEGINS) && !begins(V2_BEGINS) {
        return (Said::Fault(HeaderFault::Missing), 0);
    }
    if !bytes.starts_with(V1_BEGINS) {
        return (Said::Unfinished, bytes.len());
    }
    let line = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let malformed = Said::Fault(HeaderFault::Malformed);
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let source = version_1(&line[V1_BEGINS.len()..=end]);
            (source.map_or(malformed, Said::Source), end + 1)
        }
        None if line.len() == MAX_V1_BYTES => (malformed, line.len()),
        None => (Said::Unfinished, line.len()),
    }
}

/// A line after its `PROXY `.
fn version_1(line: &[u8]) -> Option<Option<IpAddr>> {
    let line = line.strip_suffix(b"\r\n")?;
    if line.starts_with(b"UNKNOWN") {
        return (!line.contains(&b'\r')).then_some(None);
    }
    let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let [family, source, destination, from, to] = fields[..] else {
        return None;
    };
    let (source, destination): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
    let (_, _): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    fits.then(|| Some(source.to_canonical()))
}

fn version_2(bytes: &[u8]) -> (Said, usize) {
    let malformed = (Said::Fault(HeaderFault::Malformed), 0);
    let [command, family, high, low, rest @ ..] = &bytes[V2_BEGINS.len()..] else {
        return (Said::Unfinished, bytes.len());
    };
    let len = usize::from(*high) * 256 + usize::from(*low);
    let whole = V2_BEGINS.len() + 4 + len;
    if whole > MAX_V2_BYTES {
        return malformed;
    }
    let Some(body) = rest.get(..len) else {
        return (Said::Unfinished, bytes.len());
    };
    let source = match (command, family) {
        (0x20, _) | (0x21, 0) => None,
        (0x21, 0x11 | 0x12) => match body {
            [a, b, c, d, _, _, _, _, _, _, _, _, ..] => Some(Ipv4Addr::new(*a, *b, *c, *d).into()),
            _ => return malformed,
        },
        (0x21, 0x21 | 0x22) if len >= 36 => {
            let source = body.first_chunk::<16>().expect("it is as long");
            Some(IpAddr::from(Ipv6Addr::from(*source)).to_canonical())
        }
        (0x21, 0x31 | 0x32) if len >= 216 => None,
        _ => return malformed,
    };
    (Said::Source(source), whole)
}
