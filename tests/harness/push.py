"""Firebase or a webhook, played by an HTTP server that does as the test tells it and remembers what it was asked.

    with PushService() as service:
        service.script(answer(503), answer(429, {"Retry-After": "2"}))   # the next two, then the usual one
        server = start(settings=service.firebase(tmp_path))
        ...
        [push] = service.pushes(1)

HTTP/1.1 without TLS. Access tokens are handed out at `/token`; everything else is a push.
"""

import json
import socket
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """`kind` is "http", or how the server misbehaves."""

    kind: str
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0


def answer(status=200, headers=None, body=b"", delay=0):
    """An answer as HTTP knows it. `body`: bytes, text, or what becomes JSON."""
    if not isinstance(body, bytes):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
    return Answer("http", status, headers or {}, body, delay)


def sent():
    """As Firebase takes a push."""
    return answer(body={"name": "projects/jam-test/messages/1"})


def refused(status, code):
    """As Firebase refuses a push: refused(404, "UNREGISTERED")."""
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    status_name = {404: "NOT_FOUND", 403: "PERMISSION_DENIED"}.get(status, code)
    return answer(
        status,
        body={"error": {"code": status, "message": "no", "status": status_name, "details": details}},
    )


def access_token(token="access-token", expires_in=3599):
    return answer(
        body={"access_token": token, "expires_in": expires_in, "token_type": "Bearer"}
    )


SILENCE = Answer("silence")  # nothing, until the client gives up
RESET = Answer("reset")  # the connection is reset in the middle of an answer
CLOSE = Answer("close")  # the connection is closed without an answer
NOISE = Answer("noise")  # bytes that are not HTTP
ENDLESS = Answer("endless")  # 200, and a body that does not end


@dataclass(frozen=True)
class Request:
    at: float  # time.monotonic()
    path: str
    headers: dict  # names in lower case
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        """Of a push through Firebase."""
        return self.json["message"]

    @property
    def pair(self):
        """The token that a push through Firebase went to, and who it says has written."""
        return self.message["token"], self.message["data"]["fromId"]


class PushService:
    def __init__(self):
        self.usual = sent()
        self.usual_token = access_token()
        self._special = []
        self._script = deque()
        self._token_script = deque()
        self._requests = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    # The script.

    def script(self, *answers):
        """What the next pushes get, in this order; after that each gets `usual`."""
        with self._changed:
            self._script.extend(answers)

    def when(self, words, reply):
        """What pushes get that have these words in them, whatever else is scripted."""
        with self._changed:
            self._special.append((words.encode(), reply))

    def script_tokens(self, *answers):
        """The same for access tokens, and `usual_token`."""
        with self._changed:
            self._token_script.extend(answers)

    # What came.

    def pushes(self, count=None, seconds=10):
        """All pushes so far; with `count`, once there are at least so many."""
        return self._wait(count, seconds, lambda path: path != "/token")

    def tokens(self, count=None, seconds=10):
        """The same of requests for access tokens."""
        return self._wait(count, seconds, lambda path: path == "/token")

    def _wait(self, count, seconds, is_one):
        def found():
            return [request for request in self._requests if is_one(request.path)]

        with self._changed:
            there = self._changed.wait_for(lambda: len(found()) >= (count or 0), seconds)
            assert there, f"{len(found())} of {count} requests came in {seconds} s"
            return found()

    # Settings that lead here.

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def firebase(self, folder):
        """Settings for a server whose Firebase this is. Writes a service account's key file into `folder`."""
        return {"push.fcm_key": self.key_file(folder), "push.fcm_url": self.url}

    def webhook(self, secret="the webhook's secret"):
        """Settings for a server whose webhook this is."""
        return {"push.webhook_url": f"{self.url}/hook", "push.webhook_secret": secret}

    def key_file(self, folder):
        path = folder / "service-account.json"
        path.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "jam-test",
                    "private_key_id": "1",
                    "private_key": private_key(),
                    "client_email": "push@jam-test.example",
                    "token_uri": f"{self.url}/token",
                }
            )
        )
        return path

    # Coming and going: a port that is free again refuses connections.

    def start(self, port=0):
        self._stopping.clear()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.service = self
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def stop(self):
        """Nobody is at the address any more, until `start(self.port)`."""
        self._stopping.set()
        self._http.shutdown()
        self._http.end_connections()
        self._http.server_close()
        self._thread.join()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _take(self, request):
        is_token = request.path == "/token"
        script, usual = (
            (self._token_script, self.usual_token) if is_token else (self._script, self.usual)
        )
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            for words, reply in self._special:
                if words in request.body:
                    return reply
            return script.popleft() if script else usual


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments):
        self.connections = set()
        super().__init__(*arguments)

    def get_request(self):
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_):
        """A client that gave up is what some tests are about."""

    def end_connections(self):
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """The test's output is the test's."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        service = self.server.service
        reply = service._take(Request(time.monotonic(), self.path, headers, body))
        if reply.delay:
            service._stopping.wait(reply.delay)
        if reply.kind == "http":
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.close_connection = True
        if reply.kind == "silence":
            service._stopping.wait(60)
        elif reply.kind == "reset":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            self.wfile.flush()
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif reply.kind == "noise":
            self.wfile.write(b"\0\1\2 what is this?\r\n\r\n")
        elif reply.kind == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
            while not service._stopping.is_set():
                self.wfile.write(b" " * 65536)

    do_GET = do_POST


_key = []


def private_key():
    """An RSA key, made once for each run."""
    if not _key:
        command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
        made = subprocess.run(command, capture_output=True, check=True, text=True)
        _key.append(made.stdout)
    return _key[0]
