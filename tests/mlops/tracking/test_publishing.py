"""The log is published by itself, as `platform.yaml:publish` says; no training waits for it, and none fails of it."""

import logging
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlops import config
from mlops.tracking import lineage_log, publishing, run_context

from .conftest import Run, commit_all

SETTINGS = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"


@pytest.fixture
def origin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bare repository that a project, the working directory, publishes to; the project has one training."""
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.setenv("PYTHONPATH", str(Path(config.__file__).parents[1]))  # for the process that publishes
    set_publish("auto")
    Path(".gitignore").write_text(".dvc/tmp\n", encoding="utf-8")
    run("git", "init", "--quiet", "--initial-branch=main")
    commit = commit_all(run)
    run("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    run("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    lineage_log.record(commit, "train one\n\nrun: one\n")
    return tmp_path / "origin.git"


def set_publish(setting: str) -> None:
    Path("platform.yaml").write_text(f"{SETTINGS}publish: {setting}\n", encoding="utf-8")


def published(origin: Path) -> list[str]:
    command = ["git", "-C", str(origin), "log", "--first-parent", "--format=%s", lineage_log.REF]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def hook(origin: Path, script: str) -> Path:
    path = origin / "hooks/pre-receive"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8", newline="\n")
    path.chmod(0o755)
    return path


def test_auto_publishes_and_says_nothing(origin: Path, caplog: pytest.LogCaptureFixture) -> None:
    publishing.publish()
    assert published(origin) == ["train one", "The log begins"]
    assert caplog.messages == []
    assert publishing.describe_unpublished() == ""


def test_training_does_not_wait_for_a_slow_remote(
    origin: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hook(origin, f"while [ ! -e '{tmp_path}/answer' ]; do sleep 0.1; done")
    publishing.publish(wait=False)
    lineage_log.record("HEAD", "train two\n\nrun: two\n")
    monkeypatch.setattr(publishing, "WAIT_S", 0.1)
    publishing.publish()
    assert (
        "entries of the log are in this clone only: train two, train one. Fix: python -m mlops lineage push"
        in caplog.text
    )
    assert "It goes on in the background, and writes to .dvc/tmp/publish.log" in caplog.text
    assert published(origin) == []
    (tmp_path / "answer").touch()
    until(lambda: not publishing.describe_unpublished())
    assert published(origin) == ["train two", "train one", "The log begins"], "what one missed, the next sent"


def test_remote_that_refuses_is_told_by_who_waits(
    origin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = hook(origin, "echo no lineage here; exit 1")
    publishing.publish(wait=False)
    until(lambda: "no lineage here" in Path(publishing.LOG).read_text(encoding="utf-8"))
    assert caplog.messages == [], "a training tells nothing"
    publishing.publish()
    (message,) = caplog.messages
    assert "python -m mlops lineage push. Error: origin refuses lineage: pre-receive hook declined (no lin" in message
    refusing.unlink()
    publishing.publish()
    assert published(origin) == ["train one", "The log begins"]


def test_tags_that_the_remote_refuses_are_told_when_the_log_is_published(
    origin: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    lineage_log.tag("data/v1.0", run("git", "rev-parse", "HEAD"), "0123")
    publishing.publish()
    run("git", "tag", "-d", "data/v1.0")
    Path("file").write_text("another commit", encoding="utf-8")
    lineage_log.tag("data/v1.0", commit_all(run), "4567")
    publishing.publish()
    (message,) = caplog.messages
    assert (
        message
        == f"not all is published. Fix: {publishing.PUSH}. Error: origin has the tag data/v1.0 on another commit"
    )


@pytest.mark.parametrize("answer", [True, False])
def test_ask_tells_and_publishes_when_a_person_says_so(
    origin: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: bool
) -> None:
    set_publish("ask")
    publishing.publish(wait=False)
    publishing.publish(may_ask=True)  # where there is no terminal
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert published(origin) == []
    questions: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def confirm(text: str, err: bool) -> bool:
        questions.append(text)
        return answer

    monkeypatch.setattr("click.confirm", confirm)
    publishing.publish(may_ask=True)
    assert len(questions) == 1
    assert questions[0].startswith("entries of the log are in this clone only: train one")
    assert (len(caplog.messages), published(origin)) == (2, ["train one", "The log begins"] if answer else [])


def test_never_is_silent_and_yet_known(origin: Path, caplog: pytest.LogCaptureFixture) -> None:
    set_publish("never")
    publishing.publish()
    publishing.publish(wait=False)
    assert (caplog.messages, published(origin)) == ([], [])
    assert "train one" in publishing.describe_unpublished()


def test_without_a_remote_it_is_told_once_with_both_commands(
    origin: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run("git", "remote", "remove", "origin")
    publishing.publish(wait=False)
    publishing.publish()
    (message,) = caplog.messages
    assert message.endswith("Fix: git remote add origin <address>, then python -m mlops lineage push")


def test_throw_away_experiment_publishes_from_the_parent_repository(
    origin: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Path.cwd()
    copy = parent / ".dvc/tmp/exps/one"
    run("git", "clone", "--quiet", ".", str(copy))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(parent))
    lineage_log.record(run("git", "rev-parse", "HEAD"), "train copy\n\nrun: copy\n")
    publishing.publish()
    assert published(origin) == ["train copy", "train one", "The log begins"]
    assert (parent / publishing.LOG).exists()
    assert not (copy / publishing.LOG).exists()


def test_git_of_a_process_without_a_person_asks_for_nothing(
    origin: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlops.tracking.git import unattended

    assert unattended()["GIT_TERMINAL_PROMPT"] == "0"
    assert "BatchMode=yes" in unattended()["GIT_SSH_COMMAND"]
    run("git", "config", "core.sshCommand", "ssh -i key")
    assert "GIT_SSH_COMMAND" not in unattended()


def test_log_training_publishes_what_the_run_reads(origin: Path, run: Run) -> None:
    values = dict.fromkeys(run_context.RunContext.__dataclass_fields__, "x")
    values |= {"commit": run("git", "rev-parse", "HEAD"), "name": "gouty-fifo", "run": "abc"}
    context = run_context.RunContext(**values)  # type: ignore[arg-type]
    run_context.log_training(context)
    until(lambda: published(origin))
    assert published(origin) == ["train gouty-fifo", "train one", "The log begins"]
    run_context.log_training(context)
    assert run("git", "log", "--first-parent", "--format=%s", lineage_log.REF).splitlines() == published(origin)
