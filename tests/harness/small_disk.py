"""A server, or a PostgreSQL, whose data lie on a small file system, which a test fills."""

import os
import shutil
import subprocess
from pathlib import Path

from . import streams
from .postgres import PostgresServer
from .process import BINARY, Server, environment


class SmallDisk:
    """A file system of so many MiB over a folder, in a name space that outlives the processes in it."""

    def __init__(self, folder, mib, as_root):
        """`as_root`: who is not root outside is so inside."""
        self.folder, self.user = folder, []
        if os.getuid() != 0:
            self.user = ["--map-root-user"] if as_root else ["--map-current-user", "--keep-caps"]
        own = ["--user", *self.user] if self.user else []
        mount = f'mount -t tmpfs -o size={mib}m,mode=777 none "$0" && echo && exec sleep 600'
        self.holder = subprocess.Popen(["unshare", "--mount", *own, "bash", "-c", mount, folder], stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"\n"

    def within(self):
        own = ["--user", "--preserve-credentials"] if self.user else []
        return ["nsenter", "--target", str(self.holder.pid), "--mount", *own]

    def inside(self, name):
        return Path(f"/proc/{self.holder.pid}/root{self.folder}") / name

    def fill(self):
        """Until there is no byte left."""
        with open(self.inside("filler"), "wb", buffering=0) as filler:
            size = 1 << 20
            while size:
                try:
                    filler.write(bytes(size))
                except OSError:
                    size //= 2

    def empty(self):
        self.inside("filler").unlink()

    def unmount(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class SmallPostgres(PostgresServer):
    """Its folder `small` is a file system of its own: of tables, or, if it is `whole`, with the log of changes and all else."""

    def __init__(self, *settings, whole):
        self.whole = whole
        super().__init__(*settings)

    def prepare(self):
        small = self.folder / "small"
        small.mkdir()
        self.disk = SmallDisk(small, 160 if self.whole else 24, as_root=False)
        if self.whole:
            self.data = small / "data"

    def within(self):
        return self.disk.within()

    def tables(self):
        """A folder for tables there."""
        folder = self.disk.inside("tables")
        folder.mkdir()
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        return self.disk.folder / "tables"

    def close(self):
        super().close()
        self.disk.unmount()


class Small(Server):
    """Its data directory is a file system of 100 MiB."""

    def __init__(self, folder, **options):
        super().__init__(folder, **options)
        self.data = self.folder / "data"
        self.data.mkdir()
        self.disk = SmallDisk(self.data, 100, as_root=True)
        self.fill, self.empty, self.unmount = self.disk.fill, self.disk.empty, self.disk.unmount

    def within(self):
        return self.disk.within()

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
