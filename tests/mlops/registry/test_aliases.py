"""MLflow's aliases follow the log; where MLflow and the log disagree, that is reported, and nothing is overwritten."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlops.errors import ProjectError
from mlops.registry import aliases, cli, repair
from mlops.registry.aliases import CHALLENGER, CHAMPION, AliasChange, Registry
from mlops.tracking import lineage_log, mlflow_client
from mlops.tracking.git import git
from mlops.tracking.mlflow_reader import StoredVersion
from ruamel.yaml import YAML

from .conftest import MODEL, register
from .test_alias_log import CHANGE, promoted, rolled_back


def aliases_of(client: MlflowClient) -> dict[str, int]:
    """Return MLflow's aliases."""
    aliased: dict[str, int | str] = client.get_registered_model(MODEL).aliases  # numbers, from SQLite
    return {alias: int(number) for alias, number in aliased.items()}


def record(head: str, *log: AliasChange) -> None:
    """Write moves to the log."""
    for day, move in enumerate(log, 1):
        lineage_log.record(head, replace(move, when=f"2026-01-{day:02}T00:00:00Z").entry())


def test_read_where_nothing_is_registered_says_what_registers(empty: MlflowClient) -> None:
    with pytest.raises(ProjectError, match="no registered model digits\nFix: dvc repro"):
        aliases.read()


def test_read_where_mlflow_lost_what_the_log_registered_says_what_repairs(empty: MlflowClient, head: str) -> None:
    lineage_log.record(head, f"register {MODEL} version 1\n\nrun: one\n")
    with pytest.raises(ProjectError, match="Git knows its versions: 1\nFix: python -m .* mirror repair"):
        aliases.read()


def test_read_in_a_clone_with_tags_and_without_a_log_says_what_repairs(empty: MlflowClient, head: str) -> None:
    lineage_log.tag(f"{MODEL}@v2.0.0", head, "of a colleague")
    with pytest.raises(
        ProjectError, match="Git knows its versions: 2\nFix: python -m mlops mirror repair; or platform"
    ):
        aliases.read()


def test_read_in_a_clone_that_was_made_without_tags_says_what_to_fetch(empty: MlflowClient) -> None:
    Path("reports/register.json").write_text('{"version": 1}', encoding="utf-8")
    with pytest.raises(
        ProjectError, match="whose tag this clone lacks\nFix: git fetch --tags origin && git fetch origin"
    ):
        aliases.read()


def test_doubts_tell_of_lost_versions_and_aliases(client: MlflowClient, head: str) -> None:
    assert cli.doubts(aliases.read()) == []
    record(head, promoted(None, 2))
    lineage_log.tag(f"{MODEL}@v9.0.0", head, "lost")
    lost, disputed = cli.doubts(aliases.read())
    assert lost.startswith("MLflow lacks version 9: python -m")
    assert disputed.startswith("champion is none in MLflow, and 2 in the log of this clone\nFix: ")


def test_lacking_in_a_clone_without_a_log_tells_to_fetch_it(client: MlflowClient, head: str) -> None:
    item = repair.missing({})["aliases"]
    assert (item.state, item.counts) == ("fetch", True)
    assert "git fetch origin lineage:lineage" in item.remedy
    lineage_log.record(head, "train one\n\nrun: one\n")
    assert repair.missing({}) == {}


def test_find_takes_numbers_and_aliases_and_tells_what_there_is(client: MlflowClient, head: str) -> None:
    client.set_registered_model_alias(MODEL, "shadow", "2")
    registry = aliases.read()
    assert list(registry.versions) == [1, 2, 3]
    assert [int(registry.find(text).version) for text in ("3", "shadow")] == [3, 2]
    for unknown in ("9", "champ"):
        with pytest.raises(ProjectError, match=rf"no version {unknown} in MLflow \(it has 1, 2, 3, shadow\)"):
            registry.find(unknown)
    lineage_log.tag(f"{MODEL}@v9.0.0", head, "lost")
    with pytest.raises(ProjectError, match="no version 9 in .*\nFix: python -m mlops mirror status"):
        registry.find("9")


