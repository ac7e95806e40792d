"""What commands print: JSON as its schema says, tables that fit, and help that is not cut."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import click
import jsonschema
import pytest
from click.testing import CliRunner, Result
from dvc.repo import Repo
from mlops import output
from mlops.audit.policy import Verdict
from mlops.audit.report import AuditReport
from mlops.cli import main
from mlops.compute import backend
from mlops.compute.backend import JobRow, State
from mlops.compute.sagemaker import doctor
from mlops.compute.sagemaker.checks.project import broken, ok
from mlops.registry import cli as registry_cli

from .audit.conftest import PROJECT, Project, project  # noqa: F401 (a fixture)
from .conftest import SKELETON

SCHEMAS = json.loads((SKELETON / "docs/json.schema.json").read_text(encoding="utf-8"))
PAGE = (SKELETON / "docs/json.md").read_text(encoding="utf-8")
LONG_NAME = "a-project-with-a-name-of-32-char"
SHA256, RUN = "d" * 64, "eb508bea645545c691ec5c7f1f71051f"
WITHOUT_SCHEMA_OF_ITS_OWN = {
    ("registry",): "registry-at",
    ("mirror", "repair"): "mirror-status",
    ("optout",): "optout-plan",
}

Path_ = tuple[str, ...]  # of a command


def commands(group: click.Group = main, path: Path_ = ()) -> Iterator[tuple[Path_, click.Command]]:
    """Give every command and group that `--help` shows."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif not command.hidden:
            yield (*path, name), command


def invoke(*command: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, command, catch_exceptions=False)


def document(schema: str, *command: str) -> Any:
    """Run a command with --json, check what it prints by its schema, and return that."""
    content = json.loads(invoke(*command, "--json").stdout)
    jsonschema.Draft202012Validator({**SCHEMAS, "$ref": f"#/$defs/{schema}"}).validate(content)
    return content


@pytest.fixture
def served(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:  # noqa: F811
    """A project with two versions, one in use, that knows P1 and P2; and a run that the log does not know."""
    Path("pyproject.toml").write_text('[tool.mlops]\npackage = "team"\nnumeric = []\n', encoding="utf-8")
    project.consent(
        "P1,active,2024-01-01T00:00:00Z", "P2,active,2024-01-01T00:00:00Z", "P2,revoked,2025-02-01T00:00:00Z"
    )
    project.run("one", "2025-01-01", subjects=["P1", "P2"])
    project.run("two", "2025-03-01", subjects=["P1"])
    project.version("one")
    project.version("two", alias="champion")
    project.log_registered("one", "two")
    project.log_promoted(2)
    project.run("three", "2025-04-01", end=None)
    return project


def test_every_command_with_json_has_a_schema_and_a_line_in_the_docs() -> None:
    with_json = {path: command for path, command in commands() if "--json" in str([p.opts for p in command.params])}
    assert len(with_json) >= 15
    audits = {path for path in with_json if path[0] == "audit"}
    for path in with_json.keys() - audits:
        schema = WITHOUT_SCHEMA_OF_ITS_OWN.get(path, "-".join(path))
        assert schema in SCHEMAS["$defs"], path
        assert " ".join(path) in PAGE and f"`#/$defs/{schema}`" in PAGE, path
    assert {name for _, name in audits} == set(
        json.loads(invoke("audit", "schema").stdout)["properties"]["verb"]["enum"]
    )


def test_schemas_are_valid_and_refuse_a_key_that_is_not_documented() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS)
    objects = [each for each in _objects(SCHEMAS["$defs"]) if "properties" in each]
    assert len(objects) >= 10
    for each in objects:
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and node.get("type") == "object":
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(child)


