"""MLflow's aliases follow the log; what MLflow and the log don't agree on is told, and not written over."""

from dataclasses import replace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from {{ cookiecutter.package_name }}.errors import ProjectError
from {{ cookiecutter.package_name }}.registry import aliases, listing, moves
from {{ cookiecutter.package_name }}.registry.moves import CHALLENGER, CHAMPION
from {{ cookiecutter.package_name }}.tracking import server

from .conftest import MODEL, register
from .test_moves import promoted, rolled_back


def have(client: MlflowClient) -> dict[str, int]:
    """Return MLflow's aliases."""
    aliased: dict[str, int | str] = client.get_registered_model(MODEL).aliases  # numbers, from SQLite
    return {alias: int(number) for alias, number in aliased.items()}


def test_read_where_nothing_is_registered_says_what_registers(empty: MlflowClient) -> None:
    with pytest.raises(ProjectError, match="no registered model digits\nFix: dvc repro"):
        aliases.read()


def test_read_gives_all_pages(client: MlflowClient, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "PAGE", 2)
    register(client, 2, {"result_commit": head})
    assert list(aliases.read().versions) == [1, 2, 3, 4, 5]


def test_find_takes_numbers_and_aliases_and_tells_what_there_is(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, "shadow", "2")
    registry = aliases.read()
    assert [int(registry.find(text).version) for text in ("3", "shadow")] == [3, 2]
    with pytest.raises(ProjectError, match=r"digits has no version 9 in MLflow \(it has 1, 2, 3\)"):
        registry.find("9")
    with pytest.raises(ProjectError, match=r"'champ' is neither .* \(aliases: shadow\)"):
        registry.find("champ")


def test_replay_sets_what_the_log_says_and_nothing_again(client: MlflowClient, head: str) -> None:
    client.set_registered_model_alias(MODEL, "shadow", "1")
    log = [promoted(None, 1), promoted(None, 2, CHALLENGER), promoted(1, 3), promoted(3, 2), rolled_back(2, 3)]
    for move in log:
        moves.record(replace(move, model=MODEL), head)
    assert aliases.replay() == ["in MLflow champion is version 3; it was none"]
    assert have(client) == {"champion": 3, "shadow": 1}, "aliases of other people stay"
    tags = client.get_model_version(MODEL, "2").tags
    assert {key for key in tags if key.startswith(aliases.TAG)} == {f"move.{log[1].id}", f"move.{log[3].id}"}
    assert aliases.replay() == []


def test_replay_after_a_wipe_restores_aliases_and_records(client: MlflowClient, head: str) -> None:
    for move in (promoted(None, 1), promoted(1, 2), promoted(None, 3, CHALLENGER)):
        moves.record(replace(move, model=MODEL), head)
    aliases.replay()
    before = {number: one.tags for number, one in aliases.read().versions.items()}
    client.delete_registered_model(MODEL)
    client.create_registered_model(MODEL)
    register(client, 3, {"result_commit": head})
    aliases.replay()
    assert have(client) == {"champion": 2, "challenger": 3}
    assert {number: one.tags for number, one in aliases.read().versions.items()} == before


def test_replay_puts_back_what_was_moved_by_hand(client: MlflowClient, head: str) -> None:
    moves.record(replace(promoted(None, 1), model=MODEL), head)
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    client.set_registered_model_alias(MODEL, CHALLENGER, "3")
    assert listing.warnings(aliases.read()) == [
        "challenger is 3 in MLflow, and none in the log",
        "champion is 3 in MLflow, and 1 in the log",
    ]
    aliases.replay()
    assert have(client) == {"champion": 1}


def test_replay_of_a_version_that_mlflow_lacks_says_so_and_does_the_rest(client: MlflowClient, head: str) -> None:
    for move in (promoted(None, 2), promoted(None, 1, CHALLENGER)):
        moves.record(replace(move, model=MODEL), head)
    client.delete_model_version(MODEL, "2")
    with pytest.raises(ProjectError, match="digits version 2 is champion, but MLflow does not have it"):
        aliases.replay()
    assert have(client) == {"challenger": 1}


def test_replay_where_another_clone_knows_more_leaves_mlflow_alone(client: MlflowClient, head: str) -> None:
    theirs = replace(promoted(None, 3), model=MODEL, id="theirs")
    client.set_model_version_tag(MODEL, "3", "move.theirs", theirs.body())
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(ProjectError, match="Ada <.*> moved champion to version 3 .*\n.*fetch origin"):
        aliases.replay()
    assert have(client) == {"champion": 3}
    assert listing.warnings(aliases.read()) == [
        "the log of this clone lacks a move: promote digits version 3 to champion"
    ]


def test_list_and_show_tell_runs_metrics_and_moves(client: MlflowClient, head: str) -> None:
    logged = client.create_run(server.experiment_id(client)).info.run_id
    params = [Param("dvc_exp_name", "warm-wing"), Param("data_version", "v1.0")]
    client.log_batch(logged, [Metric("size", 3.5, 0, 0), Metric("train/loss", 1.0, 0, 0)], params)
    register(client, 1, {"result_commit": head, "run": "abc"}, logged)
    moves.record(replace(promoted(None, 4), model=MODEL, why="the first"), head)
    aliases.replay()
    registry = aliases.read()
    newest, *others = listing.rows(registry)
    assert len(others) == 3
    assert newest["registered"].endswith("+00:00")
    del newest["registered"]
    assert newest == {
        "version": 4,
        "aliases": ["champion"],
        "run": "abc",
        "experiment": "warm-wing",
        "data_version": "v1.0",
        "metrics": {"size": 3.5},
        "commit": head,
    }
    lines = listing.table(listing.rows(registry)).splitlines()
    assert lines[0].split() == [
        "version",
        "aliases",
        "run",
        "experiment",
        "data_version",
        "size",
        "commit",
        "registered",
    ]
    assert lines[1].split()[:7] == ["4", "champion", "abc", "warm-wing", "v1.0", "3.5", head[:10]]
    shown = listing.detail(registry, registry.find("champion"))
    assert [(move["from"], move["to"], move["why"], move["counts"]) for move in shown["moves"]] == [
        (None, 4, "the first", True)
    ]
    for told in ("Ada <ada@example.org>", "the first", '{"run": {"test_acc": 0.98}}', "warm-wing", "  size "):
        assert told in listing.page(shown)


def test_list_of_a_deleted_run_still_tells_its_metrics(client: MlflowClient, head: str) -> None:
    logged = client.create_run(server.experiment_id(client)).info.run_id
    client.log_metric(logged, "size", 3.5)
    register(client, 1, {}, logged)
    client.delete_run(logged)
    assert listing.rows(aliases.read())[0]["metrics"] == {"size": 3.5}