def test_replay_after_a_wipe_restores_aliases_and_copies(client: MlflowClient, head: str) -> None:
    client.set_registered_model_alias(MODEL, "shadow", "1")
    log = (promoted(None, 1), promoted(None, 2, CHALLENGER), promoted(1, 3), promoted(3, 2), rolled_back(2, 3))
    record(head, *log, promoted(None, 1, CHALLENGER), replace(promoted(3, 2), action=aliases.REFUSE))
    assert aliases.replay() == [
        "in MLflow challenger is version 1; it was none",
        "in MLflow champion is version 3; it was none",
    ]
    assert aliases_of(client) == {"champion": 3, "challenger": 1, "shadow": 1}, "aliases of other people stay"
    copies = client.get_model_version(MODEL, "2").tags
    assert {key for key in copies if key.startswith(("move.", "refusal."))} == {
        "move.2026-01-02T000000Z-challenger",
        "move.2026-01-04T000000Z-champion",
        "refusal.2026-01-07T000000Z-champion",
    }
    assert 'who: "Ada <ada@example.org>"' in copies["move.2026-01-04T000000Z-champion"]
    assert aliases.replay() == []


def test_replay_where_another_clone_may_know_more_leaves_mlflow_alone(client: MlflowClient, head: str) -> None:
    record(head, promoted(None, 1), promoted(None, 2, CHALLENGER))
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(
        ProjectError, match="champion is 3 in MLflow, and 1 in the log .*\n.*by hand.*promote 3 --to champ"
    ):
        aliases.replay()
    assert aliases_of(client) == {"champion": 3}


def test_replay_leaves_out_a_version_that_mlflow_lacks(client: MlflowClient, head: str) -> None:
    record(head, promoted(None, 2), promoted(None, 1, CHALLENGER))
    client.delete_model_version(MODEL, "2")
    aliases.replay()
    assert aliases_of(client) == {"challenger": 1}


@pytest.mark.parametrize(
    ("mlflow", "change", "message"),
    [
        ({"champion": 1, "challenger": 2}, None, ""),
        ({"champion": 1, "challenger": 2}, promoted(1, 3), ""),
        ({"champion": 3, "challenger": 2}, promoted(1, 3), ""),
        ({"champion": 2}, promoted(1, 2), ""),
        ({"champion": 3, "challenger": 2}, promoted(1, 2), "champion is 3 in MLflow, and 1"),
        ({"champion": 3, "challenger": 2}, promoted(1, 1), ""),
        ({"champion": 3, "challenger": 2}, promoted(2, 3, CHALLENGER), "champion is 3 in MLflow, and 1"),
        ({"champion": 1, "challenger": 3}, promoted(1, 2), ""),
        ({"champion": 1, "challenger": 3}, promoted(2, 1, CHALLENGER), "challenger is 3 in MLflow, and 2"),
        ({"champion": 1, "challenger": 3}, None, "challenger is 3 in MLflow, and 2"),
        ({"challenger": 2}, promoted(1, 2), "champion is none in MLflow, and 1"),
    ],
    ids=[
        "agree",
        "to-be-made",
        "interrupted",
        "interrupted-with-the-challenger-gone",
        "champion-elsewhere",
        "taken-back",
        "champion-elsewhere-for-a-challenger",
        "challenger-elsewhere-matters-not-for-a-champion",
        "challenger-elsewhere",
        "no-move",
        "lost",
    ],
)
def test_check_agrees(mlflow: dict[str, int], change: AliasChange | None, message: str) -> None:
    versions = {number: StoredVersion(MODEL, str(number), None, 0, {}) for number in (1, 2, 3)}
    registry = Registry(MODEL, versions, mlflow, [promoted(None, 1), promoted(None, 2, CHALLENGER)])
    if not message:
        registry.check_agrees(change)
        return
    with pytest.raises(ProjectError, match=message):
        registry.check_agrees(change)


