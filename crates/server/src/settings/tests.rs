use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    Sources {
        environment,
        ..Sources::default()
    }
}

fn file(text: &str) -> (tempfile::NamedTempFile, PathBuf) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_owned();
    (file, path)
}

fn from_file(text: &str) -> Result<Settings, SettingsError> {
    let (_keep, path) = file(text);
    Settings::load(&Sources {
        config: Some(path),
        ..Sources::default()
    })
}

fn from_env_file(text: &str, config: Option<&str>) -> Result<Settings, SettingsError> {
    let (_keep, env_file) = file(text);
    let config = config.map(file);
    Settings::load(&Sources {
        env_file: Some(env_file),
        config: config.as_ref().map(|(_, path)| path.clone()),
        ..Sources::default()
    })
}

fn flag(name: &'static str, path: &'static str, value: &str) -> Flag {
    Flag {
        name,
        path,
        value: value.to_owned(),
    }
}

#[track_caller]
fn fails_with(result: Result<Settings, SettingsError>, parts: &[&str]) {
    let message = result.expect_err("these settings are wrong").to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} should hold {part:?}");
    }
    assert!(!message.contains('\n'), "{message:?} is one line");
}

fn addr(address: Option<&Address>) -> &str {
    address.map_or("", Address::as_str)
}

#[test]
fn defaults() {
    let s = Settings::default();
    assert_eq!(addr(s.listen.mqtt.as_ref()), "0.0.0.0:1883");
    assert_eq!(s.listen.mqtts, None);
    assert_eq!(addr(s.listen.http.as_ref()), "127.0.0.1:8080");
    assert_eq!(addr(s.listen.admin.as_ref()), "127.0.0.1:8081");
    assert_eq!(s.tls.identity, None);
    assert_eq!(
        s.directory.file().unwrap().path,
        Path::new("./jam-data/jam.db")
    );
    assert_eq!(s.mailbox.max_bytes, 64 << 20);
    assert_eq!(s.mailbox.max_age, Duration::from_hours(30 * 24));
    assert_eq!(s.sessions.devices, Devices::One);
    assert!(s.push.enabled);
    assert_eq!(s.limits.packet, 4 << 20);
    assert_eq!(s.limits.publish_rate, NonZeroU32::new(50));
    assert_eq!(s.limits.failed_auth_window, Duration::from_mins(10));
    assert!(s.admin.token.is_none());
}

#[test]
fn the_later_layer_wins() {
    let (_keep, config) =
        file("[listen]\nmqtt = \"a:1\"\nmqtts = \"\"\nhttp = \"b:2\"\nadmin = \"\"");
    let mut sources = env(&[
        ("JAM_MQTT_LISTEN__MQTT", "a:2"),
        ("JAM_MQTT_LISTEN__HTTP", "b:3"),
    ]);
    sources.config = Some(config);
    sources.flags = vec![flag("--mqtt", "listen.mqtt", "a:3")];
    let s = Settings::load(&sources).unwrap();
    assert_eq!(addr(s.listen.mqtt.as_ref()), "a:3");
    assert_eq!(addr(s.listen.http.as_ref()), "b:3");
    assert_eq!(s.listen.admin, None);
}

#[test]
fn the_default_file_may_be_missing_but_a_named_one_may_not() {
    let missing = PathBuf::from("/nonexistent/jam-mqtt.toml");
    let sources = Sources {
        default_config: Some(missing.clone()),
        ..Sources::default()
    };
    Settings::load(&sources).unwrap();
    let sources = Sources {
        config: Some(missing),
        ..Sources::default()
    };
    fails_with(
        Settings::load(&sources),
        &["cannot read /nonexistent/jam-mqtt.toml"],
    );
}

