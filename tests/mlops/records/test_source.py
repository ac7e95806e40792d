"""What `prepare` reads: a table of records, and the registry that says whose may be used."""

import json
import os
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.errors import ProjectError
from mlops.records import consent, shards
from mlops.records.csv_reader import read_csv
from mlops.records.source import Record, with_consent

COLUMNS = ("record_id", "path")
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


def records(*subjects: str) -> list[Record]:
    return [Record(f"r-{subject}", subject, "cat", lambda: b"", "") for subject in subjects]


def test_with_consent_withdrawal_that_lost_in_a_merge_is_left_out_and_told(
    registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = with_consent(records("P1", "P2", "stranger"), "required")
    assert [record.subject_id for record in allowed.records] == ["P1"]
    assert allowed.excluded == 2
    printed = capsys.readouterr().out
    assert "Left out, in doubt: 1 subject(s) whose withdrawal lost in a merge: P2 (line 3). Settle each" in printed
    assert "consent revoke <subject>; or, if they do consent, consent add <subject>" in printed


def test_with_consent_line_without_effect_changes_the_digest_alone(registry: Path) -> None:
    before = with_consent(records("P1"), "required")
    with registry.open("a", encoding="utf-8") as file:
        file.write("somebody,revoked,\n")
    after = with_consent(records("P1"), "required")
    assert [record.record_id for record in after.records] == [record.record_id for record in before.records]
    assert (after.excluded, after.sha256 != before.sha256) == (0, True)


@pytest.mark.parametrize("rule", ["required", "not_required"])
def test_write_dataset_reports_what_decided(registry: Path, rule: str) -> None:
    allowed = with_consent(records("P1"), rule)
    shards.write_dataset({"train": allowed.records}, 1, allowed)
    report = json.loads(Path("reports/prepare.json").read_text(encoding="utf-8"))
    digest = allowed.sha256
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
        list(read_csv(Path("data/raw/records.csv"), COLUMNS))
        with_consent(records("P1"), "required")


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
    with pytest.raises(ProjectError, match=r"records.csv can't be read: .*\nFix: put a file there"):
        list(read_csv(table, COLUMNS))
