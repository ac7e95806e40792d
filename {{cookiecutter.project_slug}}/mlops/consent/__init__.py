"""The consent registry, kept by commands: append, ask, check, pull from a database.

The stages don't come here: they read the registry by `mlops/records/consent.py`, whose rules hold here too.
This file is the only door to the folder.
"""

from collections.abc import Iterable
from datetime import datetime

from .cli import at
from .cli import verbs as consent

__all__ = ["at", "groups", "revoke"]

groups = (consent,)  # of the command line


def revoke(subjects: Iterable[str], at: datetime | None = None, unlisted: bool = False) -> list[str]:
    """Do what `consent revoke` does: see `ledger.revoke`."""
    from . import edits

    return edits.revoke(subjects, at, unlisted)
