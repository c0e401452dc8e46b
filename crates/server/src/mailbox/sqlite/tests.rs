//! What the mailbox promises, against files.

mod setting;

mod clock;
mod coalescing;
mod commands;
mod damage;
mod failing;
mod kept;
mod killed;
mod misplaced;
mod model;
mod retried;
mod trouble;
