//! Values as they stand in the file: those of any kind of store (`mailbox::values`), and what is SQLite's own.

use bytes::BytesMut;
use jam_core::directory::Life;
use jam_core::ids::UserId;
use jam_core::store::Subscription;
use jam_wire::Decoder;
use jam_wire::packet::{Packet, Version};
use rusqlite::Error;
use rusqlite::types::ValueRef;

pub(super) use crate::mailbox::values::*;

/// Stands in `message.waits_for` beside the bits of the devices, so that the row keeps its size whichever of them are left:
/// SQLite then writes the page that has changed, and not the content with it.
const DEVICES: i64 = 1 << 40;

/// A set of devices, bits by slot.
pub(super) fn devices(bits: u32) -> i64 {
    i64::from(bits) | DEVICES
}

/// Before version 4 the bits stood alone.
pub(super) fn from_devices(value: i64) -> Result<u32, Wrong> {
    u32::try_from(value & !DEVICES).map_err(|_| wrong("a set of devices"))
}

/// Who wrote a message: the id, and which of the accounts that have had it.
pub(super) fn sender(
    id: ValueRef<'_>,
    account: ValueRef<'_>,
) -> Result<(UserId, Option<Life>), Error> {
    let account = account.as_blob_or_null()?.map(from_life).transpose()?;
    Ok((user(id.as_str()?)?, account))
}

/// What `session.subscriptions` was before version 4: one SUBSCRIBE after another.
pub(super) fn decode_subscriptions(bytes: &[u8]) -> Result<Vec<Subscription>, Error> {
    let mut buf = BytesMut::from(bytes);
    let mut decoder = Decoder::client(Version::V5, usize::MAX);
    let mut subscriptions = Vec::new();
    while !buf.is_empty() {
        let Ok(Some(Packet::Subscribe(subscribe))) = decoder.decode(&mut buf) else {
            return Err(wrong("a stored SUBSCRIBE").into());
        };
        subscriptions.extend(subscribe.filters.into_iter().map(|filter| Subscription {
            topic: (&*filter.filter).into(),
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id: subscribe.subscription_id,
        }));
    }
    Ok(subscriptions)
}
