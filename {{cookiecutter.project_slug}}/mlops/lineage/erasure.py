"""Tombstones: the log's record that files of DVC were erased on request, so that their absence is no damage.

    python -m mlops tombstone HASH… --why "withdrawal of 3 November"

Whoever may delete objects erases the files, in the remote and in each cache. A tombstone says who, when and why.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ..config import load_platform
from ..errors import ProjectError
from ..registry.promotion import author
from ..tracking import lineage_log, publishing
from ..tracking.git import git, head
from .objects import Objects

ERASED = "erased"  # the kind of the entry
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


def record(hashes: Sequence[str], why: str) -> None:
    """Record in the log that files were erased, by their hashes in DVC.

    Raises:
        ProjectError: There is no reason, no such hash, or the cache or the remote still has one of them, or can't be
            asked.
    """
    if not why.strip():
        raise ProjectError("files are erased for a reason, and there is none", "--why '…'")
    if wrong := [md5 for md5 in hashes if not HASH.fullmatch(md5)]:
        raise ProjectError(f"{wrong[0]!r} is no hash of DVC", "take it whole from `verify --json` or dvc.lock")
    objects = Objects(Path())
    for store in (objects.cache, objects.remote):
        if left := store.sizes(hashes):
            where = store.location(next(iter(left)))
            problem = f"the {store.name} still has {len(left)} of these files, so they are not erased: {where}"
            raise ProjectError(problem, "erase them there, in all versions that a bucket keeps; then the same command")
    who, when = author(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    project = load_platform().project
    entry = json.dumps({"hashes": list(hashes), "project": project, "who": who, "when": when, "why": why})
    lineage_log.record(head(), f"erase {len(hashes)} file(s)\n\n{ERASED}: {entry}\n")
    publishing.publish(may_ask=True)


def tombstones() -> dict[str, str]:
    """Return who erased files, when and why, by their hashes; the logs of Git remotes count too."""
    if not (refs := lineage_log.log_refs()):
        return {}
    text = git("log", "--first-parent", "--reverse", f"--grep=^{ERASED}: ", "--format=%B", *refs)
    entries = [json.loads(line.partition(": ")[2]) for line in text.splitlines() if line.startswith(f"{ERASED}: ")]
    return {
        md5: f"erased on {entry['when'][:10]} by {entry['who']}: {entry['why']}"
        for entry in entries
        if entry["project"] == load_platform().project
        for md5 in entry["hashes"]
    }
