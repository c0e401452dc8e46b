//! The frames of a client as a stream of bytes (RFC 6455, section 5).
//!
//! [`Frames::unframe`] takes what came from the network and leaves the payload, in the same buffer: a frame
//! is handed on as it arrives, whatever its length, and nothing of it is kept here but a header or a control
//! frame that is incomplete (125 bytes). It knows no socket and no MQTT.
//!
//! Invariants: how the bytes are split changes nothing; what came before an error or a Close is handed on
//! first; of many pings only the last is answered. `tests.rs` and `fuzz/bodies/frames.rs` check them.

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// Bytes that a control frame may have (section 5.5).
pub(crate) const MAX_CONTROL: usize = 125;

/// Why a WebSocket ends: the codes of section 7.4.1 that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseCode(pub(crate) u16);

impl CloseCode {
    pub(crate) const NORMAL: Self = Self(1000);
    pub(crate) const GOING_AWAY: Self = Self(1001);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1002);
    pub(crate) const UNSUPPORTED_DATA: Self = Self(1003);
    pub(crate) const INVALID_PAYLOAD: Self = Self(1007);
    pub(crate) const TOO_LARGE: Self = Self(1009);
}

/// How a client has ended what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// By a Close frame; the code to answer, if it gave one.
    Closed(Option<CloseCode>),
    /// By what is no WebSocket, or none that MQTT allows.
    Failed(CloseCode),
}

/// The payload of a control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    bytes: [u8; MAX_CONTROL],
    len: u8,
}

impl Control {
    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What of a client's stream has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    state: FrameState,
    /// The frames of a message are not all here: continuations are expected.
    in_message: bool,
    /// The ping that is to be answered.
    ping: Option<Box<Control>>,
}

#[derive(Debug)]
enum FrameState {
    Header([u8; MAX_HEADER], u8),
    Data { left: u64, mask: [u8; 4] },
    Control(Box<PartialControl>),
    Ended(StreamEnd),
}

#[derive(Debug)]
struct PartialControl {
    opcode: u8,
    left: u8,
    mask: [u8; 4],
    payload: Control,
}

impl Default for FrameState {
    fn default() -> Self {
        Self::Header([0; MAX_HEADER], 0)
    }
}

/// Opcodes (section 5.2).
mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

