"""The pipeline on a laptop: what it makes, what makes it run again, and what comes out the same."""

import hashlib
import json
import re
import sys
from itertools import product
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ..conftest import BakedProject, new_project
from ..projects import edit, executed, experiments, lock, metric, out_md5, read, runs, versions, wait_for_queue

COLUMNS = ["Experiment", "test_acc", "test_loss", "val_acc", "run", "train.max_lr"]
LEFT_BEHIND = (  # by editors, systems, Python and its tools
    *(".train.py.swp", "train.py~", "#train.py#", "train.py.orig", "train.py.rej", ".DS_Store", ".env"),
    *("train.pyc", "__pycache__/train.cpython-311.pyc", ".ipynb_checkpoints/train.ipynb", ".hypothesis/examples"),
    *(".mypy_cache/cache.json", ".pytest_cache/README.md", ".ruff_cache/content", ".idea/a.xml", ".vscode/a.json"),
)
MEASURED = ("acc", "balanced_acc", "macro_f1", "loss", "ece", "top5_acc")
METRICS = {f"{split}_{name}" for split in ("test", "val") for name in MEASURED}
METRICS |= {"run", "version", "records", "subjects", "excluded", "consent"}


def test_repro_from_nothing_registers_a_good_model(reproduced: BakedProject) -> None:
    shown = json.loads(reproduced.run("dvc", "metrics", "show", "--json").stdout)
    figures = {name: value for file in shown[""]["data"].values() for name, value in file["data"].items()}
    assert set(figures) == METRICS
    assert figures["test_acc"] >= 0.95
    assert (figures["records"], figures["subjects"], figures["excluded"], figures["version"]) == (1797, 14, 0, 1)
    assert list(versions(reproduced)) == [1]


def test_repro_again_runs_nothing(reproduced: BakedProject) -> None:
    again = reproduced.run("dvc", "repro").stdout
    assert executed(again) == []
    assert "up to date" in again


