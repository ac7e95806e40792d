"""`dvc.yaml` against the code: what a stage imports is what DVC watches, and the whole runs."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlops
import pytest
from mlops import SplitParams
from mlops.pipeline import Stage, load_stages
from ruamel.yaml import YAML

import {{ cookiecutter.package_name }} as package
from {{ cookiecutter.package_name }}.data import DataParams
from {{ cookiecutter.package_name }}.model.predictor import Predictor
from {{ cookiecutter.package_name }}.stages.train import TrainParams

from .conftest import OWN, ROOT, SMALL, png

# What the pipeline runs with here; what is not named is as in params.yaml.
RECIPE: dict[str, dict[str, Any]] = {
    "data": {"source": "digits", "fraction": 1.0, "consent": "not_required"},  # which need no download
    "split": {"salt": "7", "val": 0.2, "test": 0.2},
    "train": {**SMALL, "epochs": 2},
    "register": {"at_least": {}, "at_most": {}},
}
# Predicts with the registered model, as another project would: an image as bytes, and as text in base64.
LOAD = """
import base64, json, pathlib, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
(version,) = mlflow.MlflowClient().search_model_versions()
model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
image = pathlib.Path(sys.argv[2]).read_bytes()
rows = [model.predict(pandas.DataFrame({"image": [kind]})) for kind in (image, base64.b64encode(image).decode())]
print(json.dumps([row.to_dict("records")[0] for row in rows]))
"""

PACKAGE = Path(str(package.__file__)).parent
# What can change the outputs of a stage. The rest of mlops/ records, checks and finds what a stage does.
WATCHED = (PACKAGE, ROOT / "mlops/records", ROOT / "mlops/training")


def imports(module: Path) -> set[Path]:
    """Return the modules of the package and of mlops/ that a module imports, directly."""
    modules: set[Path] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        if node.module == "mlops":  # whose names lie in the modules below it
            modules |= {Path(str(sys.modules[getattr(mlops, name).__module__].__file__)) for name in names}
            continue
        base = module.parents[node.level - 1] if node.level else ROOT
        base = base.joinpath(*(node.module or "").split("."))
        modules |= {base.with_suffix(".py"), base / "__init__.py", *(base / f"{name}.py" for name in names)}
    return {path for path in modules if path.is_file()}


def modules_of(stage: Stage) -> set[Path]:
    """Return the modules that a stage runs, as far as a change of them can change what it makes.

    `register` runs `interface.py` too, which `mlops` imports. Most `__init__.py` are empty: those are left out.
    """
    own = PACKAGE / "stages" / f"{stage.name.partition('@')[0]}.py"  # of `foreach`, a name goes on with @
    todo = [own, *(ROOT / dep for dep in stage.deps if dep == f"{PACKAGE.name}/interface.py")]
    modules: set[Path] = set()
    while todo:
        module = todo.pop()
        if module in modules or not module.exists() or not any(map(module.is_relative_to, WATCHED)):
            continue
        modules.add(module)
        todo += [*imports(module), *(folder / "__init__.py" for folder in module.parents)]
        if module.name == "__init__.py" and module.stat().st_size:  # it imports its modules by name, as data/ does
            todo += module.parent.glob("*.py")
    return {module for module in modules if module.stat().st_size}


def test_deps_of_each_stage_are_the_code_that_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    problems = set()
    for stage in load_stages().values():
        where = f"dvc.yaml:stages.{stage.name}.deps"
        modules, deps = modules_of(stage), [ROOT / dep for dep in stage.deps]
        unwatched = {module for module in modules if not any(module.is_relative_to(dep) for dep in deps)}
        own = {dep for dep in deps if dep.is_relative_to(PACKAGE)}
        unused = {dep for dep in own if not any(module.is_relative_to(dep) for module in modules)}
        for problem, paths in (("lacks", unwatched), ("has without need", unused)):
            problems |= {f"{where} {problem} {path.relative_to(ROOT).as_posix()}" for path in paths}
    assert not problems, "\n".join(sorted(problems))  # each of them: pytest would shorten a set


def test_params_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sections = {"data": DataParams, "split": SplitParams, "train": TrainParams, "register": mlops.Gate}
    for section, shape in sections.items():
        mlops.params(section, shape)


def run(*command: str) -> str:
    """Run a command as if nobody had set anything; return what it printed."""
    settings = ("GIT_", "DVC_", "MLFLOW_", "PYTHONPATH")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(settings)},
        **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        **{"DVC_NO_ANALYTICS": "1", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(OWN["data"]["source"] == "folder", reason="`prepare` depends on data/raw, where your images are")
def test_pipeline_runs_to_a_model_that_predicts_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole project, in a copy with a recipe of seconds; `dvc repro` again does nothing."""
    copy = tmp_path / "project"
    local = (".git", ".venv", "dvc-storage", "mlflow.db*", "mlartifacts", "mlruns", "cache", "tmp", "config.local")
    outputs = ("models", "reports", "dataset")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*local, *outputs))
    monkeypatch.chdir(copy)
    YAML().dump({name: {**OWN[name], **RECIPE.get(name, {})} for name in OWN}, Path("params.yaml"))
    for command in ("git init --quiet", "git add .", "git commit --quiet -m Start"):
        run(*command.split())
    run("python", "-m", "mlops", "setup")
    run("dvc", "repro")
    assert "up to date" in run("dvc", "repro")
    assert "register" in run("git", "log", "--first-parent", "--format=%s", "lineage")
    assert not list(Path("mlartifacts").rglob("*.pkl"))

    image = png(side=RECIPE["train"]["image_px"])
    (tmp_path / "image.png").write_bytes(image)
    monkeypatch.chdir(tmp_path)  # where this project's package is not
    answers = run("python", "-c", LOAD, f"sqlite:///{(copy / 'mlflow.db').as_posix()}", "image.png")
    (expected,) = Predictor.load(copy / "models/model").predict([image])
    assert json.loads(answers.splitlines()[-1]) == [expected] * 2
