"""What a newcomer does on the first day, word by word as the documentation has it."""

import itertools
import json
import re
import shlex
import socket
import subprocess

import pytest
from harness import run_cli
from harness.process import BINARY, ROOT, environment

README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
PAGES = [ROOT / name for name in ("README.md", "docs/operations.md", "docs/migration.md", "docs/logs.md")]

# As the newcomer's `jam-mqtt`, but on a port of the test's own.
ELSEWHERE = """#!/bin/sh
what=$1; shift
case $what in
    serve) set -- --mqtt 127.0.0.1:{port} --http "" --admin "" "$@" ;;
    send | listen) set -- --server 127.0.0.1:{port} "$@" ;;
esac
exec {binary} "$what" "$@"
"""


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_the_first_message_of_the_readme(tmp_path):
    lines = re.search(r"## A first message\n.*?```sh\n(.*?)```", README, re.DOTALL)[1]
    assert len(lines.splitlines()) == 5
    port = free_port()
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "jam-mqtt").write_text(ELSEWHERE.format(port=port, binary=BINARY))
    (bin / "jam-mqtt").chmod(0o755)
    # A second is enough for a newcomer's machine, not for one with a test on each core.
    listening = f"until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>serve.probe; do sleep 0.1; done"
    assert lines.count("sleep 1\n") == 1
    script = lines.replace("sleep 1\n", f"server=$!; trap 'kill $server' EXIT; {listening}\n")
    done = subprocess.run(
        ["timeout", "-k", "1", "50", "bash", "-e", "-c", script],
        cwd=tmp_path,
        env=environment({}) | {"PATH": f"{bin}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == [
        "1 and 2 are friends",
        "sent to 2",
        "1: Hello, Ben",
    ]


def documented_commands():
    """Each call of jam-mqtt in a page's shell code: the page, and the words after the program's name."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                for words in calls(line):
                    yield page.name, words


def calls(line):
    lexer = shlex.shlex(re.sub(r"\b2>", ">", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for at, word in enumerate(words):
        is_option = at > 0 and re.fullmatch("-[a-z]", words[at - 1])  # sudo -u jam-mqtt
        if word not in ("jam-mqtt", "/usr/local/bin/jam-mqtt") or is_option:
            continue
        rest = itertools.takewhile(lambda word: not re.fullmatch("[();<>|&]+", word), words[at + 1 :])
        call = list(rest)
        if call and re.match("[a-z]|--", call[0]):
            yield call


def test_every_documented_command_exists():
    """Names and options, not what they are given: --help comes before what is missing, and after what is unknown."""
    commands = list(documented_commands())
    assert len(commands) > 20
    assert run_cli("serve", "--no-such-option", "--help").returncode == 2
    assert run_cli("no-such-command", "--help").returncode == 2
    for page, words in commands:
        done = run_cli(*words, "--help")
        assert done.returncode == 0, f"{page}: {words}: {done.stderr}"


@pytest.mark.parametrize("level", ["warning", "WARN", "warn", "info", "jam_mqtt=debug"])
def test_log_levels_that_people_write(tmp_path, level):
    """Something is wrong at the start, and is said: no word mutes everything."""
    (tmp_path / "settings.toml").write_text(f'log = "{level}"\n[tls]\ncert = "/nowhere"\nkey = "/nowhere"\n')
    done = run_cli("serve", "--print-config", "--config", tmp_path / "settings.toml")
    assert done.returncode == 0 and f'log = "{level}"' in done.stdout and done.stderr == ""


@pytest.mark.parametrize("wrong", ["warnings", "inof", "verbose", "jam_mqtt=loud"])
def test_a_log_level_that_is_none(tmp_path, wrong):
    done = run_cli("serve", "--data", tmp_path, settings={"log": wrong})
    assert done.returncode == 2
    assert wrong in done.stderr and "warn (or warning)" in done.stderr
    done = run_cli("serve", "--data", tmp_path, "--mqtt", "127.0.0.1:0", "--http", "", "--admin", "", env={"RUST_LOG": wrong})
    assert done.returncode == 2 and "RUST_LOG" in done.stderr
    shown = run_cli("serve", "--print-config", settings={"log": wrong})
    assert shown.returncode == 2 and "warn (or warning)" in shown.stderr


@pytest.mark.parametrize(
    "command, status",
    [
        (["user", "show", "7", "--json", "--data", "."], 1),
        (["user", "list", "--json", "--data", "/nowhere"], 1),
        (["user", "add", "--json"], 2),
        (["mailbox", "show", "7", "--json", "--data", "."], 1),
        (["check", "--json", "--mqtt", "nonsense"], 2),
        (["send", "--json", "--user", "1", "--to", "2", "--token", "t", "--server", "127.0.0.1:1", "hello"], 1),
        (["backup", "/proc/nowhere", "--json", "--data", "."], 1),
    ],
)
def test_errors_of_json_commands_are_json(tmp_path, command, status):
    done = run_cli(*command, cwd=tmp_path)
    assert done.returncode == status and done.stdout == ""
    assert list(json.loads(done.stderr)) == ["error"]


def cron_line(tmp_path):
    line = re.search(r"^15 3 \* \* \*  (.*)$", OPERATIONS, re.MULTILINE)[1]
    (tmp_path / "jam.toml").write_text(f'data = "{tmp_path}/data"\n')
    return (
        line.replace(r"\%", "%")
        .replace("; jam-mqtt backup ", f"; {BINARY} backup ")
        .replace("/var/backups/jam-mqtt", f"{tmp_path}/backups")
        .replace("/etc/jam-mqtt/jam-mqtt.toml", f"{tmp_path}/jam.toml")
    )


def cron(command):
    """As cron runs it: /bin/sh, few directories in PATH; what is printed becomes mail."""
    return subprocess.run(["/bin/sh", "-c", command], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60)


def test_the_nightly_backup_of_the_documentation(tmp_path):
    run_cli("user", "add", "1", "--data", tmp_path / "data")
    command = cron_line(tmp_path)
    (tmp_path / "backups").mkdir()
    for _ in range(2):
        done = cron(command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [backup] = (tmp_path / "backups").iterdir()
    assert "1" in run_cli("user", "list", "--data", backup).stdout

    # One that fails leaves the last one, says why and is noticed.
    (tmp_path / "data").rename(tmp_path / "away")
    done = cron(command)
    assert done.returncode != 0 and done.stderr
    assert (backup / "jam.db").exists()
    done = cron(command.replace(str(BINARY), "/nowhere/jam-mqtt"))
    assert done.returncode != 0 and done.stderr
    assert (backup / "jam.db").exists()


def test_no_rust_in_messages():
    """A `{:?}` in a text for people prints what only the source explains."""
    allowed = {  # quoted texts
        "settings/keys.rs", "settings/read.rs", "directory/sqlite/changes.rs", "directory/postgres/changes.rs", "logging.rs"
    }
    for file in sorted((ROOT / "crates/server/src").rglob("*.rs")):
        name = str(file.relative_to(ROOT / "crates/server/src"))
        code = file.read_text().split("#[cfg(test)]")[0]
        if "tests" in name or name in allowed:
            continue
        for text in re.findall(r'"(?:[^"\\]|\\.)*\{\w*:\?\}(?:[^"\\]|\\.)*"', code):
            assert text.startswith('"Look('), f"{name}: {text}"


@pytest.mark.parametrize(
    "command, advice",
    [
        (["user", "add", "1"], "`jam-mqtt user token 1` makes a new token"),
        (["user", "add", "2", "--name", "ann"], "choose another"),
        (["restore", "nowhere"], "name a folder that `jam-mqtt backup` has made"),
        (["serve", "--http", "", "--admin", "", "--mqtt", "192.0.2.1:1883"], "name an address of this machine"),
        (["serve", "--data", "jam-data/jam.db/inside"], "name a folder that this user may write to: --data DIR"),
        (["send", "--user", "1", "--to", "1", "--token", "", "Hello"], "--token"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_with_what_to_do(tmp_path, command, advice):
    assert run_cli("user", "add", "1", "--name", "ann", cwd=tmp_path).returncode == 0
    done = run_cli(*command, cwd=tmp_path)
    assert done.returncode in (1, 2, 69)
    assert advice in done.stderr.splitlines()[-1]
