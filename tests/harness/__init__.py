"""What the black-box suites share: the server as a process, a jam database, a raw MQTT client.

Nothing here links the server's code or an MQTT library: what it knows of the protocol it knows
from PROTOCOL.md and the OASIS standards, so that it cannot repeat the server's mistakes.
"""

from .directory import Directory, User
from .process import Server, run_cli
from .raw import Client, error

__all__ = ["Client", "Directory", "Server", "User", "error", "run_cli"]
