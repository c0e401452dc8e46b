//! API tokens as they stand in the tables: `sha256$`, the mark by which sessions remember the token, `$`, the SHA-256.
//!
//! A trigger makes that of what others write in the clear (`schema.sql`). A token in the clear is understood all the same, for the
//! case that the trigger did not run. Nobody logs in with a hash: what a client sends is hashed where the account has a hash.

use std::fmt::Write;

use jam_core::directory::{Mark, SHA_256_LEN, Token, sha_256};

use super::super::copy::StoredToken;
use super::super::lives::token_mark;

const FORM: &str = "sha256";

/// The token of an account.
pub(super) fn read(id: i64, stored: Option<&str>) -> Option<Token> {
    let stored = stored.filter(|stored| !stored.is_empty())?;
    let hashed = hashed(stored);
    Some(
        hashed
            .unwrap_or_else(|| Token::plain(stored.as_bytes(), token_mark(id, stored.as_bytes()))),
    )
}

fn hashed(stored: &str) -> Option<Token> {
    let (mark, hash) = parts(stored)?;
    Some(Token::hashed(&hash, mark))
}

fn parts(stored: &str) -> Option<(Mark, [u8; SHA_256_LEN])> {
    let (mark, hash) = stored
        .strip_prefix(FORM)?
        .strip_prefix('$')?
        .split_once('$')?;
    let mark: [u8; Mark::LEN] = from_hex(mark)?;
    let hash: [u8; SHA_256_LEN] = from_hex(hash)?;
    Some((Mark::new(mark), hash))
}

/// What stands in the tables, for a copy.
pub(super) fn as_stored(stored: String) -> Option<StoredToken> {
    match parts(&stored) {
        _ if stored.is_empty() => None,
        Some((mark, hash)) => Some(StoredToken::Hashed { mark, hash }),
        None => Some(StoredToken::Clear(stored)),
    }
}

/// What is to stand in the tables for a token of a copy.
pub(super) fn of_copy(id: i64, token: &StoredToken) -> String {
    match token {
        StoredToken::Clear(token) => stored(id, token),
        StoredToken::Hashed { mark, hash } => of_hash(*mark, hash),
    }
}

/// What is to stand in the tables for a new token.
pub(super) fn stored(id: i64, token: &str) -> String {
    let token = token.as_bytes();
    of_hash(token_mark(id, token), &sha_256(token))
}

fn of_hash(mark: Mark, hash: &[u8; SHA_256_LEN]) -> String {
    let mut stored = format!("{FORM}$");
    push_hex(&mut stored, &mark.bytes());
    stored.push('$');
    push_hex(&mut stored, hash);
    stored
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
}

/// In small letters, as it is written.
fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_ours = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_ours) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_one_hashed_or_in_the_clear() {
        let plain = read(7, Some("tökén")).unwrap();
        let stored = stored(7, "tökén");
        let hashed = read(7, Some(&stored)).unwrap();
        assert_eq!(plain.mark(), hashed.mark());
        for token in [&plain, &hashed] {
            assert!(token.is("tökén".as_bytes()) && !token.is(b"token"));
        }
        assert!(!hashed.is(stored.as_bytes()));
        assert_ne!(read(8, Some("tökén")).unwrap().mark(), plain.mark());
    }

    #[test]
    fn nothing_else_is_a_hash_and_nothing_is_no_token() {
        let good = stored(7, "x");
        for other in [
            good.to_uppercase(),
            good.replace("sha256", "sha512"),
            format!("{good}0"),
            good[..good.len() - 1].to_owned(),
            good.replacen('$', "", 1),
            format!("{}é", &good[..good.len() - 2]),
        ] {
            let token = read(7, Some(&other)).unwrap();
            assert!(token.is(other.as_bytes()) && !token.is(b"x"), "{other}");
        }
        assert!(read(7, None).is_none() && read(7, Some("")).is_none());
    }
}
