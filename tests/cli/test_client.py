"""`send` and `listen` over everything that a server speaks; docs/operations.md, commands."""

import json
import subprocess
import time

import pytest
from harness import run_cli
from harness.process import BINARY, environment


def url(server, transport):
    port = {"tcp": server.mqtt, "tls": server.mqtts, "ws": server.http, "wss": server.http}[transport]
    scheme = {"tcp": "mqtt", "tls": "mqtts"}.get(transport, transport)
    return f"{scheme}://localhost:{port}"


def login(server, transport, user, certificate):
    options = ["--server", url(server, transport), "--user", user.id, "--token", user.token]
    return options + (["--ca", certificate / "ca.pem"] if transport in ("tls", "wss") else [])


def test_a_message_there_and_back(home, transport, certificate):
    ann, ben = home.friends()
    text = "Hello, Ben " + "x" * 100_000
    sent = run_cli("send", *login(home, transport, ann, certificate), "--to", ben.id, text)
    assert (sent.returncode, sent.stderr) == (0, ""), sent
    got = run_cli("listen", *login(home, transport, ben, certificate), "--count", 1, "--json")
    assert got.returncode == 0 and json.loads(got.stdout)["content"] == text


def test_listening_goes_on(home, transport, certificate):
    ann, ben = home.friends()
    listen = subprocess.Popen(
        [BINARY, "listen", *map(str, login(home, transport, ben, certificate)), "--count", "3", "--json"],
        stdout=subprocess.PIPE,
        env=environment({}),
        text=True,
    )
    for n in range(3):
        run_cli("send", *login(home, transport, ann, certificate), "--to", ben.id, str(n))
        assert json.loads(listen.stdout.readline())["content"] == str(n)
    assert listen.wait(10) == 0


def test_the_text_from_standard_input(server):
    ann, ben = server.friends()
    sent = run_cli("send", *login(server, "tcp", ann, None), "--to", ben.id, "-", stdin="two\nlines\n")
    assert sent.returncode == 0
    got = run_cli("listen", *login(server, "tcp", ben, None), "--count", 1, "--json")
    assert json.loads(got.stdout)["content"] == "two\nlines"


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
def test_who_cannot_show_who_it_is_gets_no_token(tls_server, scheme):
    port = tls_server.mqtts if scheme == "mqtts" else tls_server.http
    user = ["--user", "1", "--token", "t", "--to", "2", "x"]
    unknown = run_cli("send", "--server", f"{scheme}://localhost:{port}", *user)
    assert unknown.returncode == 1 and "--ca FILE" in unknown.stderr
    assert "UnknownIssuer" not in unknown.stderr


def test_what_is_spoken_there_is_something_else(server, tls_server, certificate):
    user = ["--user", "1", "--token", "t", "--to", "2", "x"]
    ca = ["--ca", certificate / "ca.pem"]
    began = time.monotonic()
    for where, said in [
        (["--server", f"mqtts://localhost:{server.mqtt}", *ca], "is TLS served on this port?"),
        (["--server", f"mqtt://localhost:{tls_server.mqtts}"], "mqtts://HOST:PORT"),
        (["--server", f"ws://localhost:{server.mqtt}"], "no WebSocket at"),
        (["--server", f"ws://localhost:{server.http}/elsewhere"], "404"),
        (["--server", "mqtts://localhost:1", "--ca", "/nowhere"], "--ca"),
        (["--server", "mqtts://localhost:1", "--ca", "/dev/null"], "there is no certificate in it"),
    ]:
        done = run_cli("send", *where, *user)
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wrong", ["http://localhost", "localhost", "mqtt://", "mqtt://u:p@h"])
def test_what_is_no_server(wrong):
    done = run_cli("send", "--server", wrong, "--user", "1", "--token", "t", "--to", "2", "x")
    assert done.returncode == 2 and "mqtts://HOST" in done.stderr
