//! A set of one user's devices.
//!
//! A device has a *slot*, its place among the devices of its user, and the set is one bit for each slot.
//! Invariant: a slot is below [`MAX_DEVICES`].

/// Devices of one user with a session at a time.
pub const MAX_DEVICES: usize = u32::BITS as usize;

/// A set of a user's devices, by their slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeviceSet(u32);

/// The place of a device among a user's devices: below [`MAX_DEVICES`].
pub(crate) type Slot = u8;

impl DeviceSet {
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot;
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.0 &= !(1 << slot);
    }

    pub(crate) fn contains(self, slot: Slot) -> bool {
        self.0 & 1 << slot != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}