#[test]
fn values_of_all_kinds() {
    let s = from_file(
        "data = \"/srv/jam\"\nlog = \"jam_mqtt=debug\"\n[mailbox]\nmax_bytes = 100_000_000\n\
         max_messages = 5\n[sessions]\ndevices = \"many\"\nexpiry = \"0s\"\n[push]\nenabled = false\n\
         [limits]\npublish_rate = 0\npacket = \"1MB\"\n[admin]\ntoken = \"0123456789abcdef\"\n\
         [directory]\nurl = \"sqlite:/srv/x.db\"\n[listen]\nmqtt = \"[::1]:0\"\nhttp = \"localhost:80\"",
    )
    .unwrap();
    assert_eq!(s.data, Path::new("/srv/jam"));
    assert_eq!(s.log.as_deref(), Some("jam_mqtt=debug"));
    assert_eq!(s.mailbox.max_bytes, 100_000_000);
    assert_eq!(s.sessions.devices, Devices::Many);
    assert_eq!(s.sessions.expiry, Duration::ZERO);
    assert!(!s.push.enabled);
    assert_eq!(s.limits.publish_rate, None);
    assert_eq!(s.limits.packet, 1_000_000);
    assert_eq!(
        s.admin.token.as_ref().unwrap().expose_secret(),
        "0123456789abcdef"
    );
    assert_eq!(s.directory.file().unwrap().path, Path::new("/srv/x.db"));
    assert_eq!(s.listen.mqtt.unwrap().host(), "::1");
}

#[test]
fn directory_urls() {
    let directory =
        |url: &str| from_file(&format!("[directory]\nurl = {url:?}")).map(|s| s.directory);
    let path = |url: &str| directory(url).map(|it| it.file().unwrap().path.clone());
    for (url, expected) in [
        ("sqlite:jam.db", "jam.db"),
        ("sqlite:/srv/jam.db", "/srv/jam.db"),
        ("sqlite://jam.db", "jam.db"),
        ("sqlite:///srv/jam.db", "/srv/jam.db"),
        ("sqlite:./:memory:", "./:memory:"),
        ("sqlite:a b?c=d", "a b?c=d"),
    ] {
        assert_eq!(path(url).unwrap(), Path::new(expected), "{url}");
    }
    for url in [
        "sqlite:",
        "sqlite://",
        "sqlite::memory:",
        "sqlite:file:x",
        "jam.db",
        "mysql://h/d",
    ] {
        assert!(
            path(url)
                .unwrap_err()
                .to_string()
                .contains("expected sqlite:PATH"),
            "{url}"
        );
    }
}

#[test]
fn unknown_names_are_errors_with_the_nearest_known_one() {
    let parts = ["line 2: unknown setting listen.mqqt; did you mean listen.mqtt?"];
    fails_with(from_file("[listen]\nmqqt = \"\""), &parts);
    fails_with(
        from_file("\n[limit]\nx = 1"),
        &["line 2: unknown section [limit]; did you mean [limits]"],
    );
    fails_with(
        from_file("dta = \"x\""),
        &["unknown setting dta; did you mean data?"],
    );
    let parts = [
        "unknown variable JAM_MQTT_LISTEN_MQTT",
        "did you mean JAM_MQTT_LISTEN__MQTT?",
    ];
    fails_with(
        Settings::load(&env(&[("JAM_MQTT_LISTEN_MQTT", "x")])),
        &parts,
    );
    fails_with(
        from_env_file("JAM_MQTT_DAT=x", None),
        &["did you mean JAM_MQTT_DATA?"],
    );
}

#[test]
fn foreign_variables_are_left_alone() {
    Settings::load(&env(&[
        ("PORT", "x"),
        ("port", "x"),
        ("db_path", "x"),
        ("JAM_TOKEN", "x"),
        ("JAM_MQTT_PORT_1883_TCP_ADDR", "10.0.0.1"),
        ("JAM_MQTT_PORT", "tcp://10.0.0.1:1883"),
        ("JAM_MQTT_SERVICE_HOST", "10.0.0.1"),
        ("JAM_MQTT_BIN", "/usr/local/bin/jam-mqtt"),
        ("JAM_MQTT_TEST_DIR", "/tmp"),
    ]))
    .unwrap();
}

