//! From when to when the certificates of a file are valid.

use std::path::Path;
use std::time::{Duration, SystemTime};

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

/// How the certificates in `path` stand at `now`. `setting` names the file.
///
/// # Errors
/// If they cannot be read.
pub fn validity(path: &Path, setting: &str, now: SystemTime) -> Result<Validity, TlsError> {
    let mut first_end: Option<SystemTime> = None;
    let mut last_begin: Option<SystemTime> = None;
    for certificate in read_certificates(path, setting)? {
        let (_, certificate) = X509Certificate::from_der(&certificate)
            .map_err(|error| unusable(setting, path, &error))?;
        let begin = time(certificate.validity().not_before.timestamp());
        let end = time(certificate.validity().not_after.timestamp());
        last_begin = Some(last_begin.map_or(begin, |other| other.max(begin)));
        first_end = Some(first_end.map_or(end, |other| other.min(end)));
    }
    let none = || unusable(setting, path, &"there is no certificate in it");
    let (begin, end) = (last_begin.ok_or_else(none)?, first_end.ok_or_else(none)?);
    Ok(if end <= now {
        Validity::Ended(end)
    } else if begin > now {
        Validity::Begins(begin)
    } else if end <= now + RENEWAL {
        Validity::EndsSoon(end)
    } else {
        Validity::Until(end)
    })
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
