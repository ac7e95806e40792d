"""Who is served is what MLflow and the log both say; where they differ, or one can't be read, it is never a PASS."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlops.audit.audit import Audit
from mlops.optout import plan, steps
from mlops.optout.steps import OptOutReport
from mlops.tracking.mlflow_reader import SqliteReader

from .conftest import Project
from .test_faults import REVOKED

FETCH = "git fetch origin lineage:lineage"
REPAIR = "mirror repair"


def git(*command: str) -> str:
    done = subprocess.run(("git", *command), capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def ask(project: Project, *question: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a question, and its answer."""
    done = project.audit(*question, "--json")
    return done.exit_code, json.loads(done.output)


def deployed(project: Project, *options: str) -> tuple[int, set[tuple[str, str, str]], str]:
    """Return the exit code of `audit deployed`, its rows, and its notes."""
    code, answer = ask(project, "deployed", *options)
    rows = {(row["served_by"], row["subject"], row["verdict"]) for row in answer["rows"]}
    if answer["verdict"] == "INCONCLUSIVE" and answer["notes"]:
        assert {"served_by", "path"} <= answer["unknown"][-1].keys(), "a spreadsheet has no notes"
    return code, rows, "\n".join(answer["notes"])


@pytest.fixture
def served(project: Project) -> Project:
    """P2 withdrew. Version 1 knows it and version 2 does not; by the log, version 1 is champion."""
    project.consent(*REVOKED)
    project.run("one", "2025-01-01", subjects=["P1", "P2"])
    project.run("two", "2025-07-01", subjects=["P1"])
    project.log_registered("one", "two")
    project.log_promoted(1)
    return project


def register(project: Project, *aliases: str) -> None:
    """Register both versions in MLflow, with their aliases."""
    for run, alias in zip(("one", "two"), (*aliases, "", ""), strict=False):
        project.version(run, alias=alias)


def test_deployed_where_both_say_the_same_is_judged(served: Project) -> None:
    register(served, "champion")
    wanted = {("alias champion (digits/1)", "P2", "FAIL")}
    assert deployed(served) == (1, wanted, "")
    served.log_promoted(2)
    served.client.set_registered_model_alias("digits", "champion", "2")
    assert deployed(served) == (0, set(), "")


@pytest.mark.parametrize("lost", ["model", "version", "alias"])
def test_deployed_champion_that_mlflow_lost_is_inconclusive(served: Project, lost: str) -> None:
    if lost != "model":
        register(served)
    if lost == "version":
        served.client.delete_model_version("digits", "1")
    code, rows, notes = deployed(served)
    assert (code, rows) == (3, {("champion in the log (digits/1)", "P2", "INCONCLUSIVE")})
    assert "champion is none in MLflow, and version 1 in the log" in notes
    assert REPAIR in notes
    assert deployed(served, "P1")[0] == 3, "it is unknown what is served"
    assert ask(served, "list", "1")[0] == 0
    for question in (("find", "P2"), ("deployed", "P2")):
        assert served.audit(*question).exit_code == 3, question
    assert served.audit("verify", "P2").exit_code == 0, "that asks for runs, and they are there"
    refused = served.audit("list", "champion")
    assert refused.exit_code == 3
    assert REPAIR in refused.output


@pytest.mark.parametrize(
    ("in_mlflow", "in_log", "code"),
    [(1, 2, 1), (2, 1, 3), (1, None, 1), (2, None, 3)],
    ids=["it-serves-p2", "the-log-says-p2", "by-hand-p2", "by-hand"],
)
def test_deployed_champion_elsewhere_in_the_log_is_never_a_pass(
    served: Project, in_mlflow: int, in_log: int | None, code: int
) -> None:
    register(served, *("champion" if number == in_mlflow else "" for number in (1, 2)))
    if in_log is None:
        git("update-ref", "-d", "refs/heads/lineage")
        served.log_registered("one", "two")
    else:
        served.log_promoted(in_log)
    exit_code, rows, notes = deployed(served)
    wanted = f"champion is version {in_mlflow} in MLflow, and {f'version {in_log}' if in_log else 'none'} in the log"
    assert (exit_code, wanted in notes, FETCH in notes) == (code, True, True)
    assert ("alias champion (digits/1)", "P2", "FAIL") in rows or in_mlflow == 2
    assert ("champion in the log (digits/1)", "P2", "INCONCLUSIVE") in rows or in_log != 1


def test_deployed_challenger_is_compared_too(served: Project) -> None:
    register(served)
    served.log_promoted(2)
    served.client.set_registered_model_alias("digits", "champion", "2")
    served.log_promoted(1, "challenger")
    code, rows, notes = deployed(served)
    assert (code, rows) == (3, {("challenger in the log (digits/1)", "P2", "INCONCLUSIVE")})
    assert "challenger is none in MLflow, and version 1 in the log" in notes


