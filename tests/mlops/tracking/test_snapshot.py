"""The commit that a run names holds just what the run reads."""

import os
import shutil
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.pipeline import Stage
from mlops.tracking import run_context as snapshots
from mlops.tracking.run_context import snapshot
from ruamel.yaml import YAML

from .conftest import Run, commit_all


def test_snapshot_clean_head_is_head(repository: Path, run: Run) -> None:
    head = commit_all(run)
    assert snapshot("train") == head
    assert snapshot("register") == head


def test_snapshot_clean_head_with_outputs_deleted_by_dvc_is_head(repository: Path, run: Run) -> None:
    head = commit_all(run)
    Path("reports/metrics.json").unlink()
    Path("models/model").unlink()
    assert snapshot("train") == head


def test_snapshot_edited_file_is_in_a_child_of_head(repository: Path, run: Run) -> None:
    head = commit_all(run)
    Path("code/model.py").write_text("one = 2\n", encoding="utf-8")
    status = run("git", "status", "--porcelain")
    commit = snapshot("train")
    assert run("git", "show", f"{commit}:code/model.py") == "one = 2"
    assert run("git", "rev-parse", f"{commit}^") == head == run("git", "rev-parse", "HEAD")
    assert run("git", "status", "--porcelain") == status == "M code/model.py"


def test_snapshot_same_content_twice_same_commit(repository: Path) -> None:
    assert snapshot("train") == snapshot("train")


