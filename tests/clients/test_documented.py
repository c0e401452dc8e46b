"""The programs of docs/clients.md, run as they stand there."""

import json
import re
import subprocess
import sys
import threading
import time
from queue import Empty, Queue

import pytest
from harness.channels import receipts
from harness.process import ROOT

PATIENCE = 30
PAGE = (ROOT / "docs/clients.md").read_text()


class Program:
    """A program of the page as a process: its lines come one by one."""

    def __init__(self, server, folder, user, friend, token=None):
        section = PAGE.split("\n## Python: paho\n")[1].split("\n## ")[0]
        (folder / "chat.py").write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1])
        login = [str(server.mqtt), user.id, token or user.token, friend.id]
        self.process = subprocess.Popen(
            [sys.executable, "chat.py", "127.0.0.1", *login],
            cwd=folder,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.lines = Queue()
        self.reader = threading.Thread(target=lambda: [self.lines.put(line.strip()) for line in self.process.stdout])
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()

    def says(self, start):
        """The next line, which must begin so."""
        line = self.lines.get(timeout=PATIENCE)
        assert line.startswith(start), line
        return line

    def write(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def test_paho_reads_writes_and_is_told(server, folder):
    me, friend = server.friends()
    with Program(server, folder, me, friend) as program, server.listener(friend, 5) as phone:
        phone.subscribe(receipts(friend))
        assert f"'user': '{friend.id}'" in program.says("{'type': 'friends'")
        program.write("hello")
        assert json.loads(phone.message().payload)["content"] == "hello"
        program.says("{'type': 'receipt'")
        message = json.dumps({"from": friend.id, "id": "m1", "content": "hi", "type": 0}).encode()
        for _ in range(2):
            # The second is a repetition: it is acknowledged and not shown.
            phone.publish(me.inbox, message, qos=1)
            assert phone.await_reply(4).reason == 0
            assert b'"status":"delivered"' in phone.message(topic=receipts(friend)).payload
        program.says(f"{friend.id}: hi")
        server.directory.block(friend, me)
        program.write("not any more")
        program.says("refused: not friends with the receiver")
        assert (folder / "messages.jsonl").read_text().count("\n") == 1


def test_paho_stores_before_it_acknowledges_and_goes_on_after_a_crash(server, folder):
    me, friend = server.friends()
    with Program(server, folder, me, friend) as program:
        program.says("{'type': 'friends'")
    with server.connect(friend) as phone:
        for n in range(3):
            assert phone.deliver(me.inbox, json.dumps({"from": friend.id, "id": n, "content": str(n)}).encode()) == 0
    with Program(server, folder, me, friend) as program:
        said = sorted(program.lines.get(timeout=PATIENCE)[:4] for _ in range(4))
        assert said == sorted(["{'ty", *(f"{friend.id}: {n}"[:4] for n in range(3))])


def test_paho_goes_on_after_a_torn_line(server, folder):
    me, friend = server.friends()
    rows = [{"from": friend.id, "id": n, "content": str(n)} for n in range(2)]
    whole, torn = (json.dumps(row).encode() for row in rows)
    (folder / "messages.jsonl").write_bytes(whole + b"\n" + torn[:20] + b"\xc3")
    with Program(server, folder, me, friend) as program:
        program.says("{'type': 'friends'")
        with server.connect(friend) as phone:
            for row in rows:
                assert phone.deliver(me.inbox, json.dumps(row).encode()) == 0
        program.says(f"{friend.id}: 1")
    kept = (folder / "messages.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == rows


def test_paho_stays_away_after_a_logout_and_a_wrong_token(server, folder):
    me, friend = server.friends()
    with Program(server, folder, me, friend) as program:
        program.says("{'type': 'friends'")
        with server.connect(me, device="new") as new:
            program.says("another device has connected")
            program.says("ended")
            new.ping()
            new.quiet()
    with Program(server, folder, me, friend) as program:
        program.says("{'type': 'friends'")
        with server.connect(me, 5, device="python") as same:
            program.says("ended")
            time.sleep(3)
            same.quiet()
    with Program(server, folder, me, friend) as program:
        program.says("{'type': 'friends'")
        me = server.directory.set_token(me, "changed")
        program.says("ended")
    with Program(server, folder, me, friend, token="wrong") as program:
        program.says("not let in")
        with pytest.raises(Empty):
            program.lines.get(timeout=3)
