"""Send runs to MLflow once more, from what DVC and Git keep of them: for a server that lost them, or a second one."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from ..errors import ProjectError
from . import mirror, outbox
from .archive import Archive, LostError, hashes_of, md5
from .completeness import Known, Lack
from .history import PastRun
from .record import ARTIFACTS, LINEAGE, RUN_DIR, check_manifest, read_facts

TOGETHER = 100  # runs whose files are fetched from the DVC remote at once
RESULTS = RUN_DIR.as_posix()

log = logging.getLogger(__name__)

Source = tuple[str, dict[str, str]]  # a commit, and the hashes of the run's files at it


def resend(clone: Known, lacks: dict[str, Lack]) -> dict[str, Lack]:
    """Send what MLflow lacks of runs, as far as their files are to be had; what is sent stays sent.

    Args:
        clone: What this clone knows.
        lacks: What MLflow lacks, by the run's id.

    Returns:
        What it lacks still.

    Raises:
        ProjectError: MLflow can't be reached.
    """
    left = {run: lack for run, lack in lacks.items() if lack.state not in ("sync", "repair")}
    # In the order of the trainings: of runs on one dataset, MLflow keeps the source that the first one tells.
    todo = [run for run in lacks if run not in left]
    with Archive() as archive:
        for start in range(0, len(todo), TOGETHER):
            some = todo[start : start + TOGETHER]
            sources = {run: sources_of(clone.past[run]) for run in some if lacks[run].state == "repair"}
            fetch(archive, [source for found in sources.values() for source in found])
            for run in some:
                if lacks[run].state == "sync":
                    still = _deliver(run, lacks[run], clone)
                else:
                    still = _resend(archive, run, lacks[run], sources[run])
                if still:
                    left[run] = still
                else:
                    log.info("MLflow has %s", lacks[run].what)
    return left


def _deliver(run: str, lack: Lack, clone: Known) -> Lack | None:
    try:
        outbox.deliver(outbox.folder() / run if run in clone.waiting else Path())
    except ProjectError as error:
        return replace(lack, remedy=f"{error.problem}; {error.fix}")
    return None


def _resend(archive: Archive, run: str, lack: Lack, sources: list[Source]) -> Lack | None:
    try:
        _send(archive, run, sources)
    except mirror.RunDeletedError as error:
        return replace(lack, state="deleted", remedy=error.fix)
    except LostError as error:
        return replace(lack, state="impossible", remedy=f"not repairable: {error.problem}")
    return None


def sources_of(past: PastRun) -> list[Source]:
    """Return where the files of a run are, the newest commit first; commits with the same files count once."""
    found: list[Source] = []
    for commit in past.commits:
        try:
            named = hashes_of(commit)
        except ProjectError as error:
            log.warning("%s", error.problem)
            continue
        hashes = {path: named[path] for path in (RESULTS, *ARTIFACTS) if path in named}
        if RESULTS in hashes and all(hashes != other for _, other in found):
            found.append((commit, hashes))
    return found


def fetch(archive: Archive, sources: list[Source]) -> None:
    """Bring the files to DVC's cache; when the remote is away, what the cache has must do."""
    kept = {RESULTS, "data/manifest.parquet"}  # Git has the others
    try:
        archive.fetch(value for _, hashes in sources for path, value in hashes.items() if path in kept)
    except ProjectError as error:
        log.warning("%s", error.problem)


def restore(archive: Archive, run: str, source: Source, folder: Path) -> None:
    """Write the files of a run below `folder`, as they were when it ended.

    Raises:
        LostError: Not all of them are to be had, or they are another run's.
    """
    commit, hashes = source
    for path, value in hashes.items():
        content = archive.file_of_git(commit, path)
        if content is not None and md5(content) == value:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        else:
            archive.copy(value, folder / path)
    told = read_facts(folder)["run"] if (folder / LINEAGE).exists() else "no run"
    if told != run:
        raise LostError(
            f"commit {commit[:10]} says that {RESULTS} is of run {run}, and it is of {told}", "see that commit"
        )
    try:
        check_manifest(folder)
    except ProjectError as error:
        raise LostError(f"at commit {commit[:10]}, {error.problem}", error.fix) from error


def _send(archive: Archive, run: str, sources: list[Source]) -> None:
    lost = LostError(f"no commit with run {run} has a dvc.lock that names its {RESULTS}", "")
    for source in sources:
        with tempfile.TemporaryDirectory() as name:
            try:
                restore(archive, run, source, Path(name))
            except LostError as error:
                lost = error
                continue
            with outbox.sending(run):  # two repairs at once must not both create it
                mirror.sync(Path(name))
            return
    raise lost
