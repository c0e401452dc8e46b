"""The compiler's wrapper: the profile is for optimised code and for the compiler that it was made with."""

import subprocess
from pathlib import Path

import pytest

PGO = Path(__file__).resolve().parents[2] / "pgo"
OPTIMISED = ["--crate-name", "jam_core", "-C", "opt-level=3"]


@pytest.fixture
def build(tmp_path):
    """Runs the wrapper on a compiler that says who it is, and otherwise what it was told."""

    def run(version, arguments):
        compiler = tmp_path / "rustc"
        (tmp_path / "version").write_text(version)
        compiler.write_text(f'#!/bin/sh\n[ "$1" = -vV ] && exec cat "{tmp_path}/version"\nprintf "%s\\n" "$@"\n')
        compiler.chmod(0o755)
        command = [PGO / "rustc", compiler, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()

    return run


def test_optimised_code_gets_the_profile(build):
    *given, flag, profile = build((PGO / "compiler").read_text(), OPTIMISED)
    assert (given, flag) == (OPTIMISED, "-C")
    # An absolute path: cargo compiles each dependency in a directory of its own.
    name, _, path = profile.partition("=")
    assert name == "profile-use" and Path(path).is_absolute() and Path(path).is_file()


def test_another_compiler_gets_none(build):
    assert build((PGO / "compiler").read_text().replace("1.", "2."), OPTIMISED) == OPTIMISED


@pytest.mark.parametrize("level", ["opt-level=0", "opt-level=s"])
def test_other_code_gets_none(build, level):
    arguments = ["--crate-name", "build_script_build", "-C", level]
    assert build((PGO / "compiler").read_text(), arguments) == arguments


def test_cargo_is_told():
    assert 'rustc-wrapper = "pgo/rustc"' in (PGO.parent / ".cargo/config.toml").read_text()
