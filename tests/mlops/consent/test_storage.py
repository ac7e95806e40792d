"""A registry that DVC tracks: it gets each change, and is never taken for newer than it is."""

import hashlib
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.consent import edits, queries
from mlops.errors import ProjectError
from ruamel.yaml import YAML

from .conftest import LINES

DVC_FILE = Path("data/consent.csv.dvc")


@pytest.fixture
def tracked(registry: Path) -> Path:
    """The registry, tracked by DVC."""
    with Repo.init(no_scm=True) as repo:
        repo.add([str(registry)])
    return registry


def tracked_md5() -> str:
    content = YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8"))
    return str(content["outs"][0]["md5"])


def test_revoke_adds_the_registry_to_dvc(tracked: Path) -> None:
    edits.revoke(["form-01"])
    assert tracked_md5() == hashlib.md5(tracked.read_bytes()).hexdigest()


def test_revoke_again_needs_nothing_of_dvc(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits.revoke(["form-01"])
    monkeypatch.setattr(Repo, "add", None)  # it would wait for a `dvc repro` that reads the registry
    assert "already" in edits.revoke(["form-01"])[0]


def test_revoke_again_adds_to_dvc_what_a_killed_one_did_not(tracked: Path) -> None:
    tracked.write_bytes(LINES + b"form-01,revoked,2025-06-01T00:00:00Z\n")
    assert "already" in edits.revoke(["form-01"])[0]
    assert tracked_md5() == hashlib.md5(tracked.read_bytes()).hexdigest()


def test_older_file_than_dvc_s_is_refused(tracked: Path) -> None:
    edits.revoke(["form-01"])
    tracked.unlink()
    tracked.write_bytes(LINES)  # as git pull leaves it, which brings only what DVC names
    with pytest.raises(ProjectError, match=r"lacks 1 line\(s\) .*\nFix: dvc checkout data/consent.csv.dvc"):
        edits.revoke(["form-00"])
    assert queries.check()[0][0].startswith("data/consent.csv lacks a line that was there: form-01 revoked")
    tracked.unlink()
    with pytest.raises(ProjectError, match=r"is not checked out\nFix: dvc pull data/consent.csv.dvc"):
        edits.add(["form-00"])


def test_version_of_dvc_s_that_is_malformed_is_replaced_by_the_one_that_was_mended(tracked: Path) -> None:
    tracked.unlink()
    tracked.write_bytes(LINES + b"form-03,active,2026-03-01\n")
    with Repo() as repo:  # as `dvc repro` does it, before `prepare` refuses the line
        repo.add([str(tracked)])
    tracked.unlink()
    tracked.write_bytes(LINES + b"form-03,active,2026-03-01T00:00:00Z\n")
    for refused in (queries.check, lambda: edits.revoke(["form-03"])):
        with pytest.raises(ProjectError, match="the earlier data/consent.csv line 6: .* lacks the time") as error:
            refused()
        assert error.value.fix.endswith("is right as it is now: dvc add data/consent.csv")
    with Repo() as repo:
        repo.add([str(tracked)])
    assert queries.check() == ([], [])
    assert edits.revoke(["form-03"]) == ["form-03 is revoked (line 7)"]


def test_conflict_in_dvc_s_file_says_how_to_keep_the_lines_of_both_sides(tracked: Path) -> None:
    text = DVC_FILE.read_text(encoding="utf-8")
    DVC_FILE.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n", encoding="utf-8")
    for refused in (queries.check, lambda: edits.revoke(["form-01"]), lambda: queries.status(["form-01"])):
        with pytest.raises(ProjectError, match=r"consent.csv.dvc can't be read: .* a merge has left") as error:
            refused()
        assert error.value.fix.startswith("git checkout --ours data/consent.csv.dvc; dvc checkout data/consent.csv.dvc")
        assert "append the lines of the other side, which python -m mlops consent check lists" in error.value.fix


def test_imported_registry_is_changed_where_it_comes_from(tracked: Path) -> None:
    content = YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8"))
    with DVC_FILE.open("w", encoding="utf-8") as file:
        YAML().dump({**content, "deps": [{"path": "s3://clinic/consent.csv"}]}, file)
    with pytest.raises(ProjectError, match="dvc update data/consent.csv.dvc"):
        edits.revoke(["form-00"])
    assert tracked.read_bytes() == LINES
