"""docs/operations.md: what the commands do with a mailbox, with the server running, stopped or killed."""

import json
import resource
import shutil
import stat
import subprocess
import time
from http.client import HTTPConnection
from types import SimpleNamespace

import pytest
from harness import Server, error, run_cli
from harness.process import BINARY, environment

PAGE = 4096


@pytest.fixture
def own(tmp_path):
    """A server whose files a test may damage."""
    return Server(tmp_path / "own")


def where(server):
    return ["--data", server.folder / "data", "--directory", f"sqlite:{server.directory.path}"]


def jam(server, *arguments, status=0):
    done = run_cli(*arguments, *where(server))
    assert done.returncode == status, f"{arguments}: {done}"
    said = done.stdout if status == 0 else done.stderr
    if status:
        assert len(said.strip().splitlines()) == 1 and "panicked" not in said, said
    return said


def show(server, user):
    return json.loads(jam(server, "mailbox", "show", user.id, "--json"))


def fill(server, sender, receiver, count=5, size=100):
    payloads = [sender.message(f"{n} " + "x" * size) for n in range(count)]
    with server.connect(sender) as writer:
        for payload in payloads:
            assert writer.deliver(receiver.inbox, payload) == 0
    return payloads


def drain(server, user, count, quiet=True):
    with server.listener(user, device="after") as reader:
        payloads = [reader.message(topic=user.inbox).payload for _ in range(count)]
        if quiet:
            reader.quiet()
    return payloads


