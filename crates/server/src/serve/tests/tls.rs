//! MQTT over TLS: certificates of clients, and files that change.

use std::io;
use std::sync::Arc;

use jam_wire::packet::Packet;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::house::{Client, House, connect, connect_to, publish, soon, subscribe};
use super::{V4, payload};
use crate::settings::Identity;
use crate::tls::tests::write_identity;

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects; shows the given identity, if the server asks for one.
async fn tls_client(house: &House, identity: Option<&Identity>) -> io::Result<Client<TlsStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let cert = house.dir.path().join("cert.pem");
    roots
        .add(CertificateDer::from_pem_file(cert).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key, .. }) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connect_to(house.running.mqtts.unwrap()).await;
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Client::new(
        soon(connector.connect(name, stream)).await?,
        V4,
    ))
}

#[tokio::test]
async fn client_certificates_are_required_where_set() {
    let elsewhere = tempfile::tempdir().unwrap();
    let trusted = write_identity(elsewhere.path(), "phone");
    let house = House::open(|settings, dir| {
        settings.listen.mqtts = Some("127.0.0.1:0".parse().unwrap());
        settings.tls.identity = Some(write_identity(dir.path(), "localhost"));
        settings.tls.client_ca = Some(trusted.cert.clone());
    })
    .await;
    let mut client = tls_client(&house, Some(&trusted)).await.unwrap();
    client.send(&[connect("1", V4)]).await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));

    let strangers = tempfile::tempdir().unwrap();
    let stranger = write_identity(strangers.path(), "phone");
    for identity in [None, Some(&stranger)] {
        // In TLS 1.3 a client learns of it when it reads.
        let Ok(mut client) = tls_client(&house, identity).await else {
            continue;
        };
        let mut bytes = Vec::new();
        let ended = soon(client.stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_err() && bytes.is_empty());
    }
    house.settle(1).await;
}

#[tokio::test]
async fn tls_is_served_and_reloaded() {
    let house = House::open(|settings, dir| {
        settings.listen.mqtts = Some("127.0.0.1:0".parse().unwrap());
        settings.tls.identity = Some(write_identity(dir.path(), "localhost"));
    })
    .await;
    let mut client = tls_client(&house, None).await.unwrap();
    let picture = vec![b'x'; 500_000];
    client
        .send(&[connect("1", V4), subscribe("/1/pictures")])
        .await;
    assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    client
        .send(&[publish("/1/pictures", picture.clone(), None)])
        .await;
    assert!(payload(client.next().await) == picture);

    write_identity(house.dir.path(), "localhost");
    assert!(
        tls_client(&house, None).await.is_err(),
        "still the old certificate"
    );
    let tls = house.running.parts.tls.clone().unwrap();
    tokio::task::spawn_blocking(move || tls.reload())
        .await
        .unwrap();
    let mut renewed = tls_client(&house, None).await.unwrap();
    renewed.send(&[connect("2", V4)]).await;
    assert!(matches!(renewed.next().await, Some(Packet::ConnAck(_))));
    client.send(&[Packet::PingReq]).await;
    assert_eq!(
        client.next().await,
        Some(Packet::PingResp),
        "who is connected stays connected"
    );
}
