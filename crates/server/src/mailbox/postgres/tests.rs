//! What the mailbox promises, against real servers of PostgreSQL.

mod setting;

mod commands;
mod cutting;
mod dead_rows;
mod failing;
mod fencing;
mod killed;
mod memory;
mod standby;
mod warnings;
mod zombies;

crate::mailbox::tests::suite!(setting::InDatabase, 6);
