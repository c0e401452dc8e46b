use jam_wire::packet::{PacketId, Publish, QoS};
use proptest::prelude::*;

use super::*;

fn publish(size: usize) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "/1/x".into(),
        packet_id: None,
        properties: None,
        payload: Bytes::from(vec![b'x'; size]),
    })
}

#[test]
fn a_large_payload_is_not_copied() {
    let mut output = Output::default();
    let Packet::Publish(large) = publish(SHARE_FROM) else {
        unreachable!("that is what it makes")
    };
    let payload = large.payload.clone();
    output.push(&Packet::Publish(large), Version::V4).unwrap();
    let mut slices = [IoSlice::new(&[]); 4];
    let filled = output.chunks_vectored(&mut slices);
    assert!(
        slices[..filled]
            .iter()
            .any(|slice| slice.as_ptr() == payload.as_ptr())
    );
}

#[test]
fn what_cannot_be_said_leaves_nothing() {
    let mut output = Output::default();
    output.push(&Packet::PingResp, Version::V4).unwrap();
    for size in [1, SHARE_FROM] {
        let Packet::Publish(mut broken) = publish(size) else {
            unreachable!("that is what it makes")
        };
        broken.qos = QoS::AtLeastOnce;
        assert!(
            output
                .push(&Packet::Publish(broken.clone()), Version::V4)
                .is_err()
        );
        broken.packet_id = PacketId::new(1);
        broken.topic = "x".repeat(65_536).into();
        assert!(output.push(&Packet::Publish(broken), Version::V4).is_err());
    }
    assert_eq!(output.len(), 2);
    assert_eq!(output.copy_to_bytes(2), [0xD0, 0][..]);
    assert!(output.is_empty());
}

#[test]
fn memory_is_given_back_only_when_all_is_written() {
    let mut output = Output::default();
    output.push(&Packet::PingResp, Version::V4).unwrap();
    output.release();
    assert_eq!(output.len(), 2);
    output.advance(2);
    output.release();
    assert_eq!(output.tail.capacity(), 0);
}

#[test]
fn the_next_output_takes_the_buffer_up_unless_it_is_large() {
    let fill = |size| {
        let mut output = Output::default();
        while output.len() < size {
            output.push(&Packet::PingResp, Version::V4).unwrap();
        }
        let place = output.tail.as_ptr();
        output.advance(output.len());
        output.release();
        place
    };
    let first = fill(2);
    assert_eq!(fill(ROOM), first);
    fill(2 * SPARE);
    assert_eq!(SPARE_BUFFER.take().capacity(), 0);
}

proptest! {
    /// However it is filled and written, what comes out is what went in.
    #[test]
    fn bytes_come_out_as_they_went_in(
        steps in prop::collection::vec((0..3u8, 0..3 * SHARE_FROM), 0..40)
    ) {
        let (mut output, mut expected, mut written) =
            (Output::default(), BytesMut::new(), BytesMut::new());
        for (step, size) in steps {
            if step == 0 {
                let count = size.min(output.len());
                written.extend_from_slice(&output.copy_to_bytes(count));
            } else {
                let size = if step == 1 { size % 100 } else { size };
                output.push(&publish(size), Version::V5).unwrap();
                encode::encode(&publish(size), Version::V5, &mut expected).unwrap();
            }
            prop_assert_eq!(output.len() + written.len(), expected.len());
            prop_assert_eq!(output.chunk().is_empty(), output.is_empty());
            let mut slices = [IoSlice::new(&[]); 100];
            let filled = output.chunks_vectored(&mut slices);
            let total: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            prop_assert_eq!(total, output.len());
        }
        let rest = output.len();
        written.extend_from_slice(&output.copy_to_bytes(rest));
        prop_assert_eq!(written, expected);
    }
}
