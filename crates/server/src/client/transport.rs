//! [`ClientTransport`]: MQTT's bytes to a server and back, over TCP, TLS and WebSocket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{ClientError, MAX_PACKET, ServerUrl};
use crate::named_file;

/// A stream of bytes.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// See the module's description.
pub(super) enum ClientTransport {
    Bytes(Box<dyn Io>),
    WebSocket(Box<WebSocketStream<Box<dyn Io>>>),
}

impl std::fmt::Debug for ClientTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) => "Bytes",
            Self::WebSocket(_) => "WebSocket",
        })
    }
}

impl ClientTransport {
    /// Connects. With TLS the certificate must be good for the URL's host, signed by an authority in the file `ca`, or
    /// by one that this machine knows.
    pub(super) async fn connect(url: &ServerUrl, ca: Option<&Path>) -> Result<Self, ClientError> {
        let tls = url.tls.then(|| tls_config(ca)).transpose()?;
        let stream = TcpStream::connect((&*url.host, url.port))
            .await
            .map_err(|error| {
                ClientError::Unexpected(format!(
                    "cannot connect to {url}: {error}; is the server running there?"
                ))
            })?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Io> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let host = ServerName::try_from(url.host.clone())
                    .map_err(|_| ClientError::Unexpected(format!("{} is no host", url.host)))?;
                let connected = TlsConnector::from(tls).connect(host, stream).await;
                Box::new(connected.map_err(|error| no_tls(url, &error))?)
            }
        };
        match &url.websocket {
            None => Ok(Self::Bytes(stream)),
            Some(path) => Self::upgrade(url, path, stream).await,
        }
    }

    async fn upgrade(
        url: &ServerUrl,
        path: &str,
        stream: Box<dyn Io>,
    ) -> Result<Self, ClientError> {
        let refused =
            |error: Error| ClientError::Unexpected(format!("no WebSocket at {url}: {error}"));
        let scheme = if url.tls { "wss" } else { "ws" };
        let host = match url.host.contains(':') {
            true => format!("[{}]", url.host),
            false => url.host.clone(),
        };
        let request = format!("{scheme}://{host}:{}{path}", url.port);
        let mut request = request.into_client_request().map_err(refused)?;
        let protocol = HeaderValue::from_static("mqtt");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_PACKET))
            .max_frame_size(Some(MAX_PACKET));
        let upgrade =
            tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await;
        let (stream, _) = upgrade.map_err(refused)?;
        Ok(Self::WebSocket(Box::new(stream)))
    }

    /// Reads what there is; 0 is the end. Cancelling loses nothing.
    pub(super) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let stream = match self {
            Self::Bytes(stream) => return stream.read_buf(into).await,
            Self::WebSocket(stream) => stream,
        };
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Binary(bytes)) if !bytes.is_empty() => {
                    into.extend_from_slice(&bytes);
                    return Ok(bytes.len());
                }
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => break,
                Err(error) => return Err(io_error(error)),
            }
        }
        Ok(0)
    }

    /// Writes all of it.
    pub(super) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Bytes(stream) => {
                stream.write_all(&bytes).await?;
                stream.flush().await
            }
            Self::WebSocket(stream) => stream.send(Message::Binary(bytes)).await.map_err(io_error),
        }
    }

    /// Nothing more is written.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Bytes(stream) => stream.shutdown().await,
            Self::WebSocket(stream) => (**stream).close(None).await.map_err(io_error),
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

fn tls_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, ClientError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let unusable = |error: &dyn std::fmt::Display| {
                ClientError::Unexpected(format!("cannot use {} (--ca): {error}", path.display()))
            };
            let file = named_file::read(path).map_err(|error| unusable(&error))?;
            for authority in CertificateDer::pem_slice_iter(&file) {
                let authority = authority.map_err(|error| unusable(&error))?;
                roots.add(authority).map_err(|error| unusable(&error))?;
            }
            if roots.is_empty() {
                return Err(unusable(&"there is no certificate in it"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(ClientError::Unexpected(
                    "this machine knows no certificate authority: install the package ca-certificates, or name \
                     a PEM file with --ca"
                        .to_owned(),
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Unexpected(format!("no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What a person can do about it.
fn no_tls(url: &ServerUrl, error: &io::Error) -> ClientError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
    let why = match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::UnknownIssuer => {
                "its certificate was signed by an authority that is not known here; name the authority's \
                 certificate with --ca FILE"
                    .to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is this machine's clock right?".to_owned()
            }
            CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is not for the name {}", url.host)
            }
            other => format!("its certificate is not good: {other}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "what it answers is no TLS; is TLS served on this port?".to_owned()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection; is TLS served on this port?".to_owned()
        }
        _ => error.to_string(),
    };
    ClientError::Unexpected(format!("no TLS connection to {url}: {why}"))
}
