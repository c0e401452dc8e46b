"""The rooms of each crate, its top-level modules, form no circle. A module's parents and children are one room with it."""

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


def test_paths_are_found():
    source = "use crate::a::{b, c::{D, E as F}};\nuse super::super::g;\nfn f() { self::h::i(); crate::j::k() } // crate::l"
    found = [".".join(path) for path in mentions(source, ["x", "y"])]
    assert found == ["a.b", "a.c.D", "a.c.E", "g", "x.y.h.i", "j.k"]


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
