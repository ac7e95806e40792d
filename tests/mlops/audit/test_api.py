"""The questions from Python: functions return typed results and raise, and the command prints what they return."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlops import audit
from mlops.audit.index import InconclusiveError
from mlops.audit.policy import Exposure, Verdict
from mlops.audit.report import AuditReport
from mlops.errors import ProjectError
from mlops.tracking.mlflow_client import MlflowError

from ..conftest import SKELETON
from .conftest import Project, moment
from .test_faults import REVOKED


@pytest.fixture
def served(project: Project) -> Project:
    """P2 withdrew; version 1, the champion, knows it, and version 2 does not."""
    project.consent(*REVOKED)
    project.run("first", "2025-01-01", subjects=["P1", "P2"])
    project.run("second", "2025-07-01", subjects=["P1"])
    project.version("first", alias="champion")
    project.version("second")
    return project


QUESTIONS: dict[str, tuple[Callable[[], AuditReport], tuple[str, ...]]] = {
    "find": (lambda: audit.find(["P2", "P9"]), ("find", "P2", "P9")),
    "verify": (lambda: audit.verify(["P1", "P2"]), ("verify", "P1", "P2")),
    "verify-since": (lambda: audit.verify("P1", moment("2024-06-01")), ("verify", "P1", "--since", "2024-06-01")),
    "verify-experiment": (
        lambda: audit.verify(["P2"], experiments=["digits"]),
        ("verify", "P2", "--experiment", "digits"),
    ),
    "deployed": (audit.deployed, ("deployed",)),
    "deployed-subject": (lambda: audit.deployed(["P1"]), ("deployed", "P1")),
    "list": (lambda: audit.list_members("champion"), ("list", "champion")),
    "diff": (lambda: audit.diff("1", "2"), ("diff", "1", "2")),
}


@pytest.mark.parametrize(("ask", "command"), QUESTIONS.values(), ids=QUESTIONS)
def test_command_prints_what_the_function_returns(
    served: Project, ask: Callable[[], AuditReport], command: tuple[str, ...]
) -> None:
    report = ask()
    assert isinstance(report, AuditReport)
    for form, options in ((report.csv, ("--csv",)), (report.json, ("--json",))):
        done = served.audit(*command, *options)
        assert done.exit_code == report.exit_code
        assert without_time(done.output) == without_time("".join(form()))
    assert served.audit(*command).output == "".join(f"{line}\n" for line in report.text())


def without_time(text: str) -> list[str]:
    return [line for line in text.splitlines() if '"asked_at"' not in line]


def test_functions_answer_in_types(served: Project) -> None:
    report = audit.deployed()
    assert report.verdict is Verdict.FAIL
    (row,) = report.rows
    assert (row["subject"], row["exposure"], row["verdict"]) == ("P2", Exposure.DIRECT, Verdict.FAIL)
    assert list(report.rows) == [row], "rows can be read again"
    assert audit.find(["P1"]).verdict is None, "it judges nothing"
    several = audit.read()
    assert [several.verify([subject]).verdict for subject in ("P1", "P2")] == ["PASS", "PASS"]


def test_functions_raise_what_the_command_prints(served: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProjectError, match="no subject is named"):
        audit.verify([])
    with pytest.raises(ProjectError, match="no version, alias or run 'nobody'"):
        audit.list_members("nobody")
    with pytest.raises(ProjectError, match="leave out --experiment"):
        audit.find(["P1"], source="dvc", experiments=["digits"])
    served.version(alias="live", model="other")
    with pytest.raises(InconclusiveError, match="other/1"):
        audit.list_members("other/1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(MlflowError, match="platform.yaml:tracking_uri"):
        audit.find(["P1"])


def test_tables_and_index_from_python(served: Project) -> None:
    assert audit.export_tables(Path("out-of")).startswith("out-of: 2 new manifests of 2")
    served.artifact("first").unlink()
    remade = audit.reindex()
    assert (len(remade.numbers), len(remade.missing)) == (1, 1)


def test_import_waits_for_no_slow_package() -> None:
    code = "import sys, mlops.audit, mlops.optout\nprint({'mlflow', 'pyarrow', 'dvc', 'jinja2'} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": str(SKELETON)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
