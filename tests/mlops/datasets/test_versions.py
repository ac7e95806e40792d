"""Versions of the dataset are found by every name that they have, and are what a commit pins, or an error."""

import shutil
from pathlib import Path

import pytest
from mlops.datasets import versions
from mlops.errors import ProjectError
from mlops.files import read_json
from mlops.tracking import lineage_log
from mlops.tracking.dataset_tags import tag_registered
from mlops.tracking.dvc_remote import ArtifactMissingError

from .conftest import FIRST, SECOND, Run, make_project, reproduce


def subjects(name: str) -> set[str]:
    """Return the subjects in a version."""
    return set(versions.read_manifest(versions.find(name))["subject_id"].to_pylist())


@pytest.fixture
def registered(project: Path, run: Run) -> tuple[str, str]:
    """The commits of both versions: of the first a model is registered and no tag is made; the second has two tags."""
    first, second = run("git", "rev-parse", "HEAD~1"), run("git", "rev-parse", "HEAD")
    lineage_log.tag("demo@v1.0.0", first, "demo version 1")
    for number in (2, 10):
        lineage_log.tag(f"demo@v{number}.0.0", second, f"demo version {number}")
    tag_registered(versions.find("HEAD").md5, second)
    run("git", "tag", "data/of-another-project", run("git", "commit-tree", f"{first}:reports", "-m", "no dvc.lock"))
    versions.tag("v2.0")
    return first, second


def test_known_versions_have_their_labels_and_models_the_newest_first(registered: tuple[str, str]) -> None:
    second, first = versions.known()
    assert (first.commit, second.commit) == registered
    assert (second.labels, second.models) == (["v2.0", second.md5[:8]], [2, 10])
    assert (first.labels, first.models) == ([], [1]), "its model was registered before datasets had tags"
    row = second.row()
    assert row["tags"] == ["data/v2.0", f"data/{second.md5[:8]}"]
    assert (row["records"], row["subjects"], row["splits"]) == (7, 4, {"train": 2, "val": 2, "test": 3})
    assert first.row()["version"] == first.md5[:8]


@pytest.mark.parametrize("name", ["v2.0", "data/v2.0", "main", "HEAD~0", "workspace"])
def test_find_takes_labels_revisions_and_the_workspace(registered: tuple[str, str], name: str) -> None:
    assert versions.find(name).commit == ("" if name == "workspace" else registered[1])
    assert subjects(name) == {"ann", "bob", "dan", "eve"}


def test_find_by_hash_takes_a_version_that_only_a_run_used(project: Path, run: Run) -> None:
    reproduce(run, FIRST.replace("ann", "zoe"))
    md5 = versions.find("workspace").md5
    run("git", "add", ".")
    lineage_log.record(run("git", "commit-tree", run("git", "write-tree"), "-p", "HEAD", "-m", "What train reads"), "x")
    run("git", "reset", "--quiet", "--hard")
    for name in (md5[:6], md5.removesuffix(".dir"), md5):
        assert subjects(name) == {"zoe", "bob", "cem"}
    assert versions.find("workspace").md5 != md5


def test_find_by_the_beginning_of_two_hashes_asks_for_more(project: Path, run: Run) -> None:
    lock, md5 = Path("dvc.lock"), versions.find("workspace").md5
    text = lock.read_text(encoding="utf-8")
    for start in ("abcd1", "abcd2"):
        lock.write_text(text.replace(md5, start + md5[5:]), encoding="utf-8")
        run("git", "commit", "--quiet", "--all", "-m", start)
    with pytest.raises(ProjectError, match="abcd is the beginning of abcd") as error:
        versions.find("abcd")
    assert error.value.fix == "give more characters"
    assert versions.find("abcd2").md5 == "abcd2" + md5[5:]


@pytest.mark.parametrize("name", ["v9.9", "0123abcd", "HEAD~9", "-x", ""])
def test_find_of_what_is_not_known_says_where_to_look(project: Path, name: str) -> None:
    with pytest.raises(ProjectError, match=f"knows no .* {name!r}") as error:
        versions.find(name)
    assert "data list" in error.value.fix and "git fetch --tags" in error.value.fix