def files(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def test_show_counts_and_says_no_contents(own):
    with own:
        me, friend = own.friends()
        payloads = fill(own, me, friend, 3)
        reader = own.listener(friend, clean=False)
        for _ in range(3):
            reader.message(ack=False)
        found = show(own, friend)
        assert (found["user"], found["messages"]) == (friend.id, 3)
        assert found["bytes"] == sum(len(friend.inbox) + len(payload) for payload in payloads)
        assert 0 <= found["oldest_secs"] < 60
        (session,) = found["sessions"]
        assert session["client"] == reader.client_id
        assert session["connected"] is True
        text = jam(own, "mailbox", "show", friend.id)
        assert "3 messages" in text and reader.client_id in text
        assert "xxx" not in text + json.dumps(found)
    stopped = show(own, friend)
    assert stopped["messages"] == 3
    assert stopped["sessions"][0]["in_flight"] == 3
    assert stopped["sessions"][0]["connected"] is False
    assert "there is no user 999" in jam(own, "mailbox", "show", "999", status=1)


@pytest.mark.parametrize("state", ["running", "stopped", "killed"])
def test_purge(own, state):
    with own:
        me, friend = own.friends()
        fill(own, me, friend)
        fill(own, friend, me, 2)
        if state == "killed":
            own.kill()
        elif state == "running":
            said = json.loads(jam(own, "mailbox", "purge", friend.id, "--json"))
            assert said == {"user": friend.id, "removed": 5, "by": "server"}
        if state == "killed":
            said = json.loads(jam(own, "mailbox", "purge", friend.id, "--json"))
            assert said == {"user": friend.id, "removed": 5, "by": "command"}
            own.start()
    if state == "stopped":
        assert "5 messages" in jam(own, "mailbox", "purge", friend.id)
    assert show(own, friend)["messages"] == 0
    with own:
        payload = fill(own, me, friend, 1)
        assert drain(own, friend, 1) == payload, "what came before the purge is gone"
        drain(own, me, 2)


@pytest.mark.parametrize("running", [True, False])
def test_purge_what_one_sender_sent(own, running):
    with own:
        me, friend = own.friends()
        other = own.user()
        own.directory.befriend(other, friend)
        fill(own, me, friend, 3)
        payloads = fill(own, other, friend, 2)
        if not running:
            own.stop()
        said = json.loads(jam(own, "mailbox", "purge", friend.id, "--from", me.id, "--json"))
        by = "server" if running else "command"
        assert said == {"user": friend.id, "from": me.id, "removed": 3, "by": by}
        assert f"0 messages from user {me.id}" in jam(own, "mailbox", "purge", friend.id, "--from", me.id)
        if not running:
            own.start()
        assert drain(own, friend, 2) == payloads


@pytest.mark.parametrize("running", [True, False])
def test_purge_leaves_what_waits_on_own_channels(own, running):
    with own:
        me, friend = own.friends()
        notes = f"/{friend.id}/notes"
        with own.connect(friend, clean=False) as phone:
            assert phone.subscribe(notes, qos=1) == [1]
            assert phone.deliver(notes, b"note") == 0
        fill(own, me, friend)
        if not running:
            own.stop()
        said = json.loads(jam(own, "mailbox", "purge", friend.id, "--json"))
        assert said["removed"] == 5
        if not running:
            own.start()
        with own.connect(friend, clean=False) as phone:
            assert phone.message(topic=notes).payload == b"note"


def on_the_copy(folder, tmp_path):
    """A server on a backup, which holds everything that it needs."""
    home = tmp_path / "started"
    home.mkdir()
    folder.rename(home / "data")
    return Server(home, directory=SimpleNamespace(url=f"sqlite:{home / 'data/jam.db'}"))


@pytest.mark.parametrize("state", ["running", "stopped", "killed"])
def test_a_server_starts_on_a_backup(own, state, tmp_path):
    backup = tmp_path / "backup"
    with own:
        me, friend = own.friends()
        payloads = fill(own, me, friend)
        if state == "killed":
            own.kill()
        if state != "stopped":
            jam(own, "backup", backup)
        if state == "killed":
            own.start()
    if state == "stopped":
        jam(own, "backup", backup)
    assert sorted(path.name for path in backup.iterdir()) == ["jam.db", "mailbox"]
    assert [path.name for path in (backup / "mailbox").iterdir()] == ["mailbox.db"]
    assert stat.S_IMODE((backup / "jam.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((backup / "mailbox").stat().st_mode) == 0o700
    before = files(backup)
    assert "not empty" in jam(own, "backup", backup, status=1)
    assert files(backup) == before
    with on_the_copy(backup, tmp_path) as copy:
        assert drain(copy, friend, 5) == payloads


def test_a_backup_while_messages_come(own, tmp_path):
    """Whatever was acknowledged before it began is in it, and nothing twice."""
    with own:
        me, friend = own.friends()
        payloads = fill(own, me, friend, 20)
        with own.connect(me) as writer:
            writers = [me.message(f"later {n}") for n in range(200)]
            backup = subprocess.Popen(
                [BINARY, "backup", tmp_path / "backup", *map(str, where(own))],
                env=environment({}),
                stderr=subprocess.PIPE,
            )
            for payload in writers:
                assert writer.deliver(friend.inbox, payload) == 0
            _, said = backup.communicate(timeout=30)
            assert backup.returncode == 0, said
    count = json.loads(
        run_cli("mailbox", "show", friend.id, "--json", "--data", tmp_path / "backup").stdout
    )["messages"]
    assert 20 <= count <= 220
    with on_the_copy(tmp_path / "backup", tmp_path) as copy:
        assert drain(copy, friend, count) == (payloads + writers)[:count]


def test_a_backup_that_cannot_be_leaves_nothing(own, tmp_path):
    with own:
        pass
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        jam(own, "backup", target, status=1)
    done = run_cli("backup", tmp_path / "none", "--data", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "there is no accounts database at" in done.stderr
    assert not (tmp_path / "none").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".jam")) == []


def test_a_backup_gets_its_name_when_it_is_complete(own, tmp_path):
    """Killed on the way, at whatever moment, it leaves nothing under its name, or all of it."""
    with own:
        me, friend = own.friends()
        fill(own, me, friend)
    for pause in [0.004 * n for n in range(25)]:
        target = tmp_path / f"backup-{pause}"
        backup = subprocess.Popen([BINARY, "backup", target, *map(str, where(own))], stdout=subprocess.DEVNULL)
        time.sleep(pause)
        backup.kill()
        backup.wait()
        if target.exists():
            assert sorted(path.name for path in target.iterdir()) == ["jam.db", "mailbox"]
            assert "ok" in run_cli("check", "--data", target, "--mqtt", "127.0.0.1:0", "--http", "").stdout


@pytest.mark.parametrize("state", ["running", "stopped", "killed"])
def test_check_looks_and_changes_nothing(own, state):
    with own:
        me, friend = own.friends()
        fill(own, me, friend)
        if state == "killed":
            own.kill()
        if state != "stopped":
            before = files(own.folder / "data")
            said = jam(own, "check")
            if state == "killed":
                assert files(own.folder / "data") == before
                own.start()
            else:
                assert set(files(own.folder / "data")) == set(before)
    if state == "stopped":
        before = files(own.folder / "data")
        said = jam(own, "check")
        assert files(own.folder / "data") == before
    (line,) = (line for line in said.splitlines() if " mailbox " in line)
    assert "version 6" in line and "messages: 5" in line
    assert ("no server has it" not in line) == (state == "running")


def damage(server):
    """Fills a page in the middle with what it cannot be."""
    path = server.folder / "data/mailbox/mailbox.db"
    content = bytearray(path.read_bytes())
    middle = len(content) // PAGE // 2 * PAGE
    content[middle : middle + PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)


def test_what_is_damaged_is_told_and_salvaged(own, tmp_path):
    """The server's advice is followed, word for word."""
    saved = tmp_path / "saved"
    with own:
        me, friend = own.friends()
        payloads = fill(own, me, friend, 200, 300)
        assert "in use" in jam(own, "mailbox", "salvage", saved, status=1)
        assert not saved.exists()
    damage(own)
    before = files(own.folder / "data")
    said = jam(own, "check", status=1)
    assert "is damaged" in said and "`jam-mqtt mailbox salvage DIR`" in said
    assert files(own.folder / "data") == before
    report = json.loads(jam(own, "mailbox", "salvage", saved, "--json"))
    assert 100 <= report["messages"] < 200 and report["unread"], report
    after = files(own.folder / "data")
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    # The settings name the directory, so it is the same one.
    own.folder = tmp_path / "again"
    shutil.copytree(saved, own.folder / "data")
    with own:
        found = drain(own, friend, report["messages"])
        assert [payload for payload in payloads if payload in found] == found, "in order, as they were"


def test_a_damaged_mailbox_does_not_start(own):
    with own:
        me, friend = own.friends()
        fill(own, me, friend)
    path = own.folder / "data/mailbox/mailbox.db"
    path.write_bytes(path.read_bytes()[:-PAGE])
    before = path.read_bytes()
    started = run_cli("serve", "--mqtt", "127.0.0.1:0", "--http", "", "--admin", "", *where(own))
    *log, last = started.stderr.splitlines()
    assert [json.loads(line)["message"] for line in log] == ["starting", "opening the mailbox"]
    assert started.returncode == 69 and "is damaged" in last and "`jam-mqtt mailbox salvage DIR`" in last
    assert path.read_bytes() == before


def test_nothing_that_can_be_read_is_said(own, tmp_path):
    with own:
        pass
    (own.folder / "data/mailbox/mailbox.db").write_bytes(b"")
    said = jam(own, "mailbox", "salvage", tmp_path / "saved", status=1)
    assert "nothing can be read" in said
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("command", ["show", "purge"])
def test_where_there_is_no_mailbox(command, tmp_path):
    done = run_cli("mailbox", command, "1", "--data", tmp_path)
    assert done.returncode == 1
    assert "there is no mailbox" in done.stderr
    assert list(tmp_path.iterdir()) == []


def ready(server):
    connection = HTTPConnection("127.0.0.1", server.http, timeout=20)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    return answer.status, answer.read().decode().strip()


def test_a_disk_that_takes_no_more(own, version):
    """PROTOCOL.md, section 7.8: refused with an error, delivered all the same, over by itself."""
    with own:
        me, friend = own.friends()
        payloads = fill(own, me, friend)
        limits = resource.prlimit(own.process.pid, resource.RLIMIT_FSIZE)
        log = own.folder / "data/mailbox/mailbox.db-wal"
        resource.prlimit(own.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
        with own.connect(me, version) as writer:
            refused = error("mailbox", "the server cannot keep messages at the moment", 1)
            refused = 0x83 if version == 5 else refused
            assert writer.deliver(friend.inbox, me.message("no")) == refused
            assert ready(own) == (503, "the mailbox cannot be written")
            assert drain(own, friend, 5, quiet=False) == payloads
            resource.prlimit(own.process.pid, resource.RLIMIT_FSIZE, limits)
            deadline = time.monotonic() + 20
            while ready(own) != (200, "ready"):
                assert time.monotonic() < deadline, own.log()
                time.sleep(0.05)
            assert writer.deliver(friend.inbox, me.message("yes")) == 0
        assert "cannot be written" in own.log() and "can be written again" in own.log()
    with own:
        assert drain(own, friend, 1) == [me.message("yes")]


@pytest.mark.parametrize("kill", [False, True])
def test_a_mailbox_deleted_under_the_server(own, kill):
    """docs/operations.md, "A mailbox whose files were moved": nothing more is acknowledged, and what was is safe."""
    with own:
        me, friend = own.friends()
        payloads = fill(own, me, friend)
        mailbox = own.folder / "data/mailbox"
        for file in mailbox.iterdir():
            file.unlink()
        with own.connect(me) as writer:
            refused = error("mailbox", "the server cannot keep messages at the moment", 1)
            assert writer.deliver(friend.inbox, me.message("no")) == refused
        assert ready(own) == (503, "the mailbox cannot be written")
        assert "a copy of all that it held is in its place; restart the server" in own.log()
        if kill:
            own.kill()
        else:
            own.stop()
        own.start()
        assert drain(own, friend, 5) == payloads
