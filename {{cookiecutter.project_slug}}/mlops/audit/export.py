"""The audit's facts as Parquet tables, for SQL where one machine is too small: see docs/records-athena.md.

    manifests/manifest_sha256=<digest>/manifest.parquet    as the runs logged them, each checked
    knows/knows.parquet          which manifests a run read (direct) or inherits
    runs/runs.parquet            trainings; `whole` is false where nobody can tell all that they know
    versions/versions.parquet    registered versions, a row for each run and alias; no run where nobody can tell
    consent/consent.parquet      whoever is in the registry: active, ended and when, or in doubt

Times are UTC.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import load_platform
from ..files import atomic_write
from ..records.consent import DOUBT
from ..registry.aliases import ALIASES
from . import manifests
from .audit import Audit
from .cli_args import read_registry
from .index import InconclusiveError
from .manifests import Fetch

TIME = pa.timestamp("ms")
SCHEMAS = {
    "runs": pa.schema(
        {
            "run": pa.string(),
            "title": pa.string(),
            "experiment": pa.string(),
            "started_at": TIME,
            "ended_at": TIME,
            "deleted": pa.bool_(),
            "whole": pa.bool_(),
        }
    ),
    "knows": pa.schema({"run": pa.string(), "manifest_sha256": pa.string(), "how": pa.string()}),
    "versions": pa.schema({"model": pa.string(), "version": pa.int64(), "alias": pa.string(), "run": pa.string()}),
    "consent": pa.schema({"subject_id": pa.string(), "status": pa.string(), "ended_at": TIME}),
}


def export(audit: Audit, folder: Path) -> str:
    """Write the tables; of manifests, those that the folder lacks.

    Args:
        audit: The runs, as they are now.
        folder: Where to; made if it isn't there.

    Returns:
        What was written, for people.

    Raises:
        ProjectError: There is no consent registry, or it is malformed.
        UndecidedError: There may be runs that the tables would lack, such as in a shallow clone.
        GoneError: A manifest is not to be had any more.
    """
    if cut := [doubt for doubt in audit.world.doubts if doubt.cut]:
        raise InconclusiveError(cut[0].problem, cut[0].fix)
    tables = {"runs": _runs(audit), "knows": _knows(audit), "versions": _versions(audit), "consent": _consent()}
    lists = {name: list(rows) for name, rows in tables.items()}
    read = sorted({run.manifest for run in audit.world.runs if run.manifest in audit.numbers})
    new = sum(_copied(folder, sha256, audit.world.places(sha256)) for sha256 in read)
    for name, rows in lists.items():
        with atomic_write(folder / name / f"{name}.parquet") as file:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[name]), file)
    told = ", ".join(f"{len(rows)} of {name}" for name, rows in lists.items())
    return f"{folder.as_posix()}: {new} new manifests of {len(read)}; rows: {told}"


def _runs(audit: Audit) -> Iterator[dict[str, Any]]:
    for run in audit.world.runs:
        yield {
            "run": run.id,
            "title": run.title,
            "experiment": run.experiment,
            "started_at": run.started,
            "ended_at": run.ended,
            "deleted": run.deleted,
            "whole": audit.exposures.reads(run.id)[2],
        }


def _knows(audit: Audit) -> Iterator[dict[str, Any]]:
    for run in audit.world.runs:
        own, inherited, _ = audit.exposures.reads(run.id)
        for sha256, number in audit.numbers.items():
            for how, bits in (("direct", own), ("inherited", inherited)):
                if bits >> number & 1:
                    yield {"run": run.id, "manifest_sha256": sha256, "how": how}


def _versions(audit: Audit) -> Iterator[dict[str, Any]]:
    for version in audit.world.versions:
        # Where a run is not known, nobody can tell all that the version knows: a row without a run says so.
        runs = {run.id for run in audit.made[version]} | ({None} if audit.is_orphan(version) else set())
        for run in sorted(runs, key=str):
            for alias in version.aliases or (None,):
                yield {"model": version.model, "version": version.number, "alias": alias, "run": run}
    # Nobody can tell what has these aliases: a row without a run says so of them too.
    for doubt in audit.world.doubts:
        number = doubt.version.number if doubt.version else None
        for alias in (doubt.alias,) if doubt.alias else ALIASES:
            yield {"model": load_platform().project, "version": number, "alias": alias, "run": None}


def _consent() -> Iterator[dict[str, Any]]:
    registry = read_registry()
    for subject in sorted(registry.active | registry.ended.keys()):
        ended = None if subject in registry.active else registry.ended[subject]
        status = "active" if subject in registry.active else "ended"
        yield {"subject_id": subject, "status": status, "ended_at": ended}
    for subject in sorted(registry.doubtful):
        yield {"subject_id": subject, "status": DOUBT, "ended_at": None}


def _copied(folder: Path, sha256: str, places: Iterable[Fetch]) -> bool:
    """Copy a manifest, unless it is there; return whether it was not."""
    target = folder / "manifests" / f"manifest_sha256={sha256}" / "manifest.parquet"
    if target.exists():
        return False
    with manifests.fetched(sha256, places) as (file, _), atomic_write(target) as new:
        shutil.copyfile(file, new)
    return True
