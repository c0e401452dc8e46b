"""Byte streams to the server: TCP, TLS, WebSocket. All have `send`, `receive`, `close`."""

import base64
import os
import socket
import ssl


class Tcp:
    """`receive` returns b"" at the end of the stream, and raises TimeoutError when nothing came."""

    def __init__(self, address, source=None, tls_ca=None, timeout=10):
        self.socket = socket.create_connection(
            address, timeout=timeout, source_address=(source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls_ca:
            self.begin_tls(tls_ca)

    def begin_tls(self, tls_ca):
        context = ssl.create_default_context(cafile=tls_ca)
        # An end without close_notify is an error here, not an end.
        self.socket = context.wrap_socket(
            self.socket, server_hostname="localhost", suppress_ragged_eofs=False
        )

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, timeout):
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(65536)
        except ssl.SSLWantReadError as nothing:
            raise TimeoutError from nothing
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def close(self):
        self.socket.close()


def frame(data, opcode=2, final=True):
    """One masked client frame."""
    head = bytes([(0x80 if final else 0) | opcode])
    size = len(data)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    key = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return head + mask + masked


class WebSocket:
    """One binary message per `send`; `raw` sends bytes as they are, for frames of a test's own."""

    def __init__(self, address, source=None, tls_ca=None, path="/mqtt", protocol="mqtt"):
        self.tcp = Tcp(address, source, tls_ca)
        self.pending = b""
        self.close_code = None
        key = base64.b64encode(os.urandom(16)).decode()
        request = [
            f"GET {path} HTTP/1.1",
            f"Host: localhost:{address[1]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if protocol:
            request.append(f"Sec-WebSocket-Protocol: {protocol}")
        self.tcp.send("\r\n".join(request + ["", ""]).encode())
        while b"\r\n\r\n" not in self.pending:
            more = self.tcp.receive(10)
            assert more, f"closed during the handshake: {self.pending!r}"
            self.pending += more
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {
            name.lower(): value.strip()
            for name, value in (line.split(":", 1) for line in lines[1:])
        }

    def raw(self, data):
        self.tcp.send(data)

    def send(self, data):
        self.tcp.send(frame(data))

    def receive(self, timeout):
        while True:
            done = self._frame()
            if done is not None:
                opcode, data = done
                if opcode == 8:
                    self.close_code = int.from_bytes(data[:2], "big") if data else None
                    return b""
                if opcode == 9:
                    self.tcp.send(frame(data, opcode=10))
                elif opcode in (0, 2) and data:
                    return data
                else:
                    assert opcode in (0, 2, 10), f"MQTT must come in binary frames, not {opcode}"
                continue
            more = self.tcp.receive(timeout)
            if not more:
                return b""
            self.pending += more

    def _frame(self):
        data = self.pending
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        assert data[1] < 0x80, "a server must not mask"
        if size > 125:
            wide = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2 : 2 + wide], "big"), 2 + wide
        if len(data) < at + size:
            return None
        self.pending = data[at + size :]
        return data[0] & 15, data[at : at + size]

    def close(self):
        self.tcp.close()
