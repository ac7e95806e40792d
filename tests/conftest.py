"""What all tests share: a project baked from this template, and a machine without anyone's settings."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from cookiecutter.main import cookiecutter

from .servers.s3 import ObjectStore

TEMPLATE = Path(__file__).parents[1]

SETTINGS = ("ARGS", "MFLAGS", "RUN_ON", "JOB_FRESH")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Bake = Callable[..., "BakedProject"]


@dataclass(frozen=True)
class BakedProject:
    """A generated project.

    Args:
        path: Its root.
        package: The name of the team's package.
    """

    path: Path
    package: str

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command in the project's root.

        Raises:
            AssertionError: It failed, with what it printed; not when `check` is off.
        """
        # Into files: a worker of DVC's queue may live on when its work is done, and a pipe to it would never end.
        with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
            code = subprocess.run(command, cwd=self.path, stdout=out, stderr=err).returncode
            for file in (out, err):
                file.seek(0)
            done = subprocess.CompletedProcess(command, code, out.read(), err.read())
        assert not check or code == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def files(self) -> set[str]:
        """Return the paths of all files but Git's own, with forward slashes."""
        paths = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return {path.as_posix() for path in paths if path.parts[0] != ".git"}


@pytest.fixture(autouse=True)
def clean_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see the settings of whoever runs it."""
    isolate(monkeypatch, tmp_path_factory)


@pytest.fixture(scope="session", autouse=True)
def clean_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no server see the settings of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        yield


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 store."""
    started = ObjectStore(tmp_path_factory.mktemp("s3"))
    yield started
    started.close()


def isolate(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Take away the settings of whoever runs the tests: home, Git's configuration, outer make, cloud, MLflow, jobs.

    The environment of the tests comes first on PATH, as `make` does it in a generated project.
    """
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name in SETTINGS or name.startswith(("GIT_", "MAKE", "AWS_", "MLFLOW_", "DVC_", "COOKIECUTTER_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    # Where Git would look for a repository around the temporary folder, this is as far as it goes.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    # Bytecode is kept, but beside the projects: no process compiles torch and mlflow again (6 s of CPU each).
    base = tmp_path_factory.getbasetemp()
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv(
        "PYTHONPYCACHEPREFIX", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pycache")
    )
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


def new_project(folder: Path, **answers: str) -> BakedProject:
    """Generate a project from this template with the given answers, and defaults otherwise."""
    path = Path(
        cookiecutter(str(TEMPLATE), no_input=True, default_config=True, output_dir=str(folder), extra_context=answers)
    )
    package = next(child.parent.name for child in path.glob("*/interface.py"))
    return BakedProject(path, package)


@pytest.fixture
def bake(tmp_path: Path) -> Bake:
    """Give a function that generates a project from this template with the given answers and defaults otherwise."""

    def bake_into(folder: Path = tmp_path, **answers: str) -> BakedProject:
        return new_project(folder, **answers)

    return bake_into


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """The default project after `dvc repro`, to look at and not to change."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        made = new_project(tmp_path_factory.mktemp("reproduced"))
        made.run("python", "-m", "mlops", "setup")
        made.run("dvc", "repro")
    return made


@pytest.fixture
def project(reproduced: BakedProject, tmp_path: Path) -> BakedProject:
    """A copy of it with a storage of its own and the results committed, to change."""
    path = tmp_path / reproduced.path.name
    shutil.copytree(reproduced.path, path, symlinks=True)
    copied = BakedProject(path, reproduced.package)
    copied.run("git", "config", "user.name", "Test")
    copied.run("git", "config", "user.email", "test@example.org")
    copied.run("dvc", "remote", "modify", "--local", "storage", "url", str(path / "dvc-storage"))
    copied.run("git", "add", ".")
    copied.run("git", "commit", "--quiet", "-m", "First results")
    return copied
