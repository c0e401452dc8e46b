use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};

use super::*;

#[path = "../../../../fuzz/bodies/frames.rs"]
mod body;

/// Nothing takes longer, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// A masked frame, as clients send them.
fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(is_final) << 7 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let mask = [0xA5, 0x01, 0xFF, 0x7E];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(2, true, payload)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(9, true, payload)
}

/// The server's stream and the client's end of what is under it.
fn open(room: usize) -> (WebSocketStream<DuplexStream>, DuplexStream) {
    let (server, client) = duplex(room);
    (WebSocketStream::after(Bytes::new(), server), client)
}

/// The next frame of the server: opcode and payload.
async fn receive(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let [first, second] = [
        client.read_u8().await.unwrap(),
        client.read_u8().await.unwrap(),
    ];
    let len = match second {
        126 => client.read_u16().await.unwrap().into(),
        127 => client.read_u64().await.unwrap(),
        short => short.into(),
    };
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    client.read_exact(&mut payload).await.unwrap();
    assert_eq!(first & 0xF0, 0x80, "each frame is a whole message");
    (first & 15, payload)
}

/// What the server reads to its end, and the framing error that it ends with.
async fn read_all(socket: &mut WebSocketStream<DuplexStream>) -> (Vec<u8>, Option<CloseCode>) {
    let mut all = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut all));
    match reading.await.expect("it ends by itself") {
        Ok(_) => (all, None),
        Err(error) => {
            assert!(FramingError::is_in(&error), "{error}");
            let error = error.into_inner().unwrap().downcast::<FramingError>();
            (all, Some(error.unwrap().0))
        }
    }
}

#[test]
fn seeds_of_the_fuzz_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/frames");
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        let data = fs::read(seed.unwrap().path()).unwrap();
        (0..data.len()).for_each(|len| body::run(&data[..=len]));
        count += 1;
    }
    assert!(count > 10);
}

proptest! {
    #[test]
    fn how_bytes_are_split_changes_nothing(
        piece: u8,
        frames in prop::collection::vec(
            (
                prop::sample::select(&[0u8, 0, 2, 2, 2, 8, 9, 9, 10][..]),
                prop::bool::weighted(0.8),
                prop::collection::vec(any::<u8>(), 0..300),
            ),
            0..12,
        ),
    ) {
        let mut bytes = vec![piece];
        for (opcode, is_final, mut payload) in frames {
            let is_control = opcode > 7;
            payload.truncate(if is_control { MAX_CONTROL } else { payload.len() });
            bytes.extend(frame(opcode, is_final || is_control, &payload));
        }
        body::run(&bytes);
    }

    #[test]
    fn any_bytes_are_read_alike(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        body::run(&bytes);
    }
}

#[tokio::test]
async fn a_frame_is_handed_on_as_it_arrives() {
    let (mut socket, mut client) = open(64);
    let whole = binary(&[7; 300]);
    let mut read = 0;
    for piece in whole.chunks(50) {
        client.write_all(piece).await.unwrap();
        let mut buffer = [0; 64];
        let len = socket.read(&mut buffer).await.unwrap();
        assert!(buffer[..len].iter().all(|byte| *byte == 7) && len > 0);
        read += len;
    }
    assert_eq!(read, 300);
}

