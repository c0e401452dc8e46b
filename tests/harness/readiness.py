"""Waiting for what is to come, and what the server says of itself meanwhile."""

import http.client
import time


def until(said, is_so, patience):
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


def readyz(server, patience):
    """Status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=patience)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