impl Frames {
    /// Turns bytes as they came into payload, which is left at the front; how many bytes that are. After
    /// the end nothing more is payload.
    pub(crate) fn unframe(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            match &mut self.state {
                FrameState::Header(header, len) => {
                    header[usize::from(*len)] = bytes[at];
                    (*len, at) = (*len + 1, at + 1);
                    let header = &header[..usize::from(*len)];
                    if let Some(next) = begin(header, &mut self.in_message) {
                        self.enter(next);
                    }
                }
                FrameState::Data { left, mask } => {
                    let len = usize::try_from(*left)
                        .map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                    bytes.copy_within(at..at + len, kept);
                    unmask(&mut bytes[kept..kept + len], *mask);
                    mask.rotate_left(len % 4);
                    *left -= len as u64;
                    (at, kept) = (at + len, kept + len);
                    if *left == 0 {
                        self.state = FrameState::default();
                    }
                }
                FrameState::Control(control) => {
                    control.payload.push(bytes[at] ^ control.mask[0]);
                    control.mask.rotate_left(1);
                    (control.left, at) = (control.left - 1, at + 1);
                    if control.left == 0 {
                        let state = std::mem::take(&mut self.state);
                        self.enter(state);
                    }
                }
                FrameState::Ended(_) => break,
            }
        }
        kept
    }

    /// How the client has ended what it sends, if it has.
    pub(crate) fn end(&self) -> Option<StreamEnd> {
        match self.state {
            FrameState::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// The ping that has to be answered, once.
    pub(crate) fn take_ping(&mut self) -> Option<Box<Control>> {
        self.ping.take()
    }

    /// Frames without a payload, and control frames that are complete, are over as soon as they begin.
    fn enter(&mut self, next: FrameState) {
        self.state = match next {
            FrameState::Data { left: 0, .. } => FrameState::default(),
            FrameState::Control(control) if control.left == 0 => match control.opcode {
                opcode::CLOSE => FrameState::Ended(close(control.payload.payload())),
                opcode::PING => {
                    self.ping = Some(Box::new(control.payload));
                    FrameState::default()
                }
                _ => FrameState::default(),
            },
            other => other,
        };
    }
}

/// What follows a header; `None` as long as that is not complete.
fn begin(header: &[u8], in_message: &mut bool) -> Option<FrameState> {
    const FINAL: u8 = 0x80;
    const RESERVED: u8 = 0x70;
    const MASKED: u8 = 0x80;
    let &[first, second, ref rest @ ..] = header else {
        return None;
    };
    let (opcode, is_final) = (first & 0x0F, first & FINAL != 0);
    let is_control = opcode >= opcode::CLOSE;
    let short = second & !MASKED;
    let failed = |code| Some(FrameState::Ended(StreamEnd::Failed(code)));
    // All that two bytes can say is looked at before the rest is waited for.
    let is_allowed = match opcode {
        opcode::TEXT => return failed(CloseCode::UNSUPPORTED_DATA),
        opcode::CONTINUATION => *in_message,
        opcode::BINARY => !*in_message,
        opcode::CLOSE | opcode::PING | opcode::PONG => {
            is_final && usize::from(short) <= MAX_CONTROL
        }
        _ => false,
    };
    if !is_allowed || first & RESERVED != 0 || second & MASKED == 0 {
        return failed(CloseCode::PROTOCOL_ERROR);
    }
    let wide = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let (length, mask) = rest.split_at_checked(wide)?;
    let mask: [u8; 4] = mask.try_into().ok()?;
    let left = if wide == 0 {
        u64::from(short)
    } else {
        length
            .iter()
            .fold(0, |all, byte| all << 8 | u64::from(*byte))
    };
    if left > u64::MAX >> 1 {
        return failed(CloseCode::PROTOCOL_ERROR); // the highest bit must be 0
    }
    if is_control {
        return Some(FrameState::Control(Box::new(PartialControl {
            opcode,
            left: short,
            mask,
            payload: Control {
                bytes: [0; MAX_CONTROL],
                len: 0,
            },
        })));
    }
    *in_message = !is_final;
    Some(FrameState::Data { left, mask })
}

/// What a Close frame says (section 5.5.1).
fn close(payload: &[u8]) -> StreamEnd {
    match payload {
        [] => StreamEnd::Closed(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // Sections 7.4.1 and 7.4.2, and those that IANA has registered since.
            let is_code = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !is_code {
                StreamEnd::Failed(CloseCode::PROTOCOL_ERROR)
            } else if std::str::from_utf8(reason).is_err() {
                StreamEnd::Failed(CloseCode::INVALID_PAYLOAD)
            } else {
                StreamEnd::Closed(Some(CloseCode(code)))
            }
        }
        [_] => StreamEnd::Failed(CloseCode::PROTOCOL_ERROR),
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// The header of a server's final frame with a payload of so many bytes, and how many bytes of it count.
pub(crate) fn header(kind: FrameKind, len: usize) -> ([u8; 10], usize) {
    let opcode = match kind {
        FrameKind::Binary => opcode::BINARY,
        FrameKind::Pong => opcode::PONG,
        FrameKind::Close => opcode::CLOSE,
    };
    let mut header = [0; 10];
    header[0] = 0x80 | opcode;
    if let Ok(short) = u8::try_from(len)
        && usize::from(short) <= MAX_CONTROL
    {
        header[1] = short;
        (header, 2)
    } else if let Ok(short) = u16::try_from(len) {
        header[1] = 126;
        header[2..4].copy_from_slice(&short.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(len as u64).to_be_bytes());
        (header, 10)
    }
}

/// The frames that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Binary,
    Pong,
    Close,
}
