"""The rooms of each crate, its top-level modules, form no circle, nor do its files; no name stands for two of its types."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CRATES = Path(__file__).resolve().parents[2] / "crates"

NOT_CODE = r"//.*|#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))? )?(?:use [^;]*;|mod tests \{[\s\S]*)"


def names(tree):
    """The paths of a `use`, each as a list: `a::{b, c::d}` is a::b and a::c::d."""
    head, brace, rest = tree.partition("{")
    if not brace:
        return [re.findall(r"\w+|\*", tree.split(" as ")[0])]
    stem = re.findall(r"\w+", head)
    items, depth = [""], 0
    for char in rest.rpartition("}")[0]:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            items.append("")
        else:
            items[-1] += char
    return [stem + path for item in items if item.strip() for path in names(item.strip())]


def absolute(path, here):
    """From the root of the crate; nothing, if it leads out of the crate or says so by a name that is in scope."""
    if path[0] == "crate":
        return path[1:]
    ups = next((index for index, name in enumerate(path) if name != "super"), len(path))
    if path[0] == "self" or ups:
        return here[: len(here) - ups] + path[max(ups, 1) :]
    return []


def mentions(source, here):
    """What a file names of its crate: by `use`, and in full."""
    code = re.sub(NOT_CODE, "", source)
    used = [path for tree in re.findall(r"\buse\s+([^;]+);", code) for path in names(tree)]
    in_full = re.findall(r"\b(?:crate|super|self)(?:::\w+)+", re.sub(r"\buse\s+[^;]+;", "", code))
    for path in used + [path.split("::") for path in in_full]:
        if target := absolute(path, here):
            yield target


def rooms(crate):
    """Which others each room names, with a file that does."""
    src = CRATES / crate / "src"
    graph = {}
    for file in src.rglob("*.rs"):
        here = [part for part in file.relative_to(src).with_suffix("").parts if part != "mod"]
        if here[0] not in ("lib", "main", "bin") and "tests" not in here:
            others = graph.setdefault(here[0], {})
            others |= {target[0]: file.name for target in mentions(file.read_text(), here) if target[0] != here[0]}
    return {room: {other: by for other, by in others.items() if other in graph} for room, others in graph.items()}


def files(crate):
    """Which other files each file names. A module and those below it are one another's business."""
    src = CRATES / crate / "src"
    modules = {}
    for file in src.rglob("*.rs"):
        here = tuple(part for part in file.relative_to(src).with_suffix("").parts if part != "mod")
        if here[0] not in ("lib", "main", "bin") and "tests" not in here:
            modules[here] = file
    graph = {}
    for here, file in modules.items():
        named = set()
        for target in mentions(file.read_text(), list(here)):
            prefixes = (tuple(target[:length]) for length in range(len(target), 0, -1))
            named |= {next((prefix for prefix in prefixes if prefix in modules), here)}
        graph[here] = {it for it in named if it != here[: len(it)] and here != it[: len(here)]}
    return graph


def test_paths_are_found():
    source = "use crate::a::{b, c::{D, E as F}};\nuse super::super::g;\nfn f() { self::h::i(); crate::j::k() } // crate::l"
    found = [".".join(path) for path in mentions(source, ["x", "y"])]
    assert found == ["a.b", "a.c.D", "a.c.E", "g", "x.y.h.i", "j.k"]


@pytest.mark.parametrize("crate", sorted(path.name for path in CRATES.iterdir()))
def test_no_circle_between_files(crate):
    graph = files(crate)
    assert any(graph.values())
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join("/".join(file) for file in error.args[1]))


@pytest.mark.parametrize("crate", sorted(path.name for path in CRATES.iterdir()))
def test_no_circle_between_rooms(crate):
    graph = rooms(crate)
    assert any(graph.values())
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = error.args[1]
        steps = [f"{other} -> {room} ({graph[other][room]})" for room, other in zip(circle, circle[1:])]
        pytest.fail("a circle: " + ", ".join(steps))


# Rooms in which a name is given from outside: the schemas of the OpenAPI document, the sections of the settings file, the
# words of a command line. The same word may stand for something of the server's own.
NAMED_FROM_OUTSIDE = {"admin/api", "settings", "cli"}


def definitions(crate):
    """Where each type, trait and alias of a crate is defined, tests aside; what is named from outside counts for itself."""
    found = {}
    src = CRATES / crate / "src"
    for file in src.rglob("*.rs"):
        inside = file.relative_to(src)
        if {"tests", "bin"} & set(inside.with_suffix("").parts):
            continue
        code = re.sub(NOT_CODE, "", file.read_text())
        room = next((room for room in NAMED_FROM_OUTSIDE if str(inside).removesuffix(".rs").startswith(room)), "")
        for name in re.findall(r"^(?:pub(?:\([^)]*\))? )?(?:struct|enum|union|trait|type) (\w+)", code, re.MULTILINE):
            found.setdefault((room, name), []).append(str(inside))
    return found


@pytest.mark.parametrize("crate", sorted(path.name for path in CRATES.iterdir()))
def test_no_type_name_is_defined_twice_in_one_crate(crate):
    found = definitions(crate)
    assert found
    twice = {name: files for (_, name), files in found.items() if len(files) > 1}
    assert not twice
