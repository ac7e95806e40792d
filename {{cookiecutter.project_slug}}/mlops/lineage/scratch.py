"""A throw-away clone at the commit that a training read, with exactly its data, in which it is run again.

Nothing of it gets into the project: it has an MLflow, a cache and a remote of its own, and no Git remote.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from ..config import home
from ..errors import ProjectError
from ..files import read_json
from ..registry.versions import MODEL_DATA, MODEL_URI
from ..tracking.dvc_remote import write_config
from ..tracking.git import git, unattended
from ..tracking.mlflow_client import SQLITE
from ..tracking.run_files import LINEAGE
from . import commits
from .commits import Pinned
from .difference import PACKAGES, Record
from .history import History
from .names import MODEL
from .objects import FILES, Objects, read_config

PREFIX = "reproduce-"  # of folders in the system's temporary one, which TMPDIR sets
ENVIRONMENTS = Path(".dvc/tmp/environments")  # kept, by the hash of their lock
FINGERPRINT = "numeric_fingerprint"
POLL_S = 0.1
GRACE_S = 60.0  # for a training that is stopped
STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # they do what Ctrl-C does
INHERITED = ("DVC_", "STAGE_", "CHECKPOINT_", "MLFLOW_", "JOB_")  # variables that would point into the project


class CannotError(ProjectError):
    """A training can't be run again: something that it takes is missing."""


