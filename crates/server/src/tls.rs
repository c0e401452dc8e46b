//! TLS: certificate chain, key and optionally the client authorities, from PEM files.
//!
//! Files that change are loaded while the server runs, for connections that come then; files that
//! cannot be used leave the last good ones in place. With `client_ca` set a client must show a certificate
//! that one of its authorities signed. That only opens the door: who the client is, PROTOCOL.md,
//! section 3, decides by token alone.
//!
//! Invariants: there is always a configuration that works (`a_bad_file_changes_nothing`). While it is not
//! that of the files on the disk, each look tries them again, and each cause is logged once
//! (`what_cannot_be_read_yet_is_tried_again`).

pub mod validity;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::named_file;
use crate::settings::{self, Identity};
use validity::Lifetime;

/// Why TLS cannot be served from these files. Says which file and what to do.
#[derive(Debug)]
pub struct TlsError {
    what: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for TlsError {}

/// Where the PEM files are: what the settings say of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate, key (PKCS#8, PKCS#1 or SEC1) and further certificates of the chain.
    pub identity: Identity,
    /// Whose client certificates are good; `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// One state of a file: its inode, its length, when its content and when its inode was last changed.
type FileStamp = (u64, u64, (i64, i64), (i64, i64));

/// The state of each of the files; `None`: it cannot be looked at.
type Stamp = [Option<FileStamp>; 4];

/// The configuration in force.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<LoadedTls>,
    in_force: Mutex<InForce>,
}

/// What handshakes use.
struct LoadedTls {
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends.
    ends: SystemTime,
}

/// What the configuration in force was made of.
struct InForce {
    /// Of the files, just before they were read.
    stamp: Stamp,
    /// Why what has come since cannot be used, as it was logged last.
    failure: Option<String>,
}

impl TlsFiles {
    /// The files that the settings name; `None` is no TLS.
    #[must_use]
    pub fn of(settings: &settings::Tls) -> Option<Self> {
        let identity = settings.identity.clone()?;
        Some(Self {
            identity,
            client_ca: settings.client_ca.clone(),
        })
    }

    /// Reads and checks the files, as `jam-mqtt check` does.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn verify(&self) -> Result<(), TlsError> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<LoadedTls, TlsError> {
        let Identity { cert, key, chain } = &self.identity;
        let mut certificates = read_certificates(cert, "tls.cert")?;
        let mut ends = Lifetime::of(&certificates, cert, "tls.cert")?.ends;
        if let Some(chain) = chain {
            let further = read_certificates(chain, "tls.chain")?;
            ends = ends.min(Lifetime::of(&further, chain, "tls.chain")?.ends);
            certificates.extend(further);
        }
        let private_key = PrivateKeyDer::from_pem_slice(&read(key, "tls.key")?)
            .map_err(|error| unusable("tls.key", key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("tls.cert", cert, &error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider)?),
        };
        let config = builder
            .with_single_cert(certificates, private_key)
            .map_err(|error| unusable("tls.cert, with tls.key", cert, &error))?;
        let config = Arc::new(config);
        Ok(LoadedTls { config, ends })
    }

    fn stamp(&self) -> Stamp {
        let Identity { cert, key, chain } = &self.identity;
        let of = |path: &Path| {
            let it = std::fs::metadata(path).ok()?;
            let changed = (it.ctime(), it.ctime_nsec());
            Some((it.ino(), it.len(), (it.mtime(), it.mtime_nsec()), changed))
        };
        [
            of(cert),
            of(key),
            chain.as_deref().and_then(of),
            self.client_ca.as_deref().and_then(of),
        ]
    }
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in read_certificates(path, "tls.client_ca")? {
        roots
            .add(authority)
            .map_err(|error| unusable("tls.client_ca", path, &error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable("tls.client_ca", path, &error))
}

impl Tls {
    /// Reads the files. Blocks.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let current = RwLock::new(files.load()?);
        let failure = None;
        Ok(Self {
            files,
            current,
            in_force: Mutex::new(InForce { stamp, failure }),
        })
    }

    /// What the next handshake is to use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config.clone())
    }

    /// When the first certificate in force ends.
    pub(crate) fn ends(&self) -> SystemTime {
        self.current().ends
    }

    /// Reads the files again if they are not those in force. Blocks.
    pub(crate) fn reload_if_changed(&self) {
        let mut in_force = self.in_force();
        if in_force.stamp == self.files.stamp() {
            in_force.failure = None; // it has been put back
        } else {
            self.load(&mut in_force);
        }
    }

    /// Reads the files again, and says what has come of it. Blocks.
    pub(crate) fn reload(&self) {
        let mut in_force = self.in_force();
        in_force.failure = None;
        self.load(&mut in_force);
    }

    fn load(&self, in_force: &mut InForce) {
        // Older than what is read, so a change in between is seen at the next look.
        let stamp = self.files.stamp();
        match self.files.load() {
            Ok(loaded) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                let failure = None;
                *in_force = InForce { stamp, failure };
                tracing::info!(cert = %self.files.identity.cert.display(), "TLS files reloaded");
            }
            Err(error) => {
                let failure = Some(error.to_string());
                if in_force.failure != failure {
                    in_force.failure = failure;
                    tracing::error!(%error, "TLS files not reloaded; the last good ones stay");
                }
            }
        }
    }

    fn current(&self) -> RwLockReadGuard<'_, LoadedTls> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_force(&self) -> std::sync::MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(&read(path, setting)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(setting, path, &error))?;
    if all.is_empty() {
        return Err(unusable(setting, path, &"there is no certificate in it"));
    }
    Ok(all)
}

fn read(path: &Path, setting: &str) -> Result<Vec<u8>, TlsError> {
    named_file::read(path).map_err(|error| unusable(setting, path, &error))
}

fn unusable(setting: &str, path: &Path, why: &dyn fmt::Display) -> TlsError {
    TlsError {
        what: format!("cannot use {} ({setting}): {why}", path.display()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
