"""Fixtures of every Python suite: one server a module, fresh users a test."""

import subprocess

import pytest

from harness import Server
from harness.process import BINARY, CERTIFICATE


def pytest_sessionstart(session):
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is missing: cargo build --release, or set JAM_MQTT_BIN", 2)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run([CERTIFICATE, folder], check=True)
    return folder


def preloaded(folder, source):
    """A library to be loaded into a server before any other (LD_PRELOAD)."""
    library = folder / "shim.so"
    source = CERTIFICATE.with_name(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """A library that has a server's system calls hang: `harness/hang.c`."""
    return preloaded(tmp_path_factory.mktemp("hang"), "hang.c")


@pytest.fixture(scope="session")
def quota_shim(tmp_path_factory):
    """A library by which a folder has a disk quota: `harness/quota.c`."""
    return preloaded(tmp_path_factory.mktemp("quota"), "quota.c")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """TCP and WebSocket, default limits, a jam database in WAL mode."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory, certificate):
    """TCP, TLS and WebSocket over TLS."""
    with Server(tmp_path_factory.mktemp("tls"), certificate) as running:
        yield running


@pytest.fixture
def start(tmp_path):
    """Starts a server of the test's own: start(settings={"limits.packet": "64KiB"}, ...)."""
    running = []

    def begin(**options):
        running.append(Server(tmp_path / f"server{len(running)}", **options).start())
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture(params=[4, 5], ids=["3.1.1", "5.0"])
def version(request):
    return request.param


@pytest.fixture(params=["tcp", "ws", "tls", "wss"])
def transport(request):
    return request.param


@pytest.fixture
def home(request, transport):
    """The server that speaks this test's transport."""
    return request.getfixturevalue("tls_server" if transport in ("tls", "wss") else "server")
