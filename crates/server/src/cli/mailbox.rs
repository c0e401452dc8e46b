//! `mailbox`: what waits for users, and what can be saved of a damaged mailbox. Never contents.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, value_parser};
use humantime::format_duration;
use jam_core::ids::UserId;
use jam_core::time::Time;
use serde_json::{Value, json};

use super::CliError;
use super::accounts::{Common, printable};
use super::backup::NewData;
use super::messages::user_id;
use super::output::{Output, table};
use super::runtime::wait_for;
use crate::directory;
use crate::mailbox::{
    self, ListOrder, Listed, MailboxAdministration, Overview, PurgeScope, Purged, Report,
    SessionOverview,
};
use crate::settings::Settings;

/// How long a server may take to do what it is asked. It looks four times a second.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);
const PURGE_POLL: Duration = Duration::from_millis(50);

/// Ranges of numbers that are printed; `--json` has all.
const SHOWN_RANGES: usize = 10;

const PURGE_HELP: &str = "Example: jam-mqtt mailbox purge 2 --from 7\n\n\
    Messages only: sessions, subscriptions and retained messages stay, unless you say --all. What \
    arrives meanwhile stays too. With a server running, the server does it.";

const SALVAGE_HELP: &str = "Example: jam-mqtt mailbox salvage /var/lib/jam-saved\n\n\
    For a mailbox of which `jam-mqtt check` says that it is damaged. Stop the server first. The \
    original stays as it is; `jam-mqtt serve --data` on the new directory starts.";

const LIST_HELP: &str = "Example: jam-mqtt mailbox list --sort oldest --limit 10\n\n\
    Users for whom nothing waits are left out.";

#[derive(Debug, Subcommand)]
pub(super) enum MailboxCommand {
    /// List who holds how much, the largest mailbox first
    #[command(after_help = LIST_HELP)]
    List {
        /// Which mailbox comes first
        #[arg(long, value_enum, default_value_t)]
        sort: ListOrder,
        /// Mailboxes at most
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Show how much waits for a user, and what is on its way to each device
    #[command(after_help = "Example: jam-mqtt mailbox show 2")]
    Show(OfUser),
    /// Remove the messages that wait for a user: all of them, or those of one sender
    #[command(after_help = PURGE_HELP)]
    Purge {
        #[command(flatten)]
        of: OfUser,
        /// Only what this user sent
        #[arg(long, value_name = "SENDER", value_parser = user_id, allow_negative_numbers = true)]
        from: Option<UserId>,
        /// Retained messages, sessions and wills too
        #[arg(long, conflicts_with = "from")]
        all: bool,
    },
    /// Save what can be read of a damaged mailbox, and the accounts database, into a new data directory
    #[command(after_help = SALVAGE_HELP)]
    Salvage {
        /// The new data directory: one that is empty, or that is not there yet
        dir: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

/// Whose mailbox.
#[derive(Debug, Args)]
pub(super) struct OfUser {
    /// The user id
    #[arg(value_parser = user_id, allow_negative_numbers = true)]
    id: UserId,
    #[command(flatten)]
    common: Common,
}

impl MailboxCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let (Self::List { common, .. }
        | Self::Show(OfUser { common, .. })
        | Self::Purge {
            of: OfUser { common, .. },
            ..
        }
        | Self::Salvage { common, .. }) = &self;
        let settings = common.store.settings()?;
        self.run_with(&settings, output)
    }

    /// With settings from elsewhere than the process's environment.
    pub(super) fn run_with(self, settings: &Settings, output: &Output) -> Result<(), CliError> {
        match self {
            Self::List {
                sort,
                limit,
                common,
            } => {
                let listed = mailbox::administration(settings).list(sort, limit)?;
                if common.json {
                    output.json(&listed.iter().map(listed_json).collect::<Vec<_>>())
                } else {
                    output.text(&list_text(&listed))
                }
            }
            Self::Show(OfUser { id, common }) => {
                let overview = overview(&*mailbox::administration(settings), settings, &id)?;
                if common.json {
                    output.json(&overview_json(&id, &overview))
                } else {
                    output.text(&overview_text(&id, &overview))
                }
            }
            Self::Purge {
                of: OfUser { id, common },
                from,
                all,
            } => {
                let scope = match &from {
                    _ if all => PurgeScope::Everything,
                    None => PurgeScope::Inbox,
                    Some(from) => PurgeScope::InboxFrom(from),
                };
                purge(&id, scope, settings, common.json, output)
            }
            Self::Salvage { dir, common } => {
                let new = NewData::make(&dir)?;
                let report = mailbox::salvage(settings, &new.mailbox()?)?;
                if report.is_empty() {
                    return Err(CliError::Failed(
                        "nothing can be read of the mailbox; put back a backup".to_owned(),
                    ));
                }
                // Settings that name the accounts database name it for the new mailbox too.
                if let Some(accounts) = settings.directory.file().filter(|it| !it.named) {
                    new.copy_directory(accounts)?;
                }
                new.keep()?;
                if common.json {
                    output.json(&report_json(&report))
                } else {
                    output.text(&report_text(&report, &dir.display().to_string()))
                }
            }
        }
    }
}

/// A user's mailbox. That nothing waits for somebody who does not exist is a mistyped id.
pub(super) fn overview(
    mailbox: &dyn MailboxAdministration,
    settings: &Settings,
    id: &UserId,
) -> Result<Overview, CliError> {
    let overview = mailbox.show(id)?;
    let nothing = (overview.messages, overview.retained) == (0, 0) && overview.sessions.is_empty();
    if nothing {
        let accounts = directory::administration(&settings.directory)?;
        wait_for(async { Ok(accounts.user(id).await?) })?;
    }
    Ok(overview)
}

fn purge(
    id: &UserId,
    scope: PurgeScope<'_>,
    settings: &Settings,
    json: bool,
    output: &Output,
) -> Result<(), CliError> {
    let mailbox = mailbox::administration(settings);
    overview(&*mailbox, settings, id)?;
    let before = mailbox.count(id, scope)?;
    let (removed, by) = match mailbox.purge(id, scope)? {
        Purged::Removed(removed) => (removed, "command"),
        Purged::Asked => {
            let asked = Instant::now();
            while mailbox.is_purge_due(id, scope)? {
                if asked.elapsed() > PURGE_TIMEOUT {
                    return Err(CliError::Failed(format!(
                        "the server has been asked to remove the messages of user {id}, and has not \
                         done so yet; it will as soon as it can: look at its log"
                    )));
                }
                thread::sleep(PURGE_POLL);
            }
            (before, "server")
        }
    };
    let from = match scope {
        PurgeScope::InboxFrom(from) => Some(from),
        PurgeScope::Inbox | PurgeScope::Everything => None,
    };
    if json {
        let mut said = json!({ "user": id.as_str(), "removed": removed, "by": by });
        if let Some(from) = from {
            said["from"] = from.as_str().into();
        }
        return output.json(&said);
    }
    let by = if by == "server" { " by the server" } else { "" };
    let of = from.map_or(String::new(), |from| format!(" from user {from}"));
    output.line(&format!(
        "{}{of} of user {id} removed{by}",
        messages(removed)
    ))
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message".to_owned(),
        count => format!("{count} messages"),
    }
}

