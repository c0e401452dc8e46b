"""jam-bench: a program of its own, beside the server's, that needs no source tree and writes nothing unasked."""

import os
import subprocess

import pytest
from harness.process import BINARY

BENCH = BINARY.with_name("jam-bench")


def bench(*arguments, folder):
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run([BENCH, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("workload", ["prepare", "pairs", "offline", "idle", "reconnect"])
def test_every_workload_explains_itself_and_writes_nothing(tmp_path, workload):
    done = bench(workload, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert f"jam-bench {workload}" in done.stdout and "Example: " in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [["nonsense"], ["pairs", "--pairs", "0"], []])
def test_wrong_use_is_2(tmp_path, wrong):
    done = bench(*wrong, folder=tmp_path)
    assert done.returncode == 2
    assert "jam-bench" in done.stderr


def test_a_broker_that_is_not_there_is_said(tmp_path):
    done = bench("pairs", "--broker", "127.0.0.1:1", "--pairs", "1", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("jam-bench: ") and "127.0.0.1:1" in done.stderr


def test_the_server_has_no_load_generator():
    done = subprocess.run([BINARY, "bench"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
