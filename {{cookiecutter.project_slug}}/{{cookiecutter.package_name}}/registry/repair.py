"""Rebuild a server that was wiped, or a second one, from what Git and DVC keep: runs, registered versions, aliases.

    python -m <package> mirror status [--json]
    python -m <package> mirror repair [--dry-run]

Each run and version is there as it was, but for MLflow's own ids and the times of registration. Doing it again changes
nothing; what was interrupted goes on.
"""

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..tracking import completeness, resend, server
from ..tracking.completeness import Known, Lack
from . import aliases, rebuild, releases
from .moves import ALIASES, moves, standing
from .releases import Release

RETRY = "see that the server is up (platform.yaml:tracking_uri), then the same command again"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What this clone knows, and what of it MLflow lacks.

    Args:
        clone: The runs that it knows.
        releases: The registered versions that it knows, by number.
        runs: What MLflow lacks of the runs, by id.
        registry: What it lacks of the registry, by `version 2`, `alias champion`.
    """

    clone: Known
    releases: dict[int, Release]
    runs: dict[str, Lack]
    registry: dict[str, Lack]

    @property
    def lacks(self) -> list[Lack]:
        """Everything that MLflow lacks."""
        return [*self.runs.values(), *self.registry.values()]

    @property
    def code(self) -> int:
        """Exit code: 1 when MLflow has less than it should."""
        return int(any(lack.counts for lack in self.lacks))

    def table(self) -> str:
        """Return it as lines for people."""
        lines = [f"{lack.what}: MLflow lacks {lack.lacks}; {lack.remedy}" for lack in self.lacks]
        known = f"{len(self.clone.runs())} run(s) and {len(self.releases)} registered version(s)"
        many = sum(lack.counts for lack in self.lacks)
        said = f"{many} lack(s); this clone knows {known}" if many else f"MLflow has all that this clone knows: {known}"
        return "\n".join([*lines, said])

    def plan(self) -> str:
        """Return what `repair` would do, and what it can't."""
        would = [f"would send {lack.lacks} of {lack.what}" for lack in self.lacks if lack.state in ("sync", "repair")]
        others = [f"{lack.what}: {lack.remedy}" for lack in self.lacks if lack.state not in ("sync", "repair")]
        return "\n".join([*would, *others] or ["nothing to do"])

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "runs": len(self.clone.runs()),
            "versions": len(self.releases),
            "complete": not self.code,
            "lacking": [asdict(lack) for lack in self.lacks],
        }


def status() -> Status:
    """Compare what this clone knows with what MLflow has.

    Raises:
        ProjectError: MLflow can't be reached.
    """
    clone, known = completeness.known(), releases.releases()
    with server.answering(RETRY):
        client = server.client()
        return Status(clone, known, completeness.lacking(client, clone), releases.lacking(client, known))


def repair() -> Status:
    """Give MLflow what it lacks.

    Returns:
        What it lacks still, and why.

    Raises:
        ProjectError: MLflow can't be reached, or has other versions under the numbers of ours.
    """
    found = status()
    rebuild.refuse_others(found.releases)
    runs = resend.resend(found.clone, found.runs)
    versions = rebuild.rebuild(found.releases)
    with server.answering(RETRY):
        left = releases.lacking(server.client(), found.releases) | versions
        if _can_replay(left):
            for line in aliases.replay():
                log.info("%s", line)
            left = releases.lacking(server.client(), found.releases) | versions
    return replace(found, runs=runs, registry=left)


def _can_replay(left: dict[str, Lack]) -> bool:
    """Return whether aliases are wrong, this clone has all moves of them, and MLflow the versions that they go to."""
    wrong = [lack for lack in left.values() if lack.what.startswith("alias")]
    wanted = {standing(moves()).of(alias) for alias in ALIASES}
    movable = all(lack.state == "repair" for lack in wrong)
    return bool(wrong) and movable and not any(f"version {number}" in left for number in wanted)
