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
    tls.current.read().unwrap().clone()
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
        "the new one is taken up"
    );
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
