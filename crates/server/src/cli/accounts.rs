//! `user`, `friend`, `block`, `unblock`: they work on the accounts database, with the server running or stopped.

use clap::{Args, Subcommand};
use jam_core::ids::UserId;
use serde_json::json;

use super::output::{Output, table};
use super::{CliError, StoreArgs};
use crate::directory::admin::{Friend, User};
use crate::directory::{self, Administration};
use crate::mailbox::{OpenError, admin};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add an account and print its token, once
    #[command(after_help = "Example: jam-mqtt user add 1 --name ann")]
    Add {
        /// The user id: a decimal integer
        #[arg(allow_negative_numbers = true)]
        id: String,
        /// What people call the user
        #[arg(long)]
        name: Option<String>,
        /// The token to log in with [default: a random one]
        #[arg(long)]
        token: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List all accounts
    #[command(after_help = "Example: jam-mqtt user list --json")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show an account and its friends
    #[command(after_help = "Example: jam-mqtt user show 1")]
    Show {
        /// The user id
        #[arg(allow_negative_numbers = true)]
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give a user a new token and print it, once; who is logged in with the old one is logged out
    #[command(after_help = "Example: jam-mqtt user token 1")]
    Token {
        /// The user id
        #[arg(allow_negative_numbers = true)]
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove an account and its friendships
    #[command(after_help = "Example: jam-mqtt user remove 1")]
    Remove {
        /// The user id
        #[arg(allow_negative_numbers = true)]
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum FriendCommand {
    /// Let two users write to each other
    #[command(after_help = "Example: jam-mqtt friend add 1 2")]
    Add(Pair),
    /// End a friendship, blocks included
    #[command(after_help = "Example: jam-mqtt friend remove 1 2")]
    Remove(Pair),
    /// List the friends of a user
    #[command(after_help = "Example: jam-mqtt friend list 1")]
    List {
        /// The user id
        #[arg(allow_negative_numbers = true)]
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Two users.
#[derive(Debug, Args)]
pub(super) struct Pair {
    /// The one user id
    #[arg(allow_negative_numbers = true)]
    a: String,
    /// The other user id
    #[arg(allow_negative_numbers = true)]
    b: String,
    #[command(flatten)]
    common: Common,
}

/// What all of these commands take.
#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Common {
    fn open(&self) -> Result<Administration, CliError> {
        let settings = self.store.settings()?;
        directory::require_named(&settings.directory)?;
        Ok(Administration::open(&settings.directory.path)?)
    }

    fn open_or_create(&self) -> Result<Administration, CliError> {
        let settings = self.store.settings()?;
        directory::require_named(&settings.directory)?;
        if !settings.directory.named {
            std::fs::create_dir_all(&settings.data).map_err(|error| {
                CliError::Failed(format!(
                    "cannot create {}: {error}; name a folder that this user may write to: --data DIR",
                    settings.data.display()
                ))
            })?;
        }
        Ok(Administration::open_or_create(&settings.directory.path)?)
    }

    fn done(&self, output: &Output, said: &str) -> Result<(), CliError> {
        if self.json {
            output.json(&json!({ "done": said }))
        } else {
            output.line(said)
        }
    }

    fn token(&self, output: &Output, id: &str, token: &str) -> Result<(), CliError> {
        if self.json {
            return output.json(&json!({ "id": id, "token": token }));
        }
        output.line(token)?;
        output.note(&format!(
            "this is the token of user {id}; it is not shown again"
        ));
        Ok(())
    }
}

impl UserCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        match self {
            Self::Add {
                id,
                name,
                token,
                common,
            } => {
                let mut directory = common.open_or_create()?;
                let token = directory.add_user(&id, name.as_deref(), token.as_deref())?;
                common.token(output, &id, &token)
            }
            Self::List { common } => {
                let users = common.open()?.users()?;
                if common.json {
                    output.json(&users)
                } else {
                    output.text(&user_table(&users))
                }
            }
            Self::Show { id, common } => {
                let directory = common.open()?;
                let (user, friends) = (directory.user(&id)?, directory.friends(&id)?);
                if common.json {
                    // As `user list` prints it, with the friends instead of their number.
                    let User {
                        id,
                        name,
                        token,
                        push,
                        friends: _,
                    } = user;
                    let user = json!({
                        "id": id, "name": name, "token": token, "push": push, "friends": friends,
                    });
                    return output.json(&user);
                }
                output.text(&user_table(&[user]))?;
                if !friends.is_empty() {
                    output.text(&format!("\n{}", friend_table(&friends)))?;
                }
                Ok(())
            }
            Self::Token { id, common } => {
                let token = common.open()?.set_token(&id, None)?;
                common.token(output, &id, &token)
            }
            Self::Remove { id, common } => {
                common.open()?.remove_user(&id)?;
                // A server sees it go, and ends what it had.
                if let Ok(user) = UserId::parse(&id) {
                    let dir = common.store.settings()?.mailbox_dir();
                    match admin::remove_unserved(&dir, &user) {
                        Ok(_) | Err(OpenError::InUse(_) | OpenError::Missing(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                common.done(output, &format!("user {id} is removed"))
            }
        }
    }
}

impl FriendCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        match self {
            Self::Add(Pair { a, b, common }) => {
                let mut directory = common.open()?;
                let has = |a: &str, b: &str| -> Result<bool, CliError> {
                    Ok(directory.friends(a)?.iter().any(|friend| friend.id == b))
                };
                // Half a friendship is not enough.
                if has(&a, &b)? && has(&b, &a)? {
                    return common.done(output, &format!("{a} and {b} are friends already"));
                }
                directory.add_friend(&a, &b)?;
                common.done(output, &format!("{a} and {b} are friends"))
            }
            Self::Remove(Pair { a, b, common }) => {
                common.open()?.remove_friend(&a, &b)?;
                common.done(output, &format!("{a} and {b} are no longer friends"))
            }
            Self::List { id, common } => {
                let friends = common.open()?.friends(&id)?;
                if common.json {
                    output.json(&friends)
                } else {
                    output.text(&friend_table(&friends))
                }
            }
        }
    }
}

impl Pair {
    pub(super) fn set_blocked(self, blocked: bool, output: &Output) -> Result<(), CliError> {
        let Self { a, b, common } = self;
        common.open()?.set_blocked(&a, &b, blocked)?;
        let verb = if blocked {
            "blocks"
        } else {
            "no longer blocks"
        };
        common.done(output, &format!("{a} {verb} {b}"))
    }
}

fn user_table(users: &[User]) -> String {
    let heads = ["ID", "NAME", "TOKEN", "PUSH", "FRIENDS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(users.iter().map(|user| {
        vec![
            user.id.clone(),
            printable(user.name.as_deref()),
            yes(user.token),
            yes(user.push),
            user.friends.to_string(),
        ]
    }));
    table(&rows)
}

fn friend_table(friends: &[Friend]) -> String {
    let heads = ["FRIEND", "NAME", "BLOCKED", "HAS BLOCKED"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(friends.iter().map(|friend| {
        vec![
            friend.id.clone(),
            printable(friend.name.as_deref()),
            yes(friend.blocked),
            yes(friend.been_blocked),
        ]
    }));
    table(&rows)
}

fn yes(truth: bool) -> String {
    if truth { "yes" } else { "-" }.to_owned()
}

/// A text from a database, without what would move the terminal's cursor.
pub(super) fn printable(text: Option<&str>) -> String {
    match text {
        Some(text) if !text.is_empty() => text.replace(char::is_control, "?"),
        _ => "-".to_owned(),
    }
}
