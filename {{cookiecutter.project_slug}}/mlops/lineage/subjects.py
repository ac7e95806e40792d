"""Whose records are in a dataset, and may they be used today."""

import importlib.util
from io import BytesIO
from typing import Any

from ..errors import ProjectError
from ..records import consent


def withdrawn(manifest: bytes) -> int:
    """Return how many subjects of a data manifest have no consent today.

    Raises:
        ProjectError: The manifest or the registry of consent can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..records.manifest import ROW_GROUP

    registry = consent.read(consent.PATH)
    subjects: set[str] = set()
    try:
        with pq.ParquetFile(BytesIO(manifest)) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["subject_id"], use_threads=False):
                subjects.update(batch.column(0).unique().to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ProjectError(f"the manifest is damaged: {error}", "dvc fetch --force manifest") from error
    return sum(not registry.allows(subject) for subject in subjects)


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
