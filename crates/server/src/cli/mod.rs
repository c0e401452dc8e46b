//! The commands.
//!
//! # Layout
//!
//! - this file: what the command line looks like. [`program`]: from there to what the process exits with.
//! - `settings_args`: the options that are settings.
//! - `accounts`: `user`, `friend`, `block`, `unblock`. `messages`: `send`, `listen`.
//! - `mailbox`: what waits for a user. `sessions`: their devices. `lockouts`: addresses that are refused. `cluster`: the tables in PostgreSQL. `backup`, `copy`, `check`,
//!   `demo`, `health`: the commands of those names. `running_server`: who is asked for what only a server knows.
//! - `man`: the man pages.
//! - [`output`]: what is printed where; [`error`]: why a command fails. `runtime`: the main thread's.

mod accounts;
mod backup;
mod check;
mod cluster;
mod copy;
mod demo;
pub mod error;
mod health;
mod lockouts;
mod mailbox;
mod man;
mod messages;
pub mod output;
pub mod program;
mod restore;
mod running_server;
mod runtime;
mod sessions;
mod settings_args;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::directory::{AdministrationError, DirectoryError};
use crate::logging::{self, Usual};
use crate::mailbox::OpenError;
use crate::permissions;
use crate::serve::{GivenSockets, ServeError};
use crate::settings::{Settings, SettingsError, Sources};
use crate::spans;
use error::CliError;
use output::Output;
use settings_args::{ServeArgs, StoreArgs};

/// A private-messaging server that any MQTT client can speak to.
#[derive(Debug, Parser)]
#[command(
    name = "jam-mqtt",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Start here: jam-mqtt demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(
        after_help = "Example: jam-mqtt serve --data /var/lib/jam --mqtt 0.0.0.0:1883\n\n\
        Every setting has a default. Settings come from jam-mqtt.toml, then from --env-file, then from \
        environment variables such as JAM_MQTT_LISTEN__MQTT, then from these options; the later wins.\n\n\
        Exit status: 0 stopped, 1 failed, 2 wrong options or settings, 69 accounts database or mailbox cannot be used, \
        75 an address or the mailbox is in use, 78 what the settings name cannot be served (TLS files, push key, a port \
        that is not allowed)."
    )]
    Serve {
        #[command(flatten)]
        settings: ServeArgs,
        /// Print the effective settings, each explained, and exit
        #[arg(long)]
        print_config: bool,
    },
    /// See it work: a server with two friends on this machine, and what to paste to send a message
    #[command(after_help = "Example: jam-mqtt demo\n\nCtrl-C ends it and leaves nothing behind.")]
    Demo,
    /// Accounts: add, list, show, token, remove
    #[command(subcommand)]
    User(accounts::UserCommand),
    /// Friendships: who may write to whom
    #[command(subcommand)]
    Friend(accounts::FriendCommand),
    /// Keep a friend from writing to a user; nor can the user write to the friend
    #[command(after_help = "Example: jam-mqtt block 1 2    (1 blocks 2)")]
    Block(accounts::Pair),
    /// Take a block back
    #[command(after_help = "Example: jam-mqtt unblock 1 2    (1 no longer blocks 2)")]
    Unblock(accounts::Pair),
    /// What waits for users, never contents: list, show, purge; salvage what is damaged
    #[command(subcommand)]
    Mailbox(mailbox::MailboxCommand),
    /// A user's devices: list, end
    #[command(subcommand)]
    Session(sessions::SessionCommand),
    /// Databases of PostgreSQL that accounts and mailbox are in: init, migrate
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Addresses whose logins are refused: list, lift
    #[command(subcommand)]
    Lockout(lockouts::LockoutCommand),
    /// Copy accounts database and mailbox into a new data directory, while the server runs or not
    #[command(after_help = backup::HELP)]
    Backup(backup::Backup),
    /// Put a backup in the place of what is there
    #[command(after_help = restore::HELP)]
    Restore(restore::Restore),
    /// Copy accounts and mailbox from SQLite to PostgreSQL, or back
    #[command(after_help = copy::HELP)]
    Copy(copy::Copy),
    /// Send a message to a user's inbox
    #[command(after_help = messages::SEND_HELP)]
    Send(messages::Send),
    /// Print the messages that come into a user's inbox
    #[command(after_help = messages::LISTEN_HELP)]
    Listen(messages::Listen),
    /// Read the settings, open every store, verify TLS files and push key; change nothing
    #[command(after_help = "Example: jam-mqtt check --config /etc/jam-mqtt.toml")]
    Check {
        #[command(flatten)]
        settings: ServeArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask whether the server is ready
    #[command(after_help = health::HELP)]
    Health(health::Health),
    /// Print completions for a shell
    #[command(after_help = "Example: jam-mqtt completions bash > \
        /usr/share/bash-completion/completions/jam-mqtt")]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    #[command(hide = true)]
    Man(man::Man),
}

