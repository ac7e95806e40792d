"""The tables for SQL: what they hold, that they are exported once, and what is not to be had."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlops.audit.index import Index

from .conftest import Project


@pytest.fixture
def exported(project: Project) -> Project:
    """A served version, a run that started from it, and one that records nothing."""
    project.run("first", "2025-01-01", subjects=["P1", "P2"])
    project.run("second", "2025-07-01", subjects=["P1"], parents=["first"])
    project.run("silent", "2025-08-01", end=None, parents=None)
    project.version("first", alias="champion")
    project.version("gone")
    return project


def rows(table: str) -> list[dict[str, object]]:
    content: list[dict[str, object]] = pq.read_table(f"out-of/{table}/{table}.parquet").to_pylist()
    return content


def test_export_writes_what_the_audit_knows(exported: Project) -> None:
    done = exported.audit("export", "out-of")
    assert "2 new manifests of 2" in done.output
    first, second, silent = (exported.ids[name] for name in ("first", "second", "silent"))
    assert {row["run"]: row["whole"] for row in rows("runs")} == {first: True, second: True, silent: False}
    assert {(row["run"], row["how"]) for row in rows("knows")} == {
        (first, "direct"),
        (second, "direct"),
        (second, "inherited"),
    }
    versions = [(row["version"], row["alias"], row["run"]) for row in rows("versions")]
    assert versions == [(1, "champion", first), (2, None, None)], "it is unknown what version 2 knows"
    assert {row["subject_id"]: row["status"] for row in rows("consent")} == {"P1": "active", "P2": "active"}
    names = {row["manifest_sha256"] for row in rows("knows")}
    files = {path.parent.name.removeprefix("manifest_sha256=") for path in Path("out-of/manifests").rglob("*.parquet")}
    assert files == names


def test_export_again_copies_nothing_and_needs_no_manifest(exported: Project) -> None:
    exported.audit("export", "out-of")
    exported.artifact("first").unlink()
    assert "0 new manifests of 2" in exported.audit("export", "out-of").output


def test_export_leaves_out_what_no_run_names(exported: Project) -> None:
    Index().add("f" * 64, {"P9"})  # as after a change to another MLflow
    assert "2 new manifests of 2" in exported.audit("export", "out-of").output


def test_export_of_a_champion_that_only_the_log_has_says_that_nobody_can_tell(exported: Project) -> None:
    exported.log_registered("first")
    exported.log_promoted(1)
    exported.client.delete_registered_model("digits")
    assert exported.audit("export", "out-of").exit_code == 0
    first = exported.ids["first"]
    versions = [(row["version"], row["alias"], row["run"]) for row in rows("versions")]
    assert versions == [(1, None, first), (1, "champion", None)]


def test_export_of_an_alias_that_the_log_does_not_tell_of_says_that_nobody_can_tell(exported: Project) -> None:
    exported.log_registered("first")
    exported.audit("export", "out-of")
    assert {(row["version"], row["alias"], row["run"]) for row in rows("versions")} == {
        (1, "champion", exported.ids["first"]),
        (2, None, None),
        (None, "champion", None),
    }


def test_export_of_a_manifest_that_is_gone_is_refused(exported: Project) -> None:
    exported.audit("find", "P1")
    exported.artifact("first").write_bytes(b"gone")
    done = exported.audit("export", "out-of")
    assert done.exit_code == 2
    assert "it can't be read" in done.output
    assert "Fix: in a clone whose DVC remote has it" in done.output
    assert not Path("out-of/runs").exists(), "the tables of before stay together"
