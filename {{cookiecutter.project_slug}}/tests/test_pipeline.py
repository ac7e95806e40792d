"""`dvc.yaml` against the code: what a stage imports is what DVC watches, and the whole runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import mlops
import pytest
from mlops.pipeline import Stage, load_stages
from ruamel.yaml import YAML

import {{ cookiecutter.package_name }} as package
from {{ cookiecutter.package_name }}.stages.prepare import DataParams, SplitParams
from {{ cookiecutter.package_name }}.stages.register import RegisterParams
from {{ cookiecutter.package_name }}.stages.train import TrainParams

PACKAGE = Path(str(package.__file__)).parent
ROOT = PACKAGE.parent
# What can change the outputs of a stage. The rest of mlops/ records, checks and finds what a stage does.
WATCHED = (PACKAGE, ROOT / "mlops/records", ROOT / "mlops/training")


def imports(module: Path) -> set[Path]:
    """Return the modules of the package and of mlops/ that a module imports, directly."""
    modules: set[Path] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        if node.level:
            base = module.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        elif node.module == "mlops":  # whose names lie in the modules below it
            modules |= {Path(str(sys.modules[getattr(mlops, name).__module__].__file__)) for name in names}
            continue
        else:
            base = ROOT.joinpath(*str(node.module).split("."))
        paths = (base.with_suffix(".py"), base / "__init__.py", *(base / f"{name}.py" for name in names))
        modules |= {path for path in paths if path.is_file()}
    return modules


def is_watched(path: Path) -> bool:
    """Return whether a change of this module can change what a stage makes."""
    return any(path.is_relative_to(folder) for folder in WATCHED)


def is_code(module: Path) -> bool:
    """Return whether there is anything in a module; most `__init__.py` are empty."""
    return bool(module.read_text(encoding="utf-8").strip())


def closure(roots: Iterable[Path]) -> set[Path]:
    """Return these modules and all that they import, directly or not, as far as DVC must watch it."""
    modules: set[Path] = set()
    todo = list(roots)
    while todo:
        module = todo.pop()
        if module not in modules and is_watched(module):
            modules.add(module)
            todo += imports(module)
            todo += [folder / "__init__.py" for folder in module.parents if (folder / "__init__.py").is_file()]
            if is_code(module) and module.name == "__init__.py":  # it imports its modules by name, as data/ does
                todo += module.parent.glob("*.py")
    return {module for module in modules if is_code(module)}


def modules_of(stage: Stage) -> set[Path]:
    """Return the modules that a stage runs; `register` runs `interface.py` too, which `mlops` imports."""
    own = PACKAGE / "stages" / f"{stage.name.partition('@')[0]}.py"  # of `foreach`, a name goes on with @
    roots = (own, *(ROOT / dep for dep in stage.deps if dep == f"{PACKAGE.name}/interface.py"))
    return closure(root for root in roots if root.exists())


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """The stages, as DVC reads them."""
    monkeypatch.chdir(ROOT)
    return list(load_stages().values())


def test_all_that_a_stage_imports_lies_below_one_of_its_deps(stages: list[Stage]) -> None:
    unwatched = {
        f"dvc.yaml:stages.{stage.name}.deps lacks {module.relative_to(ROOT).as_posix()}"
        for stage in stages
        for module in modules_of(stage)
        if not any(module.is_relative_to(ROOT / dep) for dep in stage.deps)
    }
    assert unwatched == set()


def test_no_stage_depends_on_code_of_the_package_that_it_does_not_import(stages: list[Stage]) -> None:
    unused = {
        f"dvc.yaml:stages.{stage.name}.deps: {dep}"
        for stage in stages
        for dep in stage.deps
        if (ROOT / dep).is_relative_to(PACKAGE)
        and not any(module.is_relative_to(ROOT / dep) for module in modules_of(stage))
    }
    assert unused == set()


def test_data_and_model_import_of_the_package_only_each_their_own_and_images() -> None:
    for folder in (PACKAGE / "data", PACKAGE / "model"):
        for module in folder.glob("*.py"):
            elsewhere = {path for path in imports(module) if path.is_relative_to(PACKAGE) and path.parent != folder}
            assert elsewhere <= {PACKAGE / "images.py"}, module


def test_params_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for section, shape in {
        "data": DataParams,
        "split": SplitParams,
        "train": TrainParams,
        "register": RegisterParams,
    }.items():
        mlops.params(section, shape)


def test_pipeline_runs_to_a_registered_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole project, in a copy; `dvc repro` again does nothing."""
    source = load_source()
    if source != "digits":
        pytest.skip(f"data.source is {source}: only digits need no download and no images of yours")
    copy = tmp_path / "project"
    local = (".git", ".venv", "dvc-storage", "mlflow.db*", "mlartifacts", "mlruns", "cache", "tmp", "config.local")
    outputs = ("models", "reports", "dataset")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*local, *outputs))
    monkeypatch.chdir(copy)
    params = Path("params.yaml")
    start = re.compile(r"init_from: .*")  # a registered version that this copy's empty MLflow doesn't have
    params.write_text(start.sub("init_from: null", params.read_text(encoding="utf-8")), encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_", "MLFLOW_"))},
        **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    for command in ("git init --quiet", "git add .", "git commit --quiet -m Start"):
        run(*command.split())
    run("python", "-m", "mlops", "setup")
    run("dvc", "repro")
    assert "up to date" in run("dvc", "repro")
    assert "register" in run("git", "log", "--first-parent", "--format=%s", "lineage")


def load_source() -> str:
    """Return `params.yaml:data.source`."""
    return str(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]["source"])
