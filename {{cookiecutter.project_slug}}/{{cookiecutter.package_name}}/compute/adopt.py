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
from . import inputs
from .job import RESULT, SMALL

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage


def adopt(name: str, out: Path) -> dict[str, Any]:
    """Bring the outputs of a stage here.

    Args:
        name: The stage.
        out: What its job handed back.

    Returns:
        The content of `result.json`.

    Raises:
        ProjectError: An output is missing or damaged, or the stage changed while the job ran.
    """
    from dvc.repo import Repo

    result = _read(name, out)
    entry = result["entry"]
    with Repo(os.getcwd()) as repo:
        stage = _as_made(repo, name, entry)
        _check_same(inputs.of(repo.stage.load_one(name=name)), entry, name)
        _fetch(repo, stage)
        _unpack(stage, out / SMALL)
        for made in (one for one in stage.outs if one.use_cache):
            made.checkout(force=True)  # tells DVC's state the hashes: nothing large is read again
        _check_whole(repo.stage.load_one(name=name), entry)
    return result


def lost(name: str, out: Path) -> list[str]:
    """Return the outputs of a finished job that are no longer in the DVC remote, as after somebody's `dvc gc -c`.

    Raises:
        ProjectError: The remote can't be asked.
    """
    from dvc.repo import Repo

    entry = _read(name, out)["entry"]
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
    if gone:
        return gone
    parts = {info.value for infos in stage.get_used_objs().values() for info in infos}
    return sorted(parts - set(remote.oids_exist(list(parts)))) if parts else []


def _read(name: str, out: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = read_json(out / RESULT)
        result["entry"]["outs"], result["mirrored"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(name, out / RESULT, error) from error
    return result


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
        raise ProjectError(f"the job made no {', '.join(missing)}, which dvc.yaml:stages.{name} names", "dvc repro")
    return stage


def _check_same(now: inputs.Inputs, entry: dict[str, Any], name: str) -> None:
    changed = inputs.differences(inputs.before(entry), now)
    if changed:
        raise ProjectError(
            f"{', '.join(changed)} changed while the job of {name} ran, so what it made belongs to what was before",
            "dvc repro starts a job for what is now; with the change undone, it takes over what was made",
        )


def _fetch(repo: "Repo", stage: "PipelineStage") -> None:
    try:
        wanted = {info for infos in stage.get_used_objs().values() for info in infos}
        failed = repo.cloud.pull(wanted).failed if wanted else ()
    except Exception as error:  # each kind of remote lets its own kinds of errors through
        raise _not_fetched(stage, str(error.__cause__ or error)) from error
    if failed:
        raise _not_fetched(stage, f"{len(failed)} of {len(wanted)} files")


def _not_fetched(stage: "PipelineStage", said: str) -> ProjectError:
    return ProjectError(
        f"the outputs of {stage.name} can't be fetched from the DVC remote: {said}",
        f"see that the remote answers and the disk has room, then dvc repro {stage.name}: the job is not run again",
    )


def _unpack(stage: "PipelineStage", small: Path) -> None:
    try:
        with tarfile.open(small) as packed:
            packed.extractall(Path.cwd(), filter="data")
    except (FileNotFoundError, tarfile.TarError) as error:
        raise _damaged(stage.name, small, error) from error


def _check_whole(stage: "PipelineStage", entry: dict[str, Any]) -> None:
    """See that DVC would write of the work tree what the job wrote of its own.

    With `dvc repro --allow-missing`, DVC would put new params beside the old hash of an output that is missing, and
    call that up to date.
    """
    from dvc.output import OutputDoesNotExistError
    from dvc.stage.serialize import to_single_stage_lockfile

    try:
        stage.save(run_cache=False)
    except OutputDoesNotExistError as error:
        raise ProjectError(f"the job's output {error.path} did not arrive", f"dvc repro {stage.name}") from error
    if to_single_stage_lockfile(stage) != entry:
        raise ProjectError(
            f"what is in the work tree is not what the job of {stage.name} made",
            f"see that nothing else writes its outputs, then dvc repro {stage.name}",
        )
