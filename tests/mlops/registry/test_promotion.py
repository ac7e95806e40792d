"""Promotion without a champion to compare with, and everything that is refused before a comparison."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlops.errors import ProjectError
from mlops.registry import aliases
from mlops.registry.aliases import CHAMPION, alias_changes
from mlops.registry.promotion import _draft, _make, promote, rollback

from .conftest import MODEL, Git, register

WHO = ("Ada <ada@example.org>", "none")


def test_promote_where_there_is_no_champion_records_who_and_the_figures(client: MlflowClient) -> None:
    assert promote("1", why="the first") == "digits version 1 is champion"
    assert promote("champion") == "digits version 1 is champion already"
    (change,) = alias_changes()
    assert (change.before, change.version, change.who, change.aws) == (None, 1, "Test <test@example.org>", "none")
    assert (change.why, change.metrics) == ("the first", {"run": {"size": 1}})
    assert change.tag in client.get_model_version(MODEL, "1").tags


def test_promote_what_cannot_be_is_refused_with_the_fix(client: MlflowClient, git: Git) -> None:
    register(client, 1, {"result_commit": "0" * 40})
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"version": "9"}, r"no version 9 in MLflow \(it has 1, 2, 3, 4\)\nFix: .* python -m .* registry list"),
        ({"version": "1", "by": "val_acc"}, r"no metric 'val_acc' \(known: test_acc, .*\)\nFix: take one of these"),
        ({"version": "1", "anyway": True}, r"needs a reason\nFix: --why"),
        ({"version": "4"}, r"lacks the commit of digits version 4, 0000000000\nFix: git fetch --tags origin"),
    ]
    for arguments, message in refusals:
        with pytest.raises(ProjectError, match=message):
            promote(**arguments)
    assert alias_changes() == []


def test_promote_in_a_clone_whose_remote_has_another_log_is_refused(client: MlflowClient, git: Git) -> None:
    promote("1")
    client.delete_registered_model_alias(MODEL, CHAMPION)  # lost by MLflow
    git("update-ref", "refs/remotes/origin/lineage", "lineage")
    git("update-ref", "refs/heads/lineage", "lineage^")
    with pytest.raises(ProjectError, match="nobody can tell who is champion\nFix: git fetch origin lineage:lineage"):
        promote("2")
    with pytest.raises(ProjectError, match="nobody can tell who is champion"):
        rollback()
    assert client.get_registered_model(MODEL).aliases == {}


def test_promote_in_a_shallow_clone_is_refused(client: MlflowClient, head: str) -> None:
    promote("1")
    Path(".git/shallow").write_text(f"{head}\n", encoding="utf-8")
    with pytest.raises(ProjectError, match="this clone is shallow.*\nFix: git fetch --unshallow"):
        promote("2", anyway=True, why="it looks like the first")


def test_promote_when_a_comparison_is_due_and_the_data_are_gone_needs_anyway(client: MlflowClient) -> None:
    promote("1")
    with pytest.raises(
        ProjectError, match="of version 2 has no data/manifest.*\nFix: .*; or .* promote 2 --anyway --why"
    ):
        promote("2")
    promote("2", anyway=True, why="they were erased on request")
    assert "has no data/manifest" in alias_changes()[-1].metrics["not_compared"]


def test_move_that_another_clone_was_faster_than_is_refused(client: MlflowClient) -> None:
    before = aliases.read()
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(ProjectError, match="meanwhile somebody moved an alias of digits\nFix: run the same"):
        _make(before, _draft(before, "promote", CHAMPION, 1, WHO, ""), {})
    assert (aliases.read().aliases, alias_changes()) == ({"champion": 3}, [])


def test_alias_moved_by_hand_is_told_and_recorded_when_promoted(client: MlflowClient) -> None:
    promote("1")
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(ProjectError, match="(?s)champion is 3 in .* to record that: .* promote 3 --to champion --why"):
        promote("2", anyway=True, why="newer")
    promote("3", anyway=True, why="it was done by hand")
    assert (alias_changes()[-1].before, alias_changes()[-1].version, alias_changes()[-1].why) == (
        1,
        3,
        "it was done by hand",
    )
    rollback()
    assert aliases.read().aliases == {"champion": 1}


def test_alias_moved_by_hand_is_taken_back_by_promoting_the_one_of_the_log(client: MlflowClient) -> None:
    promote("1")
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    assert promote("1") == "digits version 1 is champion again"
    assert (aliases.read().aliases, len(alias_changes())) == ({"champion": 1}, 1)
    assert promote("1") == "digits version 1 is champion already"


def test_rollback_where_nobody_was_champion_before_is_refused(client: MlflowClient) -> None:
    promote("1")
    with pytest.raises(
        ProjectError, match="no version of digits that MLflow has was champion before 1\nFix: .* promote 3$"
    ):
        rollback()
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(ProjectError, match="champion is 3 in MLflow, and 1 in the log"):
        rollback()


def test_promote_while_the_server_is_away_says_so(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ProjectError, match="see that the server is up"):
        promote("1")
    assert alias_changes() == []
