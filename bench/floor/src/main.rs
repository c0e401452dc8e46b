//! The floor: moves the bytes of `jam-bench pairs` between the same sockets, and nothing else.
//!
//! It says yes to everybody, keeps nothing, checks nothing and parses only what tells one packet from
//! the next: a CONNECT tells the user id, a SUBSCRIBE is answered, PUBLISH packets go as they are to
//! the user in their topic, and each PUBACK of a receiver goes to the peer that wrote to it last. What comes in
//! together is handled together and leaves each socket with one write, which is as cheap as the work gets.
//! Only for QoS 1 and MQTT 3.1.1. Usage: jam-bench-floor HOST:PORT

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 * 1024;

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Where this one's PUBLISH packets went last, and which peer its acknowledgements go to.
    receiver: Option<(Vec<u8>, usize)>,
    writer: Option<usize>,
    listed: bool,
}

#[derive(Default)]
struct Relay {
    peers: Vec<Option<Peer>>,
    users: HashMap<Vec<u8>, usize>,
    listed: Vec<usize>,
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .and_then(|text| text.parse::<SocketAddr>().ok());
    let Some(address) = address else {
        eprintln!("usage: jam-bench-floor HOST:PORT");
        std::process::exit(2);
    };
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; READ_BYTES];
    let mut relay = Relay::default();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                relay.accept(&listener, &poll)?;
                continue;
            }
            let Token(at) = event.token();
            if event.is_writable() {
                relay.list(at);
            }
            if event.is_readable() {
                relay.read(at, &mut scratch, event.is_read_closed());
            }
        }
        relay.write();
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let token = Token(self.peers.len());
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, token, interest)?;
                    self.peers.push(Some(Peer {
                        stream,
                        input: Vec::new(),
                        output: Vec::new(),
                        receiver: None,
                        writer: None,
                        listed: false,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self, at: usize, scratch: &mut [u8], ended: bool) {
        let Some(peer) = &mut self.peers[at] else {
            return;
        };
        match peer.stream.read(scratch) {
            Ok(0) => self.peers[at] = None,
            Ok(count) if peer.input.is_empty() => {
                let taken = self.relay(at, &scratch[..count]);
                if let (Some(peer), true) = (&mut self.peers[at], taken < count) {
                    peer.input.extend_from_slice(&scratch[taken..count]);
                }
            }
            Ok(count) => {
                peer.input.extend_from_slice(&scratch[..count]);
                let mut input = std::mem::take(&mut peer.input);
                let taken = self.relay(at, &input);
                input.drain(..taken);
                if let Some(peer) = &mut self.peers[at] {
                    peer.input = input;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.peers[at] = None,
        }
        if ended {
            self.peers[at] = None;
        }
    }

    /// Handles the whole packets, runs of the same kind at once. Returns their length.
    fn relay(&mut self, at: usize, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some((body, end)) = frame(&bytes[taken..]) {
            let packet = &bytes[taken..taken + end];
            match packet[0] >> 4 {
                1 => {
                    let id = field(&packet[body + 10..]);
                    let user = id.split(|byte| *byte == b':').next().unwrap_or_default();
                    self.users.insert(user.to_vec(), at);
                    self.put(at, &[0x20, 2, 0, 0]);
                }
                3 => self.publish(at, field(&packet[body..]), packet),
                4 => {
                    if let Some(writer) = self.peers[at].as_ref().and_then(|peer| peer.writer) {
                        self.put(writer, packet);
                    }
                }
                8 => self.put(at, &[0x90, 3, packet[body], packet[body + 1], 1]),
                _ => {}
            }
            taken += end;
        }
        taken
    }

    /// To the user in the topic `/<user>/inbox`.
    fn publish(&mut self, at: usize, topic: &[u8], packet: &[u8]) {
        let known = self.peers[at]
            .as_ref()
            .and_then(|peer| peer.receiver.as_ref());
        let to = match known {
            Some((last, to)) if last == topic => *to,
            _ => {
                let user = topic.split(|byte| *byte == b'/').nth(1).unwrap_or_default();
                let Some(to) = self.users.get(user).copied() else {
                    return;
                };
                if let Some(peer) = &mut self.peers[at] {
                    peer.receiver = Some((topic.to_vec(), to));
                }
                if let Some(peer) = &mut self.peers[to] {
                    peer.writer = Some(at);
                }
                to
            }
        };
        self.put(to, packet);
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(peer) = &mut self.peers[at] {
            peer.output.extend_from_slice(bytes);
        }
        self.list(at);
    }

    fn list(&mut self, at: usize) {
        if let Some(peer) = &mut self.peers[at]
            && !std::mem::replace(&mut peer.listed, true)
        {
            self.listed.push(at);
        }
    }

    fn write(&mut self) {
        for at in self.listed.drain(..) {
            let Some(peer) = &mut self.peers[at] else {
                continue;
            };
            peer.listed = false;
            if peer.output.is_empty() {
                continue;
            }
            match peer.stream.write(&peer.output) {
                Ok(count) if count == peer.output.len() => peer.output.clear(),
                Ok(count) => drop(peer.output.drain(..count)),
                // There will be an event when there is room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.peers[at] = None,
            }
        }
    }
}

/// Where the body of the first packet begins, and where it ends, if it is whole.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for place in 0..4 {
        let byte = usize::from(*bytes.get(1 + place)?);
        length |= (byte & 0x7F) << (7 * place);
        if byte < 0x80 {
            let body = 2 + place;
            return (bytes.len() >= body + length).then_some((body, body + length));
        }
    }
    None
}

/// The bytes of a field with a length before it.
fn field(bytes: &[u8]) -> &[u8] {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return &[];
    };
    rest.get(..usize::from(u16::from_be_bytes(*length)))
        .unwrap_or_default()
}
