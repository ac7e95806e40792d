"""Somebody withdraws, from the withdrawal to the model in use; killed at every step, and refused by the gate."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from ..conftest import BakedProject, isolate
from ..projects import commit, copied, edit, executed, objects, read, versions
from .conftest import OUTPUT, SUBJECT

on_unix = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL, and a Git hook in sh")


@pytest.fixture(scope="module")
def registered(reproduced: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project with a champion, whose registry DVC keeps."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        made = copied(reproduced, tmp_path_factory.mktemp("registered"))
        made.run("git", "rm", "--quiet", "--cached", "data/consent.csv")
        made.run("dvc", "add", "--quiet", "data/consent.csv")
        commit(made, "Version 1")
        made.run("python", "-m", "mlops", "registry", "promote", "1", "--why", "the first")
    return made


@pytest.fixture
def project(registered: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakedProject:
    """A copy of it, to change."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    return copied(registered, tmp_path)


def optout(project: BakedProject, *arguments: str, code: int = 0) -> str:
    """Run the verb, and return all that it printed."""
    command = (sys.executable, "-m", "mlops", "optout", *arguments)
    done = project.run(*command, check=False)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def killed(project: BakedProject, mark: str) -> None:
    """Start the opt-out, and kill it with all that it started as soon as it prints `mark`."""
    command = (sys.executable, "-m", "mlops", "optout", SUBJECT)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=project.path, start_new_session=True, **streams) as started:
        assert started.stdout
        seen = next((line for line in started.stdout if mark in line), "")
        os.killpg(started.pid, signal.SIGKILL)
    assert seen, f"it never printed {mark!r}"
    # Until the system has forgotten the last of them: to DVC, one that is dying is one that works.
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(started.pid, 0)
            time.sleep(0.05)


def killed_before_the_log(project: BakedProject, *arguments: str) -> None:
    """Start the opt-out, which is killed when the champion has moved in MLflow, and before the log says so."""
    hook, pid = project.path / ".git/hooks/reference-transaction", project.path / "pid"
    kill = f"#!/bin/sh\nread old new ref\n[ $ref != refs/heads/lineage ] || {{ kill -9 $(cat '{pid}'); exit 1; }}\n"
    hook.write_text(kill, encoding="utf-8", newline="\n")
    hook.chmod(0o755)
    command = (sys.executable, "-m", "mlops", "optout", SUBJECT, *arguments)
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.DEVNULL) as started:
        pid.write_text(str(started.pid), encoding="utf-8")
        assert started.wait() == -signal.SIGKILL
    hook.unlink()
    pid.unlink()


def champion(project: BakedProject) -> int:
    """Return the version in use."""
    client = MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    return int(client.get_model_version_by_alias(project.path.name, "champion").version)


def moves(project: BakedProject) -> list[str]:
    """Return the moves in the log, the first one first."""
    log = project.run("git", "log", "--first-parent", "--reverse", "--grep=^move: ", "--format=%s", "lineage")
    return log.stdout.splitlines()


