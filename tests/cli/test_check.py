"""`check` finds what would keep the server from starting, or from working soon; docs/operations.md, commands."""

import json
import subprocess
from socket import socket

import pytest
from harness import run_cli
from harness.process import BINARY, environment

NO_ADDRESSES = ["--mqtt", "127.0.0.1:0", "--http", "", "--admin", ""]


def check(folder, *arguments, settings=None, status=0):
    done = run_cli("check", "--json", "--data", folder, *(arguments or NO_ADDRESSES), settings=settings)
    assert done.returncode == status, done
    return {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}


def certificate(folder, begins, ends):
    """A certificate that is valid from and to such times, as `20260101000000Z`, and its key."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-keyout", folder / "key.pem", "-out", folder / "first.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "index").mkdir()
    (folder / "index/index.txt").write_text("")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = x\n[x]\ndatabase = {folder}/index/index.txt\nnew_certs_dir = {folder}/index\n"
        f"rand_serial = yes\ndefault_md = sha256\npolicy = p\nx509_extensions = e\n[p]\ncommonName = supplied\n[e]\nbasicConstraints = CA:FALSE\n"
    )
    subprocess.run(
        ["openssl", "req", "-new", "-key", folder / "key.pem", "-subj", "/CN=localhost", "-out", folder / "req.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "ca", "-batch", "-config", folder / "ca.cnf", "-selfsign", "-keyfile", folder / "key.pem",
         "-in", folder / "req.pem", "-out", folder / "cert.pem", "-notext", "-startdate", begins, "-enddate", ends],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"tls.cert": folder / "cert.pem", "tls.key": folder / "key.pem"}


def in_days(days):
    form = ["date", "-u", "+%Y%m%d%H%M%SZ", "-d", f"{days} days"]
    return subprocess.run(form, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    "begins, ends, status, warning, said",
    [
        (-30, 30, 0, False, "is valid until"),
        (-30, 13, 0, True, "expires on"),
        (-30, -1, 1, False, "expired on"),
        (2, 30, 1, False, "is not valid before"),
    ],
)
def test_until_when_certificates_are_valid(tmp_path, begins, ends, status, warning, said):
    settings = certificate(tmp_path, in_days(begins), in_days(ends))
    found = check(tmp_path / "data", settings=settings, status=status)["tls.cert"]
    assert (found["ok"], found["warning"]) == (status == 0, warning)
    assert said in found["found"]


def test_an_address_that_is_in_use(tmp_path):
    with socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        found = check(tmp_path, "--mqtt", address, "--http", "", "--admin", "", status=1)["mqtt"]
        assert not found["ok"] and address in found["found"] and "in use by another program" in found["found"]
    assert check(tmp_path, "--mqtt", address, "--http", "", "--admin", "")["mqtt"]["ok"]
    twice = check(tmp_path, "--mqtt", address, "--http", address, "--admin", "", status=1)
    assert twice["mqtt"]["ok"] and not twice["http"]["ok"]


def test_beside_the_server_that_has_the_addresses(start):
    server = start()
    data = server.folder / "data"
    found = check(data, "--mqtt", f"127.0.0.1:{server.mqtt}", "--http", "", "--admin", "")["mqtt"]
    assert found["ok"] and "by the server that runs" in found["found"]


def test_a_disk_that_is_read_only(tmp_path):
    """In a mount namespace of its own; where there can be none, permissions say the same to who is not root."""
    data = tmp_path / "data"
    check(data)
    data.mkdir()
    run_cli("user", "add", "1", "--data", data)
    script = (
        f"mount --bind {data} {data} && mount -o remount,bind,ro {data} && exec setpriv --inh-caps=-all "
        f'"$0" check --json --data {data} --mqtt 127.0.0.1:0 --http "" --admin ""'
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, BINARY],
        env=environment({}), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount" in done.stderr.split(":")[0]:
        pytest.fail(f"no namespace for the test: {done.stderr}")
    assert done.returncode == 1, done
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}["data"]
    assert not found["ok"] and "read-only" in found["found"]


@pytest.mark.parametrize(
    "named", ["tls.cert", "tls.key", "tls.chain", "tls.client_ca", "push.fcm_key", "--config", "--env-file", "admin-token"]
)
def test_a_file_without_an_end_is_found_out(tmp_path, certificate, named):
    """A mistyped path may lead anywhere. It costs no memory: the limit is a tenth of what reading on would take."""
    data = tmp_path / "data"
    data.mkdir()
    settings = {}
    if named.startswith("tls."):
        settings = {"tls.cert": certificate / "server.pem", "tls.key": certificate / "server.key", named: "/dev/zero"}
    elif named == "push.fcm_key":
        settings = {named: "/dev/zero"}
    elif named == "admin-token":
        (data / named).symlink_to(tmp_path / named)
        with (tmp_path / named).open("wb") as large:
            large.truncate(1 << 40)
        (tmp_path / named).chmod(0o600)
        settings = {"listen.admin": "127.0.0.1:0"}
    flags = [named, "/dev/zero"] if named.startswith("--") else []
    done = subprocess.run(
        ["prlimit", "--data=300000000", BINARY, "check", "--data", data, "--mqtt", "127.0.0.1:0", "--http", "", *flags],
        env=environment(settings), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode in (1, 2), done
    assert "more than 1 MiB" in done.stderr and (named in done.stderr or "cannot read /dev/zero" in done.stderr), done
