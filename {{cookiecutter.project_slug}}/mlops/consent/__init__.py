"""Commands that maintain the consent registry. Stages read it by `mlops/records/consent.py`, which has the rules."""

from collections.abc import Iterable
from datetime import datetime

from .cli import at

__all__ = ["at", "revoke"]


def revoke(subjects: Iterable[str], at: datetime | None = None, unlisted: bool = False) -> list[str]:
    """Do what `consent revoke` does: see `edits.revoke`."""
    from . import edits

    return edits.revoke(subjects, at, unlisted)