def test_dataset_without_a_manifest_of_it_is_no_version(project: Path, run: Run) -> None:
    reproduce(run, FIRST.replace("ann", "zoe"), "prepare")
    for refused in (lambda: versions.find("workspace"), lambda: versions.tag("v3.0")):
        with pytest.raises(ProjectError, match="pins no data/dataset with a manifest of it") as error:
            refused()
        assert error.value.fix == "dvc repro manifest"
    run("git", "commit", "--quiet", "--all", "-m", "prepared")
    with pytest.raises(
        ProjectError, match=f"of commit {run('git', 'rev-parse', 'HEAD')[:10]} pins no(?s:.*)name another"
    ):
        versions.find("HEAD")
    assert run("git", "tag", "--list", "data/*") == ""


def test_lock_with_a_conflict_says_how_to_mend_it_and_one_in_the_history_has_no_version(
    project: Path, run: Run
) -> None:
    lock = Path("dvc.lock")
    text = lock.read_text(encoding="utf-8")
    lock.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"dvc.lock can't be read: .* a merge has left conflicts") as error:
        versions.find("workspace")
    assert error.value.fix.endswith("out of dvc.lock; then: dvc repro")
    run("git", "commit", "--quiet", "--all", "-m", "conflict")
    with pytest.raises(ProjectError, match="of commit .* pins no data/dataset"):
        versions.find("HEAD")
    assert versions.find(versions.find("HEAD~1").md5[:8]).commit == run("git", "rev-parse", "HEAD~1")


def test_tag_of_a_dirty_work_tree_pins_its_dataset_and_is_not_moved(project: Path, run: Run) -> None:
    reproduce(run, FIRST)
    commit = versions.tag("v1.0")
    assert commit != run("git", "rev-parse", "HEAD")
    assert versions.find("v1.0").md5 == versions.find("workspace").md5 == versions.find("HEAD~1").md5
    reproduce(run, SECOND)
    with pytest.raises(ProjectError, match=r"data/v1\.0 names commit .* already"):
        versions.tag("v1.0")
    with pytest.raises(ProjectError, match="'a b' is no valid label"):
        versions.tag("a b")
    assert versions.find("v1.0").commit == commit


def test_manifest_comes_from_the_cache_or_the_remote_or_is_lost(project: Path, run: Run, tmp_path: Path) -> None:
    run("dvc", "remote", "add", "--local", "--default", "storage", str(tmp_path / "storage"))
    run("dvc", "push", "--quiet", "--all-commits")
    shutil.rmtree(".dvc/cache")
    assert subjects("HEAD~1") == {"ann", "bob", "cem"}
    shutil.rmtree(tmp_path / "storage")
    with pytest.raises(ArtifactMissingError, match="can't be restored"):
        subjects("HEAD~1")


@pytest.mark.parametrize("edit", ["other", "missing"])
def test_manifest_of_the_work_tree_must_be_that_of_the_lock(project: Path, edit: str) -> None:
    manifest = Path("data/manifest.parquet")
    manifest.unlink()
    if edit == "other":
        manifest.write_bytes(b"other")
    with pytest.raises(ProjectError, match="is not the file that dvc.lock names") as error:
        subjects("workspace")
    assert error.value.fix == ("dvc repro manifest" if edit == "other" else "dvc pull manifest, or: dvc repro manifest")


def test_commit_without_reports_has_a_row_all_the_same(project: Path, run: Run) -> None:
    run("git", "rm", "--quiet", "-r", "--cached", "reports")
    run("git", "commit", "--quiet", "-m", "no reports")
    row = versions.find("HEAD").row()
    assert (row["records"], row["subjects"], row["splits"], row["tags"]) == (None, None, {}, [])


@pytest.mark.slow
def test_project_in_a_folder_of_its_repository_has_versions_of_its_own(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    run("git", "init", "--quiet", "--initial-branch=main", str(tmp_path / "outer"))
    monkeypatch.chdir(tmp_path / "outer/inner")
    make_project(run)
    versions.tag("v2.0")
    (known,) = versions.known()
    assert known.labels == ["v2.0"] and known.row()["records"] == 7
    assert subjects("v2.0") == {"ann", "bob", "dan", "eve"}
    assert subjects(versions.find("HEAD~1").md5[:8]) == {"ann", "bob", "cem"}
    assert read_json(Path("reports/manifest.json"))["records"] == 7
    monkeypatch.chdir(tmp_path / "outer")
    shutil.copy("inner/platform.yaml", "platform.yaml")
    assert versions.known() == [], "the tag is of the project in the folder"
