"""Inputs that lie elsewhere: refused before the first stage works, or named on the run and brought to its job."""

import shutil
from pathlib import Path

import pytest

from ..conftest import BakedProject
from ..projects import commit, edit, executed, read, runs


def let_train_read(project: BakedProject, path: str) -> None:
    """Add a dep to the stage `train`."""
    edit(
        project,
        "dvc.yaml",
        "      - data/dataset\n      - data/manifest.parquet\n    params",
        f"      - {path}\n      - data/dataset\n      - data/manifest.parquet\n    params",
    )


@pytest.mark.parametrize("way", ["repro", "exp run --temp", "in the sandbox"])
def test_input_that_no_commit_can_hold_is_refused_before_the_first_stage_works(
    project: BakedProject, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "words.txt").write_text("eins zwei\n", encoding="utf-8")
    let_train_read(project, (tmp_path / "words.txt").as_posix())
    edit(project, "params.yaml", "shards: 8", "shards: 4")
    if way == "in the sandbox":
        monkeypatch.setenv("RUN_ON", "sandbox")
    command = ("exp", "run", "--temp") if way == "exp run --temp" else ("repro",)
    failed = project.run("dvc", *command, check=False)
    assert executed(failed.stdout) == ["prepare"]
    assert f"depend on {tmp_path / 'words.txt'}, which is outside the Git repository" in failed.stderr
    assert f"Fix: dvc import-url {tmp_path / 'words.txt'} data/raw" in failed.stderr
    assert "Traceback" not in failed.stderr
    project.run("git", "checkout", "--quiet", "dvc.yaml", "params.yaml")
    project.run("dvc", "checkout", "--quiet")
    assert executed(project.run("dvc", "repro").stdout) == []


def test_import_from_a_registry_is_named_on_the_run_and_reaches_its_job(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = BakedProject(tmp_path / "registry", "")
    registry.path.mkdir()
    (registry.path / "words.txt").write_text("one two\n", encoding="utf-8")
    registry.run("git", "init", "--quiet")
    registry.run("git", "config", "user.name", "Ada Byron")
    registry.run("git", "config", "user.email", "ada@example.org")
    registry.run("dvc", "init", "--quiet")
    registry.run("dvc", "add", "--quiet", "words.txt")
    commit(registry, "Words")
    project.run("dvc", "import", "--quiet", str(registry.path), "words.txt", "--out", "data/words.txt")
    let_train_read(project, "data/words.txt")
    edit(project, "params.yaml", "epochs: 15", "epochs: 1")
    commit(project, "Read words")
    shutil.rmtree(registry.path)  # a job could not reach it
    monkeypatch.setenv("RUN_ON", "sandbox")
    project.run("dvc", "repro", "train")
    (named,) = read(project, "reports/train/lineage.json")["inputs_elsewhere"]
    assert (named["path"], named["url"]) == ("data/words.txt", str(registry.path))
    tags = runs(project)[read(project, "reports/run.json")["run"]].data.tags
    assert named["rev"] in tags["inputs_elsewhere"]
