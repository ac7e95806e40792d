"""What `prepare` reads: a table of records, and the registry that says whose may be used."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.errors import ProjectError
from mlops.records import consent, shards
from mlops.records.csv_reader import read_csv
from mlops.records.source import Records, read_records, require_consent

from ..small_datasets import record, source

COLUMNS = ("record_id", "path")
MISSING = ProjectError("it is not there", "write it")
REGISTRY = """\
subject_id,consent_status,effective_at
P1,active,
P2,revoked,2025-02-10T00:00:00Z
P2,revoked,2025-01-10T00:00:00Z
P2,active,2025-03-10T00:00:00Z
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry in which a withdrawal of P2 lost in a merge; the working directory is the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("data").mkdir()
    consent.PATH.write_text(REGISTRY, encoding="utf-8")
    return consent.PATH


@contextmanager
def consenting(*subjects: str, rule: str = "required") -> Iterator[Records]:
    """The records of these subjects, one each, of which the registry allows some."""
    with read_records(source([record(f"r-{subject}", subject) for subject in subjects])) as records:
        require_consent(records, rule)
        yield records


def test_require_consent_withdrawal_that_lost_in_a_merge_is_left_out_and_told(
    registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with consenting("P1", "P2", "stranger") as records:
        allowed = records.table.execute("SELECT subject_id FROM records WHERE allowed").fetchall()
        assert (allowed, records.count(), records.excluded()) == ([("P1",)], 1, 2)
    printed = capsys.readouterr().out
    assert "Left out, in doubt: 1 subject(s) whose withdrawal lost in a merge: P2 (line 3). Settle each" in printed
    assert "consent revoke <subject>; or, if they do consent, consent add <subject>" in printed


def test_require_consent_line_without_effect_changes_the_digest_alone(registry: Path) -> None:
    with consenting("P1") as records:
        before = records.consent_sha256
    with registry.open("a", encoding="utf-8") as file:
        file.write("somebody,revoked,\n")
    with consenting("P1") as records:
        assert (records.count(), records.excluded(), records.consent_sha256 != before) == (1, 0, True)


@pytest.mark.parametrize("rule", ["required", "not_required"])
def test_write_dataset_reports_what_decided(registry: Path, rule: str) -> None:
    with consenting("P1", rule=rule) as records:
        shards.write_dataset(records, 1)
        digest = records.consent_sha256
    report = json.loads(Path("reports/prepare.json").read_text(encoding="utf-8"))
    assert report == {"excluded": 0, "consent": digest[:7] if rule == "required" else rule, "consent_sha256": [digest]}


@pytest.mark.parametrize(
    ("deps", "missing"),
    [("[data/consent.csv]", "data/raw"), ("[data/raw]", "data/consent.csv")],
    ids=["raw", "consent"],
)
def test_input_that_dvc_does_not_watch_is_refused(
    registry: Path, monkeypatch: pytest.MonkeyPatch, deps: str, missing: str
) -> None:
    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text(f"stages:\n  prepare:\n    cmd: echo\n    deps: {deps}\n", encoding="utf-8")
    Path("data/raw").mkdir()
    Path("data/raw/records.csv").write_text("record_id,path\nr,r.png\n", encoding="utf-8")
    monkeypatch.setenv("DVC_STAGE", "prepare")
    with pytest.raises(ProjectError, match=f"add `- {missing}`"):
        list(read_csv(Path("data/raw/records.csv"), COLUMNS, MISSING))
        with consenting("P1"):
            pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "below a file", "unreadable"])
def test_read_csv_that_cant_be_read_is_told(tmp_path: Path, kind: str) -> None:
    table = tmp_path / "records.csv"
    if kind == "folder":
        table.mkdir()
    elif kind == "loop":
        table.symlink_to(table.name)
    elif kind == "pipe":
        os.mkfifo(table)
    elif kind == "below a file":
        table.write_text("", encoding="utf-8")
        table = table / "records.csv"
    else:
        table.touch(mode=0)
        if os.access(table, os.R_OK):
            pytest.skip("root reads everything")
    with pytest.raises(
        ProjectError, match=r"records.csv can't be read: .*\nFix: (put a file there in|let yourself read)"
    ):
        list(read_csv(table, COLUMNS, MISSING))


def test_nobody_who_consents_is_an_error_with_both_ways_out(registry: Path) -> None:
    with (
        pytest.raises(
            ProjectError, match=r"none of 1 records may be used[\s\S]*consent add <subject>; or, .* not_required"
        ),
        consenting("stranger"),
    ):
        pass
