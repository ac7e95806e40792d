"""Whose records are in a dataset, and may they be used today."""

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..records import consent
from .objects import Objects


def withdrawn(sha256: str, md5: str, objects: Objects) -> int:
    """Return how many subjects of a data manifest have no consent today.

    Args:
        sha256: The digest of its rows, by which the audit's index knows it.
        md5: DVC's hash of it.
        objects: The files that DVC keeps.

    Raises:
        ProjectError: The manifest or the registry of consent can't be read.
    """
    registry = consent.read(consent.PATH)
    if not has_audit():
        return sum(not registry.allows(subject) for subject in _subjects(md5, objects))
    from ..audit.index import Index, ingest

    def fetch(folder: str) -> Path:
        path = Path(folder, "manifest.parquet")
        path.write_bytes(objects.read(md5))
        return path

    index = Index()
    if missing := ingest(index, [sha256], lambda _: [fetch]):
        raise ProjectError(
            missing[sha256], "python -m mlops verify of the same name says which file is damaged or lost"
        )
    members = index.members(1 << index.numbers()[sha256])
    return sum(not registry.allows(subject) for subject in members)


def _subjects(md5: str, objects: Objects) -> set[str]:
    """Return the subjects of a data manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..records.manifest import ROW_GROUP

    subjects: set[str] = set()
    try:
        with objects.file(md5) as path, pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["subject_id"]):
                subjects.update(batch.column(0).unique().to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ProjectError(f"the manifest is damaged: {error}", "dvc fetch --force manifest") from error
    return subjects


def has_audit() -> bool:
    """Return whether this project has `mlops/audit`, which knows whose records are where."""
    return importlib.util.find_spec("..audit", __package__) is not None


def known_to(subject: str, facts: dict[str, Any], notes: list[str]) -> dict[str, str]:
    """Return the runs that know a subject, by the id that the audit gives, each with how.

    Args:
        subject: Its id.
        facts: Gets its consent.
        notes: Get what the audit notes.
    """
    if not has_audit():
        raise ProjectError("mlops/audit was deleted, which knows whose records are where", "make update, or git revert")
    from .. import audit
    from ..audit.policy import Consent

    report = audit.find([subject])
    registry = consent.read(consent.PATH) if consent.PATH.exists() else None
    if registry:
        state = Consent.of(subject, registry)
        facts["consent"] = state.status
        facts["ended"] = state.ended.isoformat() if state.ended else None
    notes += report.notes
    return {row["run"]: str(row["exposure"]) for row in report.rows}
