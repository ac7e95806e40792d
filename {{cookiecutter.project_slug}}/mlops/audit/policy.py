"""What follows from what a run knows of a subject, and from when it was trained: one table, `RULES`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ..records.consent import DOUBT, Registry
from ..records.ids import normalize_id
from .catalog_mlflow import Run
from .exposure import Exposure


class Verdict(StrEnum):
    """An answer."""

    PASS = "PASS"  # noqa: S105 (no password)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> int:
        """Return what the command exits with; 2 is for bad input."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}[self]


class Timing(StrEnum):
    """When a run was trained, against the end of a subject's consent."""

    ACTIVE = "consent is active"
    BEFORE = "before"
    IN_FLIGHT = "in flight"
    AFTER = "after"
    NEVER = "never consented"
    DOUBT = "in doubt"  # their withdrawal lost in a merge: see `mlops/records/consent.py`


KNOWN = (Exposure.DIRECT, Exposure.INHERITED)

RULES: tuple[tuple[tuple[Exposure, ...], tuple[Timing, ...], Verdict, Verdict], ...] = (
    # exposure, trained (against the end of consent), verify, deployed: for what is served
    ((Exposure.NONE,), tuple(Timing), Verdict.PASS, Verdict.PASS),
    (KNOWN, (Timing.ACTIVE,), Verdict.PASS, Verdict.PASS),
    (KNOWN, (Timing.BEFORE,), Verdict.PASS, Verdict.FAIL),
    (KNOWN, (Timing.IN_FLIGHT, Timing.AFTER, Timing.NEVER), Verdict.FAIL, Verdict.FAIL),
    (KNOWN, (Timing.DOUBT,), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ((Exposure.UNKNOWN,), (Timing.ACTIVE,), Verdict.PASS, Verdict.PASS),
    ((Exposure.UNKNOWN,), tuple(Timing)[1:], Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
)
CELLS = {
    (exposure, timing): (verify, deployed)
    for exposures, timings, verify, deployed in RULES
    for exposure in exposures
    for timing in timings
}


def judge(exposure: Exposure, timing: Timing, served: bool) -> Verdict:
    """Return the verdict on one run and one subject.

    Args:
        exposure: What the run knows of the subject.
        timing: When it was trained.
        served: Whether the question is if it may be served, and not if it might be trained.
    """
    return CELLS[exposure, timing][served]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on all: FAIL goes before INCONCLUSIVE, that before PASS."""
    found = set(verdicts)
    return next((one for one in (Verdict.FAIL, Verdict.INCONCLUSIVE) if one in found), Verdict.PASS)


@dataclass(frozen=True, slots=True)
class Consent:
    """A subject's consent, as far as a verdict needs it.

    Args:
        status: active, ended, in doubt, or never: there is no grant of theirs.
        ended: When it ended, UTC; None when it did not, or when no line of the registry tells.
    """

    status: str
    ended: datetime | None = None

    @classmethod
    def of(cls, subject: str, registry: Registry) -> "Consent":
        """Look a subject up; whoever isn't listed never consented."""
        if registry.allows(subject):
            return cls("active")
        subject = normalize_id(subject)
        if subject in registry.doubtful:
            return cls(DOUBT)
        return cls("ended", registry.ended[subject]) if subject in registry.ended else cls("never")

    def timing(self, run: Run) -> Timing:
        """Return when a run was trained, in doubt the worse."""
        if self.status == "active":
            return Timing.ACTIVE
        if self.status == DOUBT:
            return Timing.DOUBT
        if self.ended is None:  # never given, or it ended nobody knows when
            return Timing.NEVER
        if run.started is None or run.started >= self.ended:
            return Timing.AFTER
        return Timing.BEFORE if run.ended and run.ended <= self.ended else Timing.IN_FLIGHT
