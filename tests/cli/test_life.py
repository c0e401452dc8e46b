"""Life as a service: whether it is ready, and what it exits with."""

import socket
import subprocess
import time
from contextlib import suppress

import pytest
from harness import run_cli
from harness.process import BINARY


def health(*arguments, settings=None, timeout=30):
    return run_cli("health", *arguments, settings=settings, timeout=timeout)


def test_health_of_who_does_not_answer_takes_5_seconds_and_a_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        done = health(f"http://{address}")
        assert 4 < time.monotonic() - began < 10
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "no answer within 5 s" in done.stderr
    done = health(settings={"listen.http": address})
    assert done.returncode == 1 and f"http://{address}/readyz: no answer: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200", b"\0" * 100_000, b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n" + b"\x1b[2J" * 50_000],
    ids=["cut off", "not HTTP", "redirect", "endless and rude"],
)
def test_health_of_a_stranger_is_no(answer):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        url = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        asking = subprocess.Popen([BINARY, "health", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={})
        client, _ = stranger.accept()
        client.recv(65536)
        with suppress(OSError):  # it may have seen enough, and gone
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
        out, err = asking.communicate(timeout=20)
        client.close()
    assert asking.returncode == 1 and out == b""
    assert err.count(b"\n") == 1 and b"\x1b" not in err and len(err) < 8192


def test_health_is_what_readyz_says(server, tls_server):
    for one, scheme in ((server, "http"), (tls_server, "https")):
        done = health(f"{scheme}://127.0.0.1:{one.http}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
        settings = {"listen.http": f"0.0.0.0:{one.http}"}
        if scheme == "https":
            settings |= {name: one.settings[name] for name in ("tls.cert", "tls.key")}
        done = health(settings=settings)
        assert (done.returncode, done.stdout) == (0, "ready\n")
    done = health(f"http://127.0.0.1:{server.http}/healthx")
    assert done.returncode == 1 and "404" in done.stderr


@pytest.mark.parametrize("wrong", ["mqtt://127.0.0.1", "127.0.0.1:8080", "http://"])
def test_health_of_no_address_is_wrong_use(wrong):
    assert health(wrong).returncode == 2
    assert health(settings={"listen.http": ""}).returncode == 2


def test_two_servers_on_one_data_directory_are_told_apart(server):
    done = run_cli("serve", "--data", server.folder / "data", "--mqtt", "127.0.0.1:0", "--http", "", "--admin", "")
    assert done.returncode == 75 and "is in use by another server" in done.stderr


