"""A project with a consent registry, and an MLflow in which runs, manifests and versions are made by hand."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlops.cli import main
from mlops.records import manifest
from mlops.registry.aliases import CHAMPION, AliasChange
from mlops.tracking import lineage_log, mlflow_client
from mlops.tracking.git import AUTHOR, git

PROJECT = "digits"
PLATFORM = f"project: {PROJECT}\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"
HEADER = "subject_id,consent_status,effective_at\n"


def moment(text: str) -> datetime:
    """Return a time in UTC: `2025-06-01` or `2025-06-01T02:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def write_manifest(subjects: Iterable[str], path: Path) -> str:
    """Write a manifest with two records of each subject; return its digest."""
    rows = [
        (subject, f"{subject}-{n}", "train/shard-000.parquet", "train", "x")
        for subject in sorted(subjects)
        for n in (1, 2)
    ]
    columns = zip(*rows, strict=True) if rows else [()] * 5
    table = pa.table([pa.array(column, pa.string()) for column in columns], schema=manifest.SCHEMA)
    return manifest.write([table], path).sha256


@dataclass
class Project:
    """What tests ask about."""

    client: MlflowClient
    experiment: str
    ids: dict[str, str] = field(default_factory=dict)  # MLflow's, by name

    def consent(self, *lines: str) -> None:
        """Write the registry."""
        Path("data/consent.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")

    def run(
        self,
        name: str,
        start: str = "2025-01-01",
        end: str | None = "",
        subjects: Iterable[str] | None = None,
        parents: Sequence[str] | None = (),
        digest: str | None = None,
        experiment: str = "",
        artifact: bool = True,
    ) -> str:
        """Make a run; return MLflow's id.

        Args:
            name: Also its `mirror_id`.
            start: When it began.
            end: When it ended; by default an hour later, None for never.
            subjects: Who is in its manifest; None where it has none.
            parents: Names; None if it does not record them.
            digest: What it says of its manifest; by default the truth, "" for nothing.
            experiment: Id of another experiment.
            artifact: Whether the manifest goes along.
        """
        began = int(moment(start).timestamp() * 1000)
        made = self.client.create_run(
            experiment or self.experiment, start_time=began, run_name=name, tags={"mirror_id": name}
        )
        run = self.ids[name] = made.info.run_id
        sha256 = digest
        if subjects is not None:
            written = write_manifest(subjects, Path("out/manifest.parquet"))
            sha256 = written if digest is None else digest
            if artifact:
                self.client.log_artifact(run, "out/manifest.parquet", "data")
        if sha256:
            self.client.log_param(run, "manifest_sha256", sha256)
        if parents is not None:
            self.client.log_param(run, "parents", json.dumps(list(parents)))
        if end is not None:
            ended = int(moment(end).timestamp() * 1000) if end else began + 3_600_000
            self.client.set_terminated(run, end_time=ended)
        return str(run)

    def version(self, *runs: str, alias: str = "", model: str = PROJECT) -> int:
        """Register a version that runs made; return its number."""
        if not self.client.search_registered_models(f"name = '{model}'"):
            self.client.create_registered_model(model)
        tags = {"run": runs[0], **{f"made_by.{run}": "x" for run in runs}} if runs else {}
        source, run_id = "file:///nowhere", self.ids.get(runs[0]) if runs else None
        number = int(self.client.create_model_version(model, source, run_id=run_id, tags=tags).version)
        if alias:
            self.client.set_registered_model_alias(model, alias, str(number))
        return number

    def log(self, *entries: str) -> None:
        """Write entries to the branch `lineage`."""
        commit = git("commit-tree", git("mktree", stdin=""), "-m", "What it read", env=AUTHOR)
        for entry in entries:
            lineage_log.record(commit, entry)

    def log_registered(self, *runs: str) -> None:
        """Write to the log that each run was trained, and made a version: 1, 2 and so on."""
        for number, run in enumerate(runs, 1):
            trained = f"train {run}\n\nrun: {run}\nproject: {PROJECT}\n"
            self.log(trained, f"register {PROJECT} version {number}\n\nrun: {run}\n")

    def log_promoted(self, version: int, alias: str = CHAMPION) -> None:
        """Write to the log that a version got an alias."""
        when = "2025-08-01T00:00:00Z"
        self.log(AliasChange(PROJECT, "promote", alias, None, version, "Ada <a@b>", "none", when, "", {}).entry())

    def log_refused(self, version: int) -> None:
        """Write to the log that a version was refused to be champion."""
        when, metrics = "2025-09-01T00:00:00Z", {"objections": ["it is worse"]}
        entry = AliasChange(PROJECT, "refuse", CHAMPION, None, version, "Ada <a@b>", "none", when, "better", metrics)
        self.log(entry.entry())

    def artifact(self, name: str) -> Path:
        """Return the file of a run's manifest."""
        return Path(f"mlartifacts/{self.ids[name]}/artifacts/data/manifest.parquet").resolve()

    def audit(self, *command: str) -> Result:
        """Run `audit …`."""
        return CliRunner().invoke(main, ["audit", *command], catch_exceptions=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: Path) -> Project:
    """The project; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("MLFLOW_TRACKING_URI", "RUN_ON", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run(["git", "init", "--quiet"], check=True)
    Path("platform.yaml").write_text(PLATFORM, encoding="utf-8")
    Path("params.yaml").write_text("data: {consent: required}\n", encoding="utf-8")
    Path("data").mkdir()
    shutil.copy(tables, mlflow_client.DATABASE)
    client = mlflow_client.client()
    made = Project(client, mlflow_client.experiment_id(client, PROJECT))
    made.consent("P1,active,2024-01-01T00:00:00Z", "P2,active,2024-01-01T00:00:00Z")
    return made
