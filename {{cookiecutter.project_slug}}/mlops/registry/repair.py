"""Rebuild a server that was wiped, or a second one, from what Git and DVC keep: runs, registered versions, aliases.

    python -m mlops mirror status [--json]
    python -m mlops mirror repair [--dry-run]

Each run and version is there as it was, but for MLflow's own ids and the times of registration. Doing it again changes
nothing; what was interrupted goes on.
"""

import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..tracking import dvc_remote, mlflow_client, mlflow_sync, sync_status, uploader
from ..tracking.lineage_log import KnownRun
from ..tracking.sync_status import Missing
from . import aliases, rebuild
from .aliases import RETRY
from .git_tags import TaggedVersion, registry, releases
from .git_tags import lacking as lacking_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What this clone knows, and what of it MLflow lacks."""

    known: dict[str, KnownRun]  # by the run's id
    releases: dict[int, TaggedVersion]
    runs: dict[str, Missing]  # by the run's id
    registry: dict[str, Missing]  # by `version 2`, `alias champion`

    @property
    def lacks(self) -> list[Missing]:
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
        missing = [asdict(lack) for lack in self.lacks]
        counts = {"runs": len(self.known), "versions": len(self.releases)}
        return {**counts, "complete": not self.many, "lacking": missing}


def status() -> Status:
    """Compare what this clone knows with what MLflow has.

    Raises:
        ProjectError: MLflow can't be reached, or has other versions under the numbers of ours.
    """
    known, versions = sync_status.known(), releases()
    with mlflow_client.translate_errors(RETRY):
        client = mlflow_client.client()
        return Status(known, versions, sync_status.missing(client, known), lacking_versions(client, versions))


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
    with mlflow_client.translate_errors(RETRY):
        client = mlflow_client.client()
        versions = rebuild.rebuild(client, found.releases)
        aliased = [lack.state for what, lack in lacking_versions(client, found.releases).items() if "alias" in what]
        if "repair" in aliased and "fetch" not in aliased and registry(client).versions:
            for line in aliases.replay():
                log.info("%s", line)
        return replace(found, runs=runs, registry=lacking_versions(client, found.releases) | versions)


def _send(past: KnownRun, lack: Missing) -> Missing | None:
    """Send a run when it can be sent, and return what MLflow lacks of it still."""
    if lack.state not in ("sync", "repair"):
        return lack
    try:
        if lack.state == "sync":
            entry = uploader.folder() / past.run
            uploader.upload(entry if entry.exists() else Path())
        else:
            _send_past(past, past.commits)
    except mlflow_client.MlflowError:
        raise
    except mlflow_sync.RunDeletedError as error:
        return replace(lack, state="deleted", remedy=error.fix)
    except ProjectError as error:
        return replace(lack, state="impossible", remedy=f"not repairable: {error.problem}; {error.fix}")
    log.info("MLflow has %s", lack.what)
    return None


def _send_past(past: KnownRun, commits: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            dvc_remote.restore_run(commits[0], Path(folder))
        except ProjectError:
            if not commits[1:]:
                raise
            return _send_past(past, commits[1:])  # an older commit may have them
        with uploader.upload_lock(past.run):  # two repairs at once must not both create it
            mlflow_sync.sync(Path(folder))
