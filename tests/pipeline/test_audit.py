"""Audits of a project that really trained: from MLflow, from DVC's history, and with each of them alone."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ..conftest import BakedProject
from ..projects import commit, copied, edit, read, runs, verbs
from .conftest import SUBJECT as FORM


def audit(project: BakedProject, *questions: str) -> list[tuple[int, dict[str, Any]]]:
    """Ask; return exit codes and answers."""
    answers = verbs(project, *(f"audit {question} --json" for question in questions))
    return [(code, json.loads(text)) for code, text in answers]


def verdicts(project: BakedProject, answer: dict[str, Any], names: dict[str, str]) -> set[tuple[str, ...]]:
    """Return what an answer says of each run, by the run's id in DVC."""
    return {
        (names.get(row["run"], row["run"]), row["exposure"], row["timing"], row["verdict"], *row["versions"])
        for row in answer["rows"]
    }


@pytest.fixture
def fine_tuned(project: BakedProject) -> tuple[BakedProject, list[str]]:
    """Three trainings: with a subject, without it after it withdrew, and started from the first. Their ids in DVC."""
    made = [read(project, "reports/run.json")["run"]]
    edit(project, "params.yaml", "test_acc: 0.9\n", "test_acc: 0.05\n")
    edit(project, "params.yaml", "epochs: 15", "epochs: 1")
    with (project.path / "data/consent.csv").open("a", encoding="utf-8", newline="") as registry:
        registry.write(f"{FORM},revoked,{datetime.now(UTC).isoformat()}\n")
    for change in (None, f"models:/{project.path.name}/1"):
        if change:
            edit(project, "params.yaml", "init_from: ", f"init_from: {change} ")
        project.run("dvc", "repro")
        commit(project, f"From {change}")
        made.append(read(project, "reports/run.json")["run"])
    return project, made


def test_audits_after_an_optout_say_the_same_from_mlflow_and_from_dvc(opted_out: BakedProject, tmp_path: Path) -> None:
    project = copied(opted_out, tmp_path)
    name = project.path.name
    questions = (f"verify {FORM}", "verify form-04", "deployed", f"list {name}/2", f"list {name}/1")
    answers = audit(project, *questions, "diff 1 2", *(f"{question} --source dvc" for question in questions[:3]))
    codes, (known, _, _, second, first, changed, history, *_) = zip(*answers, strict=True)
    assert codes == (0, 0, 0, 0, 0, 0, 0, 0, 0)
    rows = [[(row["exposure"], row["timing"], row["verdict"], *row["versions"]) for row in each["rows"]]
            for each in (known, history)]  # fmt: skip
    assert rows == [[("direct", "before", "PASS", f"{name}/1")]] * 2, "trained while consent stood, and out of use"
    subjects = [{row["subject"] for row in listed["rows"]} for listed in (first, second)]
    assert subjects[0] - subjects[1] == {FORM}
    assert [(row["subject"], row["change"]) for row in changed["rows"]] == [(FORM, "removed")]


@pytest.mark.slow
def test_audits_of_mlflow_and_of_dvc_say_the_same(fine_tuned: tuple[BakedProject, list[str]]) -> None:
    project, made = fine_tuned
    name = project.path.name
    names = {run.info.run_id: dvc for dvc, run in runs(project).items()}
    wanted = {
        (made[0], "direct", "before", "PASS", f"{name}/1"),
        (made[2], "inherited", "after", "FAIL", f"{name}/3"),
    }
    (code, answer), (other, _), (again, history), (_, diff) = audit(
        project, f"verify {FORM}", "verify form-04", f"verify {FORM} --source dvc", "diff 1 2"
    )
    assert (code, verdicts(project, answer, names)) == (1, wanted)
    assert other == 0
    assert (again, verdicts(project, history, {})) == (1, wanted)
    assert [(row["subject"], row["change"]) for row in diff["rows"]] == [(FORM, "removed")]
    # An index from either source serves the other.
    for source in ("mlflow", "dvc"):
        shutil.rmtree(project.path / ".dvc/tmp/records")
        (_, reindexed), (_, same) = verbs(project, f"audit reindex --source {source}", f"audit verify {FORM} --json")
        assert reindexed.startswith("2 manifests")
        assert json.loads(same)["rows"] == answer["rows"]
    # What is served.
    deployed = [f"audit deployed --source {source}" for source in ("mlflow", "dvc")]
    promote = [f"registry promote {version} --anyway --why drill" for version in (1, 2)]
    codes = [code for code, _ in verbs(project, promote[0], *deployed, promote[1], *deployed)]
    assert codes == [0, 1, 1, 0, 0, 0]
    # MLflow is lost: the log knows which runs there were, DVC what they read.
    (project.path / "mlflow.db").unlink()
    shutil.rmtree(project.path / "mlartifacts")
    shutil.rmtree(project.path / ".dvc/tmp/records")
    (code, answer), (unsure, served) = audit(project, f"verify {FORM}", "deployed")
    assert (code, verdicts(project, answer, {})) == (1, wanted)
    # The log has version 2 as champion: that is not known to be served, nor that nothing is.
    assert (unsure, served["verdict"]) == (3, "INCONCLUSIVE")
    assert "Fix: python -m mlops mirror repair" in served["notes"][0]
    check_fresh_clone(project)
    # And so are DVC's manifests: now it is unknown.
    shutil.rmtree(project.path / ".dvc/tmp/records")
    shutil.rmtree(project.path / ".dvc/cache/files")
    shutil.rmtree(project.path / "dvc-storage")
    ((code, _),) = audit(project, f"verify {FORM}")
    assert code == 3


def check_fresh_clone(project: BakedProject) -> None:
    """See that a clone finds the log where Git put it, and the champion in it; and that without a log it is unsure."""
    clone = BakedProject(project.path.parent / "clone" / project.path.name, project.package)
    project.run("git", "clone", "--quiet", ".", str(clone.path))
    storage = (project.path / "dvc-storage").as_posix()
    clone.run("dvc", "remote", "add", "--quiet", "--local", "--default", "--force", "storage", storage)
    (code, lost), (history, alone) = audit(clone, "deployed", "deployed --source dvc")
    assert (code, lost["verdict"], history, alone["verdict"]) == (3, "INCONCLUSIVE", 0, "PASS")
    assert "Fix: git fetch origin lineage:lineage, then python -m" in lost["notes"][0]
    clone.run("git", "update-ref", "-d", "refs/remotes/origin/lineage")
    ((code, alone),) = audit(clone, "deployed --source dvc")
    assert code == 3
    assert alone["notes"][0].endswith("Fix: git fetch origin lineage:lineage")


@pytest.mark.slow
def test_training_on_a_manifest_that_is_not_the_datasets_is_refused(project: BakedProject) -> None:
    manifest = project.path / "data/manifest.parquet"
    script = """
import pyarrow.parquet as pq
from pathlib import Path
from mlops.records import manifest
manifest.write([pq.read_table("data/manifest.parquet").slice(1)], Path("shorter"))
"""
    project.run("python", "-c", script)
    manifest.unlink()
    shutil.move(project.path / "shorter", manifest)
    project.run("dvc", "commit", "--force", "--quiet", "manifest")
    failed = project.run("dvc", "repro", "train", check=False)
    assert failed.returncode
    assert "is not the list of the records in data/dataset" in failed.stderr
    assert "Fix: dvc repro --force manifest" in failed.stderr
    assert len(runs(project)) == 1
