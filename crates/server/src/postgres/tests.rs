//! Addresses as people write them, and connections to real servers.

use std::collections::HashMap;
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::testing::{HasAddress as _, TestServer, behind_silent_hosts, database};
use super::*;

fn parse_with(url: &str, variables: &[(&str, &str)]) -> Result<Address, InvalidAddress> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Address::parse_with(url, &|name| {
        variables.get(name).map(|value| (*value).to_owned())
    })
}

fn config_of(address: &Address) -> Vec<Config> {
    let config = |target| config_for(address, target, address.passwords().as_deref(), "test");
    address.targets.iter().map(config).collect()
}

#[test]
fn an_address_is_what_libpq_takes_it_for() {
    for (url, variables, shown, user, password) in [
        (
            "postgres://u@h/d",
            &[][..],
            "postgres://h:5432/d",
            "u",
            None,
        ),
        (
            "postgresql://u:p@h:1,i:2/d",
            &[],
            "postgres://h:1,i:2/d",
            "u",
            Some("p"),
        ),
        (
            "postgres://u:p%40%2F%25@[::1]:1/d",
            &[],
            "postgres://[::1]:1/d",
            "u",
            Some("p@/%"),
        ),
        (
            "postgres://h,i:2/d?user=u",
            &[],
            "postgres://h:5432,i:2/d",
            "u",
            None,
        ),
        (
            "postgres:///d?host=/run/x&port=7&user=u",
            &[],
            "postgres:///run/x:7/d",
            "u",
            None,
        ),
        (
            "postgres://u@%2Frun%2Fx",
            &[],
            "postgres:///run/x:5432/u",
            "u",
            None,
        ),
        (
            "postgres://h",
            &[("USER", "me")],
            "postgres://h:5432/me",
            "me",
            None,
        ),
        (
            "postgres://",
            &[
                ("PGHOST", "h,i"),
                ("PGPORT", "1,2"),
                ("PGUSER", "u"),
                ("PGPASSWORD", "p 'x\\"),
                ("PGDATABASE", "d"),
            ],
            "postgres://h:1,i:2/d",
            "u",
            Some("p 'x\\"),
        ),
        (
            "postgres://u:p@h:3/d",
            &[
                ("PGHOST", "i"),
                ("PGPORT", "4"),
                ("PGUSER", "v"),
                ("PGPASSWORD", "q"),
            ],
            "postgres://h:3/d",
            "u",
            Some("p"),
        ),
        (
            "postgres://u@h/d?sslmode=verify-full&application_name=x",
            &[("PGPORT", "4")],
            "postgres://h:4/d",
            "u",
            None,
        ),
    ] {
        let address = parse_with(url, variables).unwrap();
        assert_eq!(address.to_string(), shown, "{url}");
        for config in config_of(&address) {
            assert_eq!(config.get_user(), Some(user), "{url}");
            let found = config
                .get_password()
                .map(|it| std::str::from_utf8(it).unwrap());
            assert_eq!(found, password, "{url}");
        }
    }
}

