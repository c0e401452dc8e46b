"""docs/operations.md, settings: file, environment, flags; what is wrong is said; what starts, starts."""

import json
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from harness import Server, run_cli, streams
from harness.process import ANY_PORT, BINARY, CERTIFICATE, START_SECONDS, environment, ports

DEFAULTS = {
    "listen": {
        "mqtt": "0.0.0.0:1883",
        "mqtts": "",
        "http": "127.0.0.1:8080",
        "admin": "127.0.0.1:8081",
        "proxy_protocol": [],
    },
    "tls": {"cert": "", "key": "", "client_ca": ""},
    "directory": {"url": ""},
    "mailbox": {"url": "", "max_messages": 10000, "max_bytes": "64MiB", "max_age": "30d"},
    "sessions": {"devices": "one", "expiry": "30d"},
    "push": {"fcm_key": "", "fcm_url": "https://fcm.googleapis.com", "deadline": "10s", "collapse": "30s"},
    "limits": {
        "connections": 1000000,
        "connections_per_address": 1000,
        "packet": "4MiB",
        "connect_timeout": "10s",
        "inflight": 64,
        "publish_rate": 50,
        "failed_auth": 10,
        "failed_auth_window": "10m",
    },
    "admin": {"token": ""},
}


def effective(*arguments, settings=None, cwd=None, env=None):
    done = run_cli("serve", "--print-config", *arguments, settings=settings, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return tomllib.loads(done.stdout)


def test_the_defaults_are_those_of_the_manual(tmp_path):
    printed = effective(cwd=tmp_path)
    for section, keys in DEFAULTS.items():
        for key, value in keys.items():
            assert printed[section][key] == value, f"{section}.{key}"
    assert list(tmp_path.iterdir()) == [], "printing changes nothing"


def test_every_setting_is_explained(tmp_path):
    text = run_cli("serve", "--print-config", cwd=tmp_path).stdout
    for line in text.splitlines():
        if re.match(r"\w+ = ", line):
            before = text[: text.index(line)].rstrip().splitlines()[-1]
            assert "#" in line or before.startswith("#"), f"no explanation: {line}"


def test_what_is_printed_can_be_read(tmp_path):
    (tmp_path / "printed.toml").write_text(run_cli("serve", "--print-config", cwd=tmp_path).stdout)
    assert effective("--config", "printed.toml", cwd=tmp_path) == effective(cwd=tmp_path)


def test_the_later_wins(tmp_path):
    (tmp_path / "jam-mqtt.toml").write_text(
        '[listen]\nmqtt = "127.0.0.1:1"\nmqtts = "127.0.0.1:2"\nhttp = "127.0.0.1:3"\n'
    )
    environment = {"listen.mqtts": "127.0.0.1:4", "listen.http": "127.0.0.1:5"}
    listen = effective("--http", "127.0.0.1:6", settings=environment, cwd=tmp_path)["listen"]
    ports = (listen["mqtt"], listen["mqtts"], listen["http"])
    assert ports == ("127.0.0.1:1", "127.0.0.1:4", "127.0.0.1:6")


def test_secrets_are_masked(tmp_path):
    done = run_cli("serve", "--print-config", settings={"admin.token": "s3cret-0123456789"}, cwd=tmp_path)
    assert done.returncode == 0
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize("where", ["file", "environment"])
def test_an_unknown_key_names_the_nearest(tmp_path, where):
    settings = {}
    if where == "file":
        (tmp_path / "jam-mqtt.toml").write_text("[limits]\nfailed_auht = 3\n")
    else:
        settings = {"limits.failed_auht": 3}
    done = run_cli("serve", settings=settings, cwd=tmp_path)
    assert done.returncode == 2
    said = done.stderr.lower()
    assert "failed_auht" in said and "failed_auth" in said


@pytest.mark.parametrize(
    "name, value",
    [
        ("limits.failed_auth", "many"),
        ("limits.packet", "4 potatoes"),
        ("limits.connect_timeout", "soon"),
        ("sessions.devices", "two"),
        ("listen.mqtt", "nowhere"),
        ("directory.url", "mysql://x"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, name, value):
    done = run_cli("serve", settings={name: value}, cwd=tmp_path)
    assert done.returncode == 2
    assert value in done.stderr
    assert name in done.stderr or name.upper().replace(".", "__") in done.stderr
    assert not (tmp_path / "jam-data").exists()


@pytest.mark.parametrize("value", ["-1", "many", "", "1025"])
def test_a_wrong_number_of_threads(tmp_path, value):
    arguments = ["serve", "--data", tmp_path / "data", "--mqtt", ANY_PORT, "--http", "", "--admin", ""]
    done = run_cli(*arguments, settings={"listen.threads": value})
    assert done.returncode == 2
    assert "LISTEN__THREADS" in done.stderr and "1024" in done.stderr
    assert not (tmp_path / "data").exists()


def test_as_many_threads_as_are_asked_for(tmp_path):
    running = {}
    for threads in (1, 2, 7):
        with Server(tmp_path / str(threads), threads=threads) as server:
            assert f'"threads for connections","threads":{threads}' in server.log()
            running[threads] = len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))
    assert running[2] - running[1] == 1, "the main thread serves, too"
    assert running[7] - running[1] == 6


def test_check_says_how_many_threads(tmp_path):
    done = run_cli("check", "--data", tmp_path, settings={"listen.threads": 7})
    assert "7 for connections" in done.stdout


def test_the_first_implementations_environment_file(tmp_path, certificate):
    (tmp_path / ".env").write_text(
        f"db_path={tmp_path}/jam.db\nport=12345\n"
        f"tls_cert={certificate}/server.pem\ntls_key={certificate}/server.key\n"
    )
    printed = effective("--env-file", ".env", cwd=tmp_path)
    assert printed["directory"]["url"].endswith(f"{tmp_path}/jam.db")
    assert printed["tls"]["cert"] == f"{certificate}/server.pem"
    ports = (printed["listen"]["mqtt"], printed["listen"]["mqtts"])
    assert any(address.endswith(":12345") for address in ports)


def test_a_port_in_use(server, tmp_path):
    done = run_cli(
        "serve", "--data", tmp_path, "--mqtt", f"127.0.0.1:{server.mqtt}", "--http", "", "--admin", ""
    )
    assert done.returncode == 75  # EX_TEMPFAIL
    assert f"127.0.0.1:{server.mqtt}" in done.stderr


@pytest.mark.parametrize("missing", ["cert", "key"])
def test_tls_files_that_are_not_there(tmp_path, certificate, missing):
    files = {"tls.cert": certificate / "server.pem", "tls.key": certificate / "server.key"}
    files[f"tls.{missing}"] = tmp_path / "nothing.pem"
    for command in (["check"], ["serve", "--mqtt", "127.0.0.1:0", "--http", "", "--admin", ""]):
        done = run_cli(*command, "--data", tmp_path / "data", settings=files)
        assert done.returncode == (1 if command == ["check"] else 78)  # EX_CONFIG
        assert "nothing.pem" in done.stderr


def test_check_changes_nothing(tmp_path):
    done = run_cli("check", "--data", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert done.returncode in (0, 1)
    run_cli("user", "add", "7", "--data", tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    done = run_cli("check", "--data", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "jam.db" in done.stdout and "127.0.0.1:0" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == before


def test_a_data_directory_is_created(tmp_path):
    """With nothing but addresses: the directory is made, users added to it get in."""
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [BINARY, "serve", "--mqtt", ANY_PORT, "--http", ANY_PORT, "--admin", ""],
            env=environment({}),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "http" not in (found := ports((tmp_path / "log").read_text())):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (tmp_path / "jam-data/jam.db").exists()
        assert run_cli("user", "add", "7", "--token", "t", cwd=tmp_path).returncode == 0
        done = run_cli(
            "send", "--user", "7", "--token", "t", "--to", "7", "note",
            "--server", f"127.0.0.1:{found['mqtt']}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        process.terminate()
        assert process.wait(12) == 0


def test_sigterm_tells_the_clients(tmp_path, version):
    """5.0: DISCONNECT 0x8B; the process ends with 0 within ten seconds."""
    with Server(tmp_path / "server") as server:
        client = server.listener(server.user(), version)
        idle = server.dial(version)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        client.closed(reason=0x8B)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 10
        idle.close()
        server.start()


def test_a_client_that_does_not_read_does_not_hold_up_the_stop(tmp_path):
    with Server(tmp_path / "server") as server:
        me, friend = server.friends()
        stuck = server.listener(friend)
        with server.connect(me) as writer:
            for _ in range(60):
                writer.deliver(friend.inbox, me.message("x" * 200_000))
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 10
        stuck.close()
        server.start()


def test_sighup_reloads_the_certificate(tmp_path, certificate):
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("server.pem", "server.key", "ca.pem"):
        (folder / name).write_bytes((certificate / name).read_bytes())
    with Server(tmp_path / "server", folder) as server:
        me = server.user()
        with server.listener(me, transport="tls") as client:
            before = client.stream.socket.getpeercert()["serialNumber"]
            subprocess.run([CERTIFICATE, folder], check=True)
            server.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while True:
                try:
                    stream = server.open("tls")
                    serial = stream.socket.getpeercert()["serialNumber"]
                    stream.close()
                    if serial != before:
                        break
                except OSError:
                    pass
                assert time.monotonic() < deadline
                time.sleep(0.05)
            client.quiet()


def test_health(server):
    for path in ("/healthz", "/readyz"):
        stream = streams.Tcp(("127.0.0.1", server.http))
        stream.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert b" 200 " in stream.receive(5).split(b"\r\n")[0]
        stream.close()


def test_no_token_and_no_payload_in_the_log(tmp_path, version):
    with Server(tmp_path / "server", settings={"limits.failed_auth": 1}) as server:
        me, friend = server.friends()
        for _ in range(3):
            client, _ = server.attempt(me, version, password="wrong-s3cret", source="127.0.0.2")
            client.close()
        with server.listener(friend, version) as reader, server.connect(me, version) as writer:
            writer.deliver(friend.inbox, me.message("payl0ad"))
            reader.message()
            writer.publish(friend.inbox, b"broken payl0ad", 1)
            writer.error()
        log = server.log()
    for secret in (me.token, friend.token, "wrong-s3cret", "payl0ad"):
        assert secret not in log


def test_logs_are_json_lines_when_not_on_a_terminal(server):
    lines = server.log().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)
