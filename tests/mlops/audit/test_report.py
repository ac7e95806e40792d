"""The forms of an answer: for programs by a schema, for spreadsheets without formulas, for terminals without tricks."""

import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest
from mlops.audit.policy import Verdict
from mlops.audit.report import FORMULA, AuditReport

from .conftest import Project
from .test_faults import REVOKED


@pytest.fixture
def answered(project: Project) -> Project:
    """Two served versions, an unknown run, and ids that spreadsheets would run."""
    project.consent(*REVOKED, "=cmd|' /C calc'!A0,active,2024-01-01T00:00:00Z")
    project.run("one", "2025-01-01", subjects=["P1", "P2", "=cmd|' /C calc'!A0", "@SUM(A1)"])
    project.run("two", "2025-07-01", subjects=["P1"], parents=["one"])
    project.run("-3+4", "2025-08-01", end=None, parents=None)
    project.run("three", "2025-09-01", subjects=["P1"])
    project.version("one", alias="previous")
    project.version("two", alias="champion")
    project.version("three")
    return project


COMMANDS = [
    ("find", "P2", "P9"),
    ("verify", "P1", "P2", "=cmd|' /C calc'!A0"),
    ("deployed",),
    ("list", "champion"),
    ("diff", "1", "3"),
    ("verify", "P1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_json_is_what_the_schema_says(answered: Project, command: tuple[str, ...]) -> None:
    schema = json.loads(answered.audit("schema").output)
    jsonschema.Draft202012Validator.check_schema(schema)
    done = answered.audit(*command, "--json")
    answer = json.loads(done.output)
    jsonschema.validate(answer, schema)
    assert answer["exit_code"] == done.exit_code
    assert answer["verb"] == command[0]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_csv_has_nothing_that_a_spreadsheet_would_run(answered: Project, command: tuple[str, ...]) -> None:
    done = answered.audit(*command, "--csv")
    lines = list(csv.DictReader(io.StringIO(done.output, newline=""), strict=True))
    assert lines
    assert not [cell for line in lines for cell in line.values() if cell.startswith(FORMULA)]
    answer = json.loads(answered.audit(*command, "--json").output)
    wanted = {row["subject"] for row in (*answer["rows"], *answer["subjects"])}
    assert {line["subject"].removeprefix("'") for line in lines} - {""} == wanted


@pytest.mark.parametrize("start", FORMULA)
def test_csv_of_each_character_that_begins_a_formula(start: str) -> None:
    report = AuditReport("list", rows=[{"subject": f"{start}1", "versions": [f"{start}a", "b"]}])
    (line,) = csv.DictReader(io.StringIO("".join(report.csv()), newline=""))
    assert line == {"subject": f"'{start}1", "versions": f"'{start}a < b"}


def test_text_for_people_has_no_control_characters() -> None:
    report = AuditReport("verify", Verdict.FAIL, rows=[{"subject": "\x1b[2J\u202e\rP1", "verdict": "FAIL"}])
    shown = "".join(report.text())
    assert shown.isprintable()
    assert "\\x1b[2J\\u202e\\rP1" in shown


def test_text_tells_subjects_findings_and_what_is_unknown(answered: Project) -> None:
    lines = answered.audit("verify", "P1", "P2").output.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["subject", "consent"], ["P1", "active"], ["P2", "ended"]]
    assert lines[-1] == "FAIL"
    assert any("two" in line and "inherited" in line and "after" in line for line in lines)
    assert any("-3+4" in line and "it does not record which manifest it read" in line for line in lines)


@pytest.mark.slow
def test_many_subjects_in_one_call(project: Project) -> None:
    everybody = [f"patient-{number:06}" for number in range(100_000)]
    project.consent(*(f"{subject},active,2024-01-01T00:00:00Z" for subject in everybody[:-1]))
    project.run("one", "2025-07-01", subjects=everybody)
    Path("asked.txt").write_text("\n".join(everybody), encoding="utf-8")
    done = project.audit("verify", "--subjects-file", "asked.txt", "--json")
    answer = json.loads(done.output)
    assert (done.exit_code, len(answer["subjects"]), len(answer["rows"])) == (1, 100_000, 1)
