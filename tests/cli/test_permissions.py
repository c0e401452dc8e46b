"""docs/operations.md, files: what the server and the commands create is their owner's alone, whatever the umask."""

import contextlib
import os
import sqlite3
import stat

import pytest
from harness import Server, run_cli


@contextlib.contextmanager
def umask(mask):
    """Children inherit it."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder):
    """The mode of everything below a folder, and of the folder."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        # A -shm or a draft may be gone again.
        with contextlib.suppress(FileNotFoundError):
            found[str(path.relative_to(folder))] = stat.S_IMODE(path.lstat().st_mode)
    return found


def private(folder):
    for name, mode in modes(folder).items():
        assert mode == (0o700 if (folder / name).is_dir() else 0o600), f"{name}: {mode:o}"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277])
def test_what_is_created_is_the_owners_alone(tmp_path, mask):
    data, copy = tmp_path / "data", tmp_path / "copy"

    def jam(*arguments):
        with umask(mask):
            done = run_cli(*arguments, "--data", data)
        assert done.returncode == 0, done
        return done.stdout

    jam("user", "add", "1", "--token", "one")
    private(data)
    with umask(mask), Server(tmp_path / "server") as server:
        kept = server.folder / "data"
        private(kept)
        assert {"mailbox/mailbox.db", "mailbox/mailbox.lock"} <= modes(kept).keys()
    jam("backup", copy)
    private(copy)


def test_a_shared_jam_database_stays_shared(tmp_path):
    """A web server of the same group goes on reading and writing it."""
    server = Server(tmp_path)
    path = server.directory.path
    path.chmod(0o660)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
    with server:
        found = {name: mode for name, mode in modes(path.parent).items() if path.name in name}
        assert len(found) > 1 and set(found.values()) == {0o660}, found