@contextlib.contextmanager
def clone(commit: str) -> Iterator[Path]:
    """Give the project's folder in a clone at a commit; it is deleted at the end, unless `keep` keeps it."""
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    caught = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in caught}
    try:
        repository = git("rev-parse", "--show-toplevel")
        git("clone", "--quiet", "--shared", "--no-checkout", "--no-tags", repository, str(scratch / "clone"))
        git("remote", "remove", "origin", where=scratch / "clone")
        git("checkout", "--quiet", "--detach", commit, where=scratch / "clone")
        if (scratch / "clone/.gitmodules").exists():
            git("submodule", "update", "--quiet", "--init", "--recursive", where=scratch / "clone", env=unattended())
        yield scratch / "clone" / git("rev-parse", "--show-prefix")
    finally:
        if not (scratch / "keep").exists():
            shutil.rmtree(scratch, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def keep(project: Path) -> Path:
    """Keep a clone, for a look at it; return its folder."""
    scratch = next(folder for folder in project.parents if folder.name.startswith(PREFIX))
    (scratch / "keep").touch()
    return project


def bring_data(project: Path, record: Record, objects: Objects, at_remote: bool) -> None:
    """Bring the data that a training read into a clone: hashed, and under the names that it read them by.

    Args:
        project: The clone.
        record: Of the training.
        objects: Where the project's data are.
        at_remote: Whether jobs far away need the project's own remote; else the clone's cache is its remote, too.

    Raises:
        LostError, DamagedError, UnreachableError: As `Objects.read` says.
    """
    sections: dict[str, dict[str, Any]] = {"cache": {"dir": str(project / ".dvc/cache")}}
    if at_remote:
        for name, values in read_config(Path()).items():
            if name == "core" or name.startswith("remote "):
                sections[name] = dict(values)
    else:
        sections |= {"core": {"remote": "scratch"}, 'remote "scratch"': {"url": str(project / ".dvc/cache")}}
    write_config(project / ".dvc/config.local", sections)
    paths = [path for path in record.deps if path in record.tracked]
    for path in paths:
        md5 = record.deps[path]
        for each in {md5, *objects.listing(md5).values()}:
            _copy(objects, each, project / ".dvc/cache" / FILES / each[:2] / each[2:])
    run([sys.executable, "-m", "dvc", "checkout", "--quiet", "--force", *paths], project, {})


def _copy(objects: Objects, md5: str, target: Path) -> None:
    """Copy a file to a cache, and see that its bytes are those of its hash."""
    target.parent.mkdir(parents=True, exist_ok=True)
    store = objects.cache if objects.cache.sizes([md5]) else objects.remote
    if not store.sizes([md5]):
        objects.read(md5)  # says that it is lost
    digest = hashlib.md5(usedforsecurity=False)
    with target.open("wb") as file:
        for chunk in store.chunks(md5):
            digest.update(chunk)
            file.write(chunk)
    if (actual := digest.hexdigest()) != md5.removesuffix(".dir"):
        raise objects.damaged(store, md5, actual)


def bring_parent(project: Path, uri: str, history: History) -> None:
    """Register the version that a training started from in the clone's own MLflow, from what DVC has of it."""
    match = MODEL_URI.fullmatch(uri)
    version = history.versions.get(int(match["version"])) if match and match["name"] == history.model else None
    pinned = history.pinned_at(version.commit) if version else None
    if version is None or pinned is None:
        raise CannotError(f"it started from {uri}, which this clone does not know", "git fetch --tags origin")
    from mlflow import MlflowClient

    folder = project / ".dvc/tmp/parent"
    for path, md5 in history.objects.listing(pinned.out(MODEL)).items():
        target = folder / MODEL_DATA / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(history.objects.read(md5))
    client = MlflowClient(tracking_uri(project))
    client.create_registered_model(history.model)
    for _ in range(version.number):
        tags = {"run": next(iter(version.made_by), "unknown")}
        client.create_model_version(history.model, folder.as_uri(), tags=tags)


def tracking_uri(project: Path) -> str:
    """Return the address of a clone's own MLflow."""
    return f"{SQLITE}{(project / 'mlflow.db').as_posix()}"


def other_packages(project: Path) -> dict[str, tuple[str, str]]:
    """Return `{package: (pinned, installed)}` for those of a commit's packages that are others here.

    The pins are `environment.json`; of a commit from before there was one, what `requirements.lock` says of torch.
    """
    if (project / PACKAGES).exists():
        pins = dict(read_json(project / PACKAGES))
    else:
        lines = (project / "requirements.lock").read_text(encoding="utf-8").splitlines()
        pins = dict(line.split("==") for line in lines if line.startswith(("torch==", "torchvision==", "numpy==")))
    return {name: (want, have) for name, want in pins.items() if (have := _installed(name)) != want}


def _installed(name: str) -> str:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "none"


def build_environment(project: Path) -> Path:
    """Install the packages of a commit's lock, once for each lock; return the Python that has them.

    Raises:
        CannotError: pip can't.
    """
    lock = project / "requirements.lock"
    folder = home() / ENVIRONMENTS / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").exists():
        click.echo(f"Installing the packages of that commit into {folder}: minutes, once", err=True)
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        pip = ["pip", "install", "-q", "--disable-pip-version-check", "--no-compile", "-r", str(lock)]
        try:
            run([sys.executable, "-m", "venv", str(folder)], project, {})
            run([str(python), "-m", *pip], project, {})
        except CannotError as error:
            problem = f"its packages can't be installed: {error.problem}"
            raise CannotError(problem, "use a Python that they support; or --environment current") from error
        (folder / "ready").touch()
        click.echo(f"That took {time.monotonic() - started:.0f} s", err=True)
    return python


def run(command: list[str], project: Path, environment: dict[str, str]) -> None:
    """Run a command in a clone, without the variables of whoever runs this; raise CannotError if it fails."""
    done = subprocess.run(
        command, cwd=project, env=_environment(environment), capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        click.echo(done.stdout + done.stderr, err=True)
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise CannotError(f"{' '.join(command[:4])} … failed: {lines[-1] if lines else done.returncode}", "see above")


def train(project: Path, stage: str, python: Path, backend: str, noted: Callable[[dict[str, Any]], bool]) -> bool:
    """Run the stage that trains in a clone, and show what it prints; return whether it came to its end.

    Args:
        project: The clone.
        stage: The name of the stage.
        python: Has the packages.
        backend: local, or the name of a backend of jobs.
        noted: Is called with what the run has recorded as soon as that has a fingerprint, once; if it returns False,
            the training is stopped.

    Raises:
        CannotError: It failed.
    """
    command = [str(python), "-m", "dvc", "repro", "--quiet", "--single-item", "--force", "--no-run-cache", stage]
    path = os.pathsep.join((str(python.parent), os.environ["PATH"]))
    variables = {"PATH": path, "RUN_ON": backend, "JOB_FRESH": "1", "MLFLOW_TRACKING_URI": tracking_uri(project)}
    env = _environment(variables)
    log, is_noted, shown = project.parent / "training.log", False, 0
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=project, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        code = None
        while code is None:
            time.sleep(POLL_S)
            code = process.poll()
            if not is_noted and FINGERPRINT in (facts := _recorded(project)):
                is_noted = True
                if not noted(facts):
                    return False
            text = log.read_bytes()[shown:]
            shown += len(text)
            click.echo(text, nl=False, err=True)
    finally:
        _stop(process)
    if code:
        raise CannotError(f"the training failed in {keep(project)}", f"see above, or {log}")
    return True


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop a training with all that it started, as Ctrl-C would: a job is stopped, too."""
    with contextlib.suppress(OSError):  # it has ended
        if os.name == "posix" and process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _recorded(project: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(read_json(project / LINEAGE))
    return {}


def _environment(variables: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
    return {**inherited, "DVC_NO_ANALYTICS": "1", **variables}


def results(project: Path, commit: str) -> tuple[Pinned, Objects]:
    """Return what a training in a clone has made, as a commit would pin it."""
    texts = {path: (project / path).read_text(encoding="utf-8") for path in commits.FILES if (project / path).exists()}
    return Pinned(commit, texts), Objects(project)


def allow_other_packages(project: Path) -> None:
    """Let the stages of a clone run with packages other than those that its commit pins."""
    path = project / "platform.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("allow_other_environment: false", "allow_other_environment: true"), encoding="utf-8")
