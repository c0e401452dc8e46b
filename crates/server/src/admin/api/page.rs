//! Lists, some of them at a time.
//!
//! A cursor is the last key of a page, so what is added or removed meanwhile moves nothing: who is there all the time is
//! in exactly one page. A walk through memory is in an order that a restart changes; its cursors say so.

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jam_core::ids::UserId;
use jam_core::router::{Router, SHARDS, Which};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::wrong;
use crate::admin::problem::Problem;

/// Items of a page if nothing is said.
const DEFAULT_LIMIT: u16 = 100;
/// Items of a page at most.
pub(super) const MAX_LIMIT: u16 = 1000;

/// Some of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// Not more than `limit`. There may be more although these are fewer: `next` says so.
    pub(super) items: Vec<T>,
    /// Send it as `after` for the next page; `null` on the last one.
    pub(super) next: Option<String>,
}

/// How many items of a page.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u16")]
pub(super) struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl TryFrom<u16> for Limit {
    type Error = &'static str;

    fn try_from(limit: u16) -> Result<Self, Self::Error> {
        if (1..=MAX_LIMIT).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err("limit is 1 to 1000")
        }
    }
}

impl Limit {
    pub(super) fn count(self) -> u16 {
        self.0
    }
}

/// What a cursor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The order of the accounts database.
    Directory,
    /// The order of a walk through the memory of this process.
    Memory(u32),
}

impl Order {
    fn prefix(self) -> String {
        match self {
            Self::Directory => "d:".to_owned(),
            Self::Memory(epoch) => format!("m{epoch:08x}:"),
        }
    }

    pub(super) fn cursor(self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{key}", self.prefix()))
    }

    /// The user that a cursor stands for.
    pub(super) fn user(self, cursor: Option<&str>) -> Result<Option<UserId>, Problem> {
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        let user = UserId::parse(self.key(cursor)?);
        user.map(Some)
            .map_err(|_| wrong("after is no cursor: send what was in `next`"))
    }

    /// The key that a cursor stands for.
    pub(super) fn key(self, cursor: &str) -> Result<String, Problem> {
        let text = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| wrong("after is no cursor: send what was in `next`"))?;
        match text.strip_prefix(&self.prefix()) {
            Some(key) => Ok(key.to_owned()),
            None => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this cursor is of another list, or of before the server's last start: begin at the first page",
            )),
        }
    }
}

/// Calls `take` for users in memory, from the one `first` on, until it says that it has enough. No other task of the
/// thread waits for more than one part of [`SHARDS`].
pub(super) async fn walk(
    router: &Router,
    which: Which,
    first: Option<&UserId>,
    mut take: impl FnMut(UserId) -> bool,
) {
    let first_part = first.map_or(0, |first| router.part_of(first));
    for part in first_part..SHARDS {
        for user in router.users_who_are(which, part) {
            let is_before = part == first_part && first.is_some_and(|first| user < *first);
            if !is_before && !take(user) {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}