#[test]
fn wrong_values_name_key_value_place_and_what_is_expected() {
    for (text, parts) in [
        (
            "[listen]\nmqtt = \"1883\"",
            &["listen.mqtt = \"1883\"", "line 2", "HOST:PORT"][..],
        ),
        (
            "[listen]\nmqtt = 1883",
            &["listen.mqtt = \"1883\"", "HOST:PORT"],
        ),
        ("[listen]\nmqtt = \"h:99999\"", &["HOST:PORT"]),
        ("[listen]\nmqtt = \"::1:80\"", &["HOST:PORT"]),
        (
            "[listen]\nmqtt = [1]",
            &["listen.mqtt is an array", "HOST:PORT"],
        ),
        (
            "[sessions]\ndevices = \"two\"",
            &["sessions.devices = \"two\"", "\"one\" or \"many\""],
        ),
        (
            "[sessions]\nexpiry = \"soon\"",
            &["sessions.expiry = \"soon\"", "a duration such as"],
        ),
        ("[sessions]\nexpiry = \"200years\"", &["sessions.expiry"]),
        (
            "[limits]\ninflight = 0",
            &["limits.inflight = 0", "from 1 to 65535"],
        ),
        ("[limits]\ninflight = 65536", &["from 1 to 65535"]),
        ("[limits]\ninflight = -1", &["limits.inflight = -1"]),
        ("[limits]\nconnect_timeout = \"0s\"", &["more than 0s"]),
        (
            "[limits]\npacket = \"1GiB\"",
            &["limits.packet = \"1GiB\"", "268435460"],
        ),
        (
            "[limits]\npacket = \"65MiB\"",
            &["mailbox.max_bytes", "limits.packet"],
        ),
        ("[push]\nenabled = \"maybe\"", &["true or false"]),
        ("[push]\nfcm_url = \"ftp://x\"", &["https://HOST"]),
        ("[push]\nfcm_url = \"https://\"", &["https://HOST"]),
        (
            "[push]\nwebhook_url = \"https://x/y\"",
            &["push.webhook_url", "line 2", "needs push.webhook_secret"],
        ),
        (
            "[push]\nwebhook_secret = \"s\"",
            &["push.webhook_secret (", "needs push.webhook_url"],
        ),
        (
            "[push]\nwebhook_url = \"x/y\"\nwebhook_secret = \"s\"",
            &["push.webhook_url = \"x/(not shown)\"", "https://HOST"],
        ),
        (
            "[push]\nfcm_key = \"k\"\nwebhook_url = \"https://x/y\"\nwebhook_secret = \"s\"",
            &["push.webhook_url", "push.fcm_key is set too", "choose"],
        ),
        ("log = \"jam_mqtt=loud\"", &["log = \"jam_mqtt=loud\""]),
        ("log = \"inof\"", &["log = \"inof\"", "warn (or warning)"]),
        ("data = \"\"", &["data = \"\"", "a path"]),
        (
            "[listen]\nmqtts = \"h:1\"",
            &["listen.mqtts", "needs tls.cert and tls.key"],
        ),
        ("[tls]\ncert = \"c\"", &["tls.cert", "needs tls.key"]),
        ("[tls]\nkey = \"c\"", &["tls.key", "needs tls.cert"]),
        (
            "[tls]\nclient_ca = \"c\"",
            &["tls.client_ca", "needs tls.cert"],
        ),
        ("[tls]\nchain = \"c\"", &["tls.chain", "needs tls.cert"]),
        (
            "[directory]\nurl = \"jam.db\"",
            &["directory.url = \"jam.db\"", "sqlite:PATH"],
        ),
        (
            "[listen]\nmqtt = \"\"\nhttp = \"\"",
            &["nothing would be served"],
        ),
        ("[listen", &["line 1"]),
    ] {
        fails_with(from_file(text), parts);
    }
}

