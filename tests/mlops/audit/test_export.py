"""The tables for SQL: what they hold, that they are exported once, and what is not to be had."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlops.audit.index import Index

from .conftest import Project


@pytest.fixture
def asked(project: Project) -> Project:
    """A served version, a run that started from it, and one of which nobody can tell."""
    project.run("first", "2025-01-01", subjects=["P1", "P2"])
    project.run("second", "2025-07-01", subjects=["P1"], parents=["first"])
    project.run("silent", "2025-08-01", end=None, parents=None)
    project.version("first", alias="champion")
    project.version("gone")
    return project


def rows(table: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(f"out-of/{table}/{table}.parquet").to_pylist()
    return found


def test_export_writes_what_the_audit_knows(asked: Project) -> None:
    done = asked.audit("export", "out-of")
    assert "2 new manifests of 2" in done.output
    first, second, silent = (asked.ids[name] for name in ("first", "second", "silent"))
    assert {row["run"]: row["whole"] for row in rows("runs")} == {first: True, second: True, silent: False}
    assert {(row["run"], row["how"]) for row in rows("knows")} == {
        (first, "direct"),
        (second, "direct"),
        (second, "inherited"),
    }
    versions = [(row["version"], row["alias"], row["run"]) for row in rows("versions")]
    assert versions == [(1, "champion", first), (2, None, None)], "nobody can tell what version 2 knows"
    assert {row["subject_id"]: row["status"] for row in rows("consent")} == {"P1": "active", "P2": "active"}
    names = {row["manifest_sha256"] for row in rows("knows")}
    files = {path.parent.name.removeprefix("manifest_sha256=") for path in Path("out-of/manifests").rglob("*.parquet")}
    assert files == names


def test_export_again_copies_nothing_and_needs_no_manifest(asked: Project) -> None:
    asked.audit("export", "out-of")
    asked.artifact("first").unlink()
    assert "0 new manifests of 2" in asked.audit("export", "out-of").output


def test_export_leaves_out_what_no_run_names(asked: Project) -> None:
    Index().add("f" * 64, {"P9"})  # as after a change to another MLflow
    assert "2 new manifests of 2" in asked.audit("export", "out-of").output


def test_export_of_a_champion_that_only_the_log_has_says_that_nobody_can_tell(asked: Project) -> None:
    asked.log_registered("first")
    asked.log_promoted(1)
    asked.client.delete_registered_model("digits")
    assert asked.audit("export", "out-of").exit_code == 0
    first = asked.ids["first"]
    versions = [(row["version"], row["alias"], row["run"]) for row in rows("versions")]
    assert versions == [(1, None, first), (1, "champion", None)]


def test_export_of_an_alias_that_the_log_does_not_tell_of_says_that_nobody_can_tell(asked: Project) -> None:
    asked.log_registered("first")
    asked.audit("export", "out-of")
    assert {(row["version"], row["alias"], row["run"]) for row in rows("versions")} == {
        (1, "champion", asked.ids["first"]),
        (2, None, None),
        (None, "champion", None),
    }


def test_export_of_a_manifest_that_is_gone_is_refused(asked: Project) -> None:
    asked.audit("find", "P1")
    asked.artifact("first").write_bytes(b"gone")
    done = asked.audit("export", "out-of")
    assert done.exit_code == 2
    assert "it can't be read" in done.output
    assert "Fix: in a clone whose DVC remote has it" in done.output
    assert not Path("out-of/runs").exists(), "the tables of before stay together"