/// As `GET mailboxes` of the admin API has it.
fn listed_json(listed: &Listed) -> Value {
    json!({
        "user": listed.user,
        "messages": listed.messages,
        "bytes": listed.bytes,
        "oldest_secs": listed.oldest.as_secs(),
        "retained": listed.retained,
    })
}

fn list_text(listed: &[Listed]) -> String {
    let heads = ["USER", "MESSAGES", "BYTES", "OLDEST", "RETAINED"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(listed.iter().map(|listed| {
        vec![
            printable(Some(&listed.user)),
            listed.messages.to_string(),
            listed.bytes.to_string(),
            in_words(listed.oldest),
            listed.retained.to_string(),
        ]
    }));
    table(&rows)
}

fn overview_json(id: &UserId, overview: &Overview) -> Value {
    let now = overview.now;
    let session = |session: &SessionOverview| {
        json!({
            "client": session.client,
            "connected": session.ends_at.is_none(),
            "ends_in_secs": session.ends_at.and_then(|at| ends_in(at, now)).map(|left| left.as_secs()),
            "subscriptions": session.subscriptions,
            "in_flight": session.in_flight,
            "received": session.received,
        })
    };
    json!({
        "user": id.as_str(),
        "messages": overview.messages,
        "bytes": overview.bytes,
        "oldest_secs": overview.oldest.map(|at| now.since(at).as_secs()),
        "retained": overview.retained,
        "sessions": overview.sessions.iter().map(session).collect::<Vec<_>>(),
    })
}

/// `None`: never.
pub(super) fn ends_in(at: Time, now: Time) -> Option<Duration> {
    (at != Time::NEVER).then(|| at.since(now))
}

fn overview_text(id: &UserId, overview: &Overview) -> String {
    let now = overview.now;
    let mut text = format!(
        "user {id}: {}, {} bytes",
        messages(overview.messages),
        overview.bytes
    );
    if let Some(at) = overview.oldest {
        text.push_str(&format!(
            ", the oldest from {} ago",
            in_words(now.since(at))
        ));
    }
    text.push_str(&format!("; retained: {}\n", overview.retained));
    if overview.sessions.is_empty() {
        return text;
    }
    let heads = ["DEVICE", "SESSION", "TOPICS", "ON ITS WAY", "QOS 2 FROM IT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(overview.sessions.iter().map(|session| {
        let state = match session.ends_at.map(|at| ends_in(at, now)) {
            None => "connected".to_owned(),
            Some(None) => "never ends".to_owned(),
            Some(Some(left)) => format!("ends in {}", in_words(left)),
        };
        vec![
            printable(Some(&session.client)),
            state,
            session.subscriptions.to_string(),
            session.in_flight.to_string(),
            session.received.to_string(),
        ]
    }));
    text.push('\n');
    text.push_str(&table(&rows));
    text
}

pub(super) fn in_words(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

fn report_json(report: &Report) -> Value {
    json!({
        "messages": report.messages,
        "sessions": report.sessions,
        "retained": report.retained,
        "wrong": report.wrong,
        "unread": report.unread,
        "cut": report.cut,
    })
}

fn report_text(report: &Report, dir: &str) -> String {
    let mut text = format!(
        "saved in {dir}: {}; sessions: {}; retained: {}\n",
        messages(report.messages),
        report.sessions,
        report.retained
    );
    if report.wrong > 0 {
        text.push_str(&format!("could not be right: {}\n", messages(report.wrong)));
    }
    for (first, last) in report.unread.iter().take(SHOWN_RANGES) {
        let to = match i64::try_from(*last) {
            Ok(last) if last < i64::MAX => format!("to {last}"),
            _ => "on".to_owned(),
        };
        text.push_str(&format!(
            "could not be read: messages with the numbers from {first} {to}, if there were any\n"
        ));
    }
    if let Some(more) = report.unread.len().checked_sub(SHOWN_RANGES + 1) {
        text.push_str(&format!("could not be read: {} more ranges\n", more + 1));
    }
    for table in &report.cut {
        text.push_str(&format!("could not be read to its end: table {table}\n"));
    }
    text
}
