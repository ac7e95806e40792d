"""What a version was tested on, and whose records it has seen, itself or through what it started from."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dvc.repo import Repo
from mlflow.entities.model_registry import ModelVersion

from {{ cookiecutter.package_name }}.data import consent, manifest, shards
from {{ cookiecutter.package_name }}.data.sources import Record
from {{ cookiecutter.package_name }}.registry.aliases import Registry
from {{ cookiecutter.package_name }}.registry.evidence import Incomparable, collect

from .conftest import MODEL, Git

CONFIG = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../nowhere\n"
PARTS = {"train": "ab", "val": "c", "test": "de"}


@pytest.fixture(params=["", "below/the-root"], ids=["root", "subfolder"])
def project(request: pytest.FixtureRequest, head: str, git: Git, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project, at the root of its Git repository or below; the working directory."""
    folder = Path.cwd() / request.param
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    Repo.init(subdir=bool(request.param)).close()
    Path(".dvc/config").write_text(CONFIG, encoding="utf-8")
    return folder


def version(number: int, git: Git, parts: dict[str, str], parents: list[str] | None, **tags: str) -> ModelVersion:
    """Commit a dataset, a letter a subject, and return a version that names the commit."""
    rows = {split: [Record(f"{subject}-1", subject, "7", bytes, "") for subject in who] for split, who in parts.items()}
    shards.write(rows, 2, Path("data/dataset"))
    listed = manifest.build(Path("data/dataset"))
    manifest.write(listed, Path("data/manifest.parquet"))
    Path("reports/train").mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {} if parents is None else {"parents": parents}
    Path("reports/train/lineage.json").write_text(json.dumps(facts), encoding="utf-8")
    git("add", "--force", ".")
    git("commit", "--quiet", "--allow-empty", "-m", f"Version {number}")
    named = {
        "result_commit": git("rev-parse", "HEAD"),
        "manifest_sha256": manifest.digest(listed),
        "consent_sha256": consent.NOT_REQUIRED,
        "run": f"run-{number}",
        **tags,
    }
    return ModelVersion(MODEL, str(number), 0, tags=[_Tag(*pair) for pair in named.items()])


class _Tag:
    def __init__(self, key: str, value: str) -> None:
        self.key, self.value = key, value


def registry(*versions: ModelVersion) -> Registry:
    """Return a registry of these versions."""
    return Registry(MODEL, {int(one.version): one for one in versions}, {}, [], [])


def test_collect_reads_the_commit_and_not_the_work_tree(project: Path, git: Git) -> None:
    first = version(1, git, PARTS, [])
    second = version(2, git, {"train": "x", "val": "y", "test": "z"}, [])
    found = [collect(registry(first, second), number) for number in (1, 2)]
    assert [one.test["subject_id"].to_pylist() for one in found] == [["d", "e"], ["z"]]
    assert [one.seen for one in found] == [frozenset("abc"), frozenset("xy")]
    assert [one.consenting for one in found] == [None, None]
    assert isinstance(found[0].test, pa.Table)
    assert found[0].test.schema.names == shards.SCHEMA.names


def test_collect_counts_what_the_versions_before_have_seen(project: Path, git: Git) -> None:
    first = version(1, git, PARTS, [])
    second = version(2, git, {"train": "d", "val": "x", "test": "a"}, ["run-1"])
    third = version(3, git, {"train": "e", "val": "y", "test": "b"}, ["other"], **{"made_by.third": "x"})
    third.tags["run"] = "run-3"
    second.tags["made_by.other"] = "x"  # the same weights, made again by another run
    assert collect(registry(first, second, third), 3).seen == frozenset("abcdexy")


@pytest.mark.parametrize(
    ("parents", "said"),
    [(["gone"], "weights of run gone, which is not registered"), (None, "nobody can tell what it has seen")],
    ids=["not-registered", "not-told"],
)
def test_collect_with_unknown_parents_refuses(project: Path, git: Git, parents: list[str] | None, said: str) -> None:
    with pytest.raises(Incomparable, match=said):
        collect(registry(version(1, git, PARTS, parents)), 1)


def test_collect_of_another_manifest_than_registered_refuses(project: Path, git: Git) -> None:
    with pytest.raises(Incomparable, match="not the one that it was registered with"):
        collect(registry(version(1, git, PARTS, [], manifest_sha256="0" * 64)), 1)


def test_collect_of_a_commit_that_is_not_here_says_where_to_get_it(project: Path, git: Git) -> None:
    with pytest.raises(Incomparable, match="lacks the commit 0000000000 .*\nFix: git fetch --tags origin"):
        collect(registry(version(1, git, PARTS, [], result_commit="0" * 40)), 1)


def test_collect_of_a_version_that_is_gone_refuses(project: Path, git: Git) -> None:
    with pytest.raises(Incomparable, match="digits version 7 is not in MLflow any more"):
        collect(registry(version(1, git, PARTS, [])), 7)


def test_collect_asks_todays_consent(project: Path, git: Git) -> None:
    asked = version(1, git, PARTS, [], consent_sha256="x")
    Path("data/consent.csv").write_text(
        "subject_id,consent_status,effective_at\nd,active,\ne,revoked,\n", encoding="utf-8"
    )
    found = collect(registry(asked), 1).consenting
    assert found is not None
    assert [found.allows(subject) for subject in "de"] == [True, False]


def test_collect_where_no_remote_is_set_says_what_sets_it(project: Path, git: Git) -> None:
    made = version(1, git, PARTS, [])
    Path(".dvc/config").write_text("[core]\n    remote = storage\n", encoding="utf-8")
    with pytest.raises(Incomparable, match="no DVC remote is set.*\nFix: python -m .* setup"):
        collect(registry(made), 1)
