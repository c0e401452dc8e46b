"""The house's style as an ordinary test: what a reader should never find in a tracked file."""

import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = {".rs", ".py", ".mjs", ".sh", ".sql", ".toml", ".html", ".js", ".css"}
GENERATED = {"Cargo.lock", "package-lock.json"}
FICTION = Path(__file__).relative_to(ROOT)  # this file spells out what it looks for

NAMELESS = {"util", "utils", "common", "helper", "helpers", "manager", "types", "misc"}

BANNED = {
    "a note to finish later": (CODE, r"\b(FIXME|TODO|XXX)\b"),
    "a debugging leftover": ({".rs"}, r"\b(dbg|todo|unimplemented)!\s*\("),
    "dead code without a reason": ({".rs"}, r"allow\((dead_code|unused\w*)\)"),
    "a test switched off without a reason": ({".rs"}, r"#\[ignore\]"),
    "a path of somebody's machine": (None, r"(?<![\w.])/(work|root|Users)/|/home/(?!jam\b)[a-z]"),
}

PROSE = {".rs", ".py", ".md"}
HISTORY = ("docs/adr/", "CHANGELOG.md")  # what was once said stays said
# What readers who run the server see: the documentation, and what the program prints.
FOR_USERS = r"README\.md|docs/(?!testing|limits)[^/]*\.md|PROTOCOL\.md|crates/server/src/(cli|settings)\b.*\.rs"

MAX_FUNCTION_LINES = 70
# Tables: a row is a line or a few, and reading on is easier than looking elsewhere.
LONG_TABLES = {"crates/server/src/limits.rs: of_user", "crates/server/src/limits.rs: of_server"}

# Words that were retired, with what says it better. Each is looked for in the files that the first column names (None: in
# all prose and code).
RETIRED = [
    (None, r"\b(his|him|himself|he|His|Him|He)\b", "users are *they*"),
    (None, r"\b[Nn]ot without\b", "say when it does: 'only with …'"),
    (None, r"\b[Nn]obody but\b", "'only …'"),
    (r"crates/.*\.rs", r"\b(Pump|take_up\w*|taken_up|tell_answer)\b", "`Driver`, `reap`, `ask_directory`, `collect`, `load`"),
    (r"crates/.*\.rs", r"\bfn say\b", "`publish_flags`, `report`: what it says, and to whom"),
    (r"crates/.*\.rs", r"\b(answer_later|answer_is)\b", "`reserve_reply`, `fill`"),
    (r"crates/.*\.rs", r"\bBell\b", "`WakeFlag`"),
    (r"crates/.*\.rs", r"\bSlots\b", "`DeviceSet`, `ConnectionPermits`"),
    (r"crates/.*\.rs", r"\bSeldom\b", "`RareEffects`"),
    (r"crates/.*\.rs", r"\b(Flight|Landed|landed)\b", "`OutboundState`, `EndInFlight`, `complete`"),
    (r"crates/.*\.rs", r"\bPlace::(Ephemeral|Storing|Store)\b", "`Residence`"),
    (r"crates/.*\.rs", r"\bDue::(Storing|Fresh|Again)\b", "`SendState`"),
    (r"crates/.*\.rs", r"[Hh]orizon", "`maybe_sent_now`, `maybe_sent_now_is_stored`"),
    (r"crates/.*\.rs", r"\bGraced\b|\.spared\b", "`InGrace`, `acked_in_grace`"),
    (r"crates/.*\.rs", r"\b(greet_without_store|has_greeted)\b", "`connack_without_store`, `connack_sent`"),
    (r"crates/.*\.rs", r"\bReach::", "`PushAudience`"),
    (None, r"\bcoalescing\b|put_off", "acknowledgements are deferred: `deferred_acks`"),
    (r"crates/server/src/deferred_acks.*", r"\b(put|puts) off\b|\b(take|takes|taken) up\b", "defer, reap"),
    (None, r"\b[Ww]homever\b", "'any connection', 'any user'"),
    # Packets and connections are no persons. To be widened as the rest is rewritten.
    (
        r"ARCHITECTURE\.md|crates/(wire/src|core/src|server/src/(connection|mailbox|http|logging|push|permits|handshakes))\b.*",
        r"\b[Ww]hoever\b",
        "name the connection, thread or user",
    ),
    (FOR_USERS, r"\bthe directory(?! [`A-Z])", "'the accounts database'"),
]


