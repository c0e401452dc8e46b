//! The jam server: everything that touches the world.
//!
//! # Layout
//!
//! - [`settings`]: file, environment and flags into one checked [`settings::Settings`].

pub mod settings;
