"""`jam-mqtt demo`: what it prints can be pasted, and nothing of it stays behind."""

import re
import signal
import subprocess
import urllib.request

import pytest
from harness.process import BINARY, environment

NOT_FRIENDS = "not friends with the receiver"


class Demo:
    """A running demo, and the commands that it printed."""

    def __init__(self, temporary):
        self.temporary = temporary
        self.process = subprocess.Popen(
            [BINARY, "demo"],
            env=environment({}) | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.printed = ""
        while "Ctrl-C" not in self.printed:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            self.printed += line
        self.commands = re.findall(r"^  (\S.*)$", self.printed, re.MULTILINE)

    def command(self, *words):
        """The one that has all of these words in it."""
        (found,) = [line for line in self.commands if all(word in line for word in words)]
        return found

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=12)
        return self.process.returncode, out, err


def paste(command):
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
    )


def paste_into_another_terminal(command):
    return subprocess.Popen(
        ["bash", "-c", f"exec stdbuf -oL {command}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def demo(tmp_path):
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)
    running.process.stdout.close()
    running.process.stderr.close()


@pytest.mark.parametrize("reader, writer", [(" listen ", " send "), ("mosquitto_sub", "mosquitto_pub")])
def test_a_message_goes_through(demo, reader, writer):
    listening = paste_into_another_terminal(demo.command(reader))
    try:
        sent = paste(demo.command(writer, "Hello" if "pub" in writer else "--to 2"))
        assert sent.returncode == 0, sent.stderr
        assert "Hello" in listening.stdout.readline()
    finally:
        listening.kill()  # SIGTERM amid a write makes mosquitto_sub hang
        listening.wait()
        listening.stdout.close()
    assert demo.end()[0] == 0


def test_an_error_comes_back(demo):
    refused = paste(demo.command(" send ", "--to 3"))
    assert refused.returncode == 1
    assert NOT_FRIENDS in refused.stderr
    answered = paste(demo.command("mosquitto_rr"))
    assert NOT_FRIENDS in answered.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_stays_behind(demo, number):
    assert len(list(demo.temporary.iterdir())) == 1
    assert demo.end(number)[0] == 0
    assert list(demo.temporary.iterdir()) == []


def test_two_demos_side_by_side(demo, tmp_path):
    (tmp_path / "other").mkdir()
    other = Demo(tmp_path / "other")
    assert paste(other.command(" send ", "--to 2")).returncode == 0
    assert paste(demo.command(" send ", "--to 2")).returncode == 0
    assert other.end()[0] == 0
    other.process.stdout.close()
    other.process.stderr.close()


def test_each_friend_has_a_link_to_the_chat_page(demo):
    links = re.findall(r"^  (http://\S+)$", demo.printed, re.MULTILINE)
    assert [re.sub(r"[0-9a-f]{64}", "TOKEN", link.split("/#")[1]) for link in links] == [
        "user=1&token=TOKEN",
        "user=2&token=TOKEN",
    ]
    for link in links:
        page = urllib.request.urlopen(link, timeout=10)
        assert page.status == 200
        assert b'id="chat"' in page.read()
