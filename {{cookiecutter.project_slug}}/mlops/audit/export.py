"""The audit's facts as Parquet tables, for SQL where one machine is too small: docs/records-athena.md describes them.

Times are UTC. A row of `versions` without a run: what that version knows, or which version has the alias, is unknown.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import load_platform
from ..errors import ProjectError
from ..files import atomic_write
from ..registry.aliases import ALIASES
from .audit import Audit
from .index import InconclusiveError, open_manifest
from .policy import Consent, read_registry

TEXT, TIME, BOOL = pa.string(), pa.timestamp("ms"), pa.bool_()
TIMES = {"started_at": TIME, "ended_at": TIME}
SCHEMAS = {
    "runs": pa.schema({"run": TEXT, "title": TEXT, "experiment": TEXT, **TIMES, "deleted": BOOL, "whole": BOOL}),
    "knows": pa.schema({"run": TEXT, "manifest_sha256": TEXT, "how": TEXT}),
    "versions": pa.schema({"model": TEXT, "version": pa.int64(), "alias": TEXT, "run": TEXT}),
    "consent": pa.schema({"subject_id": TEXT, "status": TEXT, "ended_at": TIME}),
}
Rows = Iterator[tuple[Any, ...]]  # of a table, with the columns of its schema


def export(audit: Audit, folder: Path) -> str:
    """Write the tables into a folder, and the manifests that it lacks; return what was written, for people.

    Raises:
        ProjectError: The consent registry is missing or malformed, or the folder can't be written.
        InconclusiveError: Runs may be missing from the tables, such as in a shallow clone.
        ManifestMissingError: A manifest can't be fetched any more.
    """
    for issue in audit.catalog.issues:
        if issue.incomplete:
            raise InconclusiveError(issue.problem, issue.fix)
    runs = (
        (run.id, run.title, run.experiment, run.started, run.ended, run.deleted, audit.graph.nodes[run.id].complete)
        for run in audit.catalog.runs
    )
    knows = (
        (run, sha256, how)
        for run, node in audit.graph.nodes.items()
        for sha256, number in audit.numbers.items()
        for how, manifests in (("direct", node.own), ("inherited", node.inherited))
        if manifests >> number & 1
    )
    registry = read_registry()
    listed = [*sorted(registry.active | registry.ended.keys()), *sorted(registry.doubtful)]
    consents = ((subject, Consent.of(subject, registry)) for subject in listed)
    consent = ((subject, each.status, each.ended) for subject, each in consents)
    rows: dict[str, Rows] = {"runs": runs, "knows": knows, "versions": _versions(audit), "consent": consent}
    tables = {
        name: pa.Table.from_pylist([dict(zip(SCHEMAS[name].names, row, strict=True)) for row in each], SCHEMAS[name])
        for name, each in rows.items()
    }
    manifests = sorted({run.manifest for run in audit.catalog.runs if run.manifest in audit.numbers})
    targets = {sha256: folder / f"manifests/manifest_sha256={sha256}/manifest.parquet" for sha256 in manifests}
    new = {sha256: target for sha256, target in targets.items() if not target.exists()}
    try:
        for sha256, target in new.items():
            source = open_manifest(sha256, audit.catalog.manifest_sources(sha256))
            with source as (file, _), atomic_write(target) as copy:
                shutil.copyfile(file, copy)
        for name, table in tables.items():
            with atomic_write(folder / name / f"{name}.parquet") as file:
                pq.write_table(table, file)
    except OSError as error:
        fix = "python -m mlops audit export <a folder on a disk with space that this user may write>"
        raise ProjectError(f"{folder} can't be written: {error.strerror or error}", fix) from error
    counts = ", ".join(f"{len(table)} of {name}" for name, table in tables.items())
    return f"{folder.as_posix()}: {len(new)} new manifests of {len(manifests)}; rows: {counts}"


def _versions(audit: Audit) -> Rows:
    for version in audit.catalog.versions:
        runs = {run.id for run in audit.runs_of[version]} | ({None} if audit.is_orphan(version) else set())
        for run in sorted(runs, key=str):
            for alias in version.aliases or (None,):
                yield version.model, version.number, alias, run
    for issue in audit.catalog.issues:
        number = issue.version.number if issue.version else None
        for alias in (issue.alias,) if issue.alias else ALIASES:
            yield load_platform().project, number, alias, None
