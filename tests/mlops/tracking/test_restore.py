"""The files of an earlier run, from Git, DVC's cache and its remote: the run's very own, or a reason why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlops.errors import ProjectError
from mlops.tracking.restore import ArtifactMissingError, restore_run

from .conftest import Run, commit_all

PIPELINE = """\
stages:
  train:
    cmd: echo never
    deps: [data/manifest.parquet]
    outs: [reports/train]
    metrics: [reports/manifest.json: {cache: false}, reports/run.json: {cache: false}]
"""

Trained = Callable[[str], str]


@pytest.fixture
def trained(repository: Path, run: Run, facts: dict[str, Any]) -> Trained:
    """A function that commits, and pushes, the results of a run, and returns the commit."""
    Path("dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    Path("dvc.lock").unlink()

    def train(name: str) -> str:
        for path, content in {
            "data/manifest.parquet": f"manifest of {name}",
            "reports/run.json": json.dumps({"run": name}),
            "reports/manifest.json": json.dumps({"sha256": [name]}),
            "reports/train/lineage.json": json.dumps({**facts, "run": name, "manifest_sha256": name}),
            "reports/train/plots/metrics/loss.tsv": "step\tloss\n0\t0.5\n",
        }.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)
            Path(path).write_text(content, encoding="utf-8")
        run("dvc", "commit", "--force", "--quiet")
        run("dvc", "push", "--quiet")
        return commit_all(run)

    return train


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "remote"])
def test_restore_earlier_run_has_its_files_and_leaves_the_work_tree(
    trained: Trained, run: Run, tmp_path: Path, cache: bool
) -> None:
    commit = trained("one")
    Path("data/manifest.parquet").unlink()
    trained("two")
    if not cache:
        shutil.rmtree(".dvc/cache")
    before = run("git", "status", "--porcelain")
    curve = "reports/train/plots/metrics/loss.tsv"
    folder = tmp_path / "got"
    assert restore_run(commit, folder)["run"] == "one"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    reports = {"reports/run.json", "reports/manifest.json", "reports/train/lineage.json", curve}
    assert found == {"data/manifest.parquet", *reports}
    assert (folder / "data/manifest.parquet").read_text(encoding="utf-8") == "manifest of one"
    assert run("git", "status", "--porcelain") == before
    assert json.loads(Path("reports/train/lineage.json").read_text(encoding="utf-8"))["run"] == "two"


def test_restore_results_of_another_run_are_refused(trained: Trained, run: Run, tmp_path: Path) -> None:
    trained("one")
    Path("reports/run.json").write_text(json.dumps({"run": "other"}), encoding="utf-8")
    with pytest.raises(ArtifactMissingError, match="is of run one, not of other"):
        restore_run(commit_all(run), tmp_path / "got")


def test_restore_manifest_of_another_run_is_refused(trained: Trained, run: Run, tmp_path: Path) -> None:
    trained("one")
    Path("reports/manifest.json").write_text(json.dumps({"sha256": ["other"]}), encoding="utf-8")
    with pytest.raises(ProjectError, match=r"manifest\.parquet is not the one of run one"):
        restore_run(commit_all(run), tmp_path / "got")


def test_restore_results_that_are_gone_or_damaged_are_refused(trained: Trained, tmp_path: Path) -> None:
    commit = trained("one")
    shutil.rmtree(tmp_path / "storage")
    cached = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file()]
    curve = next(path for path in cached if b"0.5" in path.read_bytes())
    curve.chmod(0o644)
    curve.write_bytes(b"other bytes")
    with pytest.raises(ArtifactMissingError, match="is damaged"):
        restore_run(commit, tmp_path / "damaged")
    curve.unlink()
    with pytest.raises(ArtifactMissingError, match="not to be had"):
        restore_run(commit, tmp_path / "without-a-file")
    next(path for path in cached if path.suffix == ".dir").unlink()
    with pytest.raises(ArtifactMissingError, match="not to be had"):
        restore_run(commit, tmp_path / "without-the-list")


def test_restore_commit_without_results_is_refused(trained: Trained, run: Run, tmp_path: Path) -> None:
    trained("one")
    run("git", "rm", "--quiet", "dvc.lock", "dvc.yaml")
    with pytest.raises(ArtifactMissingError, match=r"has no reports/train/lineage\.json"):
        restore_run(commit_all(run), tmp_path / "got")
