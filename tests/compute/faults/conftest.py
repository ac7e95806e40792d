"""Projects in which stages run as jobs in the sandbox: before a job, and after one that nobody took over."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ...conftest import BakedProject, copied, made_once, new_project
from ...projects import commit, edit
from ...servers.mlflow import until
from ...servers.s3 import BUCKET, ObjectStore
from .launches import die, jobs, lock
from .network import Network

# Small disks are made with namespaces, as Linux has them, and the S3 store is for Linux.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project whose dataset has changed since `manifest` ran: that is the next job. To copy."""

    def make(folder: Path) -> None:
        made = new_project(folder)
        made.run("git", "config", "user.name", "Test")
        made.run("git", "config", "user.email", "test@example.org")
        made.run("python", "-m", "mlops", "setup")
        made.run("dvc", "repro", "manifest")
        edit(made, "params.yaml", "fraction: 1.0", "fraction: 0.5")
        edit(made, "params.yaml", "epochs: 15", "epochs: 2")
        made.run("dvc", "repro", "prepare")
        commit(made, "Half of the records")

    return made_once(tmp_path_factory, "before-a-job", make)


@pytest.fixture(scope="session")
def expected(prepared: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The `dvc.lock` of one in which `manifest` ran here, and nothing went wrong."""

    def make(folder: Path) -> None:
        copied(prepared, folder).run("dvc", "repro", "manifest")

    return lock(made_once(tmp_path_factory, "without-a-job", make))


@pytest.fixture(scope="session")
def finished(prepared: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """One in which a job has made the manifest, and its launcher was killed before it took that over.

    It is for `left`, and kept beside itself: a job is found again where its DVC remote has the same address.
    """
    left = copied(prepared, tmp_path_factory.mktemp("finished"))
    die(left, "mlops.compute.results:apply_results", "manifest")
    [job] = jobs(left)
    until(lambda: not job.is_supervised())  # it tidies up
    assert job.state() == "Completed"
    shutil.copytree(left.path, left.path.with_name("as-it-was"), symlinks=True)
    return left


@pytest.fixture
def project(prepared: BakedProject, tmp_path: Path) -> Iterator[BakedProject]:
    """A copy of `prepared`, to change; the jobs that it leaves are killed."""
    made = copied(prepared, tmp_path)
    yield made
    _clear(made)


@pytest.fixture
def left(finished: BakedProject) -> Iterator[BakedProject]:
    """`finished` as it was, to change; the jobs that it leaves are killed."""
    shutil.rmtree(finished.path)
    shutil.copytree(finished.path.with_name("as-it-was"), finished.path, symlinks=True)
    yield finished
    _clear(finished)


def _clear(project: BakedProject) -> None:
    for job in (job for stage in ("manifest", "train") for job in jobs(project, stage)):
        if job.has_started() and not job.has_ended():
            with contextlib.suppress(psutil.Error):
                psutil.Process(job.read("started.json")["supervisor"]).kill()
        if job.has_started():
            job.kill()


@pytest.fixture
def network(object_store: ObjectStore) -> Iterator[Network]:
    """What lies between it and DVC."""
    between = Network(object_store.url)
    yield between
    between.release()
    between.close()


@pytest.fixture
def s3_project(
    project: BakedProject, object_store: ObjectStore, network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> BakedProject:
    """`project` with its DVC remote, which is empty, in S3 behind the network."""
    for name, value in object_store.environment().items():
        if not name.endswith("_URL") and "ENDPOINT" not in name:
            monkeypatch.setenv(name, value)
    project.run("dvc", "remote", "modify", "--local", "storage", "url", f"s3://{BUCKET}/{tmp_path.name}")
    project.run("dvc", "remote", "modify", "--local", "storage", "endpointurl", network.url)
    return project
