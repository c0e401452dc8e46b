//! What `sslmode`, `sslrootcert`, `sslcert` and `sslkey` mean for rustls.
//!
//! As in libpq: `disable`; `prefer` (TLS if the server offers it, whoever it is; the default); `require` (TLS, whoever it
//! is, unless there is a file of authorities); `verify-ca` (a certificate of one of the authorities); `verify-full` (and it bears the host's name).
//! The authorities are those of `sslrootcert`, else of `~/.postgresql/root.crt`, else, for the last two, the system's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{InvalidAddress, PostgresError};
use crate::named_file;

/// How a connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protection {
    mode: SslMode,
    verified: Verified,
    /// Whose certificates are good; `None`: those of the system's authorities.
    authorities: Option<PathBuf>,
    /// What this side proves its name with: certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
}

/// Begins TLS on a socket.
#[derive(Clone)]
pub struct Connector(MakeRustlsConnect);

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    /// A host on this machine has no name, and no TLS; a name has to be there all the same.
    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let host = if host.is_empty() { "localhost" } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, host)
    }
}

/// What a server's certificate has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verified {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl Protection {
    /// Takes what is about TLS out of the options of an address.
    pub(super) fn take_from(
        options: &mut BTreeMap<String, String>,
        home: Option<&Path>,
    ) -> Result<Self, InvalidAddress> {
        let mut file = |name: &str| options.remove(name).filter(|path| !path.is_empty());
        let (root, cert, key) = (file("sslrootcert"), file("sslcert"), file("sslkey"));
        let of_system = root.as_deref() == Some("system");
        let in_home = home.map(|home| home.join(".postgresql/root.crt"));
        let authorities = match root {
            Some(_) if of_system => None,
            Some(path) => Some(PathBuf::from(path)),
            None => in_home.filter(|path| path.exists()),
        };
        let with_authority = match authorities {
            Some(_) => Verified::Authority,
            None => Verified::Nothing,
        };
        let (mode, verified) = match options.remove("sslmode").as_deref() {
            None if of_system => (SslMode::Require, Verified::AuthorityAndName),
            None | Some("prefer") => (SslMode::Prefer, Verified::Nothing),
            Some("disable") => (SslMode::Disable, Verified::Nothing),
            Some("require") => (SslMode::Require, with_authority),
            Some("verify-ca") => (SslMode::Require, Verified::Authority),
            Some("verify-full") => (SslMode::Require, Verified::AuthorityAndName),
            Some(_) => {
                return Err(InvalidAddress::new(
                    "sslmode: expected disable, prefer, require, verify-ca or verify-full",
                ));
            }
        };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
            (None, None) => None,
            _ => {
                return Err(InvalidAddress::new(
                    "expected both of sslcert and sslkey, or neither",
                ));
            }
        };
        Ok(Self {
            mode,
            verified,
            authorities,
            identity,
        })
    }

    /// Where the key is by which the server knows us.
    pub(super) fn key_file(&self) -> Option<&Path> {
        self.identity.as_ref().map(|(_, key)| key.as_path())
    }

    /// A socket of this machine needs no TLS, and PostgreSQL has none there.
    pub(super) fn mode_for(&self, is_local: bool) -> SslMode {
        if is_local {
            SslMode::Disable
        } else {
            self.mode
        }
    }

    /// Reads the files.
    pub(super) fn connector(&self) -> Result<Connector, PostgresError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.verified {
            Verified::Nothing => Arc::new(Anybody(provider.clone())),
            Verified::Authority => Arc::new(Authority(self.verifier(&provider)?)),
            Verified::AuthorityAndName => self.verifier(&provider)?,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PostgresError::tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert, "sslcert")?;
                let private_key = PrivateKeyDer::from_pem_slice(&pem(key, "sslkey")?)
                    .map_err(|error| PostgresError::file("sslkey", key, &error))?;
                builder
                    .with_client_auth_cert(chain, private_key)
                    .map_err(|error| PostgresError::file("sslcert, with sslkey", cert, &error))?
            }
        };
        Ok(Connector(MakeRustlsConnect::new(config)))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, PostgresError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(path) => {
                for authority in certificates(path, "sslrootcert")? {
                    roots
                        .add(authority)
                        .map_err(|error| PostgresError::file("sslrootcert", path, &error))?;
                }
            }
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        verifier.build().map_err(|error| PostgresError::tls(&error))
    }
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let pem = pem(path, option)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    read.map_err(|error| PostgresError::file(option, path, &error))
}

fn pem(path: &Path, option: &str) -> Result<Vec<u8>, PostgresError> {
    named_file::read(path).map_err(|error| PostgresError::file(option, path, &error))
}

/// Believes every certificate: what is read on the way is protected, and who reads at the other end is not known.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes the certificates of some authorities, whatever names they bear.
#[derive(Debug)]
struct Authority(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .0
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        match verified {
            // The name is looked at last: all else is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
