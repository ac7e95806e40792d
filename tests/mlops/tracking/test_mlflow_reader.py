"""The reader of MLflow's SQLite file: it answers as MLflow's client does, and leaves to it what it does not know."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlops.tracking import mlflow_client, mlflow_reader
from mlops.tracking.mlflow_client import MlflowError, translate_errors
from mlops.tracking.mlflow_reader import ClientReader, Reader, SqliteReader

MODEL = "demo"
SHA256 = "f" * 64


def readers(client: MlflowClient) -> tuple[Reader, Reader]:
    """Return the reader that a command takes, and the one for other stores."""
    reader = mlflow_reader.connect()
    assert isinstance(reader, SqliteReader)
    return reader, ClientReader(client)


def fill(client: MlflowClient) -> None:
    """Make runs, models and versions as they are and as they should not be."""
    demo, other, deleted = (client.create_experiment(name) for name in ("demo", "öther", "gone"))
    for number in range(5):  # at one time each: the id decides
        run = client.create_run(demo, 5000 - 1000 * (number % 2), {"mirror_id": f"run{number}"}, f"näme-{number}")
        client.log_batch(run.info.run_id, params=[Param("train.seed", "1"), Param("parents", '["a"]')])
        if number == 3:
            client.set_terminated(run.info.run_id)
    client.log_param(run.info.run_id, "data_version", "as a param")
    client.set_tag(run.info.run_id, "data_version", "as a tag")
    client.set_tag(run.info.run_id, "dvc_exp_name", "a 'quoted'\nname")
    client.set_terminated(run.info.run_id, "FAILED", 6000)
    client.delete_run(run.info.run_id)
    client.log_batch(client.create_run(other).info.run_id, tags=[RunTag("manifest_sha256", SHA256)])
    client.create_run(deleted, tags={"mlflow.runName": "by its tag"})
    client.delete_experiment(deleted)
    for model in (MODEL, "empty", "another"):
        client.create_registered_model(model)
    for model in (MODEL, MODEL, MODEL, "another"):
        tags = {"run": "run1", "mlflow.note": "first\nsecond", "number": "2"}
        client.create_model_version(model, "s3://nowhere/model", run.info.run_id, tags)
    client.create_model_version(MODEL, "s3://nowhere/model")
    client.set_registered_model_alias(MODEL, "champion", "3")
    client.set_registered_model_alias(MODEL, "best-one", "3")
    client.set_registered_model_alias(MODEL, "challenger", "1")
    client.delete_model_version(MODEL, "1")
    client.register_prompt("a-text", "Say {{ it }}")


QUESTIONS: dict[str, Callable[[Reader], object]] = {
    "experiments": lambda reader: sorted(reader.experiments(), key=lambda each: each.id),
    "all-runs": lambda reader: reader.runs([each.id for each in reader.experiments()]),
    "runs-of-one": lambda reader: reader.runs(["1"]),
    "runs-of-none": lambda reader: reader.runs([]),
    "aliases": lambda reader: reader.aliases(),
    "aliases-of-one": lambda reader: reader.aliases(MODEL),
    "aliases-of-none": lambda reader: reader.aliases("no such model"),
    "versions": lambda reader: sorted(reader.versions(), key=lambda each: (each.name, each.version)),
    "versions-of-one": lambda reader: sorted(reader.versions(MODEL), key=lambda each: each.version),
}


def test_both_readers_give_the_same_answers(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(client)
    monkeypatch.setattr(mlflow_reader, "PAGE", 2)
    first, second = readers(client)
    for name, question in QUESTIONS.items():
        assert question(first) == question(second), name
    runs = {run.name: run for run in first.runs(["1", "2", "3"])}
    last = runs["näme-4"]
    assert (last.deleted, last.status, last.started_ms, last.ended_ms) == (True, "FAILED", 5000, 6000)
    assert last.facts["data_version"] == "as a param", "what can't be changed in MLflow counts"
    assert last.facts["dvc_exp_name"] == "a 'quoted'\nname"
    assert SHA256 in {run.facts.get("manifest_sha256") for run in runs.values()}, "a tag is a fact too"
    assert first.aliases() == {MODEL: {"champion": 3, "best-one": 3}, "empty": {}, "another": {}}
    assert [version.version for version in first.versions(MODEL)] == ["2", "3", "4"]


def test_revision_of_the_tables_is_that_of_the_installed_mlflow(tables: Path) -> None:
    """If not: compare the queries of mlflow_reader.py with MLflow's, and only then change `SCHEMA`."""
    assert SqliteReader(tables).schema() == mlflow_reader.SCHEMA


def test_tables_of_another_mlflow_are_left_to_its_client(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_reader, "SCHEMA", "of the next MLflow")
    assert isinstance(mlflow_reader.connect(), ClientReader)


@pytest.mark.parametrize("name", mlflow_reader.SETTINGS)
def test_settings_that_lead_mlflow_elsewhere_are_left_to_its_client(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "false")
    assert isinstance(mlflow_reader.connect(), ClientReader)


def test_missing_database_is_left_to_mlflow_s_client(client: MlflowClient) -> None:
    Path(mlflow_client.DATABASE).unlink()
    assert isinstance(mlflow_reader.connect(), ClientReader)


@pytest.mark.parametrize("content", [b"no database at all" * 100, None], ids=["text", "cut-off"])
def test_damaged_database_is_an_error_of_mlflow(client: MlflowClient, content: bytes | None) -> None:
    path = Path(mlflow_client.DATABASE)
    path.write_bytes(content or path.read_bytes()[:20000])
    with pytest.raises(MlflowError, match=r"mlflow\.db: the database is damaged\nFix: mv "), translate_errors("-"):
        mlflow_reader.connect().runs(["0"])


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_reader_beside_a_writer_sees_what_was_committed(client: MlflowClient, mode: str) -> None:
    client.create_experiment("first")
    reader, _ = readers(client)
    with closing(sqlite3.connect(mlflow_client.DATABASE, check_same_thread=False)) as writer:
        assert writer.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("UPDATE experiments SET name = 'second' WHERE name = 'first'")
        committed = threading.Timer(0.3, writer.commit)
        committed.start()
        names = {experiment.name for experiment in reader.experiments()}
        assert names == {"Default", "first" if mode == "wal" else "second"}
        committed.join()
        assert {experiment.name for experiment in reader.experiments()} == {"Default", "second"}


def test_reader_that_waits_too_long_is_an_error(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_reader, "TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(mlflow_client.DATABASE)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MlflowError, match="can't be reached: the database is in use"), translate_errors("-"):
            mlflow_reader.connect()
