//! API tokens as they stand in the file: in the clear where other programs read them, as SHA-256 in a database of our own.
//!
//! A hash is a BLOB that begins with [`FORM`], which no client can send as a password: those are UTF-8. So no text is
//! ever taken for a hash, and no hash for a token, whoever has written it and wherever it is copied to. With it stands the
//! mark by which sessions remember the token, made of the token itself: it stays the same, and so do sessions.
//!
//! Tokens of an older file, and those that another program has written since, are hashed when a server starts on it
//! ([`hash_all`]). Until the first time, commands leave tokens in the clear: the server that runs may be one that knows no hashes.
//!
//! Invariants: a start that is killed has hashed all tokens or none (`tests::tokens`), and whatever it has hashed is in no page of
//! the file any more once [`HASHED`] stands in it.

use std::borrow::Cow;
use std::path::Path;
use std::str::Utf8Error;

use jam_core::directory::{Mark, SHA_256_LEN, Token, sha_256};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, TransactionBehavior, params};

use super::super::lives::token_mark;
use super::schema::HASHED;
use super::{DirectoryError, schema, values};
use crate::directory::copy::StoredToken;

/// What a hashed token begins with. 0xFF is in no UTF-8.
const FORM: [u8; 2] = [0xFF, 1];

/// Bytes of a hashed token: the form, the mark, the hash.
const HASHED_LEN: usize = FORM.len() + Mark::LEN + SHA_256_LEN;

/// Tokens that are hashed with one look.
const AT_ONCE: u32 = 1000;

/// The next accounts after ?1 whose token is in the clear.
const IN_THE_CLEAR: &str = "SELECT user_id, user_api_token FROM accounts
    WHERE user_id > ?1 AND coalesce(user_api_token, '') <> ''
        AND NOT (typeof(user_api_token) = 'blob' AND substr(user_api_token, 1, 2) = x'FF01')
    ORDER BY user_id LIMIT ?2";

/// The token of an account.
pub(super) fn read(id: i64, value: ValueRef<'_>) -> Option<Token> {
    if let ValueRef::Blob(blob) = value
        && let Some(rest) = blob.strip_prefix(&FORM)
    {
        let (mark, hash) = rest.split_first_chunk()?;
        return Some(Token::hashed(hash.try_into().ok()?, Mark::new(*mark)));
    }
    values::token(value).map(|token| Token::plain(&token, token_mark(id, &token)))
}

/// What is to stand in the file for a new token.
pub(super) fn stored(connection: &Connection, id: i64, token: &str) -> rusqlite::Result<Value> {
    Ok(
        if schema::is_ours(connection)? && version(connection)? >= HASHED {
            Value::Blob(hashed(id, token.as_bytes()))
        } else {
            Value::Text(token.to_owned())
        },
    )
}

/// As it stands in the file; an error if it is no text. `None`: nobody gets in.
pub(super) fn as_stored(value: ValueRef<'_>) -> Result<Option<StoredToken>, Utf8Error> {
    if let ValueRef::Blob(blob) = value
        && let Some(rest) = blob.strip_prefix(&FORM)
    {
        return Ok(rest.split_first_chunk().and_then(|(mark, hash)| {
            let (mark, hash) = (Mark::new(*mark), hash.try_into().ok()?);
            Some(StoredToken::Hashed { mark, hash })
        }));
    }
    let token = values::token(value);
    let clear = |token: Cow<'_, [u8]>| {
        std::str::from_utf8(&token).map(|it| StoredToken::Clear(it.to_owned()))
    };
    token.map(clear).transpose()
}

/// What is to stand in the file for a token that is known by its hash.
pub(super) fn of_hash(mark: Mark, hash: &[u8; SHA_256_LEN]) -> Value {
    Value::Blob([&FORM[..], &mark.bytes(), hash].concat())
}

/// Hashes the tokens of a file of ours that are in the clear; leaves any other file as it is. How many there were.
pub(super) fn hash_all(path: &Path) -> Result<u64, DirectoryError> {
    let mut connection = schema::open_for_writing(path)?;
    if !schema::is_ours(&connection)? {
        return Ok(0);
    }
    if version(&connection)? >= HASHED && next(&connection, i64::MIN, 1)?.is_empty() {
        return Ok(0);
    }
    // Hundreds of thousands take seconds: the log says what the start waits for.
    tracing::info!(path = %path.display(), "hashing tokens in the accounts database");
    let hashed = hash_in_one(&mut connection)?;
    // Tokens of before stand in parts of pages that are free, and in the log.
    connection.execute_batch("VACUUM")?;
    empty_log(&connection)?;
    connection.pragma_update(None, "user_version", HASHED)?;
    Ok(hashed)
}

fn hash_in_one(connection: &mut Connection) -> rusqlite::Result<u64> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Until the file is clean too: who is killed before leaves that to the next start.
    tx.pragma_update(None, "user_version", 0)?;
    let (mut count, mut last) = (0, i64::MIN);
    loop {
        let accounts = next(&tx, last, AT_ONCE)?;
        let Some((id, _)) = accounts.last() else {
            break;
        };
        last = *id;
        let sql = "UPDATE accounts SET user_api_token = ?2 WHERE user_id = ?1";
        let mut update = tx.prepare_cached(sql)?;
        for (id, token) in accounts {
            if let Some(token) = values::token(ValueRef::from(&token)) {
                count += 1;
                update.execute(params![id, hashed(id, &token)])?;
            }
        }
    }
    tx.commit()?;
    Ok(count)
}

/// The log still holds pages of before.
fn empty_log(connection: &Connection) -> Result<(), DirectoryError> {
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    let is_read: bool = connection.query_row(sql, [], |row| row.get(0))?;
    if is_read {
        return Err(DirectoryError::new(
            "another process has been reading the accounts database for long",
        ));
    }
    Ok(())
}

fn next(connection: &Connection, last: i64, limit: u32) -> rusqlite::Result<Vec<(i64, Value)>> {
    let mut statement = connection.prepare_cached(IN_THE_CLEAR)?;
    let accounts =
        statement.query_map(params![last, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    accounts.collect()
}

pub(super) fn hashed(id: i64, token: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(HASHED_LEN);
    blob.extend_from_slice(&FORM);
    blob.extend_from_slice(&token_mark(id, token).bytes());
    blob.extend_from_slice(&sha_256(token));
    blob
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
