//! A socket with the bytes on their way in and out.
//!
//! Readiness is edge-triggered: a read that fills less than the buffer has emptied the socket, and a
//! write that takes less than all will be told of when there is room again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use bytes::BytesMut;
use jam_wire::packet::{Packet, Version};
use jam_wire::{Decoder, MAX_VARINT};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// How many bytes one read takes at most.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// An output buffer that has been larger is given back once it is written.
const KEEP_BYTES: usize = 64 * 1024;

/// What a packet may have at most.
const MAX_PACKET: usize = MAX_VARINT as usize;

/// A connection to the broker.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of `output` has been written.
    written: usize,
    /// The socket has taken all it was given.
    writable: bool,
}

impl Link {
    /// Begins to connect. What is put out before the connection is there waits for it.
    pub(crate) fn open(
        broker: SocketAddr,
        version: Version,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            decoder: Decoder::client(version, MAX_PACKET),
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            writable: false,
        })
    }

    /// What is to be written, to append to.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.output.len() - self.written
    }

    /// The socket can be written to, or has failed.
    pub(crate) fn handle_writable(&mut self) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        self.writable = true;
        self.flush()
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.writable && self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.output.len() {
            self.written = 0;
            self.output.clear();
            self.output.shrink_to(KEEP_BYTES);
        }
        Ok(())
    }

    /// Reads what has come, and appends its packets. False when the broker has ended the connection.
    ///
    /// `ended` is whether the end of the stream is known to be near.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        packets: &mut Vec<Packet>,
        ended: bool,
    ) -> io::Result<bool> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    self.decode(packets)?;
                    if count < scratch.len() && !ended {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn decode(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
        while let Some(packet) = self.decoder.decode(&mut self.input).map_err(invalid)? {
            packets.push(packet);
        }
        Ok(())
    }
}
