//! What every kind of accounts database does for operators: [`Administration`] as its comments say.

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::directory::postgres::tests::made_in_postgres;
use crate::postgres::testing::HasAddress as _;
use crate::settings::{DirectoryFile, DirectorySettings};

const FOREIGN: &str = "
    CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT, username TEXT UNIQUE);
    CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);";

/// One of each kind: of our own, of another program without types and indexes, of PostgreSQL, and the script.
fn kinds(dir: &TempDir) -> Vec<(&'static str, Arc<dyn Administration>)> {
    let own = DirectorySettings::in_file(dir.path().join("own.db"));
    let foreign = DirectoryFile {
        path: dir.path().join("foreign.db"),
        named: true,
        map_shm: true,
    };
    let connection = Connection::open(&foreign.path).unwrap();
    connection.execute_batch(FOREIGN).unwrap();
    let foreign = DirectorySettings::Sqlite(foreign);
    let postgres = DirectorySettings::Postgres(Box::new(made_in_postgres().address()));
    let script = Arc::new(FakeDirectory::default());
    vec![
        ("our own", administration(&own).unwrap()),
        ("foreign", administration(&foreign).unwrap()),
        ("in a server", open(&foreign).unwrap().administration()),
        ("PostgreSQL", administration(&postgres).unwrap()),
        (
            "PostgreSQL in a server",
            open(&postgres).unwrap().administration(),
        ),
        ("script", script.administration()),
    ]
}

fn token(text: &str) -> NewToken {
    NewToken::chosen(text).unwrap()
}

async fn add(accounts: &dyn Administration, id: &str) {
    accounts
        .add_user(&user(id), None, &token(id))
        .await
        .unwrap();
}

async fn friends(accounts: &dyn Administration, id: &str) -> Vec<Friend> {
    let page = PageRequest::after(None);
    accounts.friends(&user(id), &page).await.unwrap().items
}