#[test]
fn accounts_may_be_in_postgresql_and_no_password_is_shown() {
    let with = |url: &str| from_file(&format!("[directory]\nurl = {url:?}"));
    for scheme in ["postgres", "postgresql"] {
        let url = format!("{scheme}://u:hidden@h:1,i/d?sslmode=require&sslkey=hidden&sslcert=c");
        let settings = with(&url).unwrap();
        let DirectorySettings::Postgres(address) = &settings.directory else {
            panic!("{:?}", settings.directory);
        };
        assert_eq!(address.to_string(), "postgres://h:1,i:5432/d");
        assert!(settings.directory.is_named() && settings.directory.file().is_none());
        let shown = format!("{}{:?}", settings.to_toml(), settings.directory);
        assert!(!shown.contains("hidden"), "{shown}");
        assert!(shown.contains("(not shown)@h:1,i/d"), "{shown}");
    }
    for (url, said) in [
        ("postgres://u:hidden@h/d?sslmode=no", "verify-full"),
        (
            "postgres://u:hidden@h/d?target_session_attrs=standby",
            "leave it out",
        ),
        ("mysql://u:hidden@h/d", "postgres://USER@HOST/DATABASE"),
    ] {
        let error = with(url);
        fails_with(error.clone(), &["directory.url", said]);
        assert!(!error.unwrap_err().to_string().contains("hidden"));
    }
}

#[test]
fn what_is_not_served_yet_is_refused_without_showing_passwords() {
    let nats = from_file("[mailbox]\nurl = \"nats://u:hidden@h\"");
    fails_with(nats.clone(), &["mailbox.url", "expected postgres://"]);
    assert!(!nats.unwrap_err().to_string().contains("hidden"));
}

#[test]
fn the_token_that_may_only_look_is_another_one() {
    let tokens = |token: &str, read: &str| {
        from_file(&format!(
            "[admin]
token = {token:?}
read_token = {read:?}"
        ))
    };
    let (all, look) = ("0123456789abcdef", "fedcba9876543210");
    fails_with(tokens(all, all), &["admin.read_token", "admin.token"]);
    let admin = tokens(all, look).unwrap().admin;
    assert_eq!(admin.read_token.unwrap().expose_secret(), look);
    assert!(tokens(all, look).unwrap().short_tokens().is_empty());
    for (all, look, short) in [
        (&all[1..], "", "admin.token"),
        (all, &look[1..], "admin.read_token"),
    ] {
        let lines = tokens(all, look).unwrap().short_tokens();
        assert!(lines.len() == 1 && lines[0].starts_with(short), "{lines:?}");
        assert!(!lines[0].contains(&all[..8]) && lines[0].contains("openssl rand -hex 32"));
    }
    assert!(tokens("", "").unwrap().admin.read_token.is_none());
}

#[test]
fn the_first_implementations_variables() {
    let s = from_env_file(
        "db_path=\"/x/y z.db\"\nport=1234\ntls_cert=\"\"\ntls_key=\"\"",
        None,
    )
    .unwrap();
    assert_eq!(s.directory.file().unwrap().path, Path::new("/x/y z.db"));
    assert!(s.directory.is_named());
    assert_eq!(addr(s.listen.mqtt.as_ref()), "0.0.0.0:1234");
    assert_eq!(s.listen.mqtts, None);

    let tls =
        "port=8883\ntls_cert=c.pem\ntls_key=k.pem\ntls_ca=ca.pem\nfirebase_account_key_path=f.json";
    let s = from_env_file(tls, None).unwrap();
    assert_eq!(s.listen.mqtt, None);
    assert_eq!(addr(s.listen.mqtts.as_ref()), "0.0.0.0:8883");
    let identity = s.tls.identity.unwrap();
    assert_eq!(identity.cert, Path::new("c.pem"));
    assert_eq!(identity.key, Path::new("k.pem"));
    assert_eq!(identity.chain.as_deref(), Some(Path::new("ca.pem")));
    assert_eq!(s.tls.client_ca, None);
    assert_eq!(s.push.fcm_key.as_deref(), Some(Path::new("f.json")));

    let asked_for = from_env_file(tls, Some("[listen]\nmqtt = \"127.0.0.1:1883\"")).unwrap();
    assert_eq!(addr(asked_for.listen.mqtt.as_ref()), "127.0.0.1:1883");

    let both = from_env_file("port=1\nJAM_MQTT_LISTEN__MQTT=h:2\nOTHER=x", None).unwrap();
    assert_eq!(addr(both.listen.mqtt.as_ref()), "h:2");
    fails_with(
        from_env_file("port=x", None),
        &["listen.mqtt", "port in /", "HOST:PORT"],
    );
    fails_with(
        from_env_file("tls_cert=c", None),
        &["tls.cert", "needs tls.key"],
    );
}

