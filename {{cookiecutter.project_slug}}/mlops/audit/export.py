"""The audit's facts as Parquet tables, for SQL where one machine is too small: docs/records-athena.md describes them.

Times are UTC. A row of `versions` without a run: what that version knows, or which version has the alias, is unknown.
"""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import load_platform
from ..files import atomic_write
from ..records.consent import DOUBT
from ..registry.alias_log import ALIASES
from .audit import Audit
from .index import InconclusiveError, open_manifest
from .policy import read_registry
from .report import Row

TEXT, TIME, BOOL = pa.string(), pa.timestamp("ms"), pa.bool_()
RUN = ("run", "title", "experiment", "started_at", "ended_at", "deleted", "whole")
SCHEMAS = {
    "runs": pa.schema(zip(RUN, (TEXT, TEXT, TEXT, TIME, TIME, BOOL, BOOL), strict=True)),
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
    tables = {"runs": _runs(audit), "knows": _knows(audit), "versions": _versions(audit), "consent": _consent()}
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


def _runs(audit: Audit) -> list[Row]:
    return [
        dict(zip(RUN, (run.id, run.title, run.experiment, run.started, run.ended, run.deleted, whole), strict=True))
        for run in audit.catalog.runs
        for whole in [audit.graph.nodes[run.id].complete]
    ]


def _knows(audit: Audit) -> list[Row]:
    return [
        {"run": run_id, "manifest_sha256": sha256, "how": how}
        for run_id, node in audit.graph.nodes.items()
        for sha256, number in audit.numbers.items()
        for how, bits in (("direct", node.own), ("inherited", node.inherited))
        if bits >> number & 1
    ]


def _versions(audit: Audit) -> list[Row]:
    rows: list[Row] = []
    for version in audit.catalog.versions:
        runs = {run.id for run in audit.runs_of[version]} | ({None} if audit.is_orphan(version) else set())
        for run in sorted(runs, key=str):
            for alias in version.aliases or (None,):
                rows.append({"model": version.model, "version": version.number, "alias": alias, "run": run})
    for issue in audit.catalog.issues:
        number = issue.version.number if issue.version else None
        for alias in (issue.alias,) if issue.alias else ALIASES:
            rows.append({"model": load_platform().project, "version": number, "alias": alias, "run": None})
    return rows


def _consent() -> list[Row]:
    registry = read_registry()
    active = dict.fromkeys(registry.active, ("active", None))
    ended = {subject: ("ended", time) for subject, time in registry.ended.items()}
    doubtful = dict.fromkeys(registry.doubtful, (DOUBT, None))
    return [
        {"subject_id": subject, "status": status, "ended_at": time}
        for group in (ended | active, doubtful)
        for subject, (status, time) in sorted(group.items())
    ]
