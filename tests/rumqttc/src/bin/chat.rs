//! The program of `docs/clients.md` as it stands there: `tests/story/documented.rs` runs it.
#![allow(clippy::print_stdout)]

include!(concat!(env!("OUT_DIR"), "/chat.rs"));
