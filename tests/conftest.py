"""What all tests share: a project baked from this template, and a machine without anyone's settings."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryFile

import pytest
from cookiecutter.main import cookiecutter
from filelock import FileLock

from .servers.s3 import ObjectStore

TEMPLATE = Path(__file__).parents[1]

SETTINGS = ("ARGS", "MFLAGS", "RUN_ON", "JOB_FRESH", "TRAIN_DEVICE")

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
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")  # trainings publish their log: to no server outside
    # Where Git would look for a repository around the temporary folder, this is as far as it goes.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    # Bytecode is kept, but beside the projects: no process compiles torch and mlflow again (6 s of CPU each).
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(run_dir(tmp_path_factory) / "pycache"))
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
    """The default project after `dvc repro`, to look at and not to change; each worker has a copy of its own."""

    def make(folder: Path) -> None:
        made = new_project(folder)
        made.run("python", "-m", "mlops", "setup")
        made.run("dvc", "repro")

    return copied(made_once(tmp_path_factory, "reproduced", make), tmp_path_factory.mktemp("reproduced"))


@pytest.fixture(scope="session")
def committed(reproduced: BakedProject, tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """The same with the results committed, to copy."""

    def make(folder: Path) -> None:
        made = copied(reproduced, folder)
        made.run("git", "config", "user.name", "Test")
        made.run("git", "config", "user.email", "test@example.org")
        made.run("git", "add", ".")
        made.run("git", "commit", "--quiet", "-m", "First results")

    return made_once(tmp_path_factory, "committed", make)


@pytest.fixture
def project(committed: BakedProject, tmp_path: Path) -> BakedProject:
    """A copy of the default project after `dvc repro`, with the results committed, to change."""
    return copied(committed, tmp_path)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> BakedProject:
    """Return a project that all workers of a run of the tests share, to copy: the first that needs it makes it.

    Args:
        tmp_path_factory: Where the run keeps its files.
        name: The project's, among those that are shared.
        make: Makes it below an empty folder.
    """
    folder = run_dir(tmp_path_factory) / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            with pytest.MonkeyPatch.context() as monkeypatch:
                isolate(monkeypatch, tmp_path_factory)
                make(folder)
            done.touch()
    path = next(folder.glob("*/dvc.yaml")).parent
    return BakedProject(path, next(path.glob("*/interface.py")).parent.name)


def copied(project: BakedProject, folder: Path) -> BakedProject:
    """Copy a project below a folder, with a DVC remote and an MLflow of its own."""
    made = BakedProject(folder / project.path.name, project.package)
    shutil.copytree(project.path, made.path, symlinks=True)
    config = made.path / ".dvc/config.local"
    text = config.read_text(encoding="utf-8").replace(project.path.as_posix(), made.path.as_posix())
    config.write_text(text, encoding="utf-8", newline="\n")
    move_artifacts(made.path / "mlflow.db", project.path, made.path)
    return made


def move_artifacts(database: Path, old: PurePath, new: Path) -> None:
    """Let an MLflow look for its files in another folder.

    Args:
        database: MLflow's, in SQLite.
        old: Where the project was.
        new: Where it is now.
    """
    columns = """
        SELECT tables.name, columns.name FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table' AND (columns.name LIKE '%uri' OR columns.name LIKE '%location')
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in connection.execute(columns).fetchall():
            for before, after in ((old.as_uri(), new.as_uri()), (old.as_posix(), new.as_posix())):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608 (MLflow's own names)
                    (after, len(before) + 1, len(before), before),
                )


def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this run of the tests, which is the same for all workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
