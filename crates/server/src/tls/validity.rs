//! From when to when the certificates of a file are valid.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, read_certificates, unusable};

/// A certificate that ends within this time is to be renewed.
pub const RENEWAL: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How a file's certificates stand at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// All are valid, the first of them ends then.
    Until(SystemTime),
    /// The same, and that is within [`RENEWAL`].
    EndsSoon(SystemTime),
    /// One has ended.
    Ended(SystemTime),
    /// One has not begun.
    Begins(SystemTime),
}

/// When all of some certificates are valid: from the last that begins until the first that ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    begins: SystemTime,
    pub(super) ends: SystemTime,
}

impl Lifetime {
    /// Of the certificates in `path`, which `setting` names. There is one at least.
    pub(super) fn of(
        certificates: &[CertificateDer<'_>],
        path: &Path,
        setting: &str,
    ) -> Result<Self, TlsError> {
        let mut begins = SystemTime::UNIX_EPOCH;
        let mut ends: Option<SystemTime> = None;
        for certificate in certificates {
            let (_, certificate) = X509Certificate::from_der(certificate)
                .map_err(|error| unusable(setting, path, &error))?;
            let validity = certificate.validity();
            begins = begins.max(time(validity.not_before.timestamp()));
            let end = time(validity.not_after.timestamp());
            ends = Some(ends.map_or(end, |other| other.min(end)));
        }
        let ends = ends.ok_or_else(|| unusable(setting, path, &"there is no certificate in it"))?;
        Ok(Self { begins, ends })
    }

    fn at(self, now: SystemTime) -> Validity {
        let Self { begins, ends } = self;
        if ends <= now {
            Validity::Ended(ends)
        } else if begins > now {
            Validity::Begins(begins)
        } else if ends <= now + RENEWAL {
            Validity::EndsSoon(ends)
        } else {
            Validity::Until(ends)
        }
    }
}

/// How the certificates in `path` stand at `now`. `setting` names the file.
///
/// # Errors
/// If they cannot be read.
pub fn validity(path: &Path, setting: &str, now: SystemTime) -> Result<Validity, TlsError> {
    Ok(Lifetime::of(&read_certificates(path, setting)?, path, setting)?.at(now))
}

/// Of seconds since 1970; what is before counts as then.
fn time(seconds: i64) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u32::MAX.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::write_identity;

    #[test]
    fn the_first_end_counts() {
        let dir = tempfile::TempDir::new().unwrap();
        let cert = write_identity(dir.path(), "localhost").cert;
        let at = |now| validity(&cert, "tls.cert", now).unwrap();
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(365 * 24 * 60 * 60);
        let Validity::Begins(begins) = at(begin) else {
            panic!()
        };
        assert_eq!(
            at(begins - Duration::from_secs(1)),
            Validity::Begins(begins)
        );
        let Validity::Until(end) = at(begins) else {
            panic!()
        };
        assert_eq!(
            at(end - RENEWAL - Duration::from_secs(1)),
            Validity::Until(end)
        );
        assert_eq!(at(end - RENEWAL), Validity::EndsSoon(end));
        assert_eq!(at(end), Validity::Ended(end));
    }
}
