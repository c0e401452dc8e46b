//! Where messages are kept until they have been acknowledged.
//!
//! The promise of PROTOCOL.md, section 7.1, is made here and nowhere else: a publish is acknowledged
//! when its [`Receipt`] says so, and a receipt is the store's to resolve.

use std::fmt;
use std::sync::Arc;

use crate::ids::UserId;
use crate::link::{Link, Ticket};
use crate::message::Message;
use crate::policy::Refusal;

/// The place of a message in the order of all messages.
pub type Seq = u64;

/// The right to acknowledge one publish. One that is dropped acknowledges nothing: the client sends again.
#[derive(Debug)]
pub struct Receipt {
    link: Arc<Link>,
    ticket: Ticket,
}

impl Receipt {
    pub(crate) fn new(link: Arc<Link>, ticket: Ticket) -> Self {
        Self { link, ticket }
    }

    /// The message is kept, or nobody needs it any more.
    pub fn stored(self) {
        self.link.resolve(self.ticket, Ok(()));
    }

    /// The message could not be kept.
    pub fn refused(self, refusal: Refusal) {
        self.link.resolve(self.ticket, Err(refusal));
    }
}

/// Keeps messages. Its methods queue and return: nobody waits for I/O under a lock.
pub trait MailboxStore: Send + Sync + fmt::Debug {
    /// Keeps a message of `receiver`, then resolves the receipt. A will has none.
    fn append(&self, seq: Seq, receiver: &UserId, message: &Arc<Message>, receipt: Option<Receipt>);
    /// Every device that was to get the message has acknowledged it, or it has expired.
    fn remove(&self, seq: Seq, receiver: &UserId);
}

/// Keeps messages as long as the process lives: they stay where the mailboxes' index has them.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl MailboxStore for MemoryStore {
    fn append(&self, _: Seq, _: &UserId, _: &Arc<Message>, receipt: Option<Receipt>) {
        if let Some(receipt) = receipt {
            receipt.stored();
        }
    }

    fn remove(&self, _: Seq, _: &UserId) {}
}
