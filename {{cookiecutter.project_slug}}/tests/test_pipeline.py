"""`dvc.yaml` against the code: what a stage imports is what DVC watches, and the whole runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlops.config import load_params
from mlops.runner import STAGES
from ruamel.yaml import YAML

import {{ cookiecutter.package_name }} as package
from {{ cookiecutter.package_name }}.stages.prepare import DataParams, SplitParams
from {{ cookiecutter.package_name }}.stages.register import RegisterParams
from {{ cookiecutter.package_name }}.stages.train import TrainParams

PACKAGE = Path(str(package.__file__)).parent
ROOT = PACKAGE.parent
# Mending these must not retrain: they record, check and find what a stage does, and don't change it.
WATCHED_BY_NOBODY = {"tracking", "registry", "compute", "consent", "lineage", "settings.py", "errors.py", "cli.py"}


def imports(module: Path) -> set[Path]:
    """Return the modules of the package that a module imports, directly."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            names = [base / alias.name for alias in node.names] + [base]
            found |= {path.with_suffix(".py") for path in names if path.with_suffix(".py").is_file()}
    return found


def closure(module: Path) -> set[str]:
    """Return all that a module imports, with itself, as far as DVC must watch it; paths as in `dvc.yaml`."""
    seen, todo = set(), [module]
    while todo:
        one = todo.pop()
        if one not in seen and one.relative_to(PACKAGE).parts[0] not in WATCHED_BY_NOBODY:
            seen.add(one)
            todo += imports(one)
    return {one.relative_to(ROOT).as_posix() for one in seen}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_deps_are_exactly_its_imports(stage: str) -> None:
    deps = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["deps"]
    watched = {dep for dep in deps if dep.startswith(f"{PACKAGE.name}/")}
    assert watched == closure(PACKAGE / "stages" / f"{stage}.py")


def test_stage_packages_import_nothing_by_themselves() -> None:
    for init in PACKAGE.glob("*/__init__.py"):
        if init.parent.name in WATCHED_BY_NOBODY:  # no stage imports it
            continue
        assert not init.read_text(encoding="utf-8").strip(), f"{init} would be run, and watched by nobody"


def test_data_and_model_import_nothing_upwards() -> None:
    for folder in ("data", "model"):
        for module in (PACKAGE / folder).glob("*.py"):
            above = {path.relative_to(PACKAGE).parts[0] for path in imports(module)} - {folder}
            assert above <= {"errors.py", "files.py", "images.py", "settings.py"}, module


def test_params_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for section, shape in {
        "data": DataParams,
        "split": SplitParams,
        "train": TrainParams,
        "register": RegisterParams,
    }.items():
        load_params(section, shape)


def test_pipeline_runs_to_a_registered_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole project, in a copy; `dvc repro` again does nothing."""
    source = load_source()
    if source != "digits":
        pytest.skip(f"data.source is {source}: only digits need no download and no images of yours")
    copy = tmp_path / "project"
    made = (".git", ".venv", "dvc-storage", "ml*", "cache", "tmp", "config.local", "models", "reports", "dataset")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*made))
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
    run("python", "-m", "mlops".name, "setup")
    run("dvc", "repro")
    assert "up to date" in run("dvc", "repro")
    assert "register" in run("git", "log", "--first-parent", "--format=%s", "lineage")


def load_source() -> str:
    """Return `params.yaml:data.source`."""
    return str(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]["source"])