def test_snapshot_same_size_edit_with_the_same_time_is_seen(repository: Path, run: Run) -> None:
    commit_all(run)
    times = Path("params.yaml").stat()
    Path("params.yaml").write_text("x: 0.5\n", encoding="utf-8")
    os.utime("params.yaml", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run("git", "show", f"{snapshot('train')}:params.yaml") == "x: 0.5"


def test_snapshot_of_a_file_that_was_edited_while_the_stage_began_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_file_states", {})
    snapshots.note_files()
    snapshot("train")
    Path("code/model.py").write_text("one = 2\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"(?s)code/model.py changed while the stage began.*same command again"):
        snapshot("train")


def test_snapshot_before_first_commit_of_results_carries_lock_and_metrics(repository: Path, run: Run) -> None:
    commit = snapshot("train")
    lock = YAML(typ="safe").load(run("git", "show", f"{commit}:dvc.lock"))
    assert list(lock["stages"]) == ["prepare"]  # what train will write is pruned, and what comes after it
    files = run("git", "ls-tree", "-r", "--name-only", commit).splitlines()
    assert "reports/prepare.json" in files
    assert "reports/metrics.json" not in files


def test_snapshot_for_register_pins_the_trained_model(repository: Path, run: Run) -> None:
    commit = snapshot("register")
    lock = YAML(typ="safe").load(run("git", "show", f"{commit}:dvc.lock"))
    assert list(lock["stages"]) == ["prepare", "train"]
    assert "size" in run("git", "show", f"{commit}:reports/metrics.json")


def test_snapshot_staged_new_file_is_in_it(repository: Path, run: Run) -> None:
    Path("code/new.py").write_text("two = 2\n", encoding="utf-8")
    run("git", "add", "code/new.py")
    assert run("git", "show", f"{snapshot('train')}:code/new.py") == "two = 2"


def test_snapshot_staged_rename_is_in_it(repository: Path, run: Run) -> None:
    run("git", "mv", "code/model.py", "code/renamed.py")
    files = run("git", "ls-tree", "-r", "--name-only", snapshot("train")).splitlines()
    assert "code/renamed.py" in files
    assert "code/model.py" not in files


def test_snapshot_deleted_file_is_not_in_it(repository: Path, run: Run) -> None:
    Path("code/other.py").write_text("", encoding="utf-8")
    commit_all(run)
    Path("code/other.py").unlink()
    assert "code/other.py" not in run("git", "ls-tree", "-r", "--name-only", snapshot("train"))


@pytest.mark.parametrize("ignored", [False, True], ids=["untracked", "ignored"])
def test_snapshot_untracked_dependency_is_refused(repository: Path, run: Run, ignored: bool) -> None:
    Path("code/new.py").write_text("two = 2\n", encoding="utf-8")
    if ignored:
        Path(".gitignore").write_text("new.py\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=f"git add {'--force ' if ignored else ''}code/new.py") as raised:
        snapshot("train")
    run(*raised.value.fix.partition("   (")[0].split())
    assert "code/new.py" in run("git", "ls-tree", "-r", "--name-only", snapshot("train"))


def test_snapshot_file_that_dvc_ignores_is_no_part_of_it(repository: Path, run: Run) -> None:
    Path(".dvcignore").write_text("*.sw?\n", encoding="utf-8")
    run("git", "add", ".dvcignore")
    before = snapshot("train")
    Path("code/.model.py.swp").touch()  # DVC hashes the folder `code` without it
    assert snapshot("train") == before


def test_snapshot_dvc_tracked_input_needs_its_metafile_in_git(repository: Path, run: Run) -> None:
    Path("raw").mkdir()
    Path("raw/one.txt").write_text("1", encoding="utf-8")
    Path("dvc.yaml").write_text(
        Path("dvc.yaml").read_text(encoding="utf-8").replace("deps: [step.py]", "deps: [step.py, raw]"),
        encoding="utf-8",
    )
    run("dvc", "add", "--quiet", "raw")
    with pytest.raises(ProjectError, match="git add raw.dvc"):
        snapshot("train")
    run("git", "add", "raw.dvc")
    assert "raw.dvc" in run("git", "ls-tree", "-r", "--name-only", snapshot("train"))


def test_snapshot_in_a_folder_of_a_larger_repository(
    repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = repository.parent / "larger" / "project"
    shutil.copytree(repository, project, ignore=shutil.ignore_patterns(".git", ".dvc", "dvc.lock"))
    monkeypatch.chdir(project.parent)
    run("git", "init", "--quiet", "--initial-branch=main")
    monkeypatch.chdir(project)
    run("dvc", "init", "--quiet", "--subdir")
    run("dvc", "repro", "--quiet")
    head = commit_all(run)
    assert snapshot("train") == head
    Path("code/model.py").write_text("one = 2\n", encoding="utf-8")
    commit = snapshot("train")
    assert run("git", "show", f"{commit}:project/code/model.py") == "one = 2"
    assert "project/dvc.lock" in run("git", "ls-tree", "-r", "--name-only", "--full-tree", commit)


def test_snapshot_without_a_commit_is_refused(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("git", "init", "--quiet")
    with pytest.raises(ProjectError, match="git commit"):
        snapshot("train")


def test_snapshot_lacks_what_moved_from_git_to_dvc_before_that_is_committed(repository: Path, run: Run) -> None:
    Path("data/consent.csv").write_text("subject_id\n", encoding="utf-8")
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    Path("dvc.yaml").write_text(text.replace("data/dataset, code]", "data/dataset, code, data/consent.csv]"))
    commit_all(run)
    run("git", "rm", "--cached", "--quiet", "data/consent.csv")
    Path("data/consent.csv").write_text("subject_id\npatient-7\n", encoding="utf-8")
    run("dvc", "add", "--quiet", "data/consent.csv")
    with pytest.raises(ProjectError, match="git add data/consent.csv.dvc"):
        snapshot("train")
    run("git", "add", "data")
    files = run("git", "ls-tree", "-r", "--name-only", snapshot("train"))
    assert "data/consent.csv.dvc" in files.splitlines()
    assert "data/consent.csv" not in files.splitlines()
    objects = run("git", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    assert run("git", "hash-object", "data/consent.csv") not in objects.splitlines()


def test_training_that_was_started_by_hand_is_refused(repository: Path) -> None:
    stage = Stage("train", (), (), ("reports/run.json",), {}, ("prepare",), always_changed=False)
    with pytest.raises(ProjectError, match=r"train was started by hand[\s\S]*\nFix: dvc repro train"):
        snapshots.check_upstream(stage)


def test_training_whose_earlier_stage_is_out_of_date_is_refused(
    repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    stage = Stage("train", (), (), ("reports/run.json",), {}, ("prepare",), always_changed=False)
    Path("params.yaml").write_text("x: 0.7\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"prepare changed and did not run since: [\s\S]*\nFix: dvc repro train"):
        snapshots.check_upstream(stage)
    monkeypatch.delenv("DVC_STAGE")
    run("dvc", "repro", "train")
    monkeypatch.setenv("DVC_STAGE", "train")
    snapshots.check_upstream(stage)


def test_dataset_that_no_lock_names_is_refused(repository: Path, run: Run) -> None:
    Path("dvc.lock").unlink()
    with pytest.raises(ProjectError, match=r"dvc\.lock does not name data/dataset\nFix: .*dvc repro"):
        snapshots.dataset_md5()
    run("dvc", "repro")
    assert len(snapshots.dataset_md5()) == 32
