//! What the store asks of the router.

use std::sync::Weak;

use super::Router;
use crate::ids::UserId;
use crate::store::{Seq, StoreEvents};

/// The store does not keep the router alive: a router that is gone has nothing to do.
impl StoreEvents for Weak<Router> {
    fn purge(&self, user: &UserId, up_to: Seq, from: Option<&UserId>) {
        if let Some(router) = self.upgrade() {
            router.purge(user, up_to, from);
        }
    }

    fn end(&self, user: &UserId, up_to: Seq) {
        if let Some(router) = self.upgrade() {
            router.end(user, up_to);
        }
    }

    fn failing(&self) {
        if let Some(router) = self.upgrade() {
            router.wake_all();
        }
    }
}
