"""The proxies' settings in deploy/proxies, each with the real proxy: TLS and WebSocket, and whose address counts."""

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import Server, packets, streams
from harness.process import ROOT

CLIENT = "127.0.0.77"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def haproxy(folder, certificate):
    text = (ROOT / "deploy/proxies/haproxy.cfg").read_text()
    pem = folder / "both.pem"
    pem.write_text((certificate / "server.pem").read_text() + (certificate / "server.key").read_text())
    text = text.replace("/etc/haproxy/jam-mqtt.pem", str(pem))
    return "haproxy.cfg", text, lambda path: ["haproxy", "-db", "-f", path]


def nginx(folder, certificate):
    text = (ROOT / "deploy/proxies/nginx.conf").read_text()
    text = text.replace("/etc/nginx/jam-mqtt.crt", str(certificate / "server.pem"))
    text = text.replace("/etc/nginx/jam-mqtt.key", str(certificate / "server.key"))
    text = text.replace("worker_rlimit_nofile 200000;", "").replace("100000", "100")
    # Of the modules only the one that is needed: others may want more than a test has.
    text = text.replace("include /etc/nginx/modules-enabled/*.conf;", f"load_module {stream_module()};")
    text += f"pid {folder}/nginx.pid;\nerror_log stderr;\ndaemon off;\n"
    return "nginx.conf", text, lambda path: ["nginx", "-c", path, "-p", folder]


def caddy(folder, certificate):
    text = (ROOT / "deploy/proxies/Caddyfile").read_text()
    # With a certificate of the test's own, and nothing on addresses that are the machine's.
    text = text.replace("{$DOMAIN} {", f"https://localhost:443 {{\n\ttls {certificate}/server.pem {certificate}/server.key")
    text = text.replace("jam-mqtt:8080", "127.0.0.1:8080")
    text = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {folder}\n}}\n" + text
    return "Caddyfile", text, lambda path: ["caddy", "run", "--adapter", "caddyfile", "--config", path]


def stream_module():
    found = list(Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so"))
    assert found, "libnginx-mod-stream is missing"
    return found[0]


# Debian's proxies, and Caddy as PyPI ships it.
PATH = f"/usr/sbin:/usr/bin:{Path(sys.executable).parent}"


@pytest.fixture
def proxied(request, tmp_path, certificate):
    """A server, and the ports of a proxy in front of it."""
    name = request.param.__name__
    assert shutil.which(name, path=PATH), f"{name} is missing: scripts/test installs it"
    settings = {"listen.proxy_protocol": "mqtt=127.0.0.1/32,http=127.0.0.1/32"}
    with AcceptsWithoutReady(tmp_path / "server", settings=settings) as server:
        ports = {"8883": free_port(), "443": free_port()}
        file, text, command = request.param(tmp_path, certificate)
        for usual, port in ports.items():
            text = re.sub(rf"(bind :|listen |localhost:){usual}\b", rf"\g<1>{port}", text)
        text = text.replace("127.0.0.1:1883", f"127.0.0.1:{server.mqtt}").replace(
            "127.0.0.1:8080", f"127.0.0.1:{server.http}"
        )
        path = tmp_path / file
        path.write_text(text)
        command = list(map(str, command(path)))
        command[0] = shutil.which(command[0], path=PATH)
        environment = {"PATH": PATH, "HOME": str(tmp_path)}
        proxy = subprocess.Popen(command, stderr=open(tmp_path / "proxy.log", "w"), env=environment)
        try:
            wait_for(ports["443"], proxy, tmp_path / "proxy.log")
            yield server, ports
        finally:
            proxy.terminate()
            proxy.wait(10)


class AcceptsWithoutReady(Server):
    """A listener that expects PROXY headers from this machine answers no /readyz to it."""

    def _ready(self):
        return True


def wait_for(port, process, log):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("proxied", "transport"),
    [(haproxy, "tls"), (haproxy, "wss"), (nginx, "tls"), (nginx, "wss"), (caddy, "wss")],
    indirect=["proxied"],
    ids=["haproxy-tls", "haproxy-wss", "nginx-tls", "nginx-wss", "caddy-wss"],
)
def test_a_client_comes_through_under_its_own_address(proxied, certificate, transport):
    server, ports = proxied
    one = server.directory.user()
    port = ports["8883" if transport == "tls" else "443"]
    for token, code in [("wrong", 5), (one.token, 0)]:
        kind = streams.WebSocket if transport == "wss" else streams.Tcp
        stream = kind(("127.0.0.1", port), source=CLIENT, tls_ca=certificate / "ca.pem")
        stream.send(packets.connect(f"{one.id}:phone", str(one.id), token))
        answer = b""
        while len(answer) < 4:
            answer += stream.receive(10)
        assert answer[3] == code, answer
        stream.close()
    deadline = time.monotonic() + 5
    while f'"address":"{CLIENT}"' not in server.log():
        assert time.monotonic() < deadline, server.log()[-2000:]
        time.sleep(0.05)
