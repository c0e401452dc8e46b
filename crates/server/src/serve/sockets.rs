//! The sockets that the server listens on.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::ServeError;
use crate::listener::bind;
use crate::settings::{Address, Settings};

/// The bound sockets, one for each address that is set.
pub(super) struct Sockets {
    pub(super) mqtt: Option<TcpListener>,
    pub(super) mqtts: Option<TcpListener>,
    pub(super) http: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl Sockets {
    pub(super) async fn bind(settings: &Settings) -> Result<Self, ServeError> {
        let listen = &settings.listen;
        Ok(Self {
            mqtt: bind_setting("listen.mqtt", listen.mqtt.as_ref()).await?,
            mqtts: bind_setting("listen.mqtts", listen.mqtts.as_ref()).await?,
            http: bind_setting("listen.http", listen.http.as_ref()).await?,
            admin: bind_setting("listen.admin", listen.admin.as_ref()).await?,
        })
    }
}

/// Where it is bound: port 0 has become a real one.
pub(super) fn address_of(socket: Option<&TcpListener>) -> Result<Option<SocketAddr>, ServeError> {
    socket
        .map(TcpListener::local_addr)
        .transpose()
        .map_err(ServeError::Io)
}

async fn bind_setting(
    setting: &'static str,
    address: Option<&Address>,
) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else {
        return Ok(None);
    };
    match bind(address.as_str()).await {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => Err(ServeError::Bind {
            setting,
            address: address.to_string(),
            error,
        }),
    }
}
