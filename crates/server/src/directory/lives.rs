//! Lives: which of the accounts that have had an id it stands for. Marks: what is stored in place of a secret value.

use jam_core::directory::{Life, Mark};
use ring::digest;

use super::{DirectoryError, random_token};

/// The end of a made-up e-mail address.
const MADE_UP: &str = "@jam.invalid";
/// Characters before that end.
const MADE_UP_CHARACTERS: usize = 32;

/// The mark of a value, stored in its place: the beginning of the SHA-256 of its parts. The first part says what it is, so
/// that equal values of different kinds or users have different marks.
pub(super) fn mark(parts: &[&[u8]]) -> Mark {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let (begin, _) = digest.as_ref().split_at(Mark::LEN);
    Mark::new(begin.try_into().expect("it was split there"))
}

/// The mark by which sessions remember the API token of a user.
pub(super) fn token_mark(id: i64, token: &[u8]) -> Mark {
    mark(&[b"token", &id.to_be_bytes(), token])
}

/// The life of an account with these values. An empty value is none.
pub(super) fn life_of(email: Option<&[u8]>, name: Option<&[u8]>, password: Option<&[u8]>) -> Life {
    let of = |what: &[u8], value: Option<&[u8]>| value.map(|value| mark(&[what, value]));
    Life {
        made_up: email.is_some_and(is_made_up),
        email: of(b"user_email", email),
        name: of(b"username", name),
        password: of(b"user_password_hash", password),
    }
}

fn is_made_up(email: &[u8]) -> bool {
    let random = email.strip_suffix(MADE_UP.as_bytes());
    random.is_some_and(|it| it.len() == MADE_UP_CHARACTERS && it.iter().all(u8::is_ascii_hexdigit))
}

/// A made-up e-mail address, different for each account.
///
/// # Errors
/// If the system has no randomness to give.
pub(super) fn made_up_address() -> Result<String, DirectoryError> {
    let mut random = random_token()?;
    random.truncate(MADE_UP_CHARACTERS);
    Ok(random + MADE_UP)
}

/// The made-up address in a file of an account that comes from PostgreSQL without one: made of the UUID in `accounts.life`.
pub(super) fn made_up_address_of(life: &str) -> String {
    let digits: String = life.chars().filter(char::is_ascii_hexdigit).collect();
    digits + MADE_UP
}
