//! Connections to PostgreSQL, for whatever is kept there.
//!
//! # Layout
//!
//! - [`address`]: [`Address`], where a database is and how to log in, as libpq's users write it. `password_file`: `.pgpass`.
//! - this file: [`connect`], to the one of several hosts that can be written.
//! - `tls`: what `sslmode` means for rustls.
//! - [`error`]: [`PostgresError`], what went wrong, in words that say what to do.
//! - `testing`: real servers for tests.
//!
//! Of several hosts the one that was taken last is tried first, so that connections of one address lead to one server, and hosts that
//! do not answer are waited for once.
//!
//! Invariants: no password is in a `Debug`, a `Display` or an error (`tests`); nothing waits longer for a host than
//! the `connect_timeout` of its [`Address`]; parameters of statements are not logged (`logging`, which mutes the driver's own log).

pub mod address;
pub mod error;
mod password_file;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Socket};

pub use address::Address;
use address::Target;
pub use error::{FailureKind, InvalidAddress, PostgresError};
pub use tls::Connector;

/// The half of a connection that does the I/O. A future that has to be polled: on a thread that never blocks.
pub type Connection =
    tokio_postgres::Connection<Socket, <Connector as MakeTlsConnect<Socket>>::Stream>;

/// A connection without traffic for so long is asked whether it is alive.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
/// Between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Questions without an answer that end a connection.
const KEEPALIVE_RETRIES: u32 = 3;
/// Bytes that the other machine has not acknowledged for so long end a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the first host that can be written. `application_name` is what `pg_stat_activity` shows.
///
/// # Errors
/// If there is none, with what each host has said.
pub async fn connect(
    address: &Address,
    application_name: &str,
) -> Result<(Client, Connection), PostgresError> {
    // Read from the disk each time: certificates and passwords are changed while the server runs.
    let of_address = address.clone();
    let read =
        tokio::task::spawn_blocking(move || (of_address.tls.connector(), of_address.passwords()));
    let (tls, passwords) = read.await.expect("reading these files does not panic");
    let tls = tls?;
    let mut failures = Vec::new();
    for index in address.order() {
        let target = &address.targets[index];
        let config = config_for(address, target, passwords.as_deref(), application_name);
        let connected = timeout(address.connect_timeout, config.connect(tls.clone())).await;
        let failure = match connected {
            Ok(Ok(connected)) => {
                address.took(index);
                return Ok(connected);
            }
            Ok(Err(error)) => PostgresError::from(error),
            Err(_) => PostgresError::no_answer(address.connect_timeout),
        };
        failures.push((target.to_string(), failure));
    }
    Err(PostgresError::of_hosts(&failures))
}

/// As [`connect`], for who needs no notification: the I/O is done by a task of this runtime, which ends with the client.
///
/// # Errors
/// As [`connect`].
pub async fn open(address: &Address, application_name: &str) -> Result<Client, PostgresError> {
    let (client, connection) = connect(address, application_name).await?;
    // How it ends, the client's requests are told.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Fails if the server may lose what it has committed when its machine stops.
///
/// # Errors
/// If it may, or cannot be asked.
pub async fn require_fsync(client: &Client) -> Result<(), PostgresError> {
    let row = client.query_one("SHOW fsync", &[]).await?;
    if row.get::<_, &str>(0) == "on" {
        return Ok(());
    }
    let why = "fsync is off on the server, so that a power cut may destroy the database; set fsync = on there";
    Err(PostgresError::new(FailureKind::Other, why))
}

fn config_for(
    address: &Address,
    target: &Target,
    passwords: Option<&str>,
    application_name: &str,
) -> Config {
    let mut config = address.config.clone();
    target.add_to(&mut config);
    if let Some(password) = passwords.and_then(|it| address.password_of(target, it)) {
        config.password(password);
    }
    config
        .ssl_mode(address.tls.mode_for(target.is_local()))
        .application_name(application_name)
        .connect_timeout(address.connect_timeout)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(USER_TIMEOUT)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    config
}
