//! `user`, `friend`, `block`, `unblock`: they work on the accounts database, with the server running or stopped.

use std::sync::Arc;

use clap::{Args, Subcommand};
use jam_core::ids::UserId;
use serde_json::json;

use super::messages::user_id;
use super::output::{Output, table};
use super::{CliError, StoreArgs, make_data};
use crate::directory::{
    self, Administration, AdministrationError, Friend, NewToken, PageRequest, User,
};
use crate::mailbox::{self, OpenError, PurgeScope};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add an account and print its token, once
    #[command(after_help = "Example: jam-mqtt user add 1 --name ann")]
    Add {
        /// The user id: a decimal integer
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
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
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
        #[command(flatten)]
        common: Common,
    },
    /// Give a user a new token and print it, once; who is logged in with the old one is logged out
    #[command(after_help = "Example: jam-mqtt user token 1")]
    Token {
        /// The user id
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
        #[command(flatten)]
        common: Common,
    },
    /// Remove an account and its friendships
    #[command(after_help = "Example: jam-mqtt user remove 1")]
    Remove {
        /// The user id
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
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
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
        #[command(flatten)]
        common: Common,
    },
}

/// Two users.
#[derive(Debug, Args)]
pub(super) struct Pair {
    /// The one user id
    #[arg(value_parser = user_id, allow_negative_numbers = true)]
    a: UserId,
    /// The other user id
    #[arg(value_parser = user_id, allow_negative_numbers = true)]
    b: UserId,
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
    fn accounts(&self) -> Result<Arc<dyn Administration>, CliError> {
        Ok(directory::administration(
            &self.store.settings()?.directory,
        )?)
    }

    /// With room for an accounts database that is to be made.
    fn accounts_or_new(&self) -> Result<Arc<dyn Administration>, CliError> {
        let settings = self.store.settings()?;
        make_data(&settings)?;
        Ok(directory::administration(&settings.directory)?)
    }

    fn done(&self, output: &Output, said: &str) -> Result<(), CliError> {
        if self.json {
            output.json(&json!({ "done": said }))
        } else {
            output.line(said)
        }
    }

    fn token(&self, output: &Output, id: &UserId, token: &NewToken) -> Result<(), CliError> {
        let token = token.expose();
        if self.json {
            return output.json(&json!({ "id": id.as_str(), "token": token }));
        }
        output.line(token)?;
        output.note(&format!(
            "this is the token of user {id}; it is not shown again"
        ));
        Ok(())
    }
}

impl UserCommand {
    pub(super) async fn run(self, output: &Output) -> Result<(), CliError> {
        match self {
            Self::Add {
                id,
                name,
                token,
                common,
            } => {
                let token = match token {
                    Some(token) => NewToken::chosen(&token)?,
                    None => NewToken::random()?,
                };
                let accounts = common.accounts_or_new()?;
                accounts.add_user(&id, name.as_deref(), &token).await?;
                common.token(output, &id, &token)
            }
            Self::List { common } => list(&*common.accounts()?, common.json, output).await,
            Self::Show { id, common } => show(&*common.accounts()?, &id, common.json, output).await,
            Self::Token { id, common } => {
                let token = NewToken::random()?;
                common.accounts()?.set_token(&id, &token).await?;
                common.token(output, &id, &token)
            }
            Self::Remove { id, common } => {
                let mailbox = mailbox::administration(&common.store.settings()?);
                // A mailbox that cannot be used is found before anything is changed.
                unless_served_or_missing(mailbox.count(&id, PurgeScope::Everything))?;
                if !common.accounts()?.remove_user(&id).await? {
                    return Err(AdministrationError::NoUser(id).into());
                }
                // A server sees it go, and ends what it had.
                unless_served_or_missing(mailbox.remove_unserved(&id))?;
                common.done(output, &format!("user {id} is removed"))
            }
        }
    }
}

fn unless_served_or_missing(done: Result<u64, OpenError>) -> Result<(), CliError> {
    match done {
        Ok(_) | Err(OpenError::InUse { .. } | OpenError::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// All accounts, a page at a time.
async fn list(accounts: &dyn Administration, json: bool, output: &Output) -> Result<(), CliError> {
    let mut page = PageRequest::after(None);
    let mut is_first = true;
    loop {
        let users = accounts.users("", &page).await?;
        if json {
            output.text(if is_first { "[" } else { "," })?;
            output.json_items(&users.items)?;
        } else {
            output.text(&user_table(&users.items))?;
        }
        is_first = false;
        match users.next {
            Some(last) => page = PageRequest::after(Some(last)),
            None if json => return output.line("]"),
            None => return Ok(()),
        }
    }
}

async fn show(
    accounts: &dyn Administration,
    id: &UserId,
    json: bool,
    output: &Output,
) -> Result<(), CliError> {
    let user = accounts.user(id).await?;
    let friends = friends_of(accounts, id).await?;
    if json {
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

/// All of them: what one user has is printed as a whole.
async fn friends_of(accounts: &dyn Administration, id: &UserId) -> Result<Vec<Friend>, CliError> {
    let mut friends = Vec::new();
    let mut page = PageRequest::after(None);
    loop {
        let more = accounts.friends(id, &page).await?;
        friends.extend(more.items);
        match more.next {
            Some(last) => page = PageRequest::after(Some(last)),
            None => return Ok(friends),
        }
    }
}

impl FriendCommand {
    pub(super) async fn run(self, output: &Output) -> Result<(), CliError> {
        match self {
            Self::Add(Pair { a, b, common }) => {
                let already = if common.accounts()?.befriend(&a, &b).await? {
                    ""
                } else {
                    " already"
                };
                common.done(output, &format!("{a} and {b} are friends{already}"))
            }
            Self::Remove(Pair { a, b, common }) => {
                if !common.accounts()?.unfriend(&a, &b).await? {
                    return Err(AdministrationError::NotFriends(a, b).into());
                }
                common.done(output, &format!("{a} and {b} are no longer friends"))
            }
            Self::List { id, common } => {
                let friends = friends_of(&*common.accounts()?, &id).await?;
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
    pub(super) async fn set_blocked(self, blocked: bool, output: &Output) -> Result<(), CliError> {
        let Self { a, b, common } = self;
        common.accounts()?.set_blocked(&a, &b, blocked).await?;
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