def test_json_of_registry_mirror_and_consent(served: Project) -> None:
    assert [version["version"] for version in document("registry-list", "registry", "list")] == [2, 1]
    shown = document("registry-show", "registry", "show", "champion")
    assert (shown["aliases"], shown["tags"]["run"], len(shown["moves"])) == (["champion"], "two", 1)
    served.log_refused(1)
    (refusal,) = document("registry-show", "registry", "show", "1")["refusals"]
    assert [entry["action"] for entry in document("registry-log", "registry", "log")] == ["promote", "refuse"]
    assert document("registry-log", "registry", "log")[1] == refusal
    assert invoke("registry", "log").stdout.splitlines()[-1].endswith("refuse champion to 1   Ada  better; it is worse")
    status = document("mirror-status", "mirror", "status")
    assert (status["runs"], status["complete"], status["lacking"]) == (2, True, [])
    served.client.delete_registered_model_alias(PROJECT, "champion")
    lacking = document("mirror-status", "mirror", "repair", "--dry-run")["lacking"]
    assert [item["what"] for item in lacking] == ["alias champion"]
    states = document("consent-status", "consent", "status", "P1", "P2", "P9")
    assert [(state["status"], state["allowed"]) for state in states] == [
        ("active", True),
        ("revoked", False),
        ("missing", False),
    ]
    assert [line["status"] for line in document("consent-history", "consent", "history", "P2")["lines"]] == [
        "active",
        "revoked",
    ]
    assert document("consent-check", "consent", "check") == {"problems": [], "doubts": []}


def test_json_of_an_opt_out_says_what_it_would_do(served: Project) -> None:
    with Repo.init() as repo, repo.config.edit() as config:
        config["core"]["remote"], config["remote"]["storage"] = "storage", {"url": "storage"}
    Path("params.yaml").write_text("data: {consent: required}\ntrain: {init_from: null}\n", encoding="utf-8")
    plan = document("optout-plan", "optout", "P2", "--dry-run")
    assert [run["title"] for run in plan["runs"]] == ["one"]
    assert plan["datasets"][0]["shards"] == {"train/shard-000.parquet": 2}
    assert plan["steps"][0] == "append the withdrawal to data/consent.csv"
    assert invoke("optout", "P2", "--json").exit_code == 2


class Jobs:
    """A backend with two jobs."""

    NAME = "far"
    ROWS: ClassVar = {
        f"{LONG_NAME}-train-0123456789ab-1": JobRow(
            State.FAILED, "no space left on device " * 12, 123456, "1 x ml.p5.48xlarge"
        ),
        f"{LONG_NAME}-train-0123456789ab-2": JobRow(State.RUNNING),
    }

    def names(self, everyones: bool = False) -> list[str]:
        """Return their names."""
        return list(self.ROWS)

    def row(self, name: str) -> JobRow:
        """Return one."""
        return self.ROWS[name]


def test_jobs_as_json_and_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "backends", lambda: {"far": Jobs})
    rows = document("jobs-list", "jobs", "list")
    assert [(row["backend"], row["state"], row["billable_s"]) for row in rows] == [
        ("far", "Failed", 123456),
        ("far", "InProgress", None),
    ]
    printed = invoke("jobs", "list").stdout.splitlines()
    assert printed[0] == f"Failed      {LONG_NAME}-train-0123456789ab-1"
    assert printed[1] == "            123456 s on 1 x ml.p5.48xlarge"
    assert printed[-1] == f"InProgress  {LONG_NAME}-train-0123456789ab-2"
    assert_fits("\n".join(printed))
    monkeypatch.setattr(backend, "backends", dict)
    assert invoke("jobs", "list").stdout == "There are no jobs\n"
    assert document("jobs-list", "jobs", "list") == []


def test_doctor_as_json_and_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor.DoctorReport([("git", ok("fine")), ("role", broken("there is none " * 12, f"aws {SHA256 * 2}"))])
    monkeypatch.setattr(doctor, "examine", lambda: report)
    assert [row["standing"] for row in document("jobs-doctor", "jobs", "doctor")] == ["ok", "to be mended"]
    assert_fits(report.table())


def assert_fits(text: str) -> None:
    """Check that no line is wider than a terminal."""
    assert max(map(len, text.splitlines())) <= output.WIDTH, text


def row(**columns: Any) -> dict[str, Any]:
    """Make the row of an audit whose cells are as long as they get."""
    path = [f"run {RUN}", "run 4003eae6590e4ecd929f53941d76ccf0", f"manifest {SHA256}"]
    times = dict.fromkeys(("started_at", "ended_at"), "2026-11-29T15:26:52.597Z")
    names = {"run": RUN, "title": "a-name-that-people-can-say", "experiment": LONG_NAME, "deleted": False}
    return {"subject": SHA256, "exposure": "inherited", **names, **times, "path": path, **columns}


