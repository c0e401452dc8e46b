"""A jam database, written by this process with Python's own SQLite while the server reads it."""

import json
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

SCHEMA = (Path(__file__).parent / "jam.sql").read_text()


@dataclass(frozen=True)
class User:
    id: str
    token: str

    inbox = property(lambda self: f"/{self.id}/inbox")

    def client_id(self, device="phone"):
        return f"{self.id}:{device}"

    def channel(self, device="phone"):
        return f"/{self.id}/devices/{self.client_id(device)}"

    def message(self, content="hello"):
        """What this user's app publishes to a friend's inbox."""
        return json.dumps(
            {"from": self.id, "timestamp": "2024-05-01T12:00:00Z", "content": content, "type": 0}
        ).encode()


class Directory:
    def __init__(self, path, journal_mode="wal", schema=SCHEMA):
        self.path = Path(path)
        self.url = f"sqlite:{self.path}"
        self.journal_mode = journal_mode
        with closing(self.open()) as db:
            db.executescript(schema)

    def open(self):
        """A connection of the test's own, as another process would hold one."""
        db = sqlite3.connect(self.path, timeout=20, isolation_level=None)
        # Only "wal" stays with the file; the others each connection sets for itself.
        assert db.execute(f"PRAGMA journal_mode={self.journal_mode}").fetchone()[0] == self.journal_mode
        # Commits as fast as memory: what the server makes of them does not depend on how busy the disk is.
        db.execute("PRAGMA synchronous=OFF")
        return db

    def execute(self, sql, *values):
        with closing(self.open()) as db:
            return db.execute(sql, values).fetchall()

    def tables(self):
        """Their names."""
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return [name for (name,) in self.execute(sql)]

    @contextmanager
    def write_lock(self, kind="IMMEDIATE"):
        with closing(self.open()) as db:
            db.execute(f"BEGIN {kind}")
            yield db
            db.execute("ROLLBACK")

    def user(self, token=None):
        with closing(self.open()) as db:
            db.execute("BEGIN IMMEDIATE")
            number = db.execute("INSERT INTO accounts (inactive) VALUES (0)").lastrowid
            user = User(str(number), token or f"token-of-{number}")
            db.execute(
                "UPDATE accounts SET username = ?, user_api_token = ? WHERE user_id = ?",
                (f"user{number}", user.token, number),
            )
            db.execute("COMMIT")
        return user

    def users(self, count):
        return [self.user() for _ in range(count)]

    def friends(self):
        a, b = self.users(2)
        self.befriend(a, b)
        return a, b

    def befriend(self, a, b):
        with closing(self.open()) as db:
            db.executemany(
                "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)"
                " VALUES (?, ?, 0, 0)",
                [(int(a.id), int(b.id)), (int(b.id), int(a.id))],
            )

    def block(self, who, whom, blocked=True):
        with closing(self.open()) as db:
            db.execute("BEGIN IMMEDIATE")
            for column, pair in (("blocked", (who, whom)), ("been_blocked", (whom, who))):
                db.execute(
                    f"UPDATE user_friends SET {column} = ? WHERE user_id = ? AND friend_id = ?",
                    (blocked, int(pair[0].id), int(pair[1].id)),
                )
            db.execute("COMMIT")

    def unblock(self, who, whom):
        self.block(who, whom, False)

    def set_token(self, user, token):
        self.execute("UPDATE accounts SET user_api_token = ? WHERE user_id = ?", token, user.id)
        return User(user.id, token)

    def set_notification_token(self, user, token):
        self.execute(
            "UPDATE accounts SET user_notification_token = ? WHERE user_id = ?", token, user.id
        )

    def notification_token(self, user):
        sql = "SELECT user_notification_token FROM accounts WHERE user_id = ?"
        [(token,)] = self.execute(sql, user.id)
        return token

    def remove(self, user):
        self.execute("DELETE FROM accounts WHERE user_id = ?", user.id)
