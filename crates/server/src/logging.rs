//! Logs: for people on a terminal, as JSON lines otherwise; always on standard error.
//!
//! What is logged follows from the `log` setting (or `JAM_MQTT_LOG`), else from `RUST_LOG`. Neither a
//! payload nor a token is ever logged: their `Debug` shows lengths.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// What is logged when nothing says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// A server tells what it does.
    Info,
    /// A command tells what goes wrong.
    Warn,
}

/// Sets logging up for the whole process, panics included. The first call counts.
pub fn init(setting: Option<&str>, usual: Usual) {
    let usual = match usual {
        Usual::Info => "info",
        Usual::Warn => "warn",
    };
    let rust_log = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let wanted = setting.map(str::to_owned).or(rust_log);
    let filter = wanted.and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An error means that somebody else has set it up: a test, or a program that embeds the server.
    let _ = if io::stderr().is_terminal() {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colours).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    // The process ends with a panic: the log is where its reason is looked for.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%backtrace, "{panic}");
    }));
}
