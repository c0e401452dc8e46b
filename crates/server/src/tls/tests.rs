use super::*;

use rcgen::{CertificateParams, KeyPair};

/// A self-signed certificate for `name` in `dir`.
pub(crate) fn write_identity(dir: &Path, name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new([name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let identity = Identity {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        chain: None,
    };
    std::fs::write(&identity.cert, cert.pem()).unwrap();
    std::fs::write(&identity.key, key.serialize_pem()).unwrap();
    identity
}

fn current(tls: &Tls) -> Arc<ServerConfig> {
    tls.current().config.clone()
}

#[test]
fn a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let identity = write_identity(dir.path(), "localhost");
    let tls = Tls::open(TlsFiles {
        identity: identity.clone(),
        client_ca: None,
    })
    .unwrap();
    let first = current(&tls);

    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &current(&tls)), "nothing has changed");

    std::fs::write(&identity.cert, "not a certificate").unwrap();
    tls.reload_if_changed();
    assert!(
        Arc::ptr_eq(&first, &current(&tls)),
        "the last good one stays"
    );

    write_identity(dir.path(), "example.org");
    tls.reload_if_changed();
    assert!(
        !Arc::ptr_eq(&first, &current(&tls)),
        "the new one is in force"
    );
}

/// A server's TLS, and its files.
fn opened(dir: &Path) -> (Tls, Identity) {
    let identity = write_identity(dir, "localhost");
    let tls = Tls::open(TlsFiles {
        identity: identity.clone(),
        client_ca: None,
    });
    (tls.unwrap(), identity)
}

/// Its files may be renewed and of no use: the certificate that ends is the one that clients see.
#[test]
fn the_end_is_that_of_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let [first, second] = [2080, 2090].map(|year| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let ends = SystemTime::from(params.not_after);
        (params.self_signed(&key).unwrap().pem(), ends)
    });
    let identity = write_identity(dir.path(), "localhost");
    let write = |pem: &str, key: &str| {
        std::fs::write(&identity.cert, pem).unwrap();
        std::fs::write(&identity.key, key).unwrap();
    };
    write(&first.0, &key.serialize_pem());
    let tls = Tls::open(TlsFiles {
        identity: identity.clone(),
        client_ca: None,
    })
    .unwrap();
    assert_eq!(tls.ends(), first.1);
    write(&second.0, "no key");
    tls.reload_if_changed();
    assert_eq!(tls.ends(), first.1);
    write(&second.0, &key.serialize_pem());
    tls.reload_if_changed();
    assert_eq!(tls.ends(), second.1);
    // Of a chain, the first that ends.
    std::fs::write(&identity.cert, second.0 + &first.0).unwrap();
    tls.reload_if_changed();
    assert_eq!(tls.ends(), first.1);
}

/// Another certificate, not in its place yet.
fn renewed() -> (tempfile::TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    let identity = write_identity(dir.path(), "example.org");
    (dir, identity)
}

fn failure(tls: &Tls) -> Option<String> {
    tls.in_force().failure.clone()
}

#[test]
fn what_cannot_be_read_yet_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, identity) = opened(dir.path());
    let first = current(&tls);
    // Root reads everything, so the key that cannot be read yet is a link to what is not there yet. Only
    // what it leads to changes: by the path alone nothing can be seen.
    let (_elsewhere, new) = renewed();
    let later = dir.path().join("later.pem");
    std::fs::remove_file(&identity.key).unwrap();
    std::os::unix::fs::symlink(&later, &identity.key).unwrap();
    std::fs::copy(&new.cert, &identity.cert).unwrap();
    for _ in 0..3 {
        tls.reload_if_changed();
        assert!(Arc::ptr_eq(&first, &current(&tls)));
        assert!(failure(&tls).unwrap().contains("tls.key"));
    }
    std::fs::copy(&new.key, &later).unwrap();
    tls.reload_if_changed();
    assert!(!Arc::ptr_eq(&first, &current(&tls)), "it is in force");
    assert_eq!(failure(&tls), None);
}

/// A failure that no stamp shows the end of, such as a file server that answers again.
#[test]
fn a_failure_that_leaves_no_trace_in_the_files_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, identity) = opened(dir.path());
    let first = current(&tls);
    let (_elsewhere, new) = renewed();
    std::fs::copy(&new.key, &identity.key).unwrap();
    std::fs::copy(&new.cert, &identity.cert).unwrap();
    // As if the reading had failed at a look at these very files.
    tls.in_force().failure = Some("cannot use it".to_owned());
    tls.reload_if_changed();
    assert!(!Arc::ptr_eq(&first, &current(&tls)));
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_yet_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, identity) = opened(dir.path());
    let first = current(&tls);
    let (_elsewhere, new) = renewed();
    std::fs::rename(&new.cert, &identity.cert).unwrap();
    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &current(&tls)), "half a pair");
    std::fs::rename(&new.key, &identity.key).unwrap();
    tls.reload_if_changed();
    assert!(!Arc::ptr_eq(&first, &current(&tls)), "the pair is in force");
}

#[test]
fn a_file_that_was_replaced_by_one_of_the_same_age_and_length_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, identity) = opened(dir.path());
    let before = tls.files.stamp();
    let copy = dir.path().join("copy.pem");
    std::fs::copy(&identity.cert, &copy).unwrap();
    let modified = std::fs::metadata(&identity.cert).unwrap().modified();
    let file = std::fs::File::options().append(true).open(&copy).unwrap();
    file.set_modified(modified.unwrap()).unwrap();
    std::fs::rename(&copy, &identity.cert).unwrap();
    assert_ne!(before, tls.files.stamp());
}

#[test]
fn errors_name_the_setting_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let good = write_identity(dir.path(), "localhost");
    let missing = dir.path().join("missing.pem");
    let error = |identity: Identity, client_ca: Option<PathBuf>| {
        TlsFiles {
            identity,
            client_ca,
        }
        .verify()
        .unwrap_err()
        .to_string()
    };

    let text = error(
        Identity {
            cert: missing.clone(),
            ..good.clone()
        },
        None,
    );
    assert!(
        text.contains("tls.cert") && text.contains("missing.pem"),
        "{text}"
    );
    let text = error(
        Identity {
            key: good.cert.clone(),
            ..good.clone()
        },
        None,
    );
    assert!(
        text.contains("tls.key") && text.contains("cert.pem"),
        "{text}"
    );
    let text = error(
        Identity {
            chain: Some(good.key.clone()),
            ..good.clone()
        },
        None,
    );
    assert!(
        text.contains("tls.chain") && text.contains("no certificate"),
        "{text}"
    );
    let text = error(good.clone(), Some(missing));
    assert!(text.contains("tls.client_ca"), "{text}");

    let other = tempfile::tempdir().unwrap();
    let foreign = write_identity(other.path(), "localhost");
    let text = error(
        Identity {
            key: foreign.key,
            ..good
        },
        None,
    );
    assert!(
        text.contains("tls.cert"),
        "a key that belongs to another certificate: {text}"
    );
}