def reports(project: BakedProject) -> list[dict[str, Any]]:
    """Return what the reports hold."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in project.path.glob("reports/optout/*.json")]


def state(project: BakedProject) -> dict[str, bytes]:
    """Return all that is tracked, and DVC's and MLflow's state as far as it is in files."""
    ignored = (".dvc/tmp/", "mlflow.db", "reports/optout/")
    return {name: (project.path / name).read_bytes() for name in project.files() if not name.startswith(ignored)}


def test_optout_leads_to_a_model_without_the_subject_in_use_and_moves_nobody(
    opted_out: BakedProject, committed: BakedProject
) -> None:
    output = (opted_out.path / OUTPUT).read_text(encoding="utf-8")
    assert executed(output) == ["prepare", "manifest", "train", "register"]
    assert "audit verify: PASS\naudit deployed: PASS\n" in output
    before, after = ((project.path / "data/consent.csv").read_bytes() for project in (committed, opted_out))
    assert after.startswith(before + f"{SUBJECT},revoked,".encode())
    assert after.count(b"\n") == before.count(b"\n") + 1
    assert champion(opted_out) == 2
    assert moves(opted_out) == [f"promote {opted_out.path.name} champion to version {number}" for number in (1, 2)]
    check_report(opted_out)
    old, new = ({row["record_id"]: row for row in manifest(project)} for project in (committed, opted_out))
    assert {row["subject_id"] for row in old.values()} - {row["subject_id"] for row in new.values()} == {SUBJECT}
    assert all(old[record_id] == row for record_id, row in new.items()), "each of the others is where it was"
    assert read(opted_out, "reports/prepare.json")["excluded"] == len(old) - len(new)
    stored = objects(opted_out) - objects(committed)
    content = [(opted_out.path / "dvc-storage" / name).read_bytes() for name in stored]
    assert sum(data.startswith(b"PAR1") and b"image" in data for data in content) <= 1, "shards that were rewritten"
    assert sum(data.startswith(b"[") and b"shard-000.parquet" in data for data in content) == 1  # their directory
    assert versions(opted_out)[1]["dataset_md5"] != versions(opted_out)[2]["dataset_md5"]


@pytest.mark.slow
def test_dry_run_tells_where_the_records_are_and_changes_nothing(project: BakedProject) -> None:
    before = state(project)
    output = optout(project, "--dry-run", SUBJECT)
    assert state(project) == before
    assert reports(project) == []
    (shard,) = {row["path"] for row in manifest(project) if row["subject_id"] == SUBJECT}
    for line in (
        "130 records in 1 of its files:",
        f"  {shard}: 130",
        "): direct",
        "version digit-classifier/1 @champion",
        "3. registry promote <the new version> --to champion, in place of version 1",
    ):
        assert line in output
    assert "no run knows them" in optout(project, "--dry-run", "stranger")


def manifest(project: BakedProject) -> list[dict[str, str]]:
    """Return the rows of the manifest in the work tree."""
    import pyarrow.parquet as pq

    rows: list[dict[str, str]] = pq.read_table(project.path / "data/manifest.parquet").to_pylist()
    return rows


@pytest.mark.slow
@on_unix
def test_killed_at_each_step_and_refused_it_ends_in_one_line_one_version_one_move(project: BakedProject) -> None:
    registry, known = project.path / "data/consent.csv", (project.path / "data/consent.csv").read_bytes()
    edit(project, "params.yaml", "epochs: 15", "epochs: 1")
    edit(project, "params.yaml", "test_acc: 0.9", "test_acc: 1.5")  # no model is as good as that
    killed(project, f"{SUBJECT} is revoked")
    killed(project, "Running stage 'train'")
    output = optout(project, SUBJECT, code=1)
    assert "the model is not good enough to register" in output
    assert "Stopped: dvc repro made no new version" in output
    assert "The withdrawal stands all the same" in output
    assert "audit deployed: FAIL" in output
    assert (list(versions(project)), champion(project)) == ([1], 1)
    assert reports(project)[0]["stopped"]["fix"].startswith("mend that; then the same command again")
    edit(project, "params.yaml", "test_acc: 1.5", "test_acc: 0.05")
    killed(project, "Running stage 'register'")
    output = optout(project, SUBJECT, code=1)
    assert "Stopped: version 2 is refused: it has lost 0." in output
    assert "or with --anyway, if the withdrawal outweighs it; then the same command again: " in output
    assert f"python -m mlops optout {SUBJECT}" in output
    assert (list(versions(project)), champion(project)) == ([1, 2], 1)
    assert "audit deployed: FAIL" in output
    killed_before_the_log(project, "--anyway")
    assert (champion(project), len(moves(project))) == (2, 1)
    output = optout(project, SUBJECT, "--anyway")
    assert "audit verify: PASS\naudit deployed: PASS\n" in output
    assert registry.read_bytes()[: len(known)] == known
    assert registry.read_bytes().count(b"\n") == known.count(b"\n") + 1
    pointer = YAML(typ="safe").load((project.path / "data/consent.csv.dvc").read_text(encoding="utf-8"))
    assert pointer["outs"][0]["md5"] == hashlib.md5(registry.read_bytes()).hexdigest()  # noqa: S324 (DVC's)
    assert list(versions(project)) == [1, 2]
    assert moves(project) == [f"promote {project.path.name} champion to version {number}" for number in (1, 2)]
    assert SUBJECT not in {row["subject_id"] for row in manifest(project)}
    check_report(project)
    before = state(project)
    assert executed(optout(project, SUBJECT)) == []
    assert state(project) == before


def check_report(project: BakedProject) -> None:
    """See that there is one report, of the whole, that Git does not get, and that its page says the same."""
    (report,) = reports(project)
    assert list(report["done"]) == ["revoke", "repro", "promote champion"]
    assert [each["subject"] for each in report["subjects"]] == [SUBJECT]
    assert report["plan"]["versions"] == ["digit-classifier/1 @champion"]
    assert report["version"]["number"] == 2
    assert report["version"]["consent_excluded"] == "130"
    assert {name: answer["verdict"] for name, answer in report["answers"].items()} == {
        "verify": "PASS",
        "deployed": "PASS",
    }
    assert report["stopped"] == {}
    (stored,) = [name for each in report["plan"]["datasets"] for name in each["objects"]]
    assert Path(stored).is_file(), "the file to erase in the DVC remote"
    page = (project.path / f"reports/optout/{report['id']}.html").read_text(encoding="utf-8")
    assert all(text in page for text in (SUBJECT, "PASS", "digit-classifier/1", stored, "dvc gc -w -c"))
    assert not any(text in page for text in ("http://", "https://", "<script"))
    assert "optout" not in project.run("git", "status", "--porcelain", "--untracked-files=all").stdout
    assert SUBJECT not in project.run("git", "log", "--format=%B", "lineage").stdout
    assert read(project, "reports/prepare.json")["excluded"] == 130
