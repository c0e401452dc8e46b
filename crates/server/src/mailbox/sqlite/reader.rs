//! The thread that reads messages for the router.
//!
//! Invariants: a message that waits to be committed is answered from memory, and looked for there
//! before the file, so that none is missed in between; a message is missing only when it is gone, or
//! after [`READ_TRIES`], and then it is left in the file, whatever the router says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jam_core::message::Message;
use jam_core::store::{Completion, Seq};
use rusqlite::{Connection, Error, OptionalExtension};

use super::at_place::AtPlace;
use super::error::is_damage;
use super::records as rec;
use super::schema;
use crate::mailbox::shared::{Load, MailboxShared, Whereabouts};

/// How often an unreadable message is tried: about a minute.
pub const READ_TRIES: u32 = 60;

/// How often content that cannot be right is read again.
const DAMAGE_TRIES: u32 = 3;

/// Between the first two tries; doubled for each further one up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(10);
const MAX_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Reader<C> {
    shared: Arc<MailboxShared<C>>,
    place: Arc<AtPlace>,
    connection: Connection,
    /// Whether the connection is to be replaced before the next try.
    suspect: bool,
}

impl<C: Completion> Reader<C> {
    pub(super) fn new(
        shared: Arc<MailboxShared<C>>,
        place: Arc<AtPlace>,
        connection: Connection,
    ) -> Self {
        Self {
            shared,
            place,
            connection,
            suspect: false,
        }
    }

    /// Until the mailbox is dropped.
    pub(super) fn run(mut self) {
        while let Some(loads) = self.shared.take_loads() {
            for load in loads {
                self.load(load);
            }
        }
    }

    pub(super) fn load(&mut self, mut load: Load) {
        match self.read(&load.seqs, false) {
            Ok(messages) => (load.then)(messages),
            Err(error) => {
                self.suspect = true;
                load.tries += 1;
                let tries = if is_damage(&error) {
                    DAMAGE_TRIES
                } else {
                    READ_TRIES
                };
                if load.tries < tries {
                    let delay = FIRST_DELAY * 2_u32.saturating_pow(load.tries - 1);
                    load.not_before = Some(Instant::now() + delay.min(MAX_DELAY));
                    self.shared.push_load(load);
                    return;
                }
                if let Ok(messages) = self.read(&load.seqs, true) {
                    (load.then)(messages);
                } else {
                    // Nothing can be read at all: the device waits until the disk is well again.
                    load.not_before = Some(Instant::now() + MAX_DELAY);
                    self.shared.push_load(load);
                }
            }
        }
    }

    /// `leave`: messages that cannot be read are left out, and left in the file.
    fn read(&mut self, seqs: &[Seq], leave: bool) -> Result<Vec<(Seq, Arc<Message>)>, Error> {
        let found = self.shared.in_memory(seqs);
        let mut messages = Vec::with_capacity(found.len());
        if found
            .iter()
            .any(|(_, found)| matches!(found, Whereabouts::InFile))
            && self.suspect
            && self.place.are_ours()
        {
            self.suspect = false;
            self.connection = schema::open_to_read(&self.place.files.db)?;
        }
        let transaction = self.connection.unchecked_transaction()?;
        for (seq, found) in found {
            match found {
                Whereabouts::Here(message) => messages.push((seq, message)),
                Whereabouts::Gone => {}
                Whereabouts::InFile => match select(&transaction, seq) {
                    Ok(message) => messages.extend(message.map(|message| (seq, message))),
                    Err(error) if leave => self.leave(seq, &error),
                    Err(error) => return Err(error),
                },
            }
        }
        transaction.finish()?;
        Ok(messages)
    }

    fn leave(&self, seq: Seq, error: &Error) {
        tracing::error!(
            "message {seq} cannot be read: {error}; it is left in the mailbox and not delivered. Run \
             `jam-mqtt check`"
        );
        self.shared.state().kept.unreadable(seq);
    }
}

fn select(connection: &Connection, seq: Seq) -> Result<Option<Arc<Message>>, Error> {
    let mut select = connection.prepare_cached(
        "SELECT sender, received_at, expires_at, body, flags, sender_life FROM message WHERE id = ?1",
    )?;
    let row = |row: &rusqlite::Row<'_>| -> Result<_, Error> {
        let (sender, body) = (
            rec::sender(row.get_ref(0)?, row.get_ref(5)?)?,
            row.get_ref(3)?.as_blob()?,
        );
        let flags = rec::Flags::from_number(row.get(4)?)?;
        let message = rec::decode_message(body, flags.packet_id, sender, row.get(1)?, row.get(2)?);
        Ok(message?)
    };
    select.query_row([rec::number(seq)], row).optional()
}
