"""`trace`: from each kind of name, up to the data and down to what is affected; and what can't be read is said."""

import contextlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ..conftest import BakedProject
from ..projects import commit, copied, edit, lock, out_md5

TAG = "digit-classifier@v2.0.0"


@pytest.fixture
def project(opted_out: BakedProject, tmp_path: Path) -> BakedProject:
    """A project whose version 2, the champion, replaced version 1."""
    return copied(opted_out, tmp_path / "project")


def trace(project: BakedProject, name: str) -> dict[str, Any]:
    """Run the verb; return its graph, which is as its schema says."""
    done = project.run(sys.executable, "-m", "mlops", "trace", name, "--json")
    graph: dict[str, Any] = json.loads(done.stdout)
    schemas = json.loads((project.path / "docs/json.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator({**schemas, "$ref": "#/$defs/trace"}).validate(graph)
    return graph


def refused(project: BakedProject, *arguments: str) -> str:
    done = project.run(sys.executable, "-m", "mlops", *arguments, check=False)
    assert done.returncode == 2, done.stdout
    return done.stderr


def kinds(graph: dict[str, Any]) -> set[str]:
    return {node["key"] for node in graph["nodes"] if node["kind"] in ("version", "alias")}


def run_of(project: BakedProject, number: int) -> str:
    node = f"version:{number}"
    edges = trace(project, str(number))["edges"]
    return next(str(edge["to"]) for edge in edges if edge["from"] == node and edge["relation"] == "was made by")


def test_trace_is_the_same_from_each_name_of_a_version(opted_out: BakedProject) -> None:
    graph = trace(opted_out, "champion")
    by_key = {node["key"]: node["facts"] for node in graph["nodes"]}
    version = by_key["version:2"]
    run = run_of(opted_out, 2)
    assert (version["number"], version["aliases"], version["in_mlflow"]) == (2, ["champion"], True)
    assert version["moves"][-1]["why"].startswith("opt-out")
    assert by_key[run]["status"] == "FINISHED" and by_key[run]["numeric_fingerprint"]
    (dataset,) = [facts for key, facts in by_key.items() if key.startswith("dataset:")]
    assert (dataset["records"], dataset["subjects"], sum(dataset["splits"].values())) == (1667, 13, 1667)
    (consent,) = [facts for key, facts in by_key.items() if key.startswith("consent:")]
    assert (consent["rule"], consent["excluded"], consent["withdrawn_since"]) == ("required", 130, 0)
    for name in ("2", "models:/digit-classifier/2", "models:/digit-classifier@champion", TAG, "version:2"):
        assert trace(opted_out, name)["target"] == "version:2"
    lines = opted_out.run(sys.executable, "-m", "mlops", "trace", "champion").stdout.splitlines()
    assert lines[0] == "digit-classifier version 2"
    assert "- is alias champion: opt-out" in "\n".join(lines)
    assert len(lines) < 40


def test_trace_goes_down_from_data_runs_files_and_subjects(opted_out: BakedProject) -> None:
    md5 = out_md5(lock(opted_out, "digit-classifier@v1.0.0"), "data/dataset")
    run = run_of(opted_out, 1)
    stored = next(node for node in trace(opted_out, "1")["nodes"] if node["key"] == run)
    for name in (md5, md5[:8], run.removeprefix("run:"), run, stored["facts"]["name"], stored["facts"]["mlflow_run"]):
        assert kinds(trace(opted_out, name)) == {"version:1"}, name
    assert trace(opted_out, "models/model")["target"] == "version:2"
    assert trace(opted_out, "models/model/model.safetensors")["target"] == "version:2"
    assert kinds(trace(opted_out, "form-03")) == {"version:1"}
    assert kinds(trace(opted_out, "subject:form-04")) == {"version:1", "version:2", "alias:champion"}
    (subject,) = [node for node in trace(opted_out, "form-03")["nodes"] if node["kind"] == "subject"]
    assert subject["facts"]["consent"] == "ended" and subject["facts"]["ended"]
    assert "form-03" not in json.dumps(trace(opted_out, "1")), "a subject is named where it was edited for"
    head = trace(opted_out, "HEAD")
    assert head["target"].startswith("commit:")


def test_trace_follows_what_started_from_a_version(project: BakedProject) -> None:
    edit(project, "params.yaml", "init_from:  ", "init_from: models:/digit-classifier/1  ")
    edit(project, "params.yaml", "epochs: 15", "epochs: 1")
    project.run("dvc", "repro", "train")
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    started = {"from": f"run:{run}", "to": "version:1", "relation": "started from"}
    assert started in trace(project, "1")["edges"], "also before its results are committed"
    commit(project, "Started from version 1")
    graph = trace(project, run)
    assert started in graph["edges"]
    assert {"version:1"} <= {node["key"] for node in graph["nodes"]}


def test_trace_without_mlflow_says_so_and_shows_the_rest(
    project: BakedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    graph = trace(project, "champion")
    assert (graph["target"], len(graph["notes"])) == ("version:2", 1)
    assert "can't be reached" in graph["notes"][0]
    assert kinds(graph) == {"version:2", "alias:champion"}


def test_trace_without_audit_knows_all_but_subjects(project: BakedProject) -> None:
    for folder in ("audit", "optout"):
        shutil.rmtree(project.path / "mlops" / folder)
    assert trace(project, "1")["target"] == "version:1"
    message = refused(project, "trace", "subject:form-03")
    assert "mlops/audit was deleted" in message and "Fix: make update" in message


def test_without_lineage_the_rest_works(project: BakedProject) -> None:
    shutil.rmtree(project.path / "mlops/lineage")
    assert "\n  trace" not in project.run(sys.executable, "-m", "mlops", "--help").stdout
    moment = json.loads(project.run(sys.executable, "-m", "mlops", "registry", "log", "--json").stdout)[0]["when"]
    usage = json.loads(project.run(sys.executable, "-m", "mlops", "registry", "--at", moment, "--json").stdout)
    assert (usage["version"], usage["unknown"]) == (1, [])


def test_names_that_mean_nothing_or_several_things_are_refused(project: BakedProject) -> None:
    message = refused(project, "trace", "champoin")
    assert "no version, run, commit, dataset, file or subject of this project is named 'champoin'" in message
    assert "Fix: did you mean champion?" in message
    assert "is a model of another project" in refused(project, "trace", "models:/other/1")
    md5 = out_md5(lock(project, "digit-classifier@v1.0.0"), "data/dataset")
    run = run_of(project, 1).removeprefix("run:")
    project.run("git", "tag", run[:7], "HEAD")
    message = refused(project, "trace", run[:7])
    assert f"is the name of several things\nFix: take one of: run:{run}, commit:" in message
    assert trace(project, f"run:{run}")["target"] == f"run:{run}"
    message = refused(project, "reproduce", f"data:{md5}")
    assert "is of no training\nFix: name a version or a run" in message
    message = refused(project, "verify", "subject:form-04")
    assert "form-04 is a subject" in message and "mlops trace subject:form-04 names those that know it" in message


def test_trace_of_an_alias_that_mlflow_lost_takes_the_logs_and_says_so(project: BakedProject) -> None:
    (project.path / "mlflow.db").unlink()
    graph = trace(project, "champion")
    assert (graph["target"], kinds(graph)) == ("version:2", {"version:2", "alias:champion"})
    assert any("champion is version none in MLflow, and 2 in the log" in note for note in graph["notes"])


def test_trace_of_an_alias_moved_by_hand_gives_it_nobodys_reason(project: BakedProject) -> None:
    with contextlib.closing(sqlite3.connect(project.path / "mlflow.db")) as database:
        database.execute("UPDATE registered_model_aliases SET version = 1")
        database.commit()
    graph = trace(project, "champion")
    (alias,) = [node["facts"] for node in graph["nodes"] if node["kind"] == "alias"]
    assert (graph["target"], alias) == ("version:1", {"who": None, "when": None, "why": None})
    assert any("champion is version 1 in MLflow, and 2 in the log" in note for note in graph["notes"])
    assert "the first" not in project.run(sys.executable, "-m", "mlops", "trace", "1").stdout


def test_trace_gives_each_dataset_its_own_source_and_consent(project: BakedProject) -> None:
    edit(project, "params.yaml", "init_from:  ", "init_from: models:/digit-classifier/1  ")
    edit(project, "params.yaml", "fraction: 1.0", "fraction: 0.5")
    edit(project, "params.yaml", "epochs: 15", "epochs: 1")
    commit(project, "Half of the data")
    edited = project.run("git", "rev-parse", "HEAD").stdout.strip()
    project.run("dvc", "repro", "train")
    commit(project, "Results")
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    graph = trace(project, run)
    facts = {node["key"]: node["facts"] for node in graph["nodes"]}
    fractions = {
        facts[edge["from"]]["records"]: facts[edge["to"]]["data"]["fraction"]
        for edge in graph["edges"]
        if edge["to"].startswith("source:")
    }
    assert sorted(fractions.values()) == [0.5, 1.0] and fractions[max(fractions)] == 1.0
    assert {"from": f"run:{run}", "to": f"commit:{edited}", "relation": "read a snapshot of"} in trace(project, edited)[
        "edges"
    ]
    head = trace(project, "HEAD")
    assert {"from": head["target"], "to": f"run:{run}", "relation": "holds the results of"} in head["edges"]


def test_names_of_mlflow_may_be_short_and_none_is_empty(project: BakedProject) -> None:
    run = run_of(project, 1)
    (stored,) = [node["facts"]["mlflow_run"] for node in trace(project, "1")["nodes"] if node["key"] == run]
    assert trace(project, stored[:8])["target"] == run
    assert "Error: the name is empty" in refused(project, "trace", "")
