"""DVC's configuration files, whatever the path; and the files of an earlier run, restored, or a reason why not."""

import json
import locale
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config
from mlops.errors import ProjectError
from mlops.tracking import dvc_remote
from mlops.tracking.dvc_remote import ArtifactMissingError, restore_run

from .conftest import Run, commit_all

REMOTE = 'remote "storage"'


def url_of(folder: Path) -> str:
    return str(Config(str(folder / ".dvc"))["remote"]["storage"]["url"])


@pytest.mark.parametrize(
    ("project", "storage", "ascii"),
    [
        ("project", "storage", True),
        ("Übung 数据/project", "Übung 数据/project/dvc-storage", True),
        ("Übung 数据/klon ü", "Übung 数据/project/dvc-storage", True),
        ("Größe/klon", "Übung 数据/project, 'new' #2/dvc-storage", False),
    ],
    ids=["ascii", "inside", "beside", "elsewhere"],
)
def test_write_config_then_dvc_reads_the_folder(tmp_path: Path, project: str, storage: str, ascii: bool) -> None:
    folder, url = tmp_path / project, (tmp_path / storage).as_posix()
    file = folder / ".dvc" / "config.local"
    file.parent.mkdir(parents=True)
    dvc_remote.write_config(file, {REMOTE: {"url": dvc_remote.config_url(url, file)}})
    assert file.read_bytes().isascii() == ascii
    assert url_of(folder) == url


def test_write_config_keeps_what_the_file_holds_and_who_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / ".dvc" / "config.local"
    file.parent.mkdir()
    file.write_text("# mine\n[core]\n    analytics = false\n", encoding="utf-8")
    file.chmod(0o600)
    before = file.stat().st_mode
    dvc_remote.write_config(file, {REMOTE: {"url": "s3://bucket/project"}})
    assert file.read_text(encoding="utf-8").startswith("# mine\n[core]\n    analytics = false\n")
    assert url_of(tmp_path) == "s3://bucket/project"
    assert file.stat().st_mode == before


def test_write_config_what_dvc_could_not_read_is_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".dvc" / "config.local"
    file.parent.mkdir()
    file.write_bytes(b"[core]\n")
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: "cp1252")
    with pytest.raises(ProjectError, match="in the encoding cp1252.*\nFix: set PYTHONUTF8=1 .* or move the project"):
        dvc_remote.write_config(file, {REMOTE: {"url": "/data/数据"}})
    assert [path.read_bytes() for path in file.parent.iterdir()] == [b"[core]\n"]


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
    restored = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    reports = {"reports/run.json", "reports/manifest.json", "reports/train/lineage.json", curve}
    assert restored == {"data/manifest.parquet", *reports}
    assert (folder / "data/manifest.parquet").read_text(encoding="utf-8") == "manifest of one"
    assert run("git", "status", "--porcelain") == before
    assert json.loads(Path("reports/train/lineage.json").read_text(encoding="utf-8"))["run"] == "two"


def test_restore_results_of_another_run_are_refused(trained: Trained, run: Run, tmp_path: Path) -> None:
    trained("one")
    Path("reports/run.json").write_text(json.dumps({"run": "other"}), encoding="utf-8")
    with pytest.raises(ArtifactMissingError, match=r"is of run one, not of other\nFix: .*dvc repro, and commit"):
        restore_run(commit_all(run), tmp_path / "got")
    assert restore_run(trained("again"), tmp_path / "again")["run"] == "again"


def test_restore_manifest_of_another_run_is_refused(trained: Trained, run: Run, tmp_path: Path) -> None:
    trained("one")
    Path("reports/manifest.json").write_text(json.dumps({"sha256": ["other"]}), encoding="utf-8")
    with pytest.raises(ProjectError, match=r"manifest\.parquet is not the one of run one"):
        restore_run(commit_all(run), tmp_path / "got")


def test_restore_results_that_are_missing_or_damaged_are_refused(trained: Trained, tmp_path: Path) -> None:
    commit = trained("one")
    cached = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file()]
    curve = next(path for path in cached if b"0.5" in path.read_bytes())
    curve.chmod(0o644)
    curve.write_bytes(b"other bytes")
    with pytest.raises(ArtifactMissingError, match=rf"damaged in DVC's cache\nFix: rm -f {curve.resolve()}, then"):
        restore_run(commit, tmp_path / "damaged")
    curve.unlink()
    restore_run(commit, tmp_path / "from the remote")
    (tmp_path / "storage").rename(tmp_path / "away")
    lost = r"can't be restored: [\s\S]*\nFix: in a clone that has them: dvc push --all-commits"
    with pytest.raises(ArtifactMissingError, match=lost):
        restore_run(commit, tmp_path / "without-a-file")
    next(path for path in cached if path.suffix == ".dir").unlink()
    with pytest.raises(ArtifactMissingError, match=lost):
        restore_run(commit, tmp_path / "without-the-list")
    (tmp_path / "away").rename(tmp_path / "storage")
    restore_run(commit, tmp_path / "pushed again")


def test_restore_commit_without_results_is_refused(trained: Trained, run: Run, tmp_path: Path) -> None:
    trained("one")
    run("git", "rm", "--quiet", "--cached", "dvc.lock", "dvc.yaml")
    run("git", "commit", "--quiet", "-m", "Without results")
    with pytest.raises(ArtifactMissingError, match=r"has no reports/train/lineage\.json\nFix: .*dvc repro, and commit"):
        restore_run(run("git", "rev-parse", "HEAD"), tmp_path / "got")
    assert restore_run(trained("again"), tmp_path / "again")["run"] == "again"


def test_remote_that_is_relative_in_the_copy_of_an_experiment_is_refused_and_the_fix_makes_it_absolute(
    repository: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".dvc/config.local").unlink()
    run("dvc", "remote", "add", "--default", "storage", "../storage")
    commit_all(run)
    copy = repository / ".dvc/tmp/exps/copy"

    def enter_copy() -> None:
        run("git", "clone", "--quiet", str(repository), str(copy))
        if Path(".dvc/config.local").exists():  # as DVC does
            shutil.copy(".dvc/config.local", copy / ".dvc/config.local")
        monkeypatch.chdir(copy)
        monkeypatch.setenv("DVC_ROOT", str(repository))

    enter_copy()
    fix = f"dvc remote modify --local storage url {tmp_path / 'storage'}"
    with pytest.raises(ProjectError, match=f"remote storage is relative[\\s\\S]*Fix: {fix}"):
        dvc_remote.push_inputs("train")
    monkeypatch.chdir(repository)
    shutil.rmtree(copy)
    run(*fix.split())
    enter_copy()
    assert dvc_remote.remote_url() == str(tmp_path / "storage")


def test_push_without_a_remote_is_refused_and_the_fix_sets_one(repository: Path, run: Run) -> None:
    Path(".dvc/config.local").unlink()
    with pytest.raises(ProjectError, match=r"no DVC remote is set\nFix: .*dvc remote add -d storage s3://"):
        dvc_remote.push_inputs("train")
    run("dvc", "remote", "add", "-d", "storage", str(repository.parent / "storage"))
    dvc_remote.push_inputs("train")


def test_push_to_a_remote_that_is_away_is_refused_and_passes_when_it_is_back(repository: Path, run: Run) -> None:
    storage = repository.parent / "storage"
    storage.write_text("no folder", encoding="utf-8")
    with pytest.raises(
        ProjectError, match=r"does not take the data: [\s\S]*\nFix: repair the connection, then: dvc push"
    ):
        dvc_remote.push_inputs("train")
    storage.unlink()
    run("dvc", "push", "--quiet")
    dvc_remote.push_inputs("train")