#[test]
fn what_is_printed_reads_back() {
    let (_keep, config) =
        file("data = \"/a \\\"b\\\" ü\"\n[limits]\ninflight = 3\n[tls]\ncert = \"c\"\nkey = \"k\"");
    let mut sources = env(&[
        ("JAM_MQTT_ADMIN__TOKEN", "hunter2-0123456789"),
        ("JAM_MQTT_PUSH__ENABLED", "false"),
    ]);
    sources.config = Some(config);
    sources.flags = vec![flag("--mqtts", "listen.mqtts", "h:1")];
    let printed = Settings::load(&sources).unwrap().to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("set by --mqtts"), "{printed}");
    for key in KEYS {
        assert!(printed.contains(key.meaning), "{} is explained", key.path);
    }
    let again = from_file(&printed).unwrap();
    assert_eq!(again.data, Path::new("/a \"b\" ü"));
    let without_secret = Settings::load(&Sources {
        environment: vec![("JAM_MQTT_PUSH__ENABLED".into(), "false".into())],
        ..sources
    })
    .unwrap();
    let texts = |s: &Settings| -> Vec<String> {
        KEYS.iter()
            .map(|key| s.values.get(key.path).expose().to_owned())
            .collect()
    };
    assert_eq!(texts(&again), texts(&without_secret));
    assert_eq!(
        from_file(&Settings::default().to_toml())
            .unwrap()
            .to_toml()
            .lines()
            .count(),
        Settings::default().to_toml().lines().count()
    );
}

#[test]
fn debug_shows_no_secret() {
    let text = "[admin]\ntoken = \"hunter2-0123456789\"\n\
        [push]\nwebhook_url = \"http://u:hunter4@x/hunter5?k=hunter6\"\nwebhook_secret = \"hunter3\"\n\
        fcm_url = \"https://hunter7@x\"";
    let s = from_file(text).unwrap();
    let api: Vec<_> = s.shown().collect();
    let shown = format!("{s:?}{}{api:?}", s.to_toml());
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("# webhook_secret = \"(set, not shown)\""));
    assert!(shown.contains("# webhook_url = \"http://(not shown)@x/(not shown)?(not shown)\""));
    assert!(shown.contains("# fcm_url = \"https://(not shown)@x\""));
    let in_file: Vec<_> = s.secrets_in_files().map(|(key, _)| key).collect();
    let expected = [
        "push.fcm_url",
        "push.webhook_url",
        "push.webhook_secret",
        "admin.token",
    ];
    assert_eq!(in_file, expected);
}

#[test]
fn errors_show_no_credentials() {
    for text in [
        "[directory]\nurl = \"sqlte://u:hidden@h/d\"",
        "[directory]\nurl = \"postgres://u:hid/den@h/d?hidden\"",
        "[mailbox]\nurl = \"redis://:hidden@h\"",
        "[push]\nfcm_url = \"ftp://u:hidden@h\"",
        "[push]\nwebhook_secret = \"s\"\nwebhook_url = \"u:hidden@h\"",
        "[push]\nwebhook_url = \"https://h/hidden\"",
        "[push]\nfcm_key = \"k\"\nwebhook_url = \"https://u:hidden@h?hidden\"\nwebhook_secret = \"s\"",
    ] {
        let error = from_file(text).unwrap_err().to_string();
        assert!(error.contains("_url") || error.contains(".url"), "{error}");
        assert!(
            !error.contains("hidden") && !error.contains("den@"),
            "{error}"
        );
    }
}

