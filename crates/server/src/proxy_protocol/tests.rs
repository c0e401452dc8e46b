use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::header::{MAX_V2_BYTES, V1_BEGINS};
use super::*;

#[path = "../../../../fuzz/bodies/proxy.rs"]
mod body;

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    (client, server.unwrap().0)
}

/// What is read of `bytes`, which come in pieces of `piece` bytes, and what is left of them.
async fn read(bytes: &[u8], piece: usize) -> (Result<Option<IpAddr>, HeaderError>, Vec<u8>) {
    let (mut client, mut server) = pair().await;
    let bytes = bytes.to_vec();
    let write = tokio::spawn(async move {
        for piece in bytes.chunks(piece) {
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let read = tokio::time::timeout(Duration::from_secs(10), read_header(&mut server));
    let result = read.await.expect("it ends by itself");
    write.await.unwrap();
    let mut rest = Vec::new();
    let _ = server.read_to_end(&mut rest).await;
    (result, rest)
}

/// A header of version 2: command, family, addresses and other fields.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_BEGINS, &[command, family], &len, body].concat()
}

fn v4_body(more: usize) -> Vec<u8> {
    let mut body = vec![203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x07, 0x5b];
    body.resize(12 + more, 0);
    body
}

fn v6_body() -> Vec<u8> {
    let mut body = vec![0x20, 1, 0xd, 0xb8];
    body.resize(36, 1);
    body
}

#[tokio::test]
async fn what_follows_stays() {
    let long = format!(
        "PROXY TCP6 {0} {0} 65535 65535\r\n",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    );
    let good: Vec<(Vec<u8>, Option<&str>)> = vec![
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n".to_vec(), None),
        (
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 1883\r\n".to_vec(),
            Some("203.0.113.7"),
        ),
        (
            b"PROXY TCP6 2001:db8::7 ::1 4660 1883\r\n".to_vec(),
            Some("2001:db8::7"),
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n".to_vec(),
            Some("203.0.113.7"),
        ),
        (
            long.into_bytes(),
            Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ),
        (v2(0x20, 0, &[]), None),
        (v2(0x20, 0x11, &v4_body(0)), None),
        // The family of one that speaks for itself is to be ignored.
        (v2(0x20, 0x11, &[]), None),
        (v2(0x20, 0x41, &v4_body(0)), None),
        (v2(0x21, 0, &[]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
        (v2(0x21, 0x11, &v4_body(0)), Some("203.0.113.7")),
        (
            v2(0x21, 0x11, &v4_body(MAX_V2_BYTES - 28)),
            Some("203.0.113.7"),
        ),
        (
            v2(0x21, 0x21, &v6_body()),
            Some("2001:db8:101:101:101:101:101:101"),
        ),
    ];
    for (header, source) in good {
        for rest in [&b"\x10\x0c\0\x04MQTT"[..], b""] {
            for piece in [1, 7, 5000] {
                let (read, left) = read(&[&header, rest].concat(), piece).await;
                let source = source.map(|source| source.parse::<IpAddr>().unwrap());
                assert_eq!(read.unwrap(), source, "{header:?}");
                assert_eq!(left, rest, "{header:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_header_is_refused_and_bounded() {
    let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 5000]].concat();
    let bad: Vec<Vec<u8>> = vec![
        b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0".to_vec(),
        b"\x10".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PROXY\r\n".to_vec(),
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
        b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4".to_vec(),
        endless,
        v2(0x11, 0x11, &v4_body(0)),
        v2(0x22, 0x11, &v4_body(0)),
        v2(0x21, 0x11, &v4_body(0)[..11]),
        v2(0x21, 0x41, &v4_body(0)),
        v2(0x21, 0x11, &v4_body(MAX_V2_BYTES - 27)),
        V2_BEGINS.to_vec(),
    ];
    for bytes in bad {
        let (read, _) = read(&bytes, 9).await;
        assert!(read.is_err(), "{bytes:?} is {read:?}");
    }
}

#[tokio::test]
async fn a_header_from_elsewhere() {
    let headers: [(&[u8], bool); 6] = [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 1883\r\n", true),
        (&v2(0x21, 0x11, &v4_body(0)), true),
        (b"PROX", true),
        (b"\x10\x0c\0\x04MQTT", false),
        (b"\x16\x03\x01\x02\0", false),
        (b"GET /mqtt HTTP/1.1\r\n", false),
    ];
    for (bytes, refused) in headers {
        let (mut client, server) = pair().await;
        client.write_all(bytes).await.unwrap();
        let result = expect_none(&server).await;
        assert_eq!(matches!(result, Err(HeaderError::NotTrusted)), refused);
        assert_eq!(result.is_err(), refused);
    }
}

#[test]
fn seeds_of_the_fuzz_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/proxy");
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        let data = fs::read(seed.unwrap().path()).unwrap();
        (0..data.len()).for_each(|len| body::run(&data[..=len]));
        count += 1;
    }
    assert!(count > 10);
}

proptest! {
    /// Whatever comes: no panic, and no more of it is taken than the header.
    #[test]
    fn any_bytes(
        version_1: bool,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        piece in 1_usize..300,
    ) {
        let begins = if version_1 { V1_BEGINS } else { V2_BEGINS };
        let bytes = [begins, &bytes[..]].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (result, left) = runtime.block_on(read(&bytes, piece));
        if result.is_ok() {
            prop_assert!(bytes.ends_with(&left));
            let mut header = Header::default();
            let len = bytes.len() - left.len();
            prop_assert_eq!(header.take(&bytes), Ok(len));
            prop_assert_eq!(header.source().ok(), result.ok());
        }
    }
}
