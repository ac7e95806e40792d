"""The consent registry, kept by commands: append, ask, check, pull from a database.

The stages don't come here: they read the registry by `data/consent.py`, whose rules hold here too. This file is the
only door to the folder.
"""

from collections.abc import Iterable
from datetime import datetime

from .verbs import at
from .verbs import verbs as consent

__all__ = ["at", "groups", "revoke"]

groups = (consent,)  # of the command line


def revoke(subjects: Iterable[str], at: datetime | None = None, unlisted: bool = False) -> list[str]:
    """Do what `consent revoke` does: see `ledger.revoke`."""
    from . import ledger

    return ledger.revoke(subjects, at, unlisted)
