"""Take over what a job made: the work tree is then as if the stage had run here.

DVC, which runs this as the stage's command, writes `dvc.lock` itself; `check` sees to it that this can only be the
job's own entry. Any failure makes the stage fail, and then `dvc.lock` stays as it was.
"""

import tarfile
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..files import read_json
from ..tracking import dvc_remote
from . import fingerprint, transfer
from .fingerprint import Stage, open_stage
from .worker import RESULT, SMALL


def apply_results(name: str, out: Path) -> None:
    """Bring the outputs of a stage, whose job handed back the folder `out`, into the work tree.

    Raise ProjectError if an output is missing or damaged, or the stage changed while the job ran.
    """
    entry = _read_entry(name, out)
    with open_stage(name) as stage:
        _fill(stage, entry)
        _check_same(fingerprint.from_work_tree(stage.repo.stage.load_one(name=name)), entry, name)
        _fetch(stage)
        _unpack(name, out / SMALL)
        for output in (output for output in stage.outs if output.use_cache):
            with transfer.explain_errors(
                f"{output} can't be written to the work tree",
                f"see that the disk has room, then dvc repro {name}: the job is not run again",
            ):
                output.checkout(force=True)  # tells DVC's state the hashes: nothing large is read again


def check(name: str, out: Path) -> None:
    """Raise ProjectError unless DVC would record the same of the work tree as the job recorded of its own.

    With `dvc repro --allow-missing`, DVC would put new params beside the old hash of an output that is missing, and
    call that up to date.
    """
    from dvc.output import OutputDoesNotExistError
    from dvc.stage.serialize import to_single_stage_lockfile

    entry = _read_entry(name, out)
    with open_stage(name) as stage:
        try:
            stage.save(run_cache=False)
        except OutputDoesNotExistError as error:
            missing = ", ".join(str(output) for output in stage.outs if not output.exists)
            problem = f"{missing}, which the job of {name} made, was deleted while its results were taken over"
            raise ProjectError(problem, f"dvc repro {name}: the job is not run again") from error
        recorded = fingerprint.plain(to_single_stage_lockfile(stage))
    _check_same(fingerprint.from_entry(recorded), entry, name)
    if not fingerprint.same(recorded, entry):
        problem = f"what is in the work tree is not what the job of {name} made"
        raise ProjectError(problem, f"see that nothing else writes its outputs, then dvc repro {name}")


def missing_outputs(name: str, out: Path) -> list[str]:
    """Return the outputs of a finished job that the DVC remote has lost, for instance by `dvc gc -c`."""
    entry = _read_entry(name, out)
    with open_stage(name) as stage:
        _fill(stage, entry)
        with transfer.explain_errors(
            f"the DVC remote does not say whether it has the outputs of {name}",
            f"see that the remote answers, then dvc repro {name}: the job is not run again",
        ):
            remote = stage.repo.cloud.get_remote_odb(None)
            hashes = {str(output): output.hash_info.value for output in stage.outs if output.use_cache}
            present = set(remote.oids_exist(list(hashes.values())))
            if missing := [path for path, digest in hashes.items() if digest not in present]:
                return missing
            outputs = [output for output in stage.outs if output.use_cache]
            files = {info.value for info in dvc_remote.file_hashes(stage.repo, outputs)}
            return sorted(files - set(remote.oids_exist(list(files))))


def _read_entry(name: str, out: Path) -> dict[str, Any]:
    path = out / RESULT
    try:
        entry: dict[str, Any] = read_json(path)["entry"]
        fingerprint.from_entry(entry)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(name, path, error) from error
    return entry


def _unpack(name: str, small: Path) -> None:
    try:
        transfer.unpack(small, Path.cwd())
    except (FileNotFoundError, tarfile.TarError) as error:
        raise _damaged(name, small, error) from error


def _damaged(name: str, path: Path, error: Exception) -> ProjectError:
    problem = f"{path}, which the job of {name} handed back, can't be read: {error}"
    return ProjectError(problem, f"JOB_FRESH=1 dvc repro --force --single-item {name}, which starts a new job")


def _fill(stage: Stage, entry: dict[str, Any]) -> None:
    """Set the hashes of a stage to those of the job's entry."""
    from dvc.stage.loader import StageLoader

    StageLoader.fill_from_lock(stage, entry)
    if missing := [str(output) for output in stage.outs if not output.hash_info]:
        problem = f"the job made no {', '.join(missing)}, which dvc.yaml:stages.{stage.name} names"
        raise ProjectError(problem, f"let the stage make it, or take it from dvc.yaml; then dvc repro {stage.name}")


def _check_same(inputs: fingerprint.Inputs, entry: dict[str, Any], name: str) -> None:
    if changed := fingerprint.differences(fingerprint.from_entry(entry), inputs):
        raise ProjectError(
            f"{', '.join(changed)} changed while the job of {name} ran, so its results belong to the earlier state",
            "dvc repro starts a job for the present state; with the change undone, it takes over these results",
        )


def _fetch(stage: Stage) -> None:
    with transfer.explain_errors(
        f"the outputs of {stage.name} can't be fetched from the DVC remote",
        f"see that the remote answers and the disk has room, then dvc repro {stage.name}: the job is not run again",
    ):
        dvc_remote.fetch(stage.repo, [output for output in stage.outs if output.use_cache])
