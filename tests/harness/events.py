"""What a test asks of the admin API's events: plain GETs, and the stream, read or left unread.

    with Stream(server, types="refused") as stream:
        event = stream.next(type="refused", user="1")
"""

import http.client
import json
import socket
import time

TOKEN = "for-the-test-alone"
PATIENCE = 10


def get(server, path, headers=None, token=TOKEN):
    """(status, headers, body) of a GET below /api/v1; the body of JSON is parsed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=PATIENCE)
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("GET", f"/api/v1/{path}", headers=authorization | (headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    is_json = "json" in answer.headers.get("Content-Type", "")
    return answer.status, answer.headers, json.loads(body) if is_json else body


def request(server, query="", last=None, receive_buffer=None):
    """A socket that has asked for the stream and read nothing of it."""
    stream = socket.socket()
    if receive_buffer:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    stream.settimeout(PATIENCE)
    stream.connect(("127.0.0.1", server.admin))
    head = f"GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    if last is not None:
        head += f"Last-Event-ID: {last}\r\n"
    stream.sendall(head.encode() + b"\r\n")
    return stream


class Stream:
    """One that reads the stream."""

    def __init__(self, server, query="", last=None):
        self.socket = request(server, query, last)
        self.answer = http.client.HTTPResponse(self.socket)
        self.answer.begin()
        self.status, self.headers = self.answer.status, self.answer.headers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.answer.close()
        self.socket.close()

    def block(self, timeout=PATIENCE):
        """The fields of the next event, or {"": text} of a comment; None at the end of the stream."""
        self.socket.settimeout(timeout)
        fields = {}
        while line := self.answer.readline():
            line = line.decode().rstrip("\n")
            if not line and fields:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        assert not fields, "the stream ends within an event"
        return None

    def next(self, **wanted):
        """The data of the next event that has these fields."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            block = self.block()
            assert block is not None, "the stream has ended"
            if "data" not in block:
                continue
            data = json.loads(block["data"])
            if "type" in data:
                assert (data["type"], data["id"]) == (block["event"], block["id"])
            else:
                data["type"] = block["event"]
            if all(data.get(name) == value for name, value in wanted.items()):
                return data
        raise AssertionError(f"no event {wanted} in time")


def of_user(server, user, enough, timeout=PATIENCE):
    """The events of a user, the newest first, once there are enough."""
    deadline = time.monotonic() + timeout
    while True:
        status, _, body = get(server, f"users/{user.id}/events")
        assert status == 200, body
        if len(body["items"]) >= enough or time.monotonic() > deadline:
            return body["items"]
        time.sleep(0.05)


def told(event):
    return (event["type"], event["packet"], event["reason"], event["count"])
