"""The record of a training that is resumed: one run, each step once, from the first start to the last end."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities import Run
from mlops.files import write_json
from mlops.tracking import live as live_module
from mlops.tracking import mlflow_client, mlflow_sync
from mlops.tracking import run as module
from mlops.tracking.live import Live
from mlops.tracking.run import recorded
from mlops.tracking.run_context import RunContext
from mlops.tracking.run_files import LINEAGE, RUN_DIR, WEIGHTS, milliseconds, read_facts
from mlops.training.numerics import weights_hash

STARTS = [f"2026-01-0{day}T00:00:00.000+00:00" for day in (2, 3)]


@pytest.fixture(autouse=True)
def rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "FLUSH_SHARE", float("inf"))


def find(client: MlflowClient) -> Run:
    experiment = client.get_experiment_by_name("demo")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def points(client: MlflowClient, name: str = "loss") -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(find(client).info.run_id, name))


def log(live: Live, *steps: int) -> None:
    for step in steps:
        assert live.step == step
        live.log_metric("loss", step / 10)
        live.next_step()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


def lose_files() -> None:
    """Delete all files, as if training continued on another machine."""
    shutil.rmtree(RUN_DIR)
    shutil.rmtree(".dvc")


def resumed(facts: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    """Return the facts of a run that is resumed now."""
    return module.with_history({**facts, "started_at": now()}, json.loads(files[LINEAGE.name]))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def interrupted(live: Live, saved: int, *more: int) -> dict[str, bytes]:
    """Log steps, return the files of a checkpoint, and log more steps that it lacks."""
    log(live, *range(live.step, saved))
    files = module.files_so_far(live)
    log(live, *more)
    return files


def test_recorded_run_that_is_resumed_twice_is_in_mlflow_once(client: MlflowClient, facts: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt), recorded(facts) as live:
        files = interrupted(live, 2, 2, 3)
        raise KeyboardInterrupt
    assert find(client).info.status == "KILLED"
    lose_files()
    with pytest.raises(KeyboardInterrupt), recorded(resumed(facts, files), files) as live:
        until(lambda: find(client).info.status == "RUNNING")
        files = interrupted(live, 3, 3, 4)  # MLflow's point of step 2 is the first attempt's, the row another's
        raise KeyboardInterrupt
    lose_files()
    with recorded(resumed(facts, files), files) as live:
        log(live, 3, 4, 5)
        live.summary["test_acc"] = 0.9
    run = find(client)
    assert run.info.status == "FINISHED"
    assert run.info.start_time == milliseconds(facts["started_at"]), "the first start"
    assert points(client) == [(step, step / 10) for step in range(6)]
    assert points(client, "test_acc") == [(0, 0.9)]
    assert len(read_facts()["resumed_at"]) == 2
    rows = (RUN_DIR / "plots/metrics/loss.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split("\t")[1] for row in rows] == [str(step) for step in range(6)]


def test_sync_of_a_run_that_was_resumed_after_its_end_in_mlflow_sends_the_rest(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt), recorded(facts) as live:
        files = interrupted(live, 1, 1)
        raise KeyboardInterrupt
    lose_files()
    with monkeypatch.context() as away:
        away.setattr(mlflow_client, "is_reachable", lambda: False)
        with recorded(resumed(facts, files), files) as live:
            log(live, 1, 2)
    for _ in range(2):
        mlflow_sync.sync()
        assert find(client).info.status == "FINISHED"
        assert points(client) == [(0, 0.0), (1, 0.1), (2, 0.2)]


def test_new_run_that_continues_an_earlier_one_has_its_curves_and_names_it(
    client: MlflowClient, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(mlflow_client, "is_reachable", lambda: False)
        with recorded(facts) as live:
            files = interrupted(live, 2)
        with recorded(resumed({**facts, "run": "def456"}, files), files) as live:
            log(live, 2)
    mlflow_sync.sync()
    assert points(client) == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert find(client).data.tags["resumed_from"] == "abc123"


def test_with_history_of_a_run_that_is_resumed_twice_has_all_of_it(facts: dict[str, Any]) -> None:
    avx2, avx512 = {"cpu_capability": "AVX2", "processes": 1}, {"cpu_capability": "AVX512", "processes": 1}
    first = {**facts, **avx2}
    second = module.with_history({**facts, "run": "b", "started_at": STARTS[0], **avx512, "driver": "x"}, first)
    third = module.with_history({**facts, "run": "b", "started_at": STARTS[1], **avx2}, second)
    assert third["started_at"] == facts["started_at"]
    assert third["resumed_at"] == STARTS
    assert third["resumed_from"] == facts["run"]
    assert third["cpu_capability"] == "AVX2, then AVX512"
    assert (third["driver"], third["processes"]) == ("none, then x", 1)
    assert module.with_history(facts, {}) == facts


def test_note_of_a_running_training_is_in_its_facts_and_in_mlflow(client: MlflowClient, facts: dict[str, Any]) -> None:
    with recorded(facts) as live:
        run = module.TrainingRun(live=live, facts=facts)
        until(lambda: mlflow_sync.find(client, facts["run"], "demo") is not None)
        run.note({"weights_name": "IMAGENET1K_V1", "weights_bytes": 2, "weights_file": ""})
        until(lambda: "weights_name" in find(client).data.tags)
        run.note({"numeric_fingerprint": "7be3b71781f60f42"})
        assert read_facts()["numeric_fingerprint"] == "7be3b71781f60f42", "at once: the process may be killed"
    tags = find(client).data.tags
    assert (tags["weights_name"], tags["weights_bytes"]) == ("IMAGENET1K_V1", "2")
    assert tags["numeric_fingerprint"] == "7be3b71781f60f42"
    assert "weights_file" not in tags
    assert read_facts()["noted"] == ["numeric_fingerprint", "weights_bytes", "weights_file", "weights_name"]
    assert (read_facts()["weights_bytes"], read_facts()["status"]) == (2, "FINISHED")


def test_note_of_a_fact_that_the_run_has_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the run has other facts named project, run"):
        module.TrainingRun(live=object(), facts=facts).note({"run": "b", "project": "c", "device": "cpu"})  # type: ignore[arg-type]
    module.TrainingRun().note({"run": "b"})  # it records nothing


def test_note_on_another_machine_after_a_resume_says_both(
    facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = {**facts, "numeric_fingerprint": "ab", "bytes": 1, "noted": ["bytes", "numeric_fingerprint"]}
    for value in ("cd", "ab"):
        second = module.with_history({**facts, "started_at": STARTS[0]}, first)
        module.TrainingRun(live=object(), facts=second).note({"numeric_fingerprint": value, "bytes": 1})  # type: ignore[arg-type]
        first = read_facts()
        assert (first["numeric_fingerprint"], first["bytes"]) == ("ab, then cd", 1)


def test_log_weights_of_a_resumed_training_are_those_of_an_uninterrupted_one(
    client: MlflowClient, facts: dict[str, Any]
) -> None:
    def epochs(live: Live, begin: int, end: int) -> None:
        for epoch in range(begin, end):
            log(live, epoch)
            module.TrainingRun(live=live).log_weights({"weight": torch.full((2,), epoch / 3)})

    with recorded(facts) as live:
        epochs(live, 0, 4)
    whole = WEIGHTS.read_text(encoding="utf-8")
    assert whole.splitlines()[0] == "step\tsha256"
    assert whole.splitlines()[4] == f"3\t{weights_hash({'weight': torch.ones(2)})}"
    assert "weights.tsv" in [file.path for file in client.list_artifacts(find(client).info.run_id)]
    lose_files()
    other = {**facts, "run": "def456"}
    with pytest.raises(KeyboardInterrupt), recorded(other) as live:
        epochs(live, 0, 2)
        files = module.files_so_far(live)
        epochs(live, 2, 3)
        raise KeyboardInterrupt
    lose_files()
    with recorded(resumed(other, files), files) as live:
        epochs(live, 2, 4)
    assert WEIGHTS.read_text(encoding="utf-8") == whole
    module.TrainingRun().log_weights({})  # it records nothing
    assert WEIGHTS.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize(
    ("commit", "name", "same"), [("x", "x", True), ("y", "x", False), ("x", "other-exp", False)], ids=str
)
def test_is_same_training_for_the_commit_and_experiment_of_the_run(
    facts: dict[str, Any], commit: str, name: str, same: bool
) -> None:
    assert module.is_same_training(facts, commit, name) is same
    assert not module.is_same_training({}, commit, name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `inputs` reads; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("code.py", "data/dataset/train/shard.parquet", "data/dataset/val/shard.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name, encoding="utf-8")
    pipeline = "stages: {train: {cmd: x, deps: [code.py, data/dataset], params: [train], outs: [model]}}"
    Path("dvc.yaml").write_text(pipeline, encoding="utf-8")
    Repo.init(no_scm=True)
    Path(".dvcignore").write_text("*.swp\n", encoding="utf-8")
    monkeypatch.setenv("DVC_STAGE", "train")
    Path("params.yaml").write_text("train: {seed: 0}\ndata: {x: 1}\n", encoding="utf-8")
    write_json(Path("environment.json"), {})
    return tmp_path


def rewrite(name: str, content: str) -> None:
    Path(name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("code.py", "other", {"code.py"}),
        ("data/dataset/val/shard.parquet", "other", {"data/dataset"}),
        ("data/dataset/val/shard-2.parquet", "new", {"data/dataset"}),
        ("params.yaml", "train: {seed: 1}\n", {"params.yaml:train"}),
        ("environment.json", '{"torch": "0"}', {"other packages than in environment.json"}),
        ("params.yaml", "train: {seed: 0}\ndata: {x: 2}\n", set()),
        ("README.md", "new", set()),
        ("data/dataset/val/.shard.swp", "new", set()),
    ],
)
def test_checkpoint_inputs_are_what_the_result_depends_on(
    project: Path, name: str, content: str, named: set[str]
) -> None:
    before = module.checkpoint_inputs()
    rewrite(name, content)
    after = module.checkpoint_inputs()
    assert {key for key in before | after if before.get(key) != after.get(key)} == named


def test_checkpoint_inputs_on_sagemaker_have_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.checkpoint_inputs()["run"] == ""
    monkeypatch.setenv("STAGE_MACHINES", '{"keeps_checkpoints": true}')
    assert module.checkpoint_inputs()["run"] == "", "no job"
    fields = {field.name: "" for field in dataclasses.fields(RunContext)}
    write_json(Path("job.json"), {"origin": {**fields, "release_tags": [], "run": "abc"}})
    monkeypatch.setenv("STAGE_JOB", "job.json")
    assert module.checkpoint_inputs()["run"] == "abc"
