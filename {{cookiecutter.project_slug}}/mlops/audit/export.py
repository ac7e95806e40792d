"""The audit's facts as Parquet tables, for SQL where one machine is too small: see docs/records-athena.md.

    manifests/manifest_sha256=<digest>/manifest.parquet    as the runs logged them, each checked
    knows/knows.parquet          which manifests a run read (direct) or inherits
    runs/runs.parquet            trainings; `whole` is false if not all that they know can be determined
    versions/versions.parquet    registered versions, a row for each run and alias; without a run if it is unknown
    consent/consent.parquet      every subject in the registry: active, ended and when, or in doubt

Times are UTC.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import load_platform
from ..files import atomic_write
from ..records.consent import DOUBT
from ..registry.alias_log import ALIASES
from .audit import Audit
from .index import InconclusiveError, open_manifest
from .policy import read_registry

TEXT, TIME, BOOL = pa.string(), pa.timestamp("ms"), pa.bool_()
FACTS = ("run", "title", "experiment", "started_at", "ended_at", "deleted")
SCHEMAS = {
    "runs": pa.schema(zip((*FACTS, "whole"), (TEXT, TEXT, TEXT, TIME, TIME, BOOL, BOOL), strict=True)),
    "knows": pa.schema({"run": TEXT, "manifest_sha256": TEXT, "how": TEXT}),
    "versions": pa.schema({"model": TEXT, "version": pa.int64(), "alias": TEXT, "run": TEXT}),
    "consent": pa.schema({"subject_id": TEXT, "status": TEXT, "ended_at": TIME}),
}


def export(audit: Audit, folder: Path) -> str:
    """Write the tables into a folder, and the manifests that it lacks.

    Returns:
        What was written, for people.

    Raises:
        ProjectError: The consent registry is missing or malformed.
        InconclusiveError: Runs may be missing from the tables, such as in a shallow clone.
        ManifestMissingError: A manifest can't be fetched any more.
    """
    for issue in audit.catalog.issues:
        if issue.incomplete:
            raise InconclusiveError(issue.problem, issue.fix)
    tables = {
        "runs": list(_runs(audit)),
        "knows": list(_knows(audit)),
        "versions": list(_versions(audit)),
        "consent": list(_consent()),
    }
    manifests = sorted({run.manifest for run in audit.catalog.runs if run.manifest in audit.numbers})
    targets = {sha256: folder / f"manifests/manifest_sha256={sha256}/manifest.parquet" for sha256 in manifests}
    new = {sha256: target for sha256, target in targets.items() if not target.exists()}
    for sha256, target in new.items():
        with open_manifest(sha256, audit.catalog.manifest_sources(sha256)) as (file, _), atomic_write(target) as copy:
            shutil.copyfile(file, copy)
    for name, rows in tables.items():
        with atomic_write(folder / name / f"{name}.parquet") as file:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[name]), file)
    counts = ", ".join(f"{len(rows)} of {name}" for name, rows in tables.items())
    return f"{folder.as_posix()}: {len(new)} new manifests of {len(manifests)}; rows: {counts}"


def _runs(audit: Audit) -> Iterator[dict[str, Any]]:
    for run in audit.catalog.runs:
        facts = (run.id, run.title, run.experiment, run.started, run.ended, run.deleted)
        yield {**dict(zip(FACTS, facts, strict=True)), "whole": audit.graph.manifests(run.id)[2]}


def _knows(audit: Audit) -> Iterator[dict[str, Any]]:
    for run in audit.catalog.runs:
        own, inherited, _ = audit.graph.manifests(run.id)
        for sha256, number in audit.numbers.items():
            for how, bits in (("direct", own), ("inherited", inherited)):
                if bits >> number & 1:
                    yield {"run": run.id, "manifest_sha256": sha256, "how": how}


def _versions(audit: Audit) -> Iterator[dict[str, Any]]:
    for version in audit.catalog.versions:
        # A row without a run: not everything that the version knows can be determined.
        runs = {run.id for run in audit.runs_of[version]} | ({None} if audit.is_orphan(version) else set())
        for run in sorted(runs, key=str):
            for alias in version.aliases or (None,):
                yield {"model": version.model, "version": version.number, "alias": alias, "run": run}
    for issue in audit.catalog.issues:  # a row without a run, too: it is unknown which version has the alias
        number = issue.version.number if issue.version else None
        for alias in (issue.alias,) if issue.alias else ALIASES:
            yield {"model": load_platform().project, "version": number, "alias": alias, "run": None}


def _consent() -> Iterator[dict[str, Any]]:
    registry = read_registry()
    for subject in sorted(registry.active | registry.ended.keys()):
        is_active = subject in registry.active
        ended = None if is_active else registry.ended[subject]
        yield {"subject_id": subject, "status": "active" if is_active else "ended", "ended_at": ended}
    for subject in sorted(registry.doubtful):
        yield {"subject_id": subject, "status": DOUBT, "ended_at": None}
