"""Another package than the template's: tables, a model of a few numbers, no images. It takes the whole way to use."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from click.testing import CliRunner
from dvc.repo import Repo
from mlops.audit import cli as audit
from mlops.datasets.evaluate import evaluate
from mlops.registry import promotion
from mlops.registry.aliases import alias_changes
from mlops.tracking import mlflow_client
from mlops.tracking.run_files import milliseconds, read_facts

from ..conftest import SKELETON
from .conftest import Git

TOY = Path(__file__).parents[1] / "toy"
CONFIG = "[core]\n    remote = storage\n    analytics = false\n['remote \"storage\"']\n    url = {}\n"
# Python imports a module of this name first: it notes which packages a process of the project has imported in the end.
HOOK = """
import atexit, os, pathlib, sys
sys.modules["torchmetrics"] = None  # a project does not have it; Fabric would import it, with PIL and torchvision
def note():
    imported = sorted({"PIL", "torchvision"} & set(sys.modules))
    pathlib.Path(os.environ["IMPORTED"], sys.argv[-1]).write_text(" ".join(imported))
if sys.argv[1:2] == ["stage"] or "stage" in sys.orig_argv:
    atexit.register(note)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git, tables: Path) -> Iterator[Path]:
    """The project of flowers, with nothing run; the working directory."""
    folder, hook = tmp_path / "project", tmp_path / "hook"
    shutil.copytree(TOY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SKELETON / "mlops", folder / "mlops", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tables, folder / mlflow_client.DATABASE)
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    (tmp_path / "imported").mkdir()
    for name, value in {
        "PYTHONPATH": str(hook),
        "IMPORTED": str(tmp_path / "imported"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    git("init", "--quiet", "--initial-branch=main")
    Repo.init().close()
    Path(".dvc/config").write_text(CONFIG.format((tmp_path / "storage").as_posix()), encoding="utf-8")
    ignored = "__pycache__\n/mlflow.db*\n/mlartifacts\n/data/dataset\n/data/manifest.parquet\n/models\n/reports/train\n"
    Path(".gitignore").write_text(ignored, encoding="utf-8")
    commit(git, "Start")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "flowers"]:
        del sys.modules[name]


def commit(git: Git, message: str) -> None:
    git("add", ".")
    git("commit", "--quiet", "-m", message)


def reproduce() -> None:
    done = subprocess.run(["dvc", "repro"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def ask(*words: str) -> dict[str, Any]:
    """Return the answer of an audit."""
    answer: dict[str, Any] = json.loads(CliRunner().invoke(audit.verbs, [*words, "--json"]).stdout)
    return answer


@pytest.mark.slow
def test_package_of_tables_is_trained_registered_promoted_and_audited(project: Path, git: Git) -> None:
    make_champion(project, git)
    known = ask("find", "plant-02")
    assert [(row["exposure"], *row["versions"]) for row in known["rows"]] == [("direct", "flowers/1 @champion")]
    assert ask("deployed")["verdict"] == "PASS"


def make_champion(project: Path, git: Git) -> None:
    """Run the pipeline, and put its version in use."""
    reproduce()
    assert json.loads(Path("reports/prepare.json").read_text(encoding="utf-8"))["excluded"] == 3, "a plant withdrew"
    imported = {path.name: path.read_text() for path in (project.parent / "imported").iterdir()}
    assert imported == {"prepare": "", "manifest": "", "train": "", "register": ""}
    commit(git, "Version 1")
    metrics = json.loads(Path("reports/metrics.json").read_text(encoding="utf-8"))
    client = mlflow_client.client()
    run = client.get_run(str(client.get_model_version("flowers", "1").run_id))
    assert metrics.items() <= run.data.metrics.items()
    assert run.info.end_time == milliseconds(read_facts()["ended_at"]), "to log a model leaves a finished run as it was"
    promotion.promote("1", why="the first")


@pytest.mark.slow
def test_package_of_tables_is_compared_by_its_own_metrics_and_predicts(project: Path, git: Git) -> None:
    make_champion(project, git)
    params = Path("params.yaml")
    params.write_text(params.read_text(encoding="utf-8").replace("[length]", "[length, width]"), encoding="utf-8")
    reproduce()
    commit(git, "Version 2")
    assert promotion.promote("2") == "flowers version 2 is champion"
    (comparison,) = alias_changes()[-1].metrics["test_sets"]
    assert comparison["records"] == 24
    assert comparison["champion"] < comparison["candidate"] == 1.0
    for model, dataset, accuracy in (("1", "champion", comparison["champion"]), ("champion", "models:/flowers/1", 1.0)):
        result = evaluate(model, on=dataset)
        assert (result.metrics, result.seen, result.without_consent) == ({"acc": accuracy}, 0, 0)
    model = mlflow.pyfunc.load_model("models:/flowers@champion")
    contents = [json.dumps({"length": 3.0, "width": width}).encode() for width in (1.1, 2.1)]
    assert model.predict(pandas.DataFrame({"image": contents}))["label"].tolist() == ["narrow", "wide"]
