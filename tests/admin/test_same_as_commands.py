"""The commands and the API do the same: after the same operations two databases are equal."""

import json
import random
import re
import time
from contextlib import closing

from harness import Server
from harness.office import Office
from harness.process import run_cli

IDS = ["1", "2", "3", "-4", "50", "nobody", "01"]


def operations(seed, count=60):
    """Pairs of a command and the request that does the same."""
    rng = random.Random(seed)
    for number in range(count):
        a, b = rng.choice(IDS), rng.choice(IDS)
        yield rng.choice(
            [
                (["user", "add", a, f"--token=t{number}", f"--name=n{number}"], ("PUT", f"users/{a}", {"token": f"t{number}", "name": f"n{number}"})),
                (["user", "remove", a], ("DELETE", f"users/{a}", None)),
                (["friend", "add", a, b], ("PUT", f"users/{a}/friends/{b}", None)),
                (["friend", "remove", a, b], ("DELETE", f"users/{a}/friends/{b}", None)),
                (["block", a, b], ("PUT", f"users/{a}/blocks/{b}", None)),
                (["unblock", a, b], ("DELETE", f"users/{a}/blocks/{b}", None)),
            ]
        )


def tables(directory):
    """What stands in a jam database, but for what is made up for a new account: its address, its life, the mark of its token."""
    made_up = r"[0-9a-f]+(?=@jam)|UUID\('[^']*'\)|(?<=sha256\$)[^']*"
    with closing(directory.open()) as db:
        return {
            table: sorted(re.sub(made_up, "", repr(row)) for row in db.execute(f"SELECT * FROM {table}"))
            for table in directory.tables()
        }


def stores(server):
    """A command's options and settings for what a server has."""
    at = ["--data", server.folder / "data", "--directory", server.directory.url]
    return at, {name: value for name, value in server.settings.items() if name == "mailbox.url"}


def test_the_same_operations_leave_equal_databases(tmp_path):
    with Server(tmp_path / "a", admin=True) as by_api, Server(tmp_path / "b") as by_command:
        office = Office(by_api)
        for command, (method, path, body) in operations(seed=15):
            done = run_cli(*command, "--directory", by_command.directory.url)
            status, answer = office.ask(method, path, body)
            assert status in (200, 201, 404, 409), (command, answer)
            # What the command refuses, the API refuses or finds done already.
            if done.returncode == 0:
                assert status in (200, 201), (command, answer)
            else:
                assert status in (404, 409) or not answer["changed"], (command, done.stderr, answer)
            assert tables(by_api.directory) == tables(by_command.directory), command


def test_the_same_is_said_of_accounts(tmp_path):
    with Server(tmp_path, admin=True) as server:
        office, at = Office(server), f"--directory={server.directory.url}"
        a, b = server.friends()
        office.ask("PUT", f"users/{a.id}/blocks/{b.id}")
        of_command = json.loads(run_cli("user", "show", a.id, "--json", at).stdout)
        _, user = office.ask("GET", f"users/{a.id}")
        _, friends = office.ask("GET", f"users/{a.id}/friends")
        friends = [{key: value for key, value in friend.items() if key != "online"} for friend in friends["items"]]
        assert user.pop("friends") == len(friends)
        assert user.pop("online") is False
        assert user | {"friends": friends} == of_command
        listed = json.loads(run_cli("user", "list", "--json", at).stdout)
        assert [it["id"] for it in listed] == [it["id"] for it in office.ask("GET", "users")[1]["items"]]


def test_the_same_is_said_of_a_mailbox(tmp_path):
    with Server(tmp_path, admin=True) as server:
        office = Office(server)
        a, b = server.friends()
        sender = server.connect(a)
        for _ in range(5):
            sender.publish(b.inbox, a.message(), qos=1)
        at, settings = stores(server)
        deadline = time.monotonic() + 10
        by_api = by_command = {"messages": 0}
        while not by_api["messages"] == by_command["messages"] == 5:  # they are taken, and then kept
            assert time.monotonic() < deadline, (by_api, by_command)
            _, by_api = office.ask("GET", f"users/{b.id}/mailbox")
            by_command = json.loads(run_cli("mailbox", "show", b.id, "--json", *at, settings=settings).stdout)
        for key in ("user", "messages", "bytes", "retained", "sessions"):
            assert by_api[key] == by_command[key], key
        assert office.ask("DELETE", f"users/{b.id}/mailbox?from={a.id}") == (200, {"removed": 5})
        by_command = json.loads(run_cli("mailbox", "show", b.id, "--json", *at, settings=settings).stdout)
        assert by_command["messages"] == 0