def test_tables_of_audits_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [f"{LONG_NAME}/123 @champion @challenger", f"{LONG_NAME}/124"]
    subjects = [{"subject": SHA256, "consent": "in doubt", "ended_at": "2026-11-29T15:26:52.597Z", "runs": 1234}]
    judged = {"verdict": "INCONCLUSIVE", "timing": "never consented"}
    served = {"served_by": f"alias challenger ({LONG_NAME}/123)"}
    for rows in (
        [row(versions=versions)],
        [row(versions=versions, **judged)],
        [row(versions=versions, **judged, **served)],
        [{"subject": SHA256, "change": "removed", "exposure": "inherited"}],
    ):
        unknown = [
            row(path=[f"run {RUN}", "it does not record which manifest it read"]),
            {"path": ["x" * 300], **served},
        ]
        text = "\n".join(AuditReport("verify", Verdict.FAIL, subjects, rows, unknown).text())
        assert_fits(text)
        assert "d" * 20 in text, "the id of a subject is not cut"
        assert RUN not in text


def test_table_of_versions_fits_and_says_what_it_left_out() -> None:
    names = ("test_acc", "val_acc", "test_loss", "a_metric_with_a_very_long_name_of_its_own", "f1")
    facts = {"run": "0123456789ab", "experiment": "gouty-fifo", "data_version": "a9d1429e", "commit": "5" * 40}
    version = {"version": 123, "aliases": ["challenger", "champion"], "metrics": dict.fromkeys(names, 0.9744), **facts}
    text = registry_cli.table([{**version, "registered": "2026-11-29T15:34:49Z"}] * 2)
    assert_fits(text)
    head, first, *_, last = text.splitlines()
    assert head.split() == ["version", "aliases", "run", "experiment", "data", *names[:3], "registered"]
    assert first.split()[:3] == ["123", "challenger", "0123456789ab"]
    assert last == f"More metrics ({', '.join(names[3:])}): registry show VERSION"


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], ["a  b"]),
        ([["  x", "y  z"]], ["a    b", "  x  y  z"]),
        ([["x" * 60, "two words " * 7]], None),
        ([["x" * 99, "y" * 99]], None),
        ([["long"] * 12], None),
    ],
    ids=["empty", "spaces", "words", "no-words", "many-columns"],
)
def test_table(rows: list[list[str]], lines: list[str] | None) -> None:
    text = output.table(rows, ["a", "b"] if not rows or len(rows[0]) == 2 else ())
    assert lines is None or text.splitlines() == lines
    assert_fits(text)
    for cell in {cell for row in rows for cell in row}:
        assert sum(map(text.count, cell.replace(" ", "")[:1])) >= 1


def test_run_goes_by_the_first_characters_of_its_id_and_nothing_to_tell_is_told(served: Project) -> None:
    run = served.ids["two"]
    assert "P1" in served.audit("list", run[:12]).output
    assert served.audit("list", run[:11]).exit_code == 2
    same = served.audit("diff", "2", "champion")
    assert same.output == "No difference: both know the same subjects.\n"
    assert served.audit("deployed").output.splitlines()[-1] == "PASS"
    served.consent("P1,active,2024-01-01T00:00:00Z")
    assert served.audit("deployed").output == "What is served knows no subject without consent.\nPASS\n"
    assert "MLflow has all that this clone knows" in invoke("mirror", "status").output
    assert invoke("consent", "check").output == "The registry is in order\n"
    for number in ("1", "2"):
        served.client.delete_model_version(PROJECT, number)
    assert invoke("registry", "list").stdout == f"MLflow has no version of {PROJECT}\n"


def test_help_is_not_cut_at_80_columns() -> None:
    for path, command in commands():
        if isinstance(command, click.Group):
            shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).output.partition("Commands:")[2]
            assert shown and "..." not in shown, f"{path}: {shown}"