async fn remove_all(accounts: &dyn Administration, ids: &[&str]) {
    for id in ids {
        assert!(accounts.remove_user(&user(id)).await.unwrap());
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_told_by_kind_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    for (kind, accounts) in kinds(&dir) {
        add(&*accounts, "1").await;
        add(&*accounts, "2").await;
        let (one, two, nobody) = (user("1"), user("2"), user("9"));
        let no_user = || AdministrationError::NoUser(user("9"));
        let again = accounts.add_user(&one, None, &token("other")).await;
        assert_eq!(
            again,
            Err(AdministrationError::UserExists(user("1"))),
            "{kind}"
        );
        assert_eq!(accounts.user(&nobody).await, Err(no_user()));
        let page = PageRequest::after(None);
        assert_eq!(accounts.friends(&nobody, &page).await, Err(no_user()));
        assert_eq!(
            accounts.set_token(&nobody, &token("x")).await,
            Err(no_user())
        );
        assert_eq!(accounts.remove_user(&nobody).await, Ok(false));
        assert_eq!(accounts.befriend(&one, &nobody).await, Err(no_user()));
        assert_eq!(accounts.befriend(&nobody, &one).await, Err(no_user()));
        assert_eq!(
            accounts.set_blocked(&one, &nobody, true).await,
            Err(no_user())
        );
        assert_eq!(accounts.unfriend(&one, &two).await, Ok(false));
        let strangers = AdministrationError::NotFriends(user("1"), user("2"));
        for blocked in [true, false] {
            let told = accounts.set_blocked(&one, &two, blocked).await;
            assert_eq!(told, Err(strangers.clone()), "{kind}");
        }
        let same = accounts.befriend(&one, &one).await;
        assert!(
            matches!(same, Err(AdministrationError::Refused(_))),
            "{same:?}"
        );
        assert_eq!(friends(&*accounts, "1").await, []);
        // The token that user 1 has is still the first one.
        assert_eq!(
            accounts.set_token(&one, &token("1")).await,
            Ok(false),
            "{kind}"
        );
        remove_all(&*accounts, &["1", "2"]).await;
    }
}

#[tokio::test]
async fn a_change_says_whether_it_changed_anything() {
    let dir = TempDir::new().unwrap();
    for (kind, accounts) in kinds(&dir) {
        for id in ["1", "2", "3"] {
            add(&*accounts, id).await;
        }
        let (one, two) = (user("1"), user("2"));
        for changes in [true, false] {
            let told = [
                accounts.set_token(&one, &token("another")).await,
                accounts.befriend(&one, &two).await,
                accounts.set_blocked(&one, &two, true).await,
            ];
            assert_eq!(told, [Ok(changes), Ok(changes), Ok(changes)], "{kind}");
        }
        // From the other side it is the same friendship, and another block.
        assert_eq!(accounts.befriend(&two, &one).await, Ok(false), "{kind}");
        let [friend] = &friends(&*accounts, "2").await[..] else {
            panic!("{kind}: one friend");
        };
        assert_eq!(friend.id, "1");
        let looked_up = accounts.friend(&two, &one).await.unwrap();
        assert_eq!(looked_up.as_ref(), Some(friend), "{kind}");
        for stranger in ["3", "9", "no"] {
            assert_eq!(
                accounts.friend(&two, &user(stranger)).await,
                Ok(None),
                "{kind}"
            );
        }
        let nobody = user("9");
        let told = accounts.friend(&nobody, &one).await;
        assert_eq!(told, Err(AdministrationError::NoUser(nobody)), "{kind}");
        assert_eq!(
            (friend.blocked, friend.been_blocked),
            (false, true),
            "{kind}"
        );
        assert_eq!(accounts.set_blocked(&two, &one, true).await, Ok(true));
        assert_eq!(accounts.set_blocked(&one, &two, false).await, Ok(true));
        let [friend] = &friends(&*accounts, "1").await[..] else {
            panic!("{kind}: one friend");
        };
        assert_eq!(
            (friend.blocked, friend.been_blocked),
            (false, true),
            "{kind}"
        );
        for changes in [true, false] {
            assert_eq!(accounts.unfriend(&two, &one).await, Ok(changes), "{kind}");
        }
        // Blocks are gone with it.
        accounts.befriend(&one, &two).await.unwrap();
        assert!(!friends(&*accounts, "1").await[0].been_blocked, "{kind}");
        assert_eq!(accounts.user(&one).await.unwrap().friends, 1);
        for changes in [true, false] {
            assert_eq!(accounts.remove_user(&two).await, Ok(changes), "{kind}");
        }
        assert_eq!(friends(&*accounts, "1").await, [], "{kind}");
        remove_all(&*accounts, &["1", "3"]).await;
    }
}

/// Every page from the first.
async fn walk<T>(
    mut page: PageRequest,
    ask: impl AsyncFn(&PageRequest) -> Page<T>,
    limit: u16,
) -> Vec<Vec<T>> {
    let mut pages = Vec::new();
    loop {
        assert!(pages.len() < 100, "pages without end");
        let Page { items, next } = ask(&page).await;
        pages.push(items);
        let Some(last) = next else { return pages };
        page = PageRequest::new(Some(last), limit).unwrap();
    }
}

#[tokio::test]
async fn lists_come_by_the_page_each_item_once() {
    let dir = TempDir::new().unwrap();
    for (kind, accounts) in kinds(&dir) {
        let ids: Vec<String> = [1, 2, 3, 9, 10, 12, 13, 19, 100, 120, 121, 1200]
            .map(|id: u32| id.to_string())
            .into();
        for id in &ids {
            add(&*accounts, id).await;
            if id != "1" {
                accounts.befriend(&user("1"), &user(id)).await.unwrap();
            }
        }
        for limit in [1, 2, 11, 12, 13, 1000] {
            let first = PageRequest::new(None, limit).unwrap();
            for prefix in ["", "1", "12", "3", "4", "x"] {
                let ask = async |page: &PageRequest| accounts.users(prefix, page).await.unwrap();
                let pages = walk(first.clone(), ask, limit).await;
                let full = |page: &Vec<User>| page.len() == usize::from(limit);
                assert!(pages[..pages.len() - 1].iter().all(full), "{kind}");
                assert!(pages.len() == 1 || !pages.last().unwrap().is_empty());
                let mut found: Vec<_> = pages.concat().into_iter().map(|user| user.id).collect();
                found.sort_by_key(|id| id.parse::<u32>().unwrap());
                let expected = ids.iter().filter(|id| id.starts_with(prefix));
                assert!(
                    found.iter().eq(expected),
                    "{kind} {prefix} {limit}: {found:?}"
                );
            }
            let ask = async |page: &PageRequest| accounts.friends(&user("1"), page).await.unwrap();
            let pages = walk(first, ask, limit).await;
            let mut found: Vec<_> = pages.concat().into_iter().map(|friend| friend.id).collect();
            found.sort_by_key(|id| id.parse::<u32>().unwrap());
            assert_eq!(found, ids[1..], "{kind} {limit}");
        }
        // A place is one by its id, whether anybody is there or not.
        let page = PageRequest::new(Some(user("11")), 1).unwrap();
        assert_eq!(
            accounts.users("", &page).await.unwrap().items[0].id,
            "12",
            "{kind}"
        );
        remove_all(
            &*accounts,
            &ids.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    }
    assert_eq!(PageRequest::new(None, 0), None);
    assert_eq!(PageRequest::new(None, 1001), None);
}

#[test]
fn a_token_can_be_sent_and_is_not_printed() {
    for bad in [String::new(), "x".repeat(60_001)] {
        NewToken::chosen(&bad).unwrap_err();
    }
    let token = NewToken::chosen(&"ü".repeat(30_000)).unwrap();
    assert!(!format!("{token:?}").contains('ü'));
    let random = NewToken::random().unwrap();
    assert_eq!(random.expose().len(), 64);
    assert_ne!(random.expose(), NewToken::random().unwrap().expose());
}
