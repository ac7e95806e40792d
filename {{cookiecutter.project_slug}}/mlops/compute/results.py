"""Take over what a job made: the work tree is then as if the stage had run here.

DVC, which runs this as the stage's command, writes `dvc.lock` itself; here we see that it can't write anything but the
job's own entry. Nothing is taken over by halves: whatever fails makes the stage fail, and `dvc.lock` stays as it was.
"""

import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..files import read_json
from . import fingerprint, transfer
from .worker import RESULT, SMALL

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage


def apply_results(name: str, out: Path) -> None:
    """Bring the outputs of a stage here.

    Args:
        name: The stage.
        out: What its job handed back.

    Raises:
        ProjectError: An output is missing or damaged, or the stage changed while the job ran.
    """
    from dvc.repo import Repo

    entry = _entry(name, out)
    with Repo(os.getcwd()) as repo:
        stage = _as_made(repo, name, entry)
        _check_same(fingerprint.from_work_tree(repo.stage.load_one(name=name)), entry, name)
        _fetch(repo, stage)
        _unpack(name, out / SMALL)
        _check_out(stage)


def check(name: str, out: Path) -> None:
    """See that DVC would write of the work tree what the job wrote of its own.

    With `dvc repro --allow-missing`, DVC would put new params beside the old hash of an output that is missing, and
    call that up to date.

    Raises:
        ProjectError: It would write something else.
    """
    from dvc.output import OutputDoesNotExistError
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    entry = _entry(name, out)
    with Repo(os.getcwd()) as repo:
        stage = repo.stage.load_one(name=name)
        try:
            stage.save(run_cache=False)
        except OutputDoesNotExistError as error:
            raise ProjectError(f"the job's output {error.path} did not arrive", f"dvc repro {name}") from error
        now = fingerprint.plain(to_single_stage_lockfile(stage))
    _check_same(fingerprint.from_entry(now), entry, name)
    if not fingerprint.same(now, entry):
        raise ProjectError(
            f"what is in the work tree is not what the job of {name} made",
            f"see that nothing else writes its outputs, then dvc repro {name}",
        )


def missing_outputs(name: str, out: Path) -> list[str]:
    """Return the outputs of a finished job that are no longer in the DVC remote, as after somebody's `dvc gc -c`.

    Raises:
        ProjectError: The remote can't be asked.
    """
    from dvc.repo import Repo

    entry = _entry(name, out)
    with Repo(os.getcwd()) as repo:
        stage = _as_made(repo, name, entry)
        try:
            return _not_there(repo, stage)
        except Exception as error:  # each kind of remote lets its own kinds of errors through
            raise ProjectError(
                f"the DVC remote does not say whether it has the outputs of {name}: {error.__cause__ or error}",
                f"see that the remote answers, then dvc repro {name}: the job is not run again",
            ) from error


def _not_there(repo: "Repo", stage: "PipelineStage") -> list[str]:
    remote = repo.cloud.get_remote_odb(None)
    made = {str(one): one.hash_info.value for one in stage.outs if one.use_cache}
    there = set(remote.oids_exist(list(made.values())))
    gone = [path for path, digest in made.items() if digest not in there]
    parts = set() if gone else _objects(repo, stage)
    return gone or sorted(parts - set(remote.oids_exist(list(parts))))


def _entry(name: str, out: Path) -> dict[str, Any]:
    path = out / RESULT
    try:
        entry: dict[str, Any] = read_json(path)["entry"]
        fingerprint.from_entry(entry)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(name, path, error) from error
    return entry


def _damaged(name: str, path: Path, error: Exception) -> ProjectError:
    return ProjectError(
        f"{path}, which the job of {name} handed back, can't be read: {error}",
        f"JOB_FRESH=1 dvc repro --force --single-item {name}, which starts a new job",
    )


def _as_made(repo: "Repo", name: str, entry: dict[str, Any]) -> "PipelineStage":
    from dvc.stage.loader import StageLoader

    stage: PipelineStage = repo.stage.load_one(name=name)
    StageLoader.fill_from_lock(stage, entry)
    missing = [str(one) for one in stage.outs if not one.hash_info]
    if missing:
        raise ProjectError(
            f"the job made no {', '.join(missing)}, which dvc.yaml:stages.{name} names",
            f"let the stage make it, or take it from dvc.yaml; then dvc repro {name}",
        )
    return stage


def _check_same(now: fingerprint.Inputs, entry: dict[str, Any], name: str) -> None:
    changed = fingerprint.differences(fingerprint.from_entry(entry), now)
    if changed:
        raise ProjectError(
            f"{', '.join(changed)} changed while the job of {name} ran, so what it made belongs to what was before",
            "dvc repro starts a job for what is now; with the change undone, it takes over what was made",
        )


def _fetch(repo: "Repo", stage: "PipelineStage") -> None:
    try:
        wanted = _objects(repo, stage)
        infos = {info for infos in stage.get_used_objs().values() for info in infos}
        repo.cloud.pull(infos)
        missing = wanted - set(repo.cache.local.oids_exist(list(wanted)))
    except Exception as error:  # each kind of remote lets its own kinds of errors through
        raise _not_fetched(stage, str(error.__cause__ or error)) from error
    if missing:
        raise _not_fetched(stage, f"{len(missing)} of {len(wanted)} files")


def _check_out(stage: "PipelineStage") -> None:
    from dvc.exceptions import DvcException

    for made in (one for one in stage.outs if one.use_cache):
        try:
            made.checkout(force=True)  # tells DVC's state the hashes: nothing large is read again
        except DvcException as error:
            raise ProjectError(
                f"{made} can't be written to the work tree: {error.__cause__ or error}",
                f"see that the disk has room, then dvc repro {stage.name}: the job is not run again",
            ) from error


def _objects(repo: "Repo", stage: "PipelineStage") -> set[str]:
    """Return the hashes of all files of a stage's outputs, of which those in folders stand in lists that are fetched.

    Raises:
        LookupError: A list is not to be had. DVC would ask the person at the terminal whether to go on without.
    """
    made = [one for one in stage.outs if one.use_cache]
    lists = {one.hash_info for one in made if one.hash_info.isdir}
    if lists:
        repo.cloud.pull(lists)
    absent = [info.value for info in lists if not repo.cache.local.exists(info.value)]
    if absent:
        raise LookupError(f"it has no {', '.join(absent)}")
    return {info.value for infos in stage.get_used_objs().values() for info in infos}


def _not_fetched(stage: "PipelineStage", said: str) -> ProjectError:
    return ProjectError(
        f"the outputs of {stage.name} can't be fetched from the DVC remote: {said}",
        f"see that the remote answers and the disk has room, then dvc repro {stage.name}: the job is not run again",
    )


def _unpack(name: str, small: Path) -> None:
    try:
        transfer.unpack(small, Path.cwd())
    except (FileNotFoundError, tarfile.TarError) as error:
        raise _damaged(name, small, error) from error