/// Makes the data directory, unless all that it is wanted for is somewhere else.
fn make_data(settings: &Settings) -> Result<(), CliError> {
    if settings.directory.is_named() {
        return Ok(());
    }
    std::fs::create_dir_all(&settings.data).map_err(|error| {
        CliError::Failed(format!(
            "cannot create {}: {error}; name a folder that this user may write to: --data DIR",
            settings.data.display()
        ))
    })
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        Self::failed(&error)
    }
}

impl From<DirectoryError> for CliError {
    fn from(error: DirectoryError) -> Self {
        Self::failed(&error)
    }
}

impl From<AdministrationError> for CliError {
    fn from(error: AdministrationError) -> Self {
        let then = match &error {
            AdministrationError::NoUser(user) => {
                format!("; add it with `jam-mqtt user add {user}`")
            }
            AdministrationError::UserExists(user) => {
                format!("; `jam-mqtt user token {user}` makes a new token")
            }
            _ => String::new(),
        };
        Self::Failed(format!("{error}{then}"))
    }
}

/// Does what the command line says. Returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    permissions::keep_new_files_private();
    program::run(|cli: Cli, output| run(cli.command, output))
}

fn run(command: Command, output: &Output) -> Result<(), CliError> {
    match command {
        Command::Serve {
            settings,
            print_config,
        } => {
            let sources = settings.sources()?;
            if print_config {
                return print_config_of(&sources, output);
            }
            serve(sources)
        }
        Command::Demo => demo::run(output),
        Command::User(command) => runtime::wait_for(command.run(output)),
        Command::Friend(command) => runtime::wait_for(command.run(output)),
        Command::Block(pair) => runtime::wait_for(pair.set_blocked(true, output)),
        Command::Unblock(pair) => runtime::wait_for(pair.set_blocked(false, output)),
        Command::Mailbox(command) => command.run(output),
        Command::Session(command) => command.run(output),
        Command::Cluster(command) => command.run(output),
        Command::Lockout(command) => command.run(output),
        Command::Backup(backup) => backup.run(output),
        Command::Restore(restore) => restore.run(output),
        Command::Copy(copy) => copy.run(output),
        Command::Send(send) => send.run(output),
        Command::Listen(listen) => listen.run(output),
        Command::Check { settings, json } => {
            check::run(&Settings::load(&settings.sources()?)?, json, output)
        }
        Command::Health(health) => health.run(output),
        Command::Man(man) => man.run(output),
        Command::Completions { shell } => {
            let mut completions = Vec::new();
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "jam-mqtt", &mut completions);
            output.bytes(&completions)
        }
    }
}

/// Also prints settings that contradict each other: to see what they are is half of the cure.
fn print_config_of(sources: &Sources, output: &Output) -> Result<(), CliError> {
    output.text(&Settings::effective(sources)?)?;
    if let Err(error) = Settings::load(sources) {
        output.note(&format!("this would not be served: {error}"));
    }
    Ok(())
}

fn serve(sources: Sources) -> Result<(), CliError> {
    let settings = Settings::load(&sources)?;
    // Before anything else has a thread.
    let given = GivenSockets::from_environment().map_err(|error| not_served(&error))?;
    init_logging(settings.log.as_deref(), Usual::Info)?;
    let spans = spans::start().map_err(CliError::Usage)?;
    let runtime = runtime::on_this_thread()?;
    make_data(&settings)?;
    let served = runtime.block_on(crate::serve::run(sources, settings, given));
    runtime::end(runtime);
    spans.end();
    served.map_err(|error| not_served(&error))
}

fn not_served(error: &ServeError) -> CliError {
    CliError::NotServed {
        status: error.exit_status(),
        message: error.to_string(),
    }
}

fn init_logging(setting: Option<&str>, usual: Usual) -> Result<(), CliError> {
    logging::init(setting, usual).map_err(CliError::Usage)
}

/// Runs a client: one task, no threads.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    init_logging(None, Usual::Warn)?;
    runtime::on_this_thread()?.block_on(future)
}
