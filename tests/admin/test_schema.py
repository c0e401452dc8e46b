"""schemathesis against the API's own description, as anybody would run it: every route, every check, sequences of
requests, no settings of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import Server
from harness.office import Office

SECONDS = 90


@pytest.mark.timeout(240)
def test_the_api_is_as_it_is_described(tmp_path):
    with Server(tmp_path, admin=True) as server:
        server.friends()
        office = Office(server)
        address = f"http://127.0.0.1:{server.admin}"
        run = subprocess.run(
            [
                Path(sys.executable).with_name("st"),
                "run",
                f"{address}/api/v1/openapi.json",
                f"--url={address}/api/v1",
                f"--header=Authorization: Bearer {office.token}",
                f"--max-time={SECONDS}",
                "--seed=15",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
