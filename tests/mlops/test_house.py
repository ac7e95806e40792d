"""The rules of the house, on the source: which code may know which, what it is called, and how much there is of it."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from ..conftest import TEMPLATE, Bake
from .conftest import SKELETON

MLOPS = SKELETON / "mlops"
TEAM = SKELETON / "{{cookiecutter.package_name}}"
TEAM_LINES, MLOPS_LINES = 1_960, 22_100

# Modules and folders of mlops/, those at the bottom first: each imports what is below it, and of its own row itself.
LAYERS = (
    {"errors", "explain", "known_errors", "files", "output", "config", "pipeline", "contract"},
    {"records"},
    {"training"},
    {"tracking"},
    {"registry"},
    {"datasets", "consent", "audit", "compute"},
    {"optout", "lineage"},
    {"runner", "cli", "setup_clone", "update", "__main__"},
)
BASE, TOP = LAYERS[0], LAYERS[-1]  # single modules, which may import others of their row
NEVER = {("optout", "compute")}  # a project without compute/ has the verb all the same

# Where a module is imported by a name that is not written there.
BY_NAME = {
    "contract.py": "the team's package",
    "compute/backend.py": "backends that pyproject.toml names",
    "registry/repair.py": "the code of an old commit, in a process of its own",
}

# SageMaker is known to compute/sagemaker; elsewhere it is named in these files only,
NAMES_SAGEMAKER = {
    "config.py": "keys of platform.yaml: data, whoever reads them",
    "compute/spec.py": "keys of meta.job: data, whoever reads them",
}
PLUGIN = re.compile("sagemaker[-_]mlflow", re.IGNORECASE)  # and in the name of that plugin and of its variables

NAMES = {TEAM: "team"}  # as the tests of mlops/ import it
VAGUE = {"told", "found", "one", "there", "asked", "kept", "said", "gone"}


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file; where cookiecutter would put the package's name, `team` stands."""
    text = path.read_text(encoding="utf-8")
    return ast.parse(re.sub(r"\{\{ cookiecutter\.package_name \}\}", "team", text), str(path))


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imports_of(path: Path, package: Path) -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
    """Yield all that a module of a package imports, wherever in it and be it for types only, by its whole name."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = (NAMES.get(package, package.name), *path.relative_to(package).parts)[: -node.level]
            for alias in node.names:
                yield ".".join((*base, *(node.module.split(".") if node.module else ()), alias.name)), node
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def module_at(name: str) -> Path | None:
    """Return the module that an imported name means, or that it is defined in; None if it is not of the project."""
    root, *parts = name.split(".")
    for length in (len(parts), len(parts) - 1):
        path = {"team": TEAM, "mlops": MLOPS}.get(root, SKELETON / root).joinpath(*parts[:length])
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def edges(for_types: bool) -> dict[Path, set[Path]]:
    """Return which modules of mlops/ each of them imports."""
    return {
        path: {
            target
            for name, node in imports_of(path, MLOPS)
            if name.split(".")[0] == "mlops" and (for_types or not is_for_types(path, node))
            for target in [module_at(name)]
            if target and target != path
        }
        for path in python_files(MLOPS)
    }


def is_for_types(path: Path, node: ast.AST) -> bool:
    """Return whether a statement is below `if TYPE_CHECKING`."""
    blocks = (block for block in ast.walk(parsed(path)) if isinstance(block, ast.If))
    return any(node in ast.walk(block) for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING")


def part_of(path: Path) -> str:
    """Return the folder of mlops/ that a module is in, or its own name."""
    return path.relative_to(MLOPS).with_suffix("").parts[0]


def test_mlops_knows_the_team_by_its_contract_alone() -> None:
    wrong = []
    for path in python_files(MLOPS):
        for name, node in imports_of(path, MLOPS):
            if name.split(".")[0] in ("team", TEAM.name) or (isinstance(node, ast.ImportFrom) and "." not in name):
                wrong.append(f"{path.relative_to(SKELETON)}:{node.lineno} {name}")
        for call in ast.walk(parsed(path)):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("import_module", "__import__")):
                below_here = ast.unparse(call.args[0]).removeprefix("f").startswith(("'.", '".'))
                if not below_here and path.relative_to(MLOPS).as_posix() not in BY_NAME:
                    wrong.append(f"{path.relative_to(SKELETON)}:{call.lineno} {ast.unparse(call)}")
    assert wrong == []


def test_team_knows_mlops_by_its_front_door_alone() -> None:
    import mlops

    wrong = [
        f"{path.relative_to(SKELETON)}:{node.lineno} {name}"
        for path in python_files(TEAM)
        for name, node in imports_of(path, TEAM)
        if name.split(".")[0] == "mlops" and name.removeprefix("mlops.") not in mlops.__all__
    ]
    assert wrong == []


def test_what_travels_with_a_model_imports_nothing_of_mlops() -> None:
    names = ("images", "interface", "model/networks", "model/transforms", "model/predictor", "model/metrics")
    seen: set[Path] = set()
    waiting = [TEAM / f"{name}.py" for name in names]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, node in imports_of(path, TEAM):
            assert name.split(".")[0] != "mlops", f"{path}:{node.lineno} {name}"
            if isinstance(node, ast.ImportFrom) and node.level:
                waiting.append(module_at(name) or pytest.fail(f"{path}:{node.lineno} {name} is not there"))
    assert TEAM / "model/predictor.py" in seen, "imports inside functions are looked at too"


def test_data_and_model_import_of_the_package_only_each_their_own_and_images_and_pictures() -> None:
    wrong = [
        f"{path.relative_to(SKELETON)}:{node.lineno} {name}"
        for folder in (TEAM / "data", TEAM / "model")
        for path in python_files(folder)
        for name, node in imports_of(path, TEAM)
        for target in [module_at(name)]
        if name.split(".")[0] == "team" and target and target.parent != folder
        if target not in (TEAM / "images.py", TEAM / "pictures.py")
        if target.name != "__init__.py"
    ]
    assert wrong == []


def test_mlops_knows_no_images() -> None:
    for path in python_files(MLOPS):
        known = {name.split(".")[0] for name, _ in imports_of(path, MLOPS)}
        assert known.isdisjoint({"PIL", "torchvision"}), path


def test_every_part_of_mlops_has_its_layer() -> None:
    parts = {part_of(path) for path in python_files(MLOPS)} - {"__init__"}
    assert parts == set().union(*LAYERS) & parts


def test_parts_of_mlops_import_downwards_only() -> None:
    layer = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    upwards = []
    for path, targets in edges(for_types=True).items():
        part = part_of(path)
        if part == "__init__":  # the front door: names of everything, imported when they are used
            continue
        for target in targets:
            below = part_of(target)
            same = below == part or {below, part} <= BASE or {below, part} <= TOP
            if not same and (below == "__init__" or layer[below] >= layer[part] or (part, below) in NEVER):
                upwards.append(f"{path.relative_to(SKELETON)} imports {target.relative_to(SKELETON)}")
    assert upwards == []


def test_modules_of_mlops_import_each_other_in_no_circle() -> None:
    graph = edges(for_types=False)
    graph.pop(MLOPS / "__init__.py")
    circles, done = [], set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        if path in way:
            circle = (*way[way.index(path) :], path)
            circles.append(" -> ".join(str(module.relative_to(MLOPS)) for module in circle))
        elif path not in done:
            for target in sorted(graph.get(path, ())):
                visit(target, (*way, path))
            done.add(path)

    for path in sorted(graph):
        visit(path, ())
    assert circles == []


def test_sagemaker_is_named_where_it_is_known() -> None:
    named = {
        path.relative_to(MLOPS).as_posix(): [
            number
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if re.search(r"sagemaker|/opt/ml\b", PLUGIN.sub("", line), re.IGNORECASE)
        ]
        for path in python_files(MLOPS)
        if not path.is_relative_to(MLOPS / "compute" / "sagemaker")
    }
    assert {name: lines for name, lines in named.items() if lines and name not in NAMES_SAGEMAKER} == {}
    assert all((MLOPS / name).is_file() for name in NAMES_SAGEMAKER)


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each name that is given to something, and its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):  # by =, for, with, :=, in a comprehension
                yield name, node.lineno
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name, node.lineno
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.asname or alias.name.partition(".")[0], node.lineno) for alias in aliases)


def vague_names(paths: Iterable[Path]) -> list[str]:
    return [
        f"{path.relative_to(TEMPLATE)}:{line} {name}"
        for path in paths
        for name, line in bound_names(parsed(path))
        if name in VAGUE
    ]


def test_every_way_to_bind_a_name_is_looked_at() -> None:
    ways = (
        "told = 1",
        "told: int = 1",
        "(a, *told) = b",
        "for told in a: pass",
        "with a as told: pass",
        "try: pass\nexcept E as told: pass",
        "[told for told in a]",
        "{a: b for a, told in c}",
        "(told := 1)",
        "import told",
        "import a as told",
        "from a import b as told",
        "def told(): pass",
        "async def told(): pass",
        "class told: pass",
        "def f(told): pass",
        "def f(*, told=1): pass",
        "def f(*told): pass",
        "def f(**told): pass",
        "lambda told: 1",
        "match a:\n    case {'b': told}: pass",
        "match a:\n    case [1, *told]: pass",
        "match a:\n    case {'b': 1, **told}: pass",
    )
    assert [way for way in ways if "told" not in dict(bound_names(ast.parse(way)))] == []
    assert dict(bound_names(ast.parse("a = told(b.told, told=1)"))) == {"a": 1}


@pytest.mark.parametrize(
    "folder",
    [MLOPS, TEAM, SKELETON / "tests", TEMPLATE / "hooks", TEMPLATE / "update", TEMPLATE / "tests"],
    ids=["mlops", "team", "project-tests", "hooks", "update", "tests"],
)
def test_names_say_what_they_hold(folder: Path) -> None:
    assert vague_names(python_files(folder)) == []


@pytest.mark.parametrize(("folder", "most"), [(TEAM, TEAM_LINES), (MLOPS, MLOPS_LINES)], ids=["team", "mlops"])
def test_there_is_no_more_code_than_people_read(folder: Path, most: int) -> None:
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in python_files(folder)) <= most


def test_mlops_is_the_same_bytes_whatever_was_answered(bake: Bake, tmp_path: Path) -> None:
    template = {path.relative_to(SKELETON): path.read_bytes() for path in MLOPS.rglob("*") if path.is_file()}
    template = {path: content for path, content in template.items() if "__pycache__" not in path.parts}
    assert [path for path, content in template.items() if b"cookiecutter." in content] == []
    answers = {"project_name": "X Rays", "package_name": "xrays", "dataset": "folder", "s3_bucket": "my-team-ml"}
    for folder, given in (
        ("defaults", {}),
        ("others", {**answers, "aws_region": "eu-central-1", "license": "Proprietary"}),
        ("little", {**answers, "compute": "local", "lineage": "dataset"}),
    ):
        project = bake(tmp_path / folder, **given).path
        paths = [path for path in (project / "mlops").rglob("*") if path.is_file()]
        files = {path.relative_to(project): path.read_bytes() for path in paths}
        assert files == {path: content for path, content in template.items() if path in files}
        assert folder == "little" or files.keys() == template.keys()
