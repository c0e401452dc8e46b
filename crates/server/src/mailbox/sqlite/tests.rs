//! What the mailbox promises, against files.

mod setting;

mod clock;
mod commands;
mod damage;
mod failing;
mod kept;
mod killed;
mod misplaced;
mod reading;
mod retried;
mod room;
mod trouble;

crate::mailbox::tests::suite!(setting::InFiles, 40);
