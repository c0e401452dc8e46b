//! Logs: for people on a terminal, as JSON lines otherwise; always on standard error.
//!
//! What is logged follows from the `log` setting (or `JAM_MQTT_LOG`), else from `RUST_LOG`. Neither a
//! payload nor a token is ever logged: their `Debug` shows lengths.
//!
//! Invariant: a log line may be lost, and nothing else. Logging copies the line into a queue and returns at
//! once; one thread writes to standard error, and it alone waits and sees errors. `queue` counts what is lost. At its end
//! the process waits for what is queued, for [`END_PATIENCE`] at most.

mod queue;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

pub(crate) use queue::{LAST_WORDS_BYTES, QUEUE_BYTES};
use queue::{LossLine, Queue};

/// How long a process that ends waits for what it has logged to be written.
pub const END_PATIENCE: Duration = Duration::from_secs(1);

/// What clients that are refused bring about is logged at most once in this time, each kind for itself.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The crate that speaks to PostgreSQL.
const POSTGRES: &str = "tokio_postgres";

/// The process's one way to standard error, once logging is set up.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Replaces what is logged, once logging is set up.
static FILTER: OnceLock<Box<ReplaceFilter>> = OnceLock::new();

type ReplaceFilter = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

/// What is logged when nothing says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// A server tells what it does.
    Info,
    /// A command tells what goes wrong.
    Warn,
}

/// What is to be logged: words such as `info`, or `TARGET=LEVEL`, separated by commas.
///
/// # Errors
/// What is expected instead. A single word that is no level, which `EnvFilter` takes for a target and so mutes all
/// others, is an error too, unless it is one of this program's own.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let expected = || {
        "expected error, warn (or warning), info, debug, trace or off, or TARGET=LEVEL such as jam_mqtt=debug, \
         separated by commas"
            .to_owned()
    };
    let mut directives = Vec::new();
    for directive in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (target, level) = match directive.rsplit_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, directive),
        };
        let level = if level.eq_ignore_ascii_case("warning") {
            "warn"
        } else {
            level
        };
        let is_level = level.parse::<LevelFilter>().is_ok();
        directives.push(match target {
            Some(target) if is_level => format!("{target}={level}"),
            None if is_level || level.starts_with("jam_") => level.to_owned(),
            Some(_) | None => return Err(expected()),
        });
    }
    directives.retain(|directive| !directive.starts_with(POSTGRES));
    let filter = EnvFilter::try_new(directives.join(",")).map_err(|_| expected())?;
    Ok(mute_values(filter))
}

/// The driver's own log has the values that statements are run with, tokens and payloads among them.
fn mute_values(filter: EnvFilter) -> EnvFilter {
    let directive = format!("{POSTGRES}=off");
    filter.add_directive(directive.parse().expect("it is a directive"))
}

/// Sets logging up for the whole process, panics included. The first call counts.
///
/// # Errors
/// If there can be no thread that writes, or the filter is none.
pub fn init(setting: Option<&str>, usual: Usual) -> Result<(), String> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    let terminal = io::stderr().is_terminal();
    let filter = chosen(setting, usual)?;
    let queue = start_queue(if terminal { loss_text } else { loss_json });
    let queue = queue.map_err(|error| format!("cannot start the log's thread: {error}"))?;
    let queue = QUEUE.get_or_init(|| queue);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false) // they would go to standard error, and panic if that fails
        .with_writer(Lines(queue.clone()));
    // An error means that somebody else has set it up: a test, or a program that embeds the server.
    if terminal {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let builder = builder.with_ansi(colours).with_filter_reloading();
        replace_by(builder.reload_handle());
        let _ = builder.try_init();
    } else {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        replace_by(builder.reload_handle());
        let _ = builder.try_init();
    }
    // The process ends with a panic: the log is where its reason is looked for.
    let queue = queue.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        queue.prepare_to_end();
        tracing::error!(%backtrace, "{panic}");
        queue.settle(END_PATIENCE);
    }));
    Ok(())
}

