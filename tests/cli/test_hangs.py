"""A disk that does not answer holds the threads that read from it, and nothing else: the server can be asked and ended."""

import time

import pytest
from harness import Directory, Server
from harness.packets import PUBACK, PUBLISH
from harness.streams import Tcp

CONNECTIONS = "a thread that serves connections hangs"
DIRECTORY = "the accounts database does not answer"


class Held(Server):
    """`hang` has reads of the accounts database hang, until `go_on`."""

    def __init__(self, folder, shim, **more):
        # In this journal mode, each read begins with one of the file.
        super().__init__(folder, directory=Directory(folder / "jam.db", "delete"), **more)
        self.shim, self.flag = shim, folder / "hang"

    def more(self):
        return {"LD_PRELOAD": self.shim, "HANG_READS": "jam.db", "HANG_FLAG": self.flag}

    def hang(self, thread=""):
        draft = self.flag.with_suffix(".draft")
        draft.write_text(thread)
        draft.rename(self.flag)

    def go_on(self):
        self.flag.unlink()

    def get(self, path):
        """The status and the text of an answer, which comes at once."""
        began = time.monotonic()
        stream = Tcp(("127.0.0.1", self.http))
        stream.send(b"GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n" % path.encode())
        answer = b""
        while some := stream.receive(5):
            answer += some
        stream.close()
        assert time.monotonic() - began < 5
        head, _, body = answer.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body.strip()

    def wait_for(self, status, *texts, needed=frozenset()):
        """One of these, or several, and nothing else. A silence is found after 2 s, unless the machine is very busy."""
        deadline = time.monotonic() + 15
        while (got := self.get("/readyz"))[0] != status or not needed <= set(got[1].splitlines()) <= set(texts):
            assert time.monotonic() < deadline, f"{got} instead of {texts}"
            time.sleep(0.05)


@pytest.fixture
def held(tmp_path, shim):
    return lambda threads, **settings: Held(tmp_path, shim, threads=threads, settings=settings)


def publish_into_the_hang(client, friend, payload):
    """Its friendship has to be read."""
    client.publish(friend.inbox, payload, 1)


def is_taken(client):
    """The answer, once the disk does: a message is refused while the database counts as silent."""
    got = client.receive()
    if got.kind == PUBLISH:
        assert b"fatal database error" in got.payload
        client.expect(PUBACK)
        return False
    assert got.kind == PUBACK
    return True


def test_who_asks_is_answered_while_all_connections_hang(held):
    with held(1) as server:
        me, friend = server.friends()
        writer = server.connect(me)
        server.hang()
        publish_into_the_hang(writer, friend, me.message())
        server.wait_for(503, CONNECTIONS, DIRECTORY)
        assert server.get("/healthz") == (200, "ok")
        while "the thread connections-1 hangs" not in server.log():
            server.wait_for(503, CONNECTIONS, DIRECTORY)
        server.go_on()
        is_taken(writer)
        server.wait_for(200, "ready")
        assert server.log().count("the thread connections-1 hangs") == 1
        assert server.log().count("the thread connections-1 goes on") == 1
        writer.leave()


def test_a_thread_that_hangs_gets_no_newcomer_and_holds_up_no_other(held):
    with held(3) as server:
        me, friend = server.friends()
        held_too, second, third = (server.connect(server.user()) for _ in range(3))  # one on each thread
        writer = server.connect(me)
        server.hang("connections")
        publish_into_the_hang(writer, friend, me.message())
        # A thread that hangs in a look at the file keeps the loader waiting too.
        server.wait_for(503, CONNECTIONS, DIRECTORY, needed={CONNECTIONS})
        for _ in range(6):
            second.ping()
            third.ping()
            client, answer = server.attempt(friend)
            assert answer.reason in (0, 3)  # 3: the database cannot be asked. Either way a thread that lives says so
            client.close()
        server.go_on()
        taken = is_taken(writer)
        held_too.ping()
        server.wait_for(200, "ready")
        for client in (held_too, second, third, writer):
            client.leave()
        with server.listener(friend) as reader:
            if taken:
                assert reader.message().payload == me.message()
            reader.quiet()


@pytest.mark.parametrize("threads", [1, 3])
def test_sigterm_ends_a_server_whose_connections_all_hang(held, threads):
    server = held(threads)
    with server:
        pairs = [server.friends() for _ in range(threads)]
        me, friend = pairs[0]
        with server.connect(me) as writer:
            assert writer.deliver(friend.inbox, me.message("kept")) == 0
        writers = [server.connect(one) for one, _ in pairs]
        server.hang()
        for writer, (one, two) in zip(writers, pairs):
            publish_into_the_hang(writer, two, one.message())
        server.wait_for(503, CONNECTIONS, DIRECTORY)
        server.stop()  # within 10 s, and what a busy machine needs
        server.go_on()
        server.start()
        with server.listener(friend) as reader:
            assert reader.message().payload == me.message("kept")


def test_sigterm_ends_a_server_that_waits_for_its_disk_to_start(held):
    server = held(1)
    server.start()
    server.stop()
    before = len(server.log())
    server.hang()
    server.launch()
    while "starting" not in server.log()[before:]:
        time.sleep(0.02)
    time.sleep(0.5)
    assert "serving" not in server.log()[before:]
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5
