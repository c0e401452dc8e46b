//! Any bytes as the frames of a WebSocket: however they are split, the payload, the last ping and the end are
//! those that a reader finds that has all of it before it.

use super::frames::{CloseCode, Frames, MAX_CONTROL, StreamEnd};

/// What a stream of frames says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    payload: Vec<u8>,
    ping: Option<Vec<u8>>,
    end: Option<StreamEnd>,
}

/// The first byte is the size of the pieces; the rest is what arrives.
pub(crate) fn run(data: &[u8]) {
    let [piece, bytes @ ..] = data else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(
        whole,
        read(bytes, usize::from(*piece).max(1)),
        "pieces make a difference"
    );
    assert_eq!(whole, expected(bytes), "it means something else");
}

fn read(bytes: &[u8], piece: usize) -> Said {
    let (mut frames, mut said) = (Frames::default(), Said::default());
    for piece in bytes.chunks(piece) {
        let mut piece = piece.to_vec();
        let len = frames.unframe(&mut piece);
        said.payload.extend_from_slice(&piece[..len]);
        if let Some(ping) = frames.take_ping() {
            said.ping = Some(ping.payload().to_vec());
        }
    }
    said.end = frames.end();
    said
}

/// The same, from the standard and by somebody who waits for nothing.
fn expected(mut bytes: &[u8]) -> Said {
    let (mut said, mut in_message) = (Said::default(), false);
    while said.end.is_none() && bytes.len() >= 2 {
        let (opcode, is_final) = (bytes[0] & 15, bytes[0] & 128 > 0);
        let is_control = opcode > 7;
        let short = usize::from(bytes[1] & 127);
        let is_wrong = bytes[0] & 0x70 > 0
            || bytes[1] & 128 == 0
            || !matches!(opcode, 0 | 2 | 8..=10)
            || (is_control && (!is_final || short > MAX_CONTROL))
            || (opcode == 0 && !in_message)
            || (opcode == 2 && in_message);
        if is_wrong {
            let text = opcode == 1;
            let code = if text {
                CloseCode::UNSUPPORTED_DATA
            } else {
                CloseCode::PROTOCOL_ERROR
            };
            said.end = Some(StreamEnd::Failed(code));
            break;
        }
        let wide = [0, 2, 8][usize::from(short > 125) + usize::from(short > 126)];
        if bytes.len() < 2 + wide + 4 {
            break;
        }
        let len = match wide {
            0 => short as u64,
            _ => bytes[2..2 + wide]
                .iter()
                .fold(0, |len, byte| len * 256 + u64::from(*byte)),
        };
        if len >= 1 << 63 {
            said.end = Some(StreamEnd::Failed(CloseCode::PROTOCOL_ERROR));
            break;
        }
        let mask = &bytes[2 + wide..2 + wide + 4];
        let data = &bytes[2 + wide + 4..];
        let is_whole = data.len() as u64 >= len;
        let here = usize::try_from(len).map_or(data.len(), |len| len.min(data.len()));
        let (data, rest) = data.split_at(here);
        let payload: Vec<u8> = data
            .iter()
            .zip(mask.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        if is_control {
            if is_whole {
                control(opcode, payload, &mut said);
            }
        } else {
            said.payload.extend(payload);
            in_message = !is_final;
        }
        if !is_whole {
            break;
        }
        bytes = rest;
    }
    said
}

fn control(opcode: u8, payload: Vec<u8>, said: &mut Said) {
    match opcode {
        8 if payload.is_empty() => said.end = Some(StreamEnd::Closed(None)),
        8 if payload.len() == 1 => said.end = Some(StreamEnd::Failed(CloseCode::PROTOCOL_ERROR)),
        8 => {
            let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
            let is_known = (1000..1015).contains(&code) && !(1004..1007).contains(&code);
            said.end = Some(if !is_known && !(3000..5000).contains(&code) {
                StreamEnd::Failed(CloseCode::PROTOCOL_ERROR)
            } else if String::from_utf8(payload[2..].to_vec()).is_err() {
                StreamEnd::Failed(CloseCode::INVALID_PAYLOAD)
            } else {
                StreamEnd::Closed(Some(CloseCode(code)))
            });
        }
        9 => said.ping = Some(payload),
        _ => {}
    }
}
