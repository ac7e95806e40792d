"""A registry that DVC keeps: told of each change, and never taken for newer than it is."""

import hashlib
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.consent import edits, queries
from mlops.errors import ProjectError
from ruamel.yaml import YAML

from .conftest import LINES

KEPT = Path("data/consent.csv.dvc")


@pytest.fixture
def kept(registry: Path) -> Path:
    """The registry, kept by DVC."""
    with Repo.init(no_scm=True) as repo:
        repo.add([str(registry)])
    return registry


def kept_md5() -> str:
    told = YAML(typ="safe").load(KEPT.read_text(encoding="utf-8"))
    return str(told["outs"][0]["md5"])


def test_revoke_tells_dvc(kept: Path) -> None:
    edits.revoke(["form-01"])
    assert kept_md5() == hashlib.md5(kept.read_bytes()).hexdigest()


def test_revoke_again_asks_nothing_of_dvc(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits.revoke(["form-01"])
    monkeypatch.setattr(Repo, "add", None)  # it would wait for a `dvc repro` that reads the registry
    assert "already" in edits.revoke(["form-01"])[0]


def test_revoke_again_tells_dvc_what_a_killed_one_did_not(kept: Path) -> None:
    kept.write_bytes(LINES + b"form-01,revoked,2025-06-01T00:00:00Z\n")
    assert "already" in edits.revoke(["form-01"])[0]
    assert kept_md5() == hashlib.md5(kept.read_bytes()).hexdigest()


def test_older_file_than_dvc_s_is_refused(kept: Path) -> None:
    edits.revoke(["form-01"])
    kept.unlink()
    kept.write_bytes(LINES)  # as git pull leaves it, which brings only what DVC names
    with pytest.raises(ProjectError, match=r"lacks 1 line\(s\) .*\nFix: dvc checkout data/consent.csv.dvc"):
        edits.revoke(["form-00"])
    assert queries.check()[0][0].startswith("data/consent.csv lacks a line that was there: form-01 revoked")
    kept.unlink()
    with pytest.raises(ProjectError, match=r"is not checked out\nFix: dvc pull data/consent.csv.dvc"):
        edits.add(["form-00"])


def test_imported_registry_is_changed_where_it_comes_from(kept: Path) -> None:
    told = YAML(typ="safe").load(KEPT.read_text(encoding="utf-8"))
    with KEPT.open("w", encoding="utf-8") as file:
        YAML().dump({**told, "deps": [{"path": "s3://clinic/consent.csv"}]}, file)
    with pytest.raises(ProjectError, match="dvc update data/consent.csv.dvc"):
        edits.revoke(["form-00"])
    assert kept.read_bytes() == LINES
