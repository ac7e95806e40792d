"""Projects with a past, made once for all tests of a run."""

from pathlib import Path

import pytest

from .. import conftest
from ..conftest import BakedProject, made_once
from ..projects import commit, edit, mark, wait_for_queue

SUBJECT = "form-03"
"""The subject that withdrew."""
OUTPUT = ".dvc/tmp/optout.txt"
"""What the opt-out printed."""


@pytest.fixture(scope="session")
def opted_out(committed: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A champion, a subject that withdrew, and the version that `optout` put in its place; to look at, or to copy."""

    def make(folder: Path) -> None:
        made = conftest.copied(committed, folder)
        edit(made, "params.yaml", "test_acc: 0.9", "test_acc: 0.5")
        commit(made, "An easier gate")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nobody waits for an answer about who promotes
            made.run("python", "-m", "mlops", "registry", "promote", "1", "--why", "the first")
            output = made.run("python", "-m", "mlops", "optout", SUBJECT, "--anyway").stdout
        (made.path / OUTPUT).write_text(output, encoding="utf-8")
        commit(made, "Version 2")

    return conftest.copied(made_once(tmp_path_factory, "opted-out", make), tmp_path_factory.mktemp("opted-out"))


@pytest.fixture(scope="session")
def queued(committed: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """An experiment that ran from DVC's queue, while the code in the work tree was another; to look at."""

    def make(folder: Path) -> None:
        made = conftest.copied(committed, folder)
        made.run("git", "remote", "add", "origin", "https://user:secret-token@example.org/team/project.git")
        made.run("python", "-m", "mlops", "data", "tag", "v1.0")
        mark(made, 1)
        # 0.003 to 0.005: of the same length, which a copied Git index would not see.
        made.run("dvc", "exp", "run", "train", "--queue", "--name", "queued", "-S", "train.max_lr=0.005")
        mark(made, 2)  # after queueing: the experiment must not run this
        made.run("dvc", "queue", "start")
        wait_for_queue(made)

    return conftest.copied(made_once(tmp_path_factory, "queued", make), tmp_path_factory.mktemp("queued"))
