"""A server whose data lie on a small file system, which a test fills."""

import os
import subprocess
from pathlib import Path

from . import streams
from .process import BINARY, Server, environment


class Small(Server):
    """Its data directory is a file system of 100 MiB, in a name space that outlives the server."""

    def __init__(self, folder, **options):
        super().__init__(folder, **options)
        self.data = self.folder / "data"
        self.data.mkdir()
        own = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        mount = 'mount -t tmpfs -o size=100m none "$0" && echo && exec sleep 600'
        self.holder = subprocess.Popen(
            ["unshare", "--mount", *own, "bash", "-c", mount, self.data], stdout=subprocess.PIPE
        )
        assert self.holder.stdout.readline() == b"\n"

    def within(self):
        own = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.holder.pid), "--mount", *own]

    def inside(self, name):
        return Path(f"/proc/{self.holder.pid}/root{self.data}") / name

    def fill(self):
        """Until there is no byte left."""
        with open(self.inside("filler"), "wb", buffering=0) as filler:
            size = 1 << 20
            while size:
                try:
                    filler.write(bytes(size))
                except OSError:
                    size //= 2

    def unmount(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()

    def empty(self):
        self.inside("filler").unlink()

    def run(self, *command):
        return subprocess.run(
            [*self.within(), BINARY, *command, "--data", self.data, "--directory", f"sqlite:{self.directory.path}"],
            env=environment(self.settings),
            capture_output=True,
            text=True,
            timeout=30,
        )

    status = 200

    def _ready(self):
        return self.answers() == self.status

    def answers(self):
        stream = streams.Tcp(("127.0.0.1", self.http))
        stream.send(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = stream.receive(5)
        stream.close()
        return int(answer.split()[1])
