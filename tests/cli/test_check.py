"""`check` finds what would keep the server from starting, or from working soon; docs/operations.md, commands."""

import json
import os
import subprocess
from socket import socket

import pytest
from harness import Server, run_cli
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


@pytest.mark.parametrize("kind", ["directory", "pipe"])
@pytest.mark.parametrize(
    "named",
    ["tls.cert", "tls.key", "tls.chain", "tls.client_ca", "push.fcm_key", "--config", "--env-file", "admin-token", "mailbox.db", "jam.db"],
)
def test_what_is_no_file_is_told_by_what_it_is(tmp_path, certificate, named, kind):
    """Nobody waits for what may come out of a pipe."""
    data = tmp_path / "data"
    path = data / {"mailbox.db": "mailbox/mailbox.db"}.get(named, named)
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    settings = {"listen.admin": "127.0.0.1:0"}
    if named.startswith("tls."):
        settings |= {"tls.cert": certificate / "server.pem", "tls.key": certificate / "server.key"}
    if named.startswith(("tls.", "push.")):
        settings[named] = path
    flags = [named, path] if named.startswith("--") else []
    for command in ("check", "serve"):
        done = run_cli(command, "--data", data, "--mqtt", "127.0.0.1:0", "--http", "", *flags, settings=settings)
        assert done.returncode not in (0, None), done
        assert f"it is a {kind}, not a file" in done.stderr and str(path) in done.stderr, done


def test_a_file_in_the_place_of_the_mailbox_s_folder(tmp_path):
    (tmp_path / "mailbox").write_text("")
    found = check(tmp_path, status=1)["mailbox"]
    assert "mailbox is no mailbox: it is a file, not a directory; move it away" in found["found"]


# Root may write everywhere unless it is kept from that.
WITHIN_PERMISSIONS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.mark.parametrize(
    "name, mode, said",
    [
        ("", 0o500, ("cannot be written by this user; run this as the user of the server", "whether this user may write to")),
        ("mailbox", 0o500, ("cannot be written by this user; run this as the user of the server", "look at the disk and at the permissions")),
        ("mailbox/mailbox.db", 0o400, ("run this as the user of the server, or chmod u+w",) * 2),
        ("mailbox/mailbox.lock", 0o400, ("run this as the user of the server, or chmod u+w",) * 2),
        ("mailbox/mailbox.db", 0o000, ("look at the disk and at the permissions",) * 2),
        ("jam.db", 0o000, ("whether this user may write to it and its folder",) * 2),
    ],
)
def test_what_may_not_be_written_is_found_and_keeps_the_server_from_starting(tmp_path, name, mode, said):
    data = tmp_path / "data"
    assert run_cli("user", "add", "1", "--data", data).returncode == 0
    with Server(tmp_path):
        pass
    before = (data / name).stat().st_mode
    (data / name).chmod(mode)
    try:
        for command, words in zip(("check", "serve"), said, strict=True):
            done = subprocess.run(
                [*WITHIN_PERMISSIONS, BINARY, command, "--data", data, *NO_ADDRESSES],
                env=environment({}), capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            assert done.returncode == (1 if command == "check" else 69), done
            assert words in done.stderr and str(data / name) in done.stderr, done
    finally:
        (data / name).chmod(before)


def test_accounts_that_may_be_read_only_are_served_and_not_changed(tmp_path):
    data = tmp_path / "data"
    assert run_cli("user", "add", "1", "--data", data).returncode == 0
    (data / "jam.db").chmod(0o400)
    done = subprocess.run(
        [*WITHIN_PERMISSIONS, BINARY, "user", "add", "2", "--data", data],
        env=environment({}), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "whether this user may write to it" in done.stderr, done
    assert check(data)["accounts"]["ok"]
