"""A promotion is published, and one that could not be recorded changes nothing."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlops import config
from mlops.errors import ProjectError
from mlops.registry import aliases, promotion

from .conftest import PLATFORM, Git


@pytest.fixture
def origin(client: MlflowClient, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bare repository that the project publishes to."""
    monkeypatch.setenv("PYTHONPATH", str(Path(config.__file__).parents[1]))  # for the process that publishes
    git("init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    git("remote", "add", "origin", str(tmp_path / "origin.git"))
    Path(".dvc/tmp").mkdir(parents=True)
    return tmp_path / "origin.git"


def log_of(folder: Path, git: Git) -> list[str]:
    return git("-C", str(folder), "log", "--first-parent", "--format=%s", "lineage").splitlines()


def test_promotion_and_rollback_are_published(origin: Path, git: Git) -> None:
    promotion.promote("1", why="first")
    promotion.promote("2", anyway=True, why="second")
    promotion.rollback("third")
    assert log_of(origin, git) == [
        "rollback digits champion to version 1",
        "promote digits champion to version 2",
        "promote digits champion to version 1",
        "The log begins",
    ]


def test_promotion_without_a_terminal_tells_what_is_here_only(
    origin: Path, git: Git, caplog: pytest.LogCaptureFixture
) -> None:
    Path("platform.yaml").write_text(f"{PLATFORM}publish: ask\n", encoding="utf-8")
    promotion.promote("1", why="first")
    assert "entries of the log are in this clone only: promote digits champion to version 1. Fix: " in caplog.text
    assert git("-C", str(origin), "for-each-ref") == ""


def test_promotion_that_the_log_can_not_take_changes_nothing(origin: Path, git: Git) -> None:
    git("branch", "lineage/foo")
    with pytest.raises(ProjectError, match="there is a branch lineage/foo") as raised:
        promotion.promote("1", why="first")
    assert aliases.read().aliases == {}
    git(*raised.value.fix.split()[1:])
    promotion.promote("1", why="first")
    assert aliases.read().aliases == {"champion": 1}