def tracked():
    """Every file that git knows, or would once it is added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text(path):
    try:
        return (ROOT / path).read_text()
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("what", BANNED)
def test_banned(what):
    endings, pattern = BANNED[what]
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if path != FICTION and path.name not in GENERATED
        if endings is None or path.suffix in endings
        for number, line in enumerate(text(path).splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, "\n".join([what, *found])


def is_prose(path):
    return path.suffix in PROSE and path != FICTION and not str(path).startswith(HISTORY)


@pytest.mark.parametrize(("where", "pattern", "better"), RETIRED, ids=[row[1] for row in RETIRED])
def test_words_that_were_retired(where, pattern, better):
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if is_prose(path) and (where is None or re.fullmatch(where, str(path)))
        for number, line in enumerate(text(path).splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, "\n".join([f"better: {better}", *found])


def test_functions_fit_on_a_page():
    """As rustfmt leaves them, a function ends with the first `}` that stands as far in as its `fn`."""
    served = re.compile(r"crates/(wire|core|server)/src/(?!.*\btests\b).*\.rs")
    function = re.compile(r"^( *)(?:pub(?:\([^)]*\))? )?(?:const |async )*fn (\w+)(?:(?!;\n)[\s\S])*?\{\n(?:.*\n)*?\1\}$", re.MULTILINE)
    long = {
        f"{path}: {found[2]}"
        for path in tracked()
        if served.fullmatch(str(path))
        for found in function.finditer(text(path))
        if found[0].count("\n") + 1 > MAX_FUNCTION_LINES
    }
    assert long == LONG_TABLES


def test_every_module_is_named_for_what_it_owns():
    nameless = [
        str(path)
        for path in tracked()
        if path.suffix in CODE and NAMELESS & {part.split(".")[0] for part in path.parts}
    ]
    assert not nameless


def test_every_rust_module_says_what_it_owns():
    """Each opens with `//!`; only a file of tests and a package's build script need not."""
    silent = [
        str(path)
        for path in tracked()
        if path.suffix == ".rs" and "src" in path.parts and "tests" not in path.with_suffix("").parts
        if not text(path).lstrip().startswith("//!")
    ]
    assert not silent


def test_sqlite_stays_in_its_rooms():
    """Another kind of database touches nothing else. `jam-bench` makes and reads such files by itself; tests may do anything."""
    rooms = ("crates/server/src/directory/sqlite/", "crates/server/src/mailbox/sqlite/", "crates/server/src/bin/jam-bench/")
    outside = [
        str(path)
        for path in tracked()
        if path.suffix == ".rs" and path.parts[0] == "crates" and not str(path).startswith(rooms)
        if not {"tests", "benches"} & set(path.with_suffix("").parts)
        if re.search(r"\brusqlite\b|\b(directory|mailbox)::sqlite\b|\bmailbox\.db\b", text(path))
    ]
    assert not outside


def anchors(markdown):
    """The anchors of a page's headings as code hosts make them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", markdown, re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def test_links_lead_somewhere():
    broken = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            goal = (ROOT / page).parent / name if name else ROOT / page
            if not goal.exists():
                broken.append(f"{page}: {link}")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text()):
                broken.append(f"{page}: {link} (no such heading)")
    assert not broken, "\n".join(broken)


# A test's name in docs/testing.md: of a file or module (`a::b::name`) or black box (`test_name`); `name_…` is the beginning of one.
NAMED = re.compile(r"`(?:(?:\w+::)+(\w+_\w+)|(test_\w+)|([a-z0-9]+(?:_[a-z0-9]+){3,}))(?:_?(…))?`")


def test_tests_that_are_named_exist():
    """A row whose test has another name by now says nothing."""
    sources = [path for path in tracked() if path.suffix in (".rs", ".py")]
    names = {name for path in sources for name in re.findall(r"\b(?:fn|def|mod) (\w+)", text(path))}
    for own, black_box, alone, is_beginning in NAMED.findall(text(Path("docs/testing.md"))):
        name = own or black_box or alone
        found = any(it.startswith(name) for it in names) if is_beginning else name in names
        assert found, f"docs/testing.md names {name}, which is not there"


def test_scripts_are_executable_and_parse():
    scripts = [path for path in tracked() if text(path).startswith(("#!/usr/bin/env bash", "#!/bin/sh"))]
    assert scripts
    for path in scripts:
        assert (ROOT / path).stat().st_mode & 0o111, f"{path} is not executable"
        subprocess.run(["bash", "-n", ROOT / path], check=True)


@pytest.mark.parametrize("package", ["campaign", "rumqttc"])
def test_cargo_tests_that_need_the_binary_run_by_name_and_only_so(package):
    """A file that nobody has named would run in the unit tests, without the binary, or never."""
    folder = ROOT / "tests" / package
    targets = tomllib.loads(text(folder / "Cargo.toml"))["test"]
    assert {target["name"] for target in targets} == {path.stem for path in (folder / "tests").iterdir()}
    assert not any(target["test"] for target in targets)
    steps = text("scripts/test")
    assert all(re.search(rf"^step .* --test {target['name']}\b", steps, re.MULTILINE) for target in targets)
