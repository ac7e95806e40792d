"""Rebuild a server that was wiped, or a second one, from what Git and DVC keep: runs, registered versions, aliases.

    python -m <package> mirror status [--json]
    python -m <package> mirror repair [--dry-run]

Each run and version is there as it was, but for MLflow's own ids and the times of registration. Doing it again changes
nothing; what was interrupted goes on.
"""

import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..tracking import archive, lacking, mirror, outbox, server
from ..tracking.history import PastRun
from ..tracking.lacking import Lack
from . import aliases, rebuild
from .aliases import RETRY
from .releases import Release, registry, releases
from .releases import lacking as lacking_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What this clone knows, and what of it MLflow lacks."""

    known: dict[str, PastRun]  # by the run's id
    releases: dict[int, Release]
    runs: dict[str, Lack]  # by the run's id
    registry: dict[str, Lack]  # by `version 2`, `alias champion`

    @property
    def lacks(self) -> list[Lack]:
        """Everything that MLflow lacks."""
        return [*self.runs.values(), *self.registry.values()]

    @property
    def many(self) -> int:
        """How much of it MLflow should have."""
        return sum(lack.counts for lack in self.lacks)

    def table(self) -> str:
        """Return it as lines for people."""
        lines = [f"{lack.what}: MLflow lacks {lack.lacks}; {lack.remedy}" for lack in self.lacks]
        said = f"{self.many} lack(s); this clone knows" if self.many else "MLflow has all that this clone knows:"
        return "\n".join([*lines, f"{said} {len(self.known)} run(s) and {len(self.releases)} registered version(s)"])

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        lacking = [asdict(lack) for lack in self.lacks]
        counts = {"runs": len(self.known), "versions": len(self.releases)}
        return {**counts, "complete": not self.many, "lacking": lacking}


def status() -> Status:
    """Compare what this clone knows with what MLflow has.

    Raises:
        ProjectError: MLflow can't be reached, or has other versions under the numbers of ours.
    """
    known, versions = lacking.known(), releases()
    with server.answering(RETRY):
        client = server.client()
        return Status(known, versions, lacking.lacking(client, known), lacking_versions(client, versions))


def repair() -> Status:
    """Give MLflow what it lacks; what was sent stays sent.

    Returns:
        What it lacks still, and why.

    Raises:
        ProjectError: MLflow can't be reached, or has other versions under the numbers of ours.
    """
    found = status()
    # In the order of the trainings: of runs on one dataset, MLflow keeps the source that the first one tells.
    runs = {run: left for run, lack in found.runs.items() if (left := _send(found.known[run], lack))}
    with server.answering(RETRY):
        client = server.client()
        versions = rebuild.rebuild(client, found.releases)
        aliased = [lack.state for what, lack in lacking_versions(client, found.releases).items() if "alias" in what]
        if "repair" in aliased and "fetch" not in aliased and registry(client).versions:
            for line in aliases.replay():
                log.info("%s", line)
        return replace(found, runs=runs, registry=lacking_versions(client, found.releases) | versions)


def _send(past: PastRun, lack: Lack) -> Lack | None:
    """Send a run when it can be sent, and return what MLflow lacks of it still."""
    if lack.state not in ("sync", "repair"):
        return lack
    try:
        if lack.state == "sync":
            entry = outbox.folder() / past.run
            outbox.deliver(entry if entry.exists() else Path())
        else:
            _send_past(past, past.commits)
    except server.NoAnswerError:
        raise
    except mirror.RunDeletedError as error:
        return replace(lack, state="deleted", remedy=error.fix)
    except ProjectError as error:
        return replace(lack, state="impossible", remedy=f"not repairable: {error.problem}; {error.fix}")
    log.info("MLflow has %s", lack.what)
    return None


def _send_past(past: PastRun, commits: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive.restore_run(commits[0], Path(folder))
        except ProjectError:
            if not commits[1:]:
                raise
            return _send_past(past, commits[1:])  # an older commit may have them
        with outbox.sending(past.run):  # two repairs at once must not both create it
            mirror.sync(Path(folder))