def test_dvc_ignores_below_deps_what_git_ignores(project: BakedProject) -> None:
    git, dvc = (
        {line.rstrip("/") for line in (project.path / name).read_text(encoding="utf-8").splitlines()}
        for name in (".gitignore", ".dvcignore")
    )
    assert {pattern for pattern in git if pattern and not pattern.startswith(("/", "# "))} <= dvc
    stages = YAML(typ="safe").load((project.path / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = {dep for stage in stages.values() for dep in stage["deps"] if (project.path / dep).is_dir()}
    assert {f"{project.package}/data", f"{project.package}/model", "mlops/records", "mlops/training"} <= deps
    for dep, name in product(deps, LEFT_BEHIND):
        path = project.path / dep / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left behind")
    assert project.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
    (project.path / "mlops/records/new.py").touch()
    assert "mlops/records" in project.run("dvc", "status").stdout, "it is not blind"


def test_repro_leaves_only_results_to_commit(reproduced: BakedProject) -> None:
    names = reproduced.run("git", "status", "--porcelain", "--untracked-files=all").stdout.split("\n")
    assert {name[3:] for name in names if name} == {
        "dvc.lock",
        "reports/confusion.csv",
        "reports/labels.csv",
        "reports/manifest.json",
        "reports/metrics.json",
        "reports/per_class.csv",
        "reports/prepare.json",
        "reports/register.json",
        "reports/run.json",
    }


@pytest.mark.slow
def test_repro_in_another_folder_makes_the_same_bytes(reproduced: BakedProject, tmp_path: Path) -> None:
    other = new_project(tmp_path, project_name="Another Name")
    other.run("python", "-m", "mlops", "setup")
    other.run("dvc", "repro", "train")
    for name in ("data/dataset", "data/manifest.parquet", "models/model"):
        assert out_md5(lock(other), name) == out_md5(lock(reproduced), name), name


def test_repro_mlflow_has_the_run_with_all_its_lineage(reproduced: BakedProject) -> None:
    run = runs(reproduced)[read(reproduced, "reports/run.json")["run"]]
    stages = lock(reproduced)
    params = run.data.params
    assert params["dataset_md5"] == out_md5(stages, "data/dataset")
    assert params["manifest_sha256"] == read(reproduced, "reports/manifest.json")["sha256"][0]
    consent = (reproduced.path / "data/consent.csv").read_bytes()
    digest = hashlib.sha256(consent).hexdigest()
    assert (params["consent_sha256"], run.data.tags["consent_excluded"]) == (digest, "0")
    assert versions(reproduced)[1].items() >= {("consent_sha256", digest), ("consent_excluded", "0")}
    assert params["parents"] == "[]"
    assert params["train.max_lr"] == "0.003"
    assert len(params["data_git_commit_id"]) == 40
    assert run.data.metrics["test_acc"] == read(reproduced, "reports/metrics.json")["test_acc"]
    of_stages = {name: run.data.metrics[name] for name in ("prepare.excluded", "manifest.records", "register.version")}
    assert of_stages == {"prepare.excluded": 0, "manifest.records": 1797, "register.version": 1}
    assert re.fullmatch(r"[a-z]+-[a-z]+", str(run.info.run_name)), "a name to say, not the id"
    assert run.inputs
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.source_type, dataset.digest) == ("dvc", params["dataset_md5"])
    assert json.loads(dataset.source)["rev"] == params["data_git_commit_id"]
    tags = {tag.key: tag.value for tag in run.inputs.dataset_inputs[0].tags}
    assert (tags["consent_sha256"], tags["consent_excluded"]) == (digest, "0")
    assert run.info.status == "FINISHED"


def test_dataset_of_the_registered_version_has_a_tag(reproduced: BakedProject) -> None:
    md5, commit = out_md5(lock(reproduced), "data/dataset"), versions(reproduced)[1]["data_git_commit_id"]
    tag = f"data/{md5[:8]}"
    assert reproduced.run("git", "cat-file", "-t", tag).stdout == "tag\n"
    assert reproduced.run("git", "rev-parse", f"{tag}^{{commit}}").stdout.strip() == commit
    assert versions(reproduced)[1]["data_version"] == md5[:8]
    (row,) = json.loads(reproduced.run("python", "-m", "mlops", "data", "list", "--json").stdout)
    assert (row["tags"], row["models"], row["records"], row["commit"]) == ([tag], [1], 1797, commit)


def test_experiment_is_shown_in_few_columns(queued: BakedProject) -> None:
    check_table(queued, [*COLUMNS[:3], "val_acc", "test_marker", "val_marker", *COLUMNS[4:]])


def check_table(project: BakedProject, columns: list[str]) -> None:
    """See that `make show` fits a screen and has these columns."""
    table = project.run("make", "--old-file=setup", "show", f"VENV={sys.prefix}").stdout
    lines = [line for line in table.splitlines() if not line.startswith("dvc exp show")]
    assert max(map(len, lines)) <= 105 + 13 * sum("marker" in name for name in columns), table
    header = next(line for line in lines if "Experiment" in line)
    assert [name for name in re.findall(r"[\w.]+", header) if name != "State"] == columns  # State: of what was queued


@pytest.mark.slow
def test_sweep_is_compared_in_dvc_and_mlflow(project: BakedProject) -> None:
    for max_lr in ("0.001", "0.002", "0.004"):
        project.run("dvc", "exp", "run", "train", "-S", f"train.max_lr={max_lr}")
    for max_lr in ("0.005", "0.006"):
        project.run("dvc", "exp", "run", "train", "--queue", "-S", f"train.max_lr={max_lr}")
    project.run("dvc", "queue", "start", "-j", "2")
    wait_for_queue(project)
    made = experiments(project)
    assert len(made) == 5
    mirrored = runs(project)
    assert len(mirrored) == 6
    for name, experiment in made.items():
        run = mirrored[metric(experiment, "run")]
        assert run.info.run_name == name == run.data.tags["dvc_exp_name"]
        assert run.data.params["train.max_lr"] == str(
            experiment["data"]["params"]["params.yaml"]["data"]["train"]["max_lr"]
        )
    check_table(project, COLUMNS)
    assert list(versions(project)) == [1], "a sweep that stops at train registers nothing"


def test_consent_line_that_changes_nothing_runs_only_its_readers(project: BakedProject) -> None:
    with (project.path / "data/consent.csv").open("a", encoding="utf-8", newline="\n") as registry:
        registry.write("form-99,revoked,2026-02-01T00:00:00Z\n")
    assert executed(project.run("dvc", "repro", "train").stdout) == ["prepare"]
    assert list(json.loads(project.run("dvc", "status", "--json").stdout)) == ["register"]


@pytest.mark.slow
def test_forced_training_with_the_same_result_is_the_same_version(project: BakedProject) -> None:
    first = read(project, "reports/run.json")["run"]
    project.run("dvc", "repro", "--force", "train")
    project.run("dvc", "repro")
    second = read(project, "reports/run.json")["run"]
    assert first != second
    assert read(project, "reports/register.json")["version"] == 1
    assert {f"made_by.{first}", f"made_by.{second}"} <= versions(project)[1].keys()


@pytest.mark.slow
def test_fine_tuning_names_its_parent(project: BakedProject) -> None:
    parent = read(project, "reports/run.json")["run"]
    edit(project, "params.yaml", "init_from: ", f"init_from: models:/{project.path.name}/1 ")
    project.run("dvc", "repro", "train")
    child = runs(project)[read(project, "reports/run.json")["run"]]
    assert json.loads(child.data.params["parents"]) == [parent]


@pytest.mark.slow
def test_gate_refuses_a_bad_model(project: BakedProject) -> None:
    edit(project, "params.yaml", "test_acc: 0.9", "test_acc: 0.999")
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode
    assert "below 0.9990" in failed.stderr
    assert list(versions(project)) == [1]


def test_plots_and_exports_show_all_and_leave_nothing_for_git(project: BakedProject) -> None:
    project.run("dvc", "plots", "show")
    folder = project.path / "dvc_plots"
    page = (folder / "index.html").read_text(encoding="utf-8")
    for title in ("Confusion matrix (test)", "Recall per label (test)", "Records per label", "Loss", "Accuracy"):
        assert title in page
    sheets = [path.name for path in folder.rglob("*.png")]
    assert sorted(name.rpartition("_")[2] for name in sheets) == ["mistakes.png", "test.png", "train.png", "val.png"]
    assert "1797 images" in project.run("python", "-m", "mlops", "data", "export", "exports/images").stdout
    project.run("python", "-m", "mlops", "audit", "export", "exports/records")
    assert project.run("git", "status", "--porcelain").stdout == "", "pictures and tables of subjects"