def test_deployed_other_model_under_the_same_number_is_inconclusive(served: Project) -> None:
    served.version("two", alias="champion")  # a server that counts from 1 again
    code, rows, notes = deployed(served)
    assert (code, rows) == (3, {("champion in the log (digits/1)", "P2", "INCONCLUSIVE")})
    assert "in MLflow other runs made it than in the log" in notes
    assert "platform.yaml:tracking_uri" in notes


def test_deployed_promoted_version_that_was_never_registered_is_inconclusive(served: Project) -> None:
    register(served)
    served.log_promoted(9)
    for source in ("mlflow", "dvc"):
        assert deployed(served, "--source", source)[0] == 3


def test_deployed_alias_of_a_version_that_mlflow_does_not_show_is_inconclusive(
    served: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(served, "champion")

    read = SqliteReader.versions
    hidden = lambda reader, model="": [each for each in read(reader, model) if each.version != "1"]  # noqa: E731
    monkeypatch.setattr(SqliteReader, "versions", hidden)
    code, answer = ask(served, "deployed")
    assert (code, answer["unknown"][0]["served_by"]) == (3, "alias champion (digits/1)")


def without_log(project: Project) -> None:
    git("update-ref", "-d", "refs/heads/lineage")


def behind(project: Project) -> None:
    git("update-ref", "refs/remotes/origin/lineage", "lineage")
    git("update-ref", "refs/heads/lineage", "lineage~1")


def damaged(project: Project) -> None:
    project.log("promote digits champion to version 2\n\nmove: 1\nversion: 2\n")


FAULTS = {"no-log": (without_log, FETCH), "behind": (behind, FETCH), "damaged": (damaged, "git show")}


@pytest.mark.parametrize(
    ("source", "name"),
    [("mlflow", "no-log"), ("mlflow", "behind"), ("mlflow", "damaged"), ("dvc", "behind"), ("dvc", "damaged")],
)
def test_deployed_where_nothing_is_served_and_the_log_cannot_be_read_is_inconclusive(
    project: Project, source: str, name: str
) -> None:
    fault, fix = FAULTS[name]
    project.run("one", "2025-01-01", subjects=["P1"])
    project.log_registered("one")
    project.log_promoted(1)
    fault(project)
    code, rows, notes = deployed(project, "--source", source)
    assert (code, rows) == (3, set())
    assert fix in notes
    assert "nothing is served" not in notes


def test_log_alone_where_there_is_none_is_inconclusive(project: Project) -> None:
    Path("reports").mkdir()
    Path("reports/run.json").write_text('{"run": "one"}', encoding="utf-8")
    git("add", "reports")
    git("-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "Results")
    for verb in (("deployed",), ("deployed", "P1")):
        code, answer = ask(project, *verb, "--source", "dvc")
        assert code == 3
        assert FETCH in "\n".join(answer["notes"])


def test_deployed_without_a_log_judges_what_mlflow_serves(served: Project) -> None:
    register(served, "champion")
    without_log(served)
    assert deployed(served) == (1, {("alias champion (digits/1)", "P2", "FAIL")}, "")
    served.client.set_registered_model_alias("digits", "champion", "2")
    assert deployed(served) == (0, set(), "")
    served.client.delete_registered_model_alias("digits", "champion")
    served.version("two", alias="live", model="other")
    assert deployed(served)[0] == 3, "what the others serve says nothing of this project"


@pytest.mark.parametrize("fault", [behind, damaged], ids=lambda fault: fault.__name__)
def test_deployed_fail_of_what_mlflow_serves_stays_one(served: Project, fault: Any) -> None:
    register(served, "champion")
    served.log("train three\n\nrun: three\n")
    fault(served)
    assert deployed(served)[0] == 1
    assert ask(served, "find", "P1")[0] == 3, "run three is not known"


def test_deployed_in_a_clone_that_lacks_only_a_training_of_a_colleague_is_judged(served: Project) -> None:
    register(served, "champion")
    served.log("train three\n\nrun: three\n")
    behind(served)
    assert deployed(served) == (1, {("alias champion (digits/1)", "P2", "FAIL")}, "")


def test_deployed_in_a_fresh_clone_reads_the_log_of_the_remote(served: Project) -> None:
    git("update-ref", "refs/remotes/origin/lineage", "lineage")
    git("update-ref", "-d", "refs/heads/lineage")
    code, rows, notes = deployed(served)
    assert (code, rows) == (3, {("champion in the log (digits/1)", "P2", "INCONCLUSIVE")})
    assert f"Fix: {FETCH}, then python -m" in notes
    (unknown, *_) = ask(served, "deployed", "--source", "dvc")[1]["unknown"]
    assert unknown["versions"] == ["digits/1 @champion"]
    register(served, "champion")
    assert deployed(served) == (1, {("alias champion (digits/1)", "P2", "FAIL")}, "")
    # Of two remotes, the one that tells all.
    git("update-ref", "refs/remotes/elsewhere/lineage", "refs/remotes/origin/lineage~1")
    assert deployed(served)[0] == 1
    served.client.set_registered_model_alias("digits", "champion", "2")
    assert deployed(served)[0] == 3


def test_mlflow_of_others_alone_is_inconclusive(project: Project) -> None:
    other = project.client.create_experiment("other", Path("mlartifacts").resolve().as_uri())
    project.run("theirs", subjects=["Q1"], experiment=other)
    for question in (("verify", "P2"), ("find", "P2"), ("deployed",)):
        code, answer = ask(project, *question)
        assert code == 3, question
        assert "MLflow has no run of this project" in answer["notes"][-1]
    assert project.audit("export", "out-of").exit_code == 3
    project.log("train theirs\n\nrun: theirs\n")
    assert project.audit("verify", "P2").exit_code == 0


def test_plan_of_an_optout_knows_the_champion_that_only_the_log_has(served: Project) -> None:
    audit = Audit()
    Path(".dvc/config").write_text("[core]\n  remote = r\n['remote \"r\"']\n  url = /nowhere\n", encoding="utf-8")
    result = plan.make_plan(audit, ["P2"])
    assert (result.numbers, result.versions, result.aliases) == ([1], ["digits/1"], {"champion": 1})
    assert result.unknown == ["alias champion: champion is none in MLflow, and version 1 in the log"]


def test_end_of_an_optout_with_a_lost_mlflow_is_no_pass(served: Project) -> None:
    report = OptOutReport("withdrawal", [])
    assert steps._verify(report, ["P2"], print) == "INCONCLUSIVE"
    assert report.answers["deployed"]["verdict"] == "INCONCLUSIVE"


def test_plan_of_an_optout_names_datasets_of_a_deleted_experiment(served: Project) -> None:
    served.client.log_param(served.ids["one"], "dataset_md5", "d" * 32)
    served.client.set_tag(served.ids["one"], "data_version", "v1.0")
    served.client.delete_experiment(served.experiment)
    (run,) = (run for run in Audit().catalog.runs if run.id == served.ids["one"])
    assert (run.dataset_md5, run.data_version) == ("d" * 32, "v1.0")


@pytest.fixture
def shallow(served: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A clone of the last commits alone, with the whole of MLflow."""
    register(served, "champion")
    git("clone", "--quiet", "--depth=1", "--no-single-branch", Path().resolve().as_uri(), "../shallow")
    for name in ("platform.yaml", "params.yaml", "data"):
        os.symlink(Path(name).resolve(), f"../shallow/{name}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').resolve().as_posix()}")
    monkeypatch.chdir("../shallow")
    return served


def test_shallow_clone_is_inconclusive_but_what_is_known_is_told(shallow: Project) -> None:
    for question, wanted in (
        (("deployed",), 1),
        (("find", "P1"), 3),
        (("verify", "P2"), 3),
        (("deployed", "P1"), 3),
        (("list", "champion"), 0),
    ):
        code, answer = ask(shallow, *question)
        assert code == wanted, question
        assert wanted == 0 or "git fetch --unshallow" in "\n".join(answer["notes"])
    for command in (("find", "P1", "--source", "dvc"), ("deployed", "--source", "dvc"), ("export", "out-of")):
        done = shallow.audit(*command)
        assert done.exit_code == 3, command
        assert "Fix: git fetch --unshallow" in done.output


@pytest.mark.parametrize("alias", ["champion", "live"])
def test_experiment_never_makes_a_pass_of_what_is_none(served: Project, alias: str) -> None:
    other = served.client.create_experiment("other", Path("mlartifacts").resolve().as_uri())
    served.run("elsewhere", "2025-07-02", subjects=["P1"], experiment=other)
    served.run("from one", "2025-07-03", subjects=["P1"], parents=["one"], experiment=other)
    register(served, alias)
    served.version("from one", alias="inherits")
    for names in (("digits",), ("other",), ("digits", "other")):
        code, *_ = deployed(served, *(word for name in names for word in ("--experiment", name)))
        assert code in (1, 3), names
    served.client.delete_registered_model_alias("digits", "inherits")
    served.client.delete_registered_model_alias("digits", alias)
    assert deployed(served, "--experiment", "other")[0] == 3
