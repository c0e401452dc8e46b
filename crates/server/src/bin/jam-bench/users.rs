//! Who the clients are: user ids and tokens, in pairs of friends.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::BenchError;

/// A user id and the token that goes with it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The user id.
    pub(crate) id: String,
    /// The password.
    pub(crate) token: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({}, token of {} bytes)", self.id, self.token.len())
    }
}

/// The users: those at 2k and 2k + 1 are friends.
#[derive(Debug, Default)]
pub(crate) struct Roster(Vec<User>);

impl Roster {
    /// Users 1 to `count`; `{id}` in the template stands for the user id.
    pub(crate) fn numbered(count: usize, template: &str) -> Self {
        let user = |id: usize| User {
            id: id.to_string(),
            token: template.replace("{id}", &id.to_string()),
        };
        Self((1..=count).map(user).collect())
    }

    /// Lines of `user,token`, or of JSON objects with `id` (or `user`) and `token`.
    pub(crate) fn read(file: &Path) -> Result<Self, BenchError> {
        let fail = |what: String| BenchError::new(format!("{}: {what}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        let mut users = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            users.push(parse(line).ok_or_else(|| {
                fail(format!(
                    "line {} is neither user,token nor JSON with id and token",
                    number + 1
                ))
            })?);
        }
        Ok(Self(users))
    }

    /// Pairs of friends of a jam database who can log in and have not blocked each other.
    pub(crate) fn of_directory(path: &Path) -> Result<Self, BenchError> {
        let users = select_friends(path).map_err(|error| {
            BenchError::new(format!(
                "cannot read users from {}: {error}; `jam-bench prepare` makes such a file",
                path.display()
            ))
        })?;
        Ok(Self(users))
    }

    /// The first `count` users.
    pub(crate) fn take(&self, count: usize) -> Result<&[User], BenchError> {
        self.0.get(..count).ok_or_else(|| {
            BenchError::new(format!(
                "{count} users are needed, and there are {}; ask for fewer, or prepare more",
                self.0.len()
            ))
        })
    }
}

#[cfg(test)]
impl From<Vec<User>> for Roster {
    fn from(users: Vec<User>) -> Self {
        Self(users)
    }
}

fn parse(line: &str) -> Option<User> {
    if !line.starts_with('{') {
        let (id, token) = line.split_once(',')?;
        return Some(User {
            id: id.trim().to_owned(),
            token: token.trim().to_owned(),
        });
    }
    let json: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| match json.get(name)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    Some(User {
        id: text("id").or_else(|| text("user"))?,
        token: text("token")?,
    })
}

/// Each user at most once, with the first friend that is still free.
fn select_friends(path: &Path) -> rusqlite::Result<Vec<User>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let mut statement = connection.prepare(
        "SELECT CAST(a.user_id AS TEXT), a.user_api_token, CAST(b.user_id AS TEXT), b.user_api_token
         FROM user_friends f
         JOIN accounts a ON a.user_id = f.user_id
         JOIN accounts b ON b.user_id = f.friend_id
         WHERE a.user_id < b.user_id AND NOT f.blocked AND NOT f.been_blocked
             AND a.user_api_token <> '' AND b.user_api_token <> ''
         ORDER BY a.user_id, b.user_id",
    )?;
    let mut taken = std::collections::HashSet::new();
    let mut users = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let [first, second] = [(0, 1), (2, 3)].map(|(id, token)| -> rusqlite::Result<User> {
            Ok(User {
                id: row.get(id)?,
                token: row.get(token)?,
            })
        });
        let (first, second) = (first?, second?);
        if taken.contains(&first.id) || taken.contains(&second.id) {
            continue;
        }
        taken.extend([first.id.clone(), second.id.clone()]);
        users.extend([first, second]);
    }
    Ok(users)
}
