//! Nothing but its tests, see `tests/story`, and the program of `docs/clients.md`, `bin/chat.rs`.
