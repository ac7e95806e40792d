"""A comparison is fair: the same records for both, none that one of them has seen, none without consent."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.records import consent, manifest, shards
from mlops.registry.aliases import Registry
from mlops.registry.comparison import _fair_records, compare
from mlops.registry.evaluation import IncomparableError, seen_subjects
from mlops.tracking.mlflow_reader import StoredVersion

from .. import small_datasets
from ..small_datasets import record
from .conftest import MODEL, Git

CONFIG = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../nowhere\n"
PARTS = {"train": "ab", "val": "c", "test": "de"}


@pytest.fixture
def project(request: pytest.FixtureRequest, head: str, git: Git, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project, at the root of its Git repository or below; the working directory."""
    below = getattr(request, "param", "")
    folder = Path.cwd() / below
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    Repo.init(subdir=bool(below)).close()
    Path(".dvc/config").write_text(CONFIG, encoding="utf-8")
    return folder


def committed_version(
    number: int, git: Git, parts: Mapping[str, Iterable[str]], parents: list[str], **tags: str
) -> StoredVersion:
    """Commit a dataset, the subjects of each part, and return a version that names the commit."""
    rows = [record(f"{subject}-1", subject, "7", split=split) for split, who in parts.items() for subject in who]
    small_datasets.write(rows, Path("data/dataset"), 2)
    listed = manifest.write(manifest.build(Path("data/dataset")), Path("data/manifest.parquet"))
    Path("reports/train").mkdir(parents=True, exist_ok=True)
    Path("reports/train/lineage.json").write_text(json.dumps({"parents": parents}), encoding="utf-8")
    git("add", "--force", ".")
    git("commit", "--quiet", "--allow-empty", "-m", f"Version {number}")
    named = {
        "result_commit": git("rev-parse", "HEAD"),
        "manifest_sha256": listed.sha256,
        "consent_sha256": consent.NOT_REQUIRED,
        f"made_by.run-{number}": "x",
        **tags,
    }
    return StoredVersion(MODEL, str(number), None, 0, named)


def registry(*versions: StoredVersion) -> Registry:
    """Return a registry of these versions."""
    return Registry(MODEL, {int(version.version): version for version in versions}, {}, [])


def fair_part(version: StoredVersion, seen: str = "") -> tuple[str, int, int]:
    """Return the subjects in the fair part of a test set, and how many records are left out."""
    records, *left_out = _fair_records(version, frozenset(seen))
    assert records.schema.names == shards.SCHEMA.names
    return "".join(records["subject_id"].to_pylist()), left_out[0], left_out[1]


@pytest.mark.parametrize("project", ["", "below/the-root"], ids=["root", "subfolder"], indirect=True)
def test_data_are_those_of_the_commit_and_not_of_the_work_tree(project: Path, git: Git) -> None:
    first = committed_version(1, git, PARTS, [])
    second = committed_version(2, git, {"train": "x", "val": "y", "test": "z"}, [])
    known = registry(first, second)
    assert [fair_part(version) for version in (first, second)] == [("de", 0, 0), ("z", 0, 0)]
    assert [seen_subjects(known, version) for version in (first, second)] == [frozenset("abc"), frozenset("xy")]


def test_fair_leaves_out_the_seen_and_the_withdrawn_and_counts_them(project: Path, git: Git) -> None:
    parts = {"train": "a", "val": "b", "test": "defg"}
    required, public = committed_version(1, git, parts, [], consent_sha256="x"), committed_version(2, git, parts, [])
    lines = "subject_id,consent_status,effective_at\nd,active,\ne,revoked,\nf,revoked,\ng,active,\n"
    Path("data/consent.csv").write_text(lines, encoding="utf-8")
    assert fair_part(required) == ("dg", 0, 2)
    assert fair_part(required, "ed") == ("g", 2, 1), "who is seen and withdrew is counted once"
    assert fair_part(public, "ed") == ("fg", 2, 0), "nobody's consent is asked"
    with pytest.raises(
        IncomparableError,
        match="of the 4 records in the test set of version 1 none .* on 2, and 2 more have no consent\n"
        "Fix: compare versions of the same split",
    ):
        fair_part(required, "dg")


def test_seen_counts_what_the_versions_before_have_seen(project: Path, git: Git) -> None:
    first = committed_version(1, git, PARTS, [])
    second = committed_version(2, git, {"train": "d", "val": "x", "test": "a"}, ["run-1"], **{"made_by.other": "x"})
    third = committed_version(3, git, {"train": "e", "val": "y", "test": "b"}, ["other"])
    assert seen_subjects(registry(first, second, third), third) == frozenset("abcdexy")


def test_seen_of_a_parent_that_is_not_registered_refuses(project: Path, git: Git) -> None:
    child = committed_version(1, git, PARTS, ["gone"])
    with pytest.raises(
        IncomparableError, match="started from run gone, which is not registered .* seen\nFix: .* mirror status"
    ):
        seen_subjects(registry(child), child)


def test_commit_that_is_not_here_is_refused_with_where_to_get_it(project: Path, git: Git) -> None:
    with pytest.raises(
        IncomparableError, match="lacks the commit of digits version 1, 0000000000\nFix: git fetch --tags"
    ):
        fair_part(committed_version(1, git, PARTS, [], result_commit="0" * 40))
    with pytest.raises(IncomparableError, match="version 1 names no commit: .*\nFix: take one that has a commit"):
        fair_part(committed_version(1, git, PARTS, [], result_commit=""))


def test_compare_with_a_champion_that_is_gone_refuses(project: Path, git: Git) -> None:
    with pytest.raises(IncomparableError, match="digits version 7 is not in MLflow any more\nFix: .* mirror status"):
        compare(registry(committed_version(1, git, PARTS, [])), 1, 7, "test_acc", {})


def test_data_that_the_commit_does_not_name_are_refused(project: Path, git: Git) -> None:
    made = committed_version(1, git, PARTS, [])
    git("rm", "-r", "--quiet", "data/dataset/test")
    git("commit", "--quiet", "-m", "Without")
    made.tags["result_commit"] = git("rev-parse", "HEAD")
    with pytest.raises(
        IncomparableError, match="of version 1 has no data/dataset/test\nFix: take a version that has it"
    ):
        fair_part(made)