def test_fix_where_mlflow_and_the_log_disagree_is_that_of_the_cause(client: MlflowClient, head: str) -> None:
    record(head, promoted(None, 1))
    assert aliases.read().fix_of(CHAMPION) == "python -m mlops mirror repair"
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    assert aliases.read().fix_of(CHAMPION) == (
        "it was moved by hand; to record that: python -m mlops registry promote 3 --to champion --why '…'; "
        "to take it back: python -m mlops registry promote 1 --to champion"
    )
    change = replace(promoted(1, 3), who="Bob <bob@example.org>", when="2026-03-01T00:00:00Z")
    client.set_model_version_tag(MODEL, "3", change.tag, change.entry())
    fix = aliases.read().fix_of(CHAMPION)
    assert fix.startswith("Bob <bob@example.org> moved it: in that clone python -m mlops lineage push, here git fetch")
    assert "to take it back" not in fix


def test_log_of_a_git_remote_counts_where_a_clone_has_none_of_its_own(client: MlflowClient, head: str) -> None:
    lineage_log.record(head, "train a\n\nrun: a\n")
    ours = git("rev-parse", lineage_log.REF)
    git("update-ref", "-d", lineage_log.REF)
    lineage_log.record(head, promoted(None, 2).entry())  # in another clone
    git("update-ref", "refs/remotes/origin/lineage", lineage_log.REF)
    git("update-ref", "-d", lineage_log.REF)
    assert aliases.read().holder(CHAMPION) == 2
    assert aliases.replay() == ["in MLflow champion is version 2; it was none"]
    assert aliases.update_log() == "git fetch origin lineage:lineage"
    git("update-ref", lineage_log.REF, ours)
    assert aliases.update_log() == "python -m mlops lineage push"
    assert aliases.read().fix_of(CHAMPION) == "python -m mlops lineage push"


def test_check_agrees_where_the_champion_was_deleted_in_mlflow() -> None:
    Registry(MODEL, {2: StoredVersion(MODEL, "2", None, 0, {})}, {}, [promoted(None, 1)]).check_agrees(promoted(1, 2))


def test_list_and_show_tell_runs_metrics_and_moves(client: MlflowClient, head: str) -> None:
    logged = client.create_run(mlflow_client.experiment_id(client, MODEL)).info.run_id
    tags = [RunTag("model_version", f"{MODEL}/4"), RunTag("dvc_exp_name", "warm-wing")]
    client.log_batch(logged, params=[Param("data_version", "v1.0")], tags=tags)
    client.delete_run(logged)  # its parameters are still shown
    register(client, 1, {"result_commit": head, "run": "abc"}, logged)
    record(head, replace(promoted(None, 4), why="the first"))
    aliases.replay()
    registry = aliases.read()
    newest, *others = cli.version_rows(registry)
    assert len(others) == 3
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", newest["registered"])
    del newest["registered"]
    assert newest == {
        "version": 4,
        "aliases": ["champion"],
        "run": "abc",
        "experiment": "warm-wing",
        "data_version": "v1.0",
        "metrics": {"size": 1},
        "commit": head,
    }
    lines = cli.table(cli.version_rows(registry)).splitlines()
    assert lines[0].split() == [
        "version",
        "aliases",
        "run",
        "experiment",
        "data",
        "size",
        "registered",
    ]
    assert lines[1].split()[:6] == ["4", "champion", "abc", "warm-wing", "v1.0", "1"]
    shown = cli.version_details(registry, registry.find("champion"))
    assert shown["moves"] == [asdict(replace(CHANGE, version=4, why="the first"))]
    printed = CliRunner().invoke(cli.registry, ["show", "champion"])
    assert YAML(typ="safe").load(printed.stdout) == shown


def test_list_of_versions_without_a_commit_or_run_has_no_figures(client: MlflowClient) -> None:
    register(client, 1, {})
    lines = cli.table(cli.version_rows(aliases.read())).splitlines()
    assert lines[0].split() == ["version", "size", "registered"]
    assert lines[1].split()[:2] == ["4", "-"]