#[tokio::test]
async fn what_is_written_arrives_in_frames_however_little_goes_out_at_once() {
    for (room, sizes) in [
        (1, vec![0, 1, 125, 126, 127]),
        (4096, vec![65_535, 65_536, 200_000]),
    ] {
        for size in sizes {
            let (mut socket, mut client) = open(room);
            let sent: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0]).collect();
            let expected = sent.clone();
            let writing = tokio::spawn(async move {
                let (head, tail) = sent.split_at(sent.len() / 3);
                let mut buffer = Buf::chain(head, tail);
                while Buf::has_remaining(&buffer) {
                    socket.write_buf(&mut buffer).await.unwrap();
                }
                socket.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            loop {
                match receive(&mut client).await {
                    (2, payload) => {
                        assert!((1..=WRITE_BYTES).contains(&payload.len()));
                        got.extend(payload);
                    }
                    other => {
                        assert_eq!(other, (8, 1000_u16.to_be_bytes().to_vec()));
                        break;
                    }
                }
            }
            assert!(got == expected, "{size} bytes came back different");
            writing.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_ping_is_answered_between_frames_and_only_the_last_of_many() {
    let (mut socket, mut client) = open(100);
    client.write_all(&ping(b"there?")).await.unwrap();
    let mut buffer = [0; 10];
    let read = tokio::time::timeout(Duration::from_millis(20), socket.read(&mut buffer));
    assert!(read.await.is_err(), "a ping is no payload");
    assert_eq!(receive(&mut client).await, (10, b"there?".to_vec()));

    // In the middle of a frame that the client does not read.
    let mut payload = &[1; 500][..];
    let start = socket.write(payload).await.unwrap();
    payload = &payload[start..];
    for n in 0..50 {
        client.write_all(&ping(&[n; 20])).await.unwrap();
        let read = tokio::time::timeout(Duration::from_millis(1), socket.read(&mut buffer));
        assert!(read.await.is_err());
    }
    let reading = tokio::spawn(async move {
        let frames = [receive(&mut client).await, receive(&mut client).await];
        (frames, client)
    });
    socket.write_all(payload).await.unwrap();
    socket.flush().await.unwrap();
    let ([data, pong], _client) = reading.await.unwrap();
    assert_eq!(data, (2, vec![1; 500]));
    assert_eq!(pong, (10, vec![49; 20]));
}

/// Until the next write there may be nothing that flushes it.
#[tokio::test]
async fn a_pong_stays_in_no_buffer() {
    let (server, mut client) = duplex(1000);
    let mut socket = WebSocketStream::after(Bytes::new(), BufWriter::new(server));
    client.write_all(&ping(b"there?")).await.unwrap();
    let mut buffer = [0; 10];
    let moment = Duration::from_millis(20);
    let read = tokio::time::timeout(moment, socket.read(&mut buffer));
    assert!(read.await.is_err(), "a ping is no payload");
    let pong = tokio::time::timeout(PATIENCE, receive(&mut client)).await;
    assert_eq!(pong.unwrap(), (10, b"there?".to_vec()));
}

#[tokio::test]
async fn what_came_before_an_error_is_read_first_and_the_close_says_why() {
    let text = frame(1, true, b"hello");
    let mut unmasked = binary(b"x");
    unmasked[1] &= 0x7F;
    let mut reserved = binary(b"x");
    reserved[0] |= 0x40;
    let close_not_utf8 = frame(8, true, b"\x03\xE8\xFF");
    for (bad, code) in [
        (text, CloseCode::UNSUPPORTED_DATA),
        (unmasked, CloseCode::PROTOCOL_ERROR),
        (reserved, CloseCode::PROTOCOL_ERROR),
        (frame(0, true, b"x"), CloseCode::PROTOCOL_ERROR),
        (frame(9, false, b"x"), CloseCode::PROTOCOL_ERROR),
        (frame(3, true, b"x"), CloseCode::PROTOCOL_ERROR),
        (frame(8, true, b"x"), CloseCode::PROTOCOL_ERROR),
        (frame(8, true, b"\x03\xED"), CloseCode::PROTOCOL_ERROR),
        (close_not_utf8, CloseCode::INVALID_PAYLOAD),
    ] {
        let (mut socket, mut client) = open(1000);
        client.write_all(&binary(b"whole")).await.unwrap();
        client.write_all(&bad).await.unwrap();
        client.write_all(&binary(b"ignored")).await.unwrap();
        assert_eq!(read_all(&mut socket).await, (b"whole".to_vec(), Some(code)));
        socket.shutdown().await.unwrap();
        assert_eq!(
            receive(&mut client).await,
            (8, code.0.to_be_bytes().to_vec())
        );
        // It is said once; what follows is read away.
        client.write_all(&binary(b"ignored")).await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_left_is_told_why() {
    let (mut socket, mut client) = open(1000);
    socket.set_close_code(CloseCode::GOING_AWAY);
    socket.shutdown().await.unwrap();
    let code = CloseCode::GOING_AWAY.0.to_be_bytes().to_vec();
    assert_eq!(receive(&mut client).await, (8, code));
}

#[tokio::test]
async fn a_close_is_answered_as_it_came_and_ends_what_is_read() {
    for payload in [&b"\x03\xE9going"[..], b"\x0F\xA0", b""] {
        let (mut socket, mut client) = open(1000);
        client.write_all(&binary(b"whole")).await.unwrap();
        client.write_all(&frame(8, true, payload)).await.unwrap();
        client.write_all(&binary(b"ignored")).await.unwrap();
        assert_eq!(read_all(&mut socket).await, (b"whole".to_vec(), None));
        socket.set_close_code(CloseCode::GOING_AWAY);
        socket.shutdown().await.unwrap();
        let code = payload.get(..2).unwrap_or_default();
        assert_eq!(receive(&mut client).await, (8, code.to_vec()));
    }
}

#[tokio::test]
async fn what_came_before_the_peer_was_gone_is_read_though_its_ping_cannot_be_answered() {
    let (mut socket, mut client) = open(2000);
    client.write_all(&ping(b"there?")).await.unwrap();
    client.write_all(&binary(&[7; 1000])).await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut socket).await, (vec![7; 1000], None));
    socket.write_all(b"too late").await.unwrap_err();
}

/// What is under a WebSocket and takes no byte, though it says that it did not fail.
struct TakesNothing {
    asked: u32,
}

impl AsyncRead for TakesNothing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for TakesNothing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked += 1;
        assert!(self.asked < 10, "it is asked again and again");
        Poll::Ready(Ok(0))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn who_takes_nothing_is_not_asked_for_ever() {
    let socket = || WebSocketStream::after(Bytes::new(), TakesNothing { asked: 0 });
    let error = socket().write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    let error = socket().shutdown().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}
