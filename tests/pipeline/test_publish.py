"""What a registered version names, every clone can have: a colleague's experiment too, and a training waits for none.

Clones are made by address, as from a server: from a folder, Git would take objects along that no branch has.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import BakedProject
from ..projects import commit, copied, edit, executed, experiments, metric, versions

PUSH = "python -m mlops lineage push"


@dataclass(frozen=True)
class Team:
    """Two clones of one origin, with one MLflow and one DVC remote."""

    origin: Path
    ada: BakedProject  # she trained the experiment `pulled`, and published no log
    bob: BakedProject  # he has pulled and applied it

    def clone(self, folder: Path) -> BakedProject:
        """Clone the origin as a third person."""
        return clone(self.origin, folder, self.ada)


def clone(origin: Path, folder: Path, ada: BakedProject) -> BakedProject:
    made = BakedProject(folder / ada.path.name, ada.package)
    ada.run("git", "clone", "--quiet", origin.as_uri(), str(made.path))
    made.run("git", "config", "user.name", "Bob")
    made.run("git", "config", "user.email", "bob@example.org")
    made.run("python", "-m", "mlops", "setup")
    made.run("dvc", "remote", "modify", "--local", "storage", "url", str(ada.path / "dvc-storage"))
    return made


@pytest.fixture
def team(committed: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    origin, ada = tmp_path / "origin.git", copied(committed, tmp_path / "ada")
    ada.run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    ada.run("git", "remote", "add", "origin", origin.as_uri())
    edit(ada, "platform.yaml", "publish: auto", "publish: never")
    commit(ada, "Publish nothing")
    ada.run("git", "push", "--quiet", "origin", "HEAD:main")
    ada.run("dvc", "push", "--quiet")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(ada.path / 'mlflow.db').as_posix()}")
    trained = ada.run("dvc", "exp", "run", "train", "--name", "pulled", "-S", "train.max_lr=0.002")
    assert "lineage push" not in trained.stderr, "a training in silence"
    ada.run("dvc", "exp", "push", "origin", "pulled")
    bob = clone(origin, tmp_path / "bob", ada)
    bob.run("dvc", "exp", "pull", "origin", "pulled")
    bob.run("dvc", "exp", "apply", "pulled")
    return Team(origin, ada, bob)


def commits_of(team: Team, number: int) -> tuple[str, str]:
    """Return the commits that a version names: what its run has read, and its results."""
    tags = versions(team.ada)[number]
    return tags["data_git_commit_id"], tags["result_commit"]


def check_everybody_has_it(team: Team, number: int, folder: Path) -> None:
    """See that a fresh clone restores what a version names."""
    fresh = team.clone(folder)
    for name in commits_of(team, number):
        fresh.run("git", "checkout", "--quiet", name)
        fresh.run("dvc", "pull", "--quiet", "--allow-missing")
        assert list((fresh.path / "data/dataset/train").rglob("*.parquet"))
        assert "max_lr: 0.002" in (fresh.path / "params.yaml").read_text(encoding="utf-8")
    assert (fresh.path / "models/model/model.safetensors").is_file()


def test_experiment_of_a_colleague_is_registered_when_everybody_can_have_it(team: Team, tmp_path: Path) -> None:
    bob = team.bob
    edit(bob, "platform.yaml", "publish: never", "publish: auto")  # so Bob's files are others than Ada's
    refused = bob.run("dvc", "repro", check=False)
    assert executed(refused.stdout) == ["register"]
    run = metric(experiments(team.ada)["pulled"], "run")
    assert f"Error: run {run} names commit" in refused.stderr
    assert f"Fix: in the clone that trained it: {PUSH}; then here: git fetch origin, and the same" in refused.stderr
    assert list(versions(team.ada)) == [1], "nothing is registered"
    assert not bob.run("git", "branch", "--list", "lineage").stdout
    status = team.ada.run("python", "-m", "mlops", "mirror", "status", check=False)
    assert "entries of the log are in this clone only: train pulled, " in status.stderr
    team.ada.run(*PUSH.split())
    bob.run("git", "fetch", "--quiet", "origin")
    registered = bob.run("dvc", "repro")
    assert "in this clone only" not in registered.stderr
    shown = bob.run("python", "-m", "mlops", "registry", "show", "2", "--json").stdout
    assert json.loads(shown)["unpublished"] == []
    log = bob.run("git", "log", "--first-parent", "--format=%s", "lineage").stdout.splitlines()
    assert log[:2] == [f"register {bob.path.name} version 2", "train pulled"], "Bob's log goes on from Ada's"
    check_everybody_has_it(team, 2, tmp_path / "fresh")


@pytest.mark.slow
def test_commit_of_a_colleague_is_made_again_where_the_files_are_the_same(team: Team, tmp_path: Path) -> None:
    (inputs, *_) = team.ada.run("git", "log", "-1", "--format=%P", "lineage").stdout.split()[1:]
    assert team.bob.run("git", "cat-file", "-e", inputs, check=False).returncode
    registered = team.bob.run("dvc", "repro")
    assert "in this clone only" not in registered.stderr, "never: nothing is told by a stage"
    assert commits_of(team, 2)[0] == inputs
    show = ("python", "-m", "mlops", "registry", "show", "2", "--json")
    assert json.loads(team.bob.run(*show).stdout)["unpublished"] == sorted(commits_of(team, 2))
    log = team.bob.run("git", "log", "--first-parent", "--format=%s", "lineage").stdout.splitlines()
    assert log == [f"register {team.bob.path.name} version 2", "train pulled", "The log begins"]
    team.bob.run(*PUSH.split())
    assert json.loads(team.bob.run(*show).stdout)["unpublished"] == []
    check_everybody_has_it(team, 2, tmp_path / "fresh")


@pytest.mark.slow
def test_remote_that_is_slow_and_refuses_stops_no_training_and_no_registration(
    project: BakedProject, tmp_path: Path
) -> None:
    origin = tmp_path / "origin.git"
    project.run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    project.run("git", "remote", "add", "origin", origin.as_uri())
    hook = origin / "hooks/pre-receive"
    script = f"#!/bin/sh\necho lineage is protected\nwhile [ ! -e '{tmp_path}/answer' ]; do sleep 0.1; done\nexit 1\n"
    hook.write_text(script, encoding="utf-8", newline="\n")
    hook.chmod(0o755)
    edit(project, "params.yaml", "max_lr: 0.003", "max_lr: 0.002")
    trained = project.run("dvc", "repro", "train")
    assert executed(trained.stdout) == ["train"]
    log = project.path / ".dvc/tmp/publish.log"
    assert log.read_text(encoding="utf-8") == "", "it is still at it"
    (tmp_path / "answer").touch()
    registered = project.run("dvc", "repro")
    assert executed(registered.stdout) == ["register"]
    assert f"{PUSH}. Error: origin refuses lineage: pre-receive hook declined (lineage is" in registered.stderr
    hook.unlink()
    edit(project, "params.yaml", "max_lr: 0.002", "max_lr: 0.001")
    project.run("dvc", "repro", "train")
    end = time.monotonic() + 60
    while log.read_text(encoding="utf-8").count("origin has lineage") < 1:
        assert time.monotonic() < end
        time.sleep(0.1)
    entries = project.run(
        "git", "-C", str(origin), "log", "--first-parent", "--format=%s", "lineage"
    ).stdout.splitlines()
    assert len(entries) == 6, "two registrations, three trainings and the beginning"
