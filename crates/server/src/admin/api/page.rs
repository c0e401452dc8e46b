//! Lists, some of them at a time.
//!
//! A cursor is the last key of a page, so what is added or removed meanwhile moves nothing: who is there all the time is
//! in exactly one page. A walk through memory is in an order that a restart changes; its cursors say so. A text that is no
//! cursor of a list names no page of it (404).

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jam_core::ids::UserId;
use jam_core::router::{Router, SHARDS, UserFilter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::problem::Problem;
use crate::directory::{self, PageRequest};

/// Items of a page if nothing is said.
const DEFAULT_LIMIT: u16 = 100;
/// Items of a page at most.
pub(super) const MAX_LIMIT: u16 = 1000;

/// Items that are read to find those of one page. A page for which that is too few says so by its `next`.
pub(super) const MOST_READ: usize = 10_000;

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
pub(super) struct PageLimit(u16);

impl Default for PageLimit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl TryFrom<u16> for PageLimit {
    type Error = &'static str;

    fn try_from(limit: u16) -> Result<Self, Self::Error> {
        if (1..=MAX_LIMIT).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err("limit is 1 to 1000")
        }
    }
}

impl PageLimit {
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
    /// The order of addresses.
    Addresses,
}

impl Order {
    fn prefix(self) -> String {
        match self {
            Self::Directory => "d:".to_owned(),
            Self::Memory(epoch) => format!("m{epoch:08x}:"),
            Self::Addresses => "a:".to_owned(),
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
        user.map(Some).map_err(|_| no_page())
    }

    /// The key that a cursor stands for.
    pub(super) fn key(self, cursor: &str) -> Result<String, Problem> {
        let text = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let key = text.and_then(|text| Some(text.strip_prefix(&self.prefix())?.to_owned()));
        key.ok_or_else(no_page)
    }
}

/// What is asked for after a text that is no cursor of the list.
pub(super) fn no_page() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no page begins there: after is not what was in `next` of this list, or from before the server's last start; \
         begin at the first page",
    )
}

/// Those items of a list of the accounts database that are `wanted`, as many as asked for, and after which one of all items
/// the next page begins. Ends early once [`MOST_READ`] items have been read.
pub(super) async fn pick<T, E, F>(
    limit: PageLimit,
    mut after: Option<UserId>,
    read: impl Fn(PageRequest) -> F,
    wanted: impl Fn(&T) -> bool,
    id: impl Fn(&T) -> &str,
) -> Result<directory::Page<T>, E>
where
    F: Future<Output = Result<directory::Page<T>, E>>,
{
    let limit = usize::from(limit.count());
    let mut left = MOST_READ;
    // One more than fit says that there is a next page.
    let mut count =
        PageRequest::MAX.min(u16::try_from(limit + 1).expect("a limit is 1000 at most"));
    let mut items: Vec<T> = Vec::new();
    loop {
        let request = PageRequest::new(after, count).expect("at least one, and at most MAX");
        let page = read(request).await?;
        left = left.saturating_sub(page.items.len());
        for item in page.items.into_iter().filter(|item| wanted(item)) {
            if items.len() == limit {
                let next = items.last().and_then(|last| UserId::parse(id(last)).ok());
                return Ok(directory::Page { items, next });
            }
            items.push(item);
        }
        if page.next.is_none() || left == 0 {
            let next = page.next;
            return Ok(directory::Page { items, next });
        }
        (after, count) = (page.next, PageRequest::MAX);
    }
}

/// Calls `take` for users in memory, from the one `first` on, until it says that it has enough. No other task of the
/// thread waits for more than one part of [`SHARDS`].
pub(super) async fn walk(
    router: &Router,
    which: UserFilter,
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const ALL: usize = 25_000;

    /// Reads the numbers from 1 to [`ALL`], and notes how many each time.
    fn read(
        reads: &RefCell<Vec<usize>>,
    ) -> impl Fn(PageRequest) -> std::future::Ready<Result<directory::Page<String>, Problem>> {
        move |request| {
            let first = request
                .place()
                .map_or(1, |last| last.as_str().parse::<usize>().unwrap() + 1);
            let end = ALL.min(first + usize::from(request.limit()) - 1);
            let items: Vec<_> = (first..=end).map(|id| id.to_string()).collect();
            reads.borrow_mut().push(items.len());
            let next = (end < ALL).then(|| UserId::parse(end.to_string()).unwrap());
            std::future::ready(Ok(directory::Page { items, next }))
        }
    }

    /// All pages with `limit` items of those that are `wanted`: how many are in each, and how many were read at most.
    async fn pages(limit: u16, wanted: impl Fn(usize) -> bool) -> (Vec<usize>, usize) {
        let (mut sizes, mut found) = (Vec::new(), Vec::new());
        let (most_read, mut after) = (Cell::new(0), None);
        loop {
            let reads = RefCell::default();
            let number = |item: &String| item.parse::<usize>().unwrap();
            let is_wanted = |item: &String| wanted(number(item));
            let page = pick(PageLimit(limit), after, read(&reads), is_wanted, |item| {
                item
            })
            .await;
            let page = page.unwrap();
            most_read.set(most_read.get().max(reads.borrow().iter().sum()));
            sizes.push(page.items.len());
            found.extend(page.items.iter().map(number));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let all: Vec<_> = (1..=ALL).filter(|it| wanted(*it)).collect();
        assert_eq!(found, all);
        (sizes, most_read.get())
    }

    #[tokio::test]
    async fn pages_are_full_while_that_takes_no_more_than_may_be_read() {
        let (sizes, read) = pages(100, |it| it % 50 == 0).await;
        assert_eq!(sizes, [100; 5]);
        assert!(read < MOST_READ);
        for limit in [1000, 999] {
            let (sizes, _) = pages(limit, |it| it <= 1000 || it > ALL - 1000).await;
            assert_eq!(sizes[0], usize::from(limit));
            assert!(sizes.len() <= 6, "{sizes:?}");
        }
        let (sizes, read) = pages(7, |it| it == ALL).await;
        assert_eq!(sizes, [0, 0, 1]);
        assert!(read < MOST_READ + usize::from(PageRequest::MAX));
        assert_eq!(pages(10, |_| false).await.0, [0, 0, 0]);
        assert_eq!(pages(1000, |_| true).await.0, [1000; 25]);
    }
}
