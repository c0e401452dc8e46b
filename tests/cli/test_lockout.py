"""`jam-mqtt lockout`: asks the running server which addresses it refuses, and has one let in again."""

import json

from harness import run_cli
from harness.office import Office

HERE, THERE = "127.0.0.5", "127.0.0.6"


def lockout(server, *arguments):
    settings = server.settings | {"listen.admin": f"127.0.0.1:{server.admin}"}
    return run_cli("lockout", *arguments, "--data", server.folder / "data", settings=settings)


def test_addresses_are_listed_and_let_in_again(start):
    server = start(admin=True, settings={"limits.failed_auth": 2})
    me = server.user()
    assert lockout(server, "list").stdout == ""
    assert lockout(server, "list", "--json").stdout == "[]\n"
    for address, times in ((HERE, 3), (THERE, 2)):
        for _ in range(times):
            server.attempt(me, password="wrong", source=address)[0].close()
    assert server.attempt(me, source=HERE)[1].reason == 4

    line = lockout(server, "list").stdout
    assert line.startswith(f"{HERE}  3 failed logins  ends in 9m ") and line.count("\n") == 1
    [item] = json.loads(lockout(server, "list", "--json").stdout)
    assert (item["source"], item["failures"], item["locked"]) == (HERE, 3, True)

    done = lockout(server, "lift", HERE)
    assert (done.returncode, done.stdout) == (0, f"the failed logins of {HERE} are forgotten\n")
    assert lockout(server, "lift", HERE).stdout == f"nothing counts against {HERE}\n"
    done = lockout(server, "lift", "2001:db8::7", "--json")
    assert json.loads(done.stdout) == {"address": "2001:db8::7", "changed": False}
    assert server.attempt(me, source=HERE)[1].reason == 0


def test_what_keeps_the_server_from_being_asked_is_said(start, tmp_path):
    server = start(admin=True)
    settings = server.settings | {"admin.token": "another-0123456789"}
    refused = run_cli("lockout", "list", settings=settings | {"listen.admin": f"127.0.0.1:{server.admin}"})
    assert refused.returncode == 1 and "admin.token" in refused.stderr and "another" not in refused.stderr
    gone = run_cli("lockout", "list", settings=settings | {"listen.admin": "127.0.0.1:1"})
    assert gone.returncode == 1 and "the server does not run" in gone.stderr
    off = run_cli("lockout", "list", settings=settings | {"listen.admin": ""})
    assert off.returncode == 2 and "listen.admin is off" in off.stderr
    unknown = run_cli("lockout", "lift", "localhost", settings=settings)
    assert unknown.returncode == 2
    no_token = run_cli("lockout", "list", "--data", tmp_path / "none", settings={"listen.admin": "127.0.0.1:1"})
    assert no_token.returncode == 1 and "admin-token" in no_token.stderr


def test_the_file_of_the_token_changes_while_the_server_runs(start):
    """docs/operations.md, the admin address: the server keeps the token until it stops."""
    server = start(admin=True)
    file, office = server.folder / "data" / "admin-token", Office(server)
    kept = file.read_text()

    def failed(what):
        done = lockout(server, "list")
        assert done.returncode == 1 and what in done.stderr and str(file) in done.stderr, done
        assert kept.strip() not in done.stderr
        assert office.ask("GET", "lockouts")[0] == 200

    def check():
        settings = {"listen.mqtt": "127.0.0.1:0", "listen.http": "", "listen.admin": "127.0.0.1:0"}
        done = run_cli("check", "--json", "--data", server.folder / "data", settings=settings)
        [found] = (it for it in json.loads(done.stdout)["findings"] if it["what"] == "admin.token")
        return found["ok"], found["found"]

    assert lockout(server, "list").returncode == 0 and check() == (True, f"in {file}")
    file.write_text("another-token-than-that-of-the-server\n")
    failed("restart the server")
    file.chmod(0o644)
    failed("chmod 600")
    ok, found = check()
    assert not ok and "chmod 600" in found
    file.unlink()
    failed("restart the server")
    assert check() == (True, f"{file} would be created")
    server.stop()
    server.start()
    assert file.read_text() != kept and lockout(server, "list").returncode == 0
