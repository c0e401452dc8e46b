"""The Debian package, made of the binary under test, in a clean Debian: installed, served from, upgraded, purged."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from harness.process import BINARY, ROOT

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
SUITE = "bookworm"
CONFIG = "etc/jam-mqtt/jam-mqtt.toml"
PORTS = {"JAM_MQTT_LISTEN__MQTT": "127.0.0.1:0", "JAM_MQTT_LISTEN__HTTP": "127.0.0.1:0"}
SUDO = [] if os.geteuid() == 0 else ["sudo"]

pytestmark = pytest.mark.timeout(900)


def run(*command, check=True, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


@pytest.fixture(scope="module")
def package():
    run(ROOT / "scripts/package", env=os.environ | {"JAM_MQTT_BIN": str(BINARY)}, cwd=ROOT)
    found = list((TARGET / "package").glob("jam-mqtt_*.deb"))
    assert len(found) == 1
    return found[0]


class Debian:
    """A root folder with Debian in it."""

    def __init__(self, path):
        self.path = path

    def run(self, *command, **options):
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
        return run(*SUDO, "chroot", self.path, *clean, *command, **options)

    def install(self, package, *options):
        run(*SUDO, "cp", package, self.path / "tmp/jam-mqtt.deb")
        return self.run("dpkg", "--force-unsafe-io", *options, "-i", "/tmp/jam-mqtt.deb")

    def stat(self, path):
        return self.run("stat", "-c", "%U:%G %a", f"/{path}").stdout.strip()


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    """What the package depends on is there, and nothing else is."""
    path = tmp_path_factory.mktemp("debian") / "root"
    options = ["--variant=minbase", "--include=systemd-standalone-sysusers", "--dpkgopt=force-unsafe-io"]
    run(*SUDO, "mmdebstrap", "--quiet", *options, SUITE, path)
    yield Debian(path)
    run(*SUDO, "rm", "-rf", path)


def test_lintian_is_quiet(package):
    done = run("lintian", "--fail-on", "error,warning", "--allow-root", package, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == ""


def test_the_unit_is_hardened(tmp_path):
    done = run("systemd-analyze", "security", "--offline=true", ROOT / "deploy/systemd/jam-mqtt.service", check=False)
    level = re.search(r"Overall exposure level for jam-mqtt.service: ([\d.]+)", done.stdout)
    assert float(level.group(1)) <= 1.5, done.stdout


def test_from_nothing_to_a_purge(package, debian):
    debian.install(package)
    assert debian.stat(CONFIG) == "root:jam-mqtt 640"
    assert debian.stat("var/lib/jam-mqtt") == "jam-mqtt:jam-mqtt 750"
    enabled = debian.path / "etc/systemd/system/multi-user.target.wants/jam-mqtt.service"
    assert enabled.is_symlink()
    assert not (debian.path / "etc/systemd/system/sockets.target.wants/jam-mqtt.socket").exists()
    for page in ("man1/jam-mqtt.1.gz", "man1/jam-mqtt-serve.1.gz", "man5/jam-mqtt.toml.5.gz"):
        assert (debian.path / "usr/share/man" / page).is_file(), page

    serves_as_its_user(debian)

    # What an administrator has changed stays through an upgrade, and so do accounts.
    change = debian.path / CONFIG
    run(*SUDO, "sh", "-c", f"echo '# mine' >> {change}")
    debian.run("setpriv", *AS_USER, "jam-mqtt", "user", "add", "1", "--config", f"/{CONFIG}")
    debian.install(package, "--force-confdef", "--force-confold")
    assert "# mine" in run(*SUDO, "cat", change).stdout
    assert debian.stat(CONFIG) == "root:jam-mqtt 640"
    assert "1" in debian.run("setpriv", *AS_USER, "jam-mqtt", "user", "list", "--config", f"/{CONFIG}").stdout

    debian.run("dpkg", "--purge", "jam-mqtt")
    assert not (debian.path / "etc/jam-mqtt").exists()
    assert not (debian.path / "usr/bin/jam-mqtt").exists()
    assert not enabled.is_symlink()
    assert (debian.path / "var/lib/jam-mqtt/jam.db").is_file()


AS_USER = ["--reuid=jam-mqtt", "--regid=jam-mqtt", "--clear-groups"]


def serves_as_its_user(debian):
    """The unit's ExecStart as the unit's user, until it is ready, and to its end by SIGTERM."""
    unit = (debian.path / "usr/lib/systemd/system/jam-mqtt.service").read_text()
    start = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE).group(1).split()
    assert re.search(r"^User=jam-mqtt$", unit, re.MULTILINE)
    command = ["chroot", debian.path, "env", "-i", "PATH=/usr/bin:/bin", *[f"{n}={v}" for n, v in PORTS.items()]]
    command += ["JAM_MQTT_LISTEN__ADMIN=", "setpriv", *AS_USER, *start]
    server = subprocess.Popen([*SUDO, *map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        said = ""
        while '"serving http"' not in said and "serving http" not in said:
            assert time.monotonic() < deadline and server.poll() is None, said
            said += server.stderr.readline()
        assert debian.stat("var/lib/jam-mqtt/jam.db") == "jam-mqtt:jam-mqtt 600"
    finally:
        server.terminate()
        assert server.wait(15) == 0
        server.stderr.close()
