"""Each error for people is listed in `errors/*.tsv`: how it was provoked, and that its fix, as printed, helps.

A row is one place in the code that makes a `ProjectError`: its file below the project and its function, the problem and
the fix as they were printed, the test or the deed that provoked it, and what came of following the fix.
"""

import ast
import csv
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.mlops.test_house import MLOPS, TEAM, python_files

ROOT = Path(__file__).parents[2]

COLUMNS = ["where", "problem", "fix", "provoked", "helps"]
BY_HAND = "by hand: "


def rows() -> list[dict[str, str]]:
    """Return the rows of all lists."""
    listed = []
    for path in sorted(Path(__file__).parent.glob("errors/*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            assert reader.fieldnames == COLUMNS, path
            listed += list(reader)
    return listed


def error_classes(trees: list[ast.Module]) -> set[str]:
    """Return the names of ProjectError and of the classes that are made from it."""
    names = {"ProjectError"}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while new := {c.name for c in classes if {b.id for b in c.bases if isinstance(b, ast.Name)} & names} - names:
        names |= new
    return names


def places(tree: ast.AST, classes: set[str], inside: str = "") -> list[str]:
    """Return the function of each place in a tree that makes an error; "" for the module itself."""
    functions = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            functions += places(node, classes, f"{inside}.{node.name}".lstrip("."))
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        functions += [inside] * (name in classes) + places(node, classes, inside)
    return functions


@cache
def all_places() -> Counter[str]:
    """Return the places in the code that make an error, as `where` has them, and how many each function has."""
    files = [(path, folder.parent) for folder in (MLOPS, TEAM) for path in python_files(folder)]
    trees = {
        path.relative_to(root).as_posix().replace(TEAM.name, "team"): ast.parse(path.read_text(encoding="utf-8"))
        for path, root in files
    }
    classes = error_classes(list(trees.values()))
    return Counter(f"{name}:{place}" for name, tree in trees.items() for place in places(tree, classes))


@pytest.mark.parametrize("folder", sorted({place.partition(":")[0].rpartition("/")[0] for place in all_places()}))
def test_every_error_is_listed_once(folder: str) -> None:
    def of_folder(names: Counter[str]) -> dict[str, int]:
        return {name: count for name, count in names.items() if name.partition(":")[0].rpartition("/")[0] == folder}

    assert of_folder(Counter(row["where"] for row in rows())) == of_folder(all_places())


def test_every_listed_error_was_provoked_and_its_fix_followed() -> None:
    tests: dict[str, str] = {}
    for row in rows():
        assert all(row[column] and row[column].strip() == row[column] for column in COLUMNS), row
        if row["provoked"].startswith(BY_HAND):
            continue
        file, _, name = row["provoked"].partition("::")
        text = tests.setdefault(file, (ROOT / file).read_text(encoding="utf-8"))
        assert f"def {name.partition('[')[0]}(" in text, row
