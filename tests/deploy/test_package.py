"""The Debian package, made of the binary under test, in a clean Debian: installed, served from, upgraded, purged."""

import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from harness.process import BINARY, ROOT

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
SUITE = "bookworm"
CONFIG = "etc/jam-mqtt/jam-mqtt.toml"
NEW_DEFAULT = "# A default that is new in this version."
LISTENERS = ("mqtt", "http", "admin")
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

    def jam(self, *arguments):
        """A command as the server's user."""
        return self.run("setpriv", *AS_USER, "jam-mqtt", *arguments, "--config", f"/{CONFIG}").stdout

    def version(self):
        return self.run("dpkg-query", "--show", "--showformat=${Version}", "jam-mqtt").stdout

    def files(self):
        """All that the package has brought, but for folders that others use too."""
        listed = self.run("dpkg", "--listfiles", "jam-mqtt").stdout.split()
        return {path.lstrip("/") for path in listed if not (self.path / path.lstrip("/")).is_dir()}

    def holds(self, path):
        return run(*SUDO, "test", "-e", self.path / path, check=False).returncode == 0

    def read(self, path):
        return run(*SUDO, "cat", self.path / path).stdout

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


@pytest.fixture(scope="module")
def later(package, tmp_path_factory):
    """The package of a later version, with this line more in its settings file."""

    def make(revision, line):
        folder = tmp_path_factory.mktemp("later")
        root = folder / "root"
        run("dpkg-deb", "--raw-extract", package, root)
        control = root / "DEBIAN/control"
        text, count = re.subn(r"^Version: (.*)-1$", rf"Version: \1-{revision}", control.read_text(), flags=re.MULTILINE)
        assert count == 1, text
        control.write_text(text)
        with (root / CONFIG).open("a") as settings:
            settings.write(f"{line}\n")
        run("dpkg-deb", "--root-owner-group", "--build", root, folder / "later.deb")
        return folder / "later.deb"

    return make


def test_from_nothing_to_a_purge(package, later, debian):
    debian.install(package)
    assert debian.stat("etc/jam-mqtt") == "root:jam-mqtt 750"
    assert debian.stat(CONFIG) == "root:jam-mqtt 640"
    assert debian.stat("var/lib/jam-mqtt") == "jam-mqtt:jam-mqtt 700"
    enabled = debian.path / "etc/systemd/system/multi-user.target.wants/jam-mqtt.service"
    assert enabled.is_symlink()
    assert not (debian.path / "etc/systemd/system/sockets.target.wants/jam-mqtt.socket").exists()
    for page in ("man1/jam-mqtt.1.gz", "man1/jam-mqtt-serve.1.gz", "man5/jam-mqtt.toml.5.gz"):
        assert (debian.path / "usr/share/man" / page).is_file(), page
    debian.jam("user", "add", "1")
    assert serves(debian) == ["1"]

    # Settings that nobody has changed become those of the new version.
    debian.install(later(2, NEW_DEFAULT))
    assert debian.version().endswith("-2")
    assert NEW_DEFAULT in debian.read(CONFIG)
    assert debian.stat(CONFIG) == "root:jam-mqtt 640"

    # What an administrator has changed stays, with the new default beside it; so do accounts, keys and the token.
    run(*SUDO, "sh", "-c", f"sed -i 's/^# A default/# mine: a default/' {debian.path / CONFIG}")
    run(*SUDO, "install", "-D", "-m", "640", "/dev/null", debian.path / "etc/jam-mqtt/tls/key.pem")
    mine, token = debian.read(CONFIG), debian.read("var/lib/jam-mqtt/admin-token")
    debian.install(later(3, "# And another one."), "--force-confdef", "--force-confold")
    assert debian.version().endswith("-3")
    assert debian.read(CONFIG) == mine and "# mine" in mine
    assert debian.read(f"{CONFIG}.dpkg-dist").endswith("# And another one.\n")
    for path in (CONFIG, f"{CONFIG}.dpkg-dist"):
        assert debian.stat(path) == "root:jam-mqtt 640"
    assert debian.stat("etc/jam-mqtt") == "root:jam-mqtt 750"
    assert serves(debian) == ["1"]
    assert debian.read("var/lib/jam-mqtt/admin-token") == token

    ours = debian.files()
    assert {"usr/bin/jam-mqtt", "usr/lib/systemd/system/jam-mqtt.service", CONFIG} <= ours
    debian.run("dpkg", "--purge", "jam-mqtt")
    assert [path for path in ours if debian.holds(path)] == []
    assert not enabled.is_symlink()
    assert debian.run("ls", "-A", "/etc/jam-mqtt").stdout == "tls\n", "the operator's keys are not the package's"
    assert debian.holds("etc/jam-mqtt/tls/key.pem")
    assert debian.read("var/lib/jam-mqtt/admin-token") == token
    assert debian.stat("var/lib/jam-mqtt/jam.db") == "jam-mqtt:jam-mqtt 600"

    # With nothing of the operator's in it, the folder goes too; and who comes back finds the accounts.
    run(*SUDO, "rm", "-r", debian.path / "etc/jam-mqtt/tls")
    debian.install(package)
    assert serves(debian) == ["1"]
    debian.run("dpkg", "--purge", "jam-mqtt")
    assert not debian.holds("etc/jam-mqtt")


AS_USER = ["--reuid=jam-mqtt", "--regid=jam-mqtt", "--clear-groups"]


def serves(debian):
    """The unit's ExecStart as the unit's user, until it is ready, and to its end by SIGTERM. The users that its admin API lists."""
    unit = (debian.path / "usr/lib/systemd/system/jam-mqtt.service").read_text()
    start = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE).group(1).split()
    assert re.search(r"^User=jam-mqtt$", unit, re.MULTILINE)
    ports = [f"JAM_MQTT_LISTEN__{name.upper()}=127.0.0.1:0" for name in LISTENERS]
    command = ["chroot", debian.path, "env", "-i", "PATH=/usr/bin:/bin", *ports, "setpriv", *AS_USER, *start]
    server = subprocess.Popen([*SUDO, *map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        said, addresses = "", {}
        while set(addresses) != set(LISTENERS):
            assert time.monotonic() < deadline and server.poll() is None, said
            said += server.stderr.readline()
            addresses = dict(re.findall(r"serving (\w+)\W.*?(127\.0\.0\.1:\d+)", said))
        assert debian.stat("var/lib/jam-mqtt/jam.db") == "jam-mqtt:jam-mqtt 600"
        assert debian.stat("var/lib/jam-mqtt/admin-token") == "jam-mqtt:jam-mqtt 600"
        token = debian.read("var/lib/jam-mqtt/admin-token").strip()
        assert b"jam_build_info" in ask(addresses["admin"], "metrics")
        users = json.loads(ask(addresses["admin"], "api/v1/users", {"Authorization": f"Bearer {token}"}))
        return [user["id"] for user in users["items"]]
    finally:
        server.terminate()
        assert server.wait(15) == 0
        server.stderr.close()


def ask(address, path, headers=None):
    request = urllib.request.Request(f"http://{address}/{path}", headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()