#[test]
fn what_is_wrong_with_an_address_is_said_without_its_secrets() {
    let many = format!("postgres://hidden:hidden@{}/d", ["h"; 17].join(","));
    for (url, said) in [
        ("postgres://h/d", "a user"),
        ("postgres://u:hidden@[::1/d", "]"),
        ("postgres://u:hidden@h:x/d", "port"),
        ("postgres://u:hidden@h,i/d?port=1,2,3", "port"),
        ("postgres://u:hidden@h/d?sslmode=allow", "verify-full"),
        ("postgres://u:hidden@h/d?sslcert=x", "sslkey"),
        ("postgres://u:hidden@h/d?nonsense=1", "nonsense"),
        ("postgres://u:hidden@h/d?nonsense", "NAME=VALUE"),
        (
            "postgres://u:hidden@h/d?connect_timeout=soon",
            "connect_timeout",
        ),
        (
            "postgres://u:hidden@h/d?target_session_attrs=standby",
            "leave it out",
        ),
        ("postgres://u:%FF@h/d", "UTF-8"),
        ("postgres://u:hid%00den@h/d", "zero"),
        (&many, "at most 16"),
    ] {
        let error = parse_with(url, &[]).unwrap_err().to_string();
        assert!(error.contains(said), "{url}: {error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}

#[test]
fn no_password_is_shown() {
    let url = "postgres://u:hidden@h/d?options=-c%20a=hidden";
    let address = parse_with(url, &[("PGPASSWORD", "hidden")]).unwrap();
    assert!(!format!("{address}{address:?}").contains("hidden"));
    assert!(Address::is_postgres(url) && !Address::is_postgres("sqlite:postgres://"));
}

#[test]
fn a_password_comes_out_of_the_file_of_passwords() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(
        &file,
        "h:1:d:u:one\nlocalhost:5432:*:u:socket\n*:*:*:*:rest\n",
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let home = home.path().to_str().unwrap();
    for (url, passwords) in [
        ("postgres://u@h:1,i:1/d", &["one", "rest"][..]),
        ("postgres://u@%2Ftmp/d", &["socket"]),
        ("postgres://u:said@h:1,i/d", &["said", "said"]),
    ] {
        let address = parse_with(url, &[("HOME", home)]).unwrap();
        let found = config_of(&address);
        let found = found.iter().map(|it| it.get_password().unwrap());
        assert!(found.eq(passwords.iter().map(|it| it.as_bytes())), "{url}");
    }
    let elsewhere = [("HOME", "/nowhere"), ("PGPASSFILE", file.to_str().unwrap())];
    let address = parse_with("postgres://u@h:1/d", &elsewhere).unwrap();
    assert_eq!(config_of(&address)[0].get_password(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_connection_is_made_over_tcp_and_over_a_socket() {
    let server = TestServer::start();
    let database = server.database();
    let folder = server
        .socket_folder()
        .display()
        .to_string()
        .replace('/', "%2F");
    let by_socket = format!(
        "postgres://postgres@{folder}:{}/{}",
        server.port(),
        database.name()
    );
    for url in [database.url(), by_socket] {
        let client = open(&Address::parse(&url).unwrap(), "jam-test")
            .await
            .unwrap();
        let sql = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let name: String = client.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(name, "jam-test");
    }
}

#[tokio::test]
async fn the_host_that_can_be_written_is_taken() {
    let (mut gone, server) = (TestServer::start(), TestServer::start());
    let replica = TestServer::start_with(&[("default_transaction_read_only", "on")]);
    gone.kill();
    let ports = [gone.port(), replica.port(), server.port()];
    let hosts = ports.map(|port| format!("127.0.0.1:{port}"));
    let url = |hosts: &[String]| format!("postgres://postgres@{}/postgres", hosts.join(","));
    let address = Address::parse(&url(&hosts)).unwrap();
    let client = open(&address, "jam-test").await.unwrap();
    let row = client.query_one("SHOW port", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), server.port().to_string());
    let address = Address::parse(&url(&hosts[..2])).unwrap();
    let error = open(&address, "jam-test").await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ReadOnly);
    for (host, said) in [(&hosts[0], "refused"), (&hosts[1], "name the primary")] {
        assert!(error.to_string().contains(&format!("{host}: ")), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_not_waited_for() {
    let server = TestServer::start();
    let address = server.database().address();
    server.pause();
    let began = Instant::now();
    let error = open(&address, "jam-test").await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Unreachable);
    assert!(began.elapsed() < address.connect_timeout * 2, "{error}");
}

#[tokio::test]
async fn hosts_that_do_not_answer_are_waited_for_once() {
    let server = TestServer::start();
    let (_hosts, address) = behind_silent_hosts(&server.database(), 2);
    let began = Instant::now();
    open(&address, "jam-test").await.unwrap();
    assert!(began.elapsed() >= address.connect_timeout * 2);
    let began = Instant::now();
    open(&address.clone(), "jam-test").await.unwrap();
    assert!(began.elapsed() < address.connect_timeout);
}

#[tokio::test]
async fn a_password_that_was_changed_is_read_at_the_next_connection() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = TestServer::start();
    let database = server.database();
    database.run("CREATE ROLE app LOGIN PASSWORD 'first'");
    server.stop();
    // The first line that fits counts.
    server.replace(
        "pg_hba.conf",
        b"host all app all scram-sha-256\nhost all all all trust\nlocal all all trust\n",
    );
    server.restart();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    let write = |password: &str| {
        std::fs::write(&file, format!("*:*:*:app:{password}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("first");
    let url = database.url().replace("postgres@", "app@");
    let address = parse_with(&url, &[("HOME", home.path().to_str().unwrap())]).unwrap();
    open(&address, "jam-test").await.unwrap();
    database.run("ALTER ROLE app PASSWORD 'second'");
    let error = open(&address, "jam-test").await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::LoginRefused);
    write("second");
    open(&address, "jam-test").await.unwrap();
}

#[test]
fn what_is_no_file_is_told_and_nobody_waits_for_it() {
    for (option, others) in [
        ("sslrootcert", ""),
        ("sslkey", "&sslcert=/dev/null"),
        ("sslcert", "&sslkey=/dev/null"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [&*pipe, std::path::Path::new("/dev/zero")] {
            let url = format!(
                "postgres://u@h/d?sslmode=verify-full&{option}={}{others}",
                path.display()
            );
            let address = parse_with(&url, &[]).unwrap();
            let error = address.tls.connector().err().unwrap().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}

#[tokio::test]
async fn what_went_wrong_is_told_by_kind() {
    let server = TestServer::start_with(&[
        ("max_connections", "4"),
        ("superuser_reserved_connections", "0"),
    ]);
    let database = server.database();
    database.run("CREATE ROLE stranger; CREATE TABLE t (a int UNIQUE); INSERT INTO t VALUES (1);");
    let address = database.address();
    let stranger = database.url().replace("postgres@", "stranger:hidden@");
    let error = open(&Address::parse(&stranger).unwrap(), "jam-test")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), FailureKind::LoginRefused);
    let none = Address::parse(&database.url().replace("test_0", "none")).unwrap();
    let error = open(&none, "jam-test").await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::LoginRefused);
    let client = open(&address, "jam-test").await.unwrap();
    for (sql, kind) in [
        ("SELECT * FROM missing", FailureKind::SchemaMissing),
        ("SELECT missing()", FailureKind::SchemaMissing),
        ("SELECT missing FROM t", FailureKind::SchemaMissing),
        ("INSERT INTO t VALUES (1)", FailureKind::Constraint),
        (
            "SET statement_timeout = '10ms'; SELECT pg_sleep(5)",
            FailureKind::Busy,
        ),
        ("SET statement_timeout = 0; SELECT 1/0", FailureKind::Other),
        (
            "SET ROLE stranger; SELECT * FROM t",
            FailureKind::NotPermitted,
        ),
    ] {
        let error = PostgresError::from(client.batch_execute(sql).await.unwrap_err());
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.sqlstate().is_some());
    }
    let mut others = Vec::new();
    let error = loop {
        match open(&address, "jam-test").await {
            Ok(client) => others.push(client),
            Err(error) => break error,
        }
        assert!(others.len() < 10);
    };
    assert_eq!(error.kind(), FailureKind::TooManyConnections, "{error}");
    drop(server);
    let closed = PostgresError::from(client.batch_execute("SELECT 1").await.unwrap_err());
    assert_eq!(closed.kind(), FailureKind::Unreachable, "{closed}");
}

/// A certificate for these names, of an authority or of itself.
fn certificate(names: &[&str], issuer: Option<&Issuer<'_, KeyPair>>) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
    let params = CertificateParams::new(names).unwrap();
    let signed = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (signed.unwrap().pem(), key)
}

#[tokio::test]
async fn sslmode_is_what_it_is_for_libpq() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let (other, _) = certificate(&["other"], None);
    let (wrong_name, key) = certificate(&["elsewhere.example"], Some(&issuer));

    let mut server = TestServer::start();
    let database = server.database();
    let good = server.write_file("authority.pem", &authority);
    let bad = server.write_file("other.pem", &other);
    let set = |sql: &str| database.run(sql);
    let (cert, key) = (
        server.write_file("cert.pem", &wrong_name),
        server.write_file("key.pem", &key.serialize_pem()),
    );
    let with = |mode: &str, root: Option<&std::path::Path>| {
        let root = root
            .map(|it| format!("&sslrootcert={}", it.display()))
            .unwrap_or_default();
        let url = format!("{}?sslmode={mode}{root}", database.url());
        parse_with(&url, &[]).unwrap()
    };
    let is_encrypted = async |address: &Address| {
        let client = open(address, "jam-test").await?;
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        Ok::<bool, PostgresError>(client.query_one(sql, &[]).await?.get(0))
    };
    assert!(!is_encrypted(&with("prefer", None)).await.unwrap());
    is_encrypted(&with("require", None)).await.unwrap_err();
    set(&format!(
        "ALTER SYSTEM SET ssl_cert_file = '{}'",
        cert.display()
    ));
    set(&format!(
        "ALTER SYSTEM SET ssl_key_file = '{}'",
        key.display()
    ));
    set("ALTER SYSTEM SET ssl = on");
    server.stop();
    server.restart();
    for (mode, root, expected) in [
        ("disable", None, Some(false)),
        ("prefer", None, Some(true)),
        ("prefer", Some(&*bad), Some(true)),
        ("require", None, Some(true)),
        ("require", Some(&*good), Some(true)),
        ("require", Some(&*bad), None),
        ("verify-ca", Some(&*good), Some(true)),
        ("verify-ca", Some(&*bad), None),
        ("verify-ca", None, None),
        ("verify-full", Some(&*good), None),
    ] {
        let found = is_encrypted(&with(mode, root)).await;
        assert_eq!(
            found.as_ref().ok().copied(),
            expected,
            "{mode} {root:?}: {found:?}"
        );
    }
    let (right_name, right_key) = certificate(&["127.0.0.1"], Some(&issuer));
    server.write_file("cert.pem", &right_name);
    server.write_file("key.pem", &right_key.serialize_pem());
    server.stop();
    server.restart();
    assert!(
        is_encrypted(&with("verify-full", Some(&good)))
            .await
            .unwrap()
    );
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let (one, other) = (database(), database());
    one.run("CREATE TABLE t (a int)");
    other.run("CREATE TABLE t (a int)");
    assert_eq!(one.run("SELECT 1, 2"), "1|2");
    assert_ne!(one.name(), other.name());
}