#[test]
fn proxies_are_named_by_listener_and_network() {
    let network = |text: &str| text.parse::<IpNet>().unwrap();
    let expected = Proxies {
        mqtt: vec![network("127.0.0.0/8"), network("::1/128")],
        mqtts: vec![network("10.0.0.0/8"), network("192.0.2.7/32")],
        http: vec![network("2001:db8::/32")],
    };
    let list = r#"["mqtt", "mqtts=10.1.2.3/8", "mqtts=192.0.2.7", "http = 2001:db8::/32"]"#;
    let written = from_file(&format!("[listen]\nproxy_protocol = {list}")).unwrap();
    assert_eq!(written.listen.proxies, expected);
    let again = from_file(&written.to_toml()).unwrap();
    assert_eq!(again.listen.proxies, expected);
    let bare = list.replace(['[', ']', '"'], "");
    for text in [list, &bare] {
        let sources = env(&[("JAM_MQTT_LISTEN__PROXY_PROTOCOL", text)]);
        let settings = Settings::load(&sources).unwrap();
        assert_eq!(settings.listen.proxies, expected, "{text}");
    }
    assert_eq!(Settings::default().listen.proxies, Proxies::default());

    for (wrong, expected) in [
        (r#"["mqt"]"#, "expected mqtt, mqtts or http"),
        (r#"["admin"]"#, "expected mqtt, mqtts or http"),
        (r#"["mqtt=example.org"]"#, "expected a network"),
        (r#"["mqtt=10.0.0.0/33"]"#, "expected a network"),
        (r#"["mqtt="]"#, "expected a network"),
        ("[1]", "expected a list"),
        ("true", "expected mqtt"),
    ] {
        let file = from_file(&format!("[listen]\nproxy_protocol = {wrong}"));
        fails_with(file, &["listen.proxy_protocol", expected]);
    }
}

#[test]
fn origins_are_as_browsers_write_them() {
    for (written, origin) in [
        ("https://chat.example.org", "https://chat.example.org"),
        ("HTTPS://Chat.Example.org:443", "https://chat.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]", "http://[::1]"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("capacitor://localhost", "capacitor://localhost"),
    ] {
        let list = format!("[listen]\norigins = [\"http://a\", \"{written}\"]");
        let settings = from_file(&list).unwrap();
        assert_eq!(settings.listen.origins, ["http://a", origin]);
        let again = from_file(&settings.to_toml()).unwrap();
        assert_eq!(again.listen.origins, ["http://a", origin]);
    }
    let sources = env(&[("JAM_MQTT_LISTEN__ORIGINS", "http://a, https://b:8443")]);
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.listen.origins, ["http://a", "https://b:8443"]);
    assert!(Settings::default().listen.origins.is_empty());

    for wrong in [
        "chat.example.org",
        "localhost:3000",
        "https://",
        "https://chat.example.org/",
        "https://chat.example.org/chat",
        "https://chat.example.org?x",
        "https://ann@chat.example.org",
        "https://*.example.org",
        "https://a b",
        "http://a:99999",
        "null",
        "*",
    ] {
        let file = from_file(&format!("[listen]\norigins = [\"{wrong}\"]"));
        let expected = ["listen.origins", wrong, "such as https://chat.example.org"];
        fails_with(file, &expected);
    }
}

#[test]
fn the_reference_has_every_setting() {
    let mut table =
        "| setting | default | takes | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for SettingHelp {
        path,
        variable,
        default,
        expected,
        meaning,
    } in help()
    {
        let meaning = meaning.replace('<', "&lt;"); // text, not HTML
        table.push_str(&format!(
            "| `{path}`<br>`{variable}` | `{default}` | {expected} | {meaning} |\n"
        ));
    }
    crate::documents::has_table("settings.md", "settings/keys.rs", &table);
}