/// From now on this is logged, as [`init`] would. Lines that are not logged cost what they did: no lock.
///
/// # Errors
/// If the filter is none; then all is as before.
pub fn set_filter(setting: Option<&str>, usual: Usual) -> Result<(), String> {
    let filter = chosen(setting, usual)?;
    FILTER.get().map_or(Ok(()), |replace| replace(filter))
}

fn replace_by<S: 'static>(handle: Handle<EnvFilter, S>) {
    let replace = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    let _ = FILTER.set(Box::new(replace));
}

fn chosen(setting: Option<&str>, usual: Usual) -> Result<EnvFilter, String> {
    let usual = match usual {
        Usual::Info => "info",
        Usual::Warn => "warn",
    };
    let rust_log = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    match (setting, rust_log) {
        (Some(setting), _) => filter(setting).map_err(|why| format!("log = {setting:?}: {why}")),
        (None, Some(text)) => filter(&text)
            .map_err(|why| format!("the environment variable RUST_LOG is {text:?}: {why}")),
        (None, None) => filter(usual),
    }
}

fn start_queue(loss_line: LossLine) -> io::Result<Arc<Queue>> {
    // A descriptor of its own: other writers to standard error hold the lock while they wait.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    Queue::start(stderr, loss_line)
}

/// Writes a line for people to standard error, after what has been logged.
pub fn write_line(line: &str) {
    let line = format!("{line}\n");
    match QUEUE.get() {
        Some(queue) => queue.push(line.as_bytes()),
        // Where else could it be said that this failed?
        None => drop(io::stderr().lock().write_all(line.as_bytes())),
    }
}

/// Gives what has been logged [`END_PATIENCE`] to be written. The process ends after it.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.settle(END_PATIENCE);
    }
}

/// Lines that were lost since the start.
pub(crate) fn lost_lines() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.lost())
}

fn loss_text(lost: u64) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    format!("{now}  WARN jam_mqtt::logging: log lines were lost lines={lost}\n")
}

fn loss_json(lost: u64) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    format!(
        "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"log lines were lost\",\
         \"lines\":{lost},\"target\":\"jam_mqtt::logging\"}}\n"
    )
}

/// When a refusal was last logged.
#[derive(Debug, Default)]
pub(crate) struct LogPace(Mutex<Option<Instant>>);

impl LogPace {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now - last >= REFUSAL_LOG_INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Gives each event its line.
struct Lines(Arc<Queue>);

/// Takes a line in one piece, which is how `tracing_subscriber::fmt` writes it.
struct Line<'a>(&'a Queue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn no_filter_has_the_values_logged_that_statements_are_run_with() {
        for text in [
            "info",
            "trace",
            "trace,tokio_postgres=trace",
            "tokio_postgres::query=debug,off",
        ] {
            let taken = filter(text).unwrap().to_string();
            assert_eq!(taken.matches("postgres").count(), 1, "{taken}");
            assert!(taken.contains("tokio_postgres=off"), "{taken}");
        }
    }

    #[test]
    fn no_filter_mutes_by_a_mistake() {
        let taken = |text: &str| {
            let taken = filter(text).unwrap().to_string();
            taken.replace("tokio_postgres=off,", "")
        };
        assert_eq!(taken("warning"), "warn");
        assert_eq!(taken("WARN"), "warn");
        assert_eq!(
            taken("info, jam_mqtt::clients=Warning"),
            "jam_mqtt::clients=warn,info"
        );
        assert_eq!(taken("off"), "off");
        assert_eq!(taken("jam_mqtt,hyper=debug"), "jam_mqtt=trace,hyper=debug");
        for wrong in [
            "warnings",
            "inof",
            "verbose",
            "jam_mqtt=loud",
            "hyper",
            "info;debug",
            "=",
            "info,=x",
        ] {
            assert!(filter(wrong).unwrap_err().contains("warning"), "{wrong}");
        }
    }
}
