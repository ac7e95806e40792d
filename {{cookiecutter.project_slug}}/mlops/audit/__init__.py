"""Whose records are in which model, and is that allowed: from MLflow, the data manifests and the consent registry.

    from mlops import audit

    report = audit.verify(["form-03"])
    print(report.verdict, [row["run"] for row in report.rows])

Each question reads all runs and returns an `AuditReport`. Several questions about the same runs: `audit.audit.Audit`.
Each takes `source`, which is "mlflow" or "dvc" (the history of Git and DVC in this clone), and `experiments`, the names
of the MLflow experiments to look at (by default all). Each raises MlflowError if MLflow can't be reached,
InconclusiveError or ShallowCloneError if something else that the answer depends on can't be read, and ProjectError for
bad input, such as an unknown name, no subject, or a malformed consent registry.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .audit import Audit
    from .report import AuditReport


def find(subjects: Iterable[str], source: str = "mlflow", experiments: Iterable[str] = ()) -> "AuditReport":
    """Find the runs that know the subjects, with their versions and aliases; INCONCLUSIVE if these may not be all."""
    return read(source, experiments).find(subjects)


def verify(
    subjects: Iterable[str], since: datetime | None = None, source: str = "mlflow", experiments: Iterable[str] = ()
) -> "AuditReport":
    """Verify that every run that knows the subjects was trained while they consented.

    A date in `since`, with a time zone, replaces what the registry says: assume that their consent ended then.
    """
    return read(source, experiments).verify(subjects, since)


def deployed(
    subjects: Iterable[str] | None = None, source: str = "mlflow", experiments: Iterable[str] = ()
) -> "AuditReport":
    """Verify that nothing that is served knows a subject without consent; of `subjects`, or by default of all."""
    return read(source, experiments).deployed(subjects)


def list_members(name: str, source: str = "mlflow", experiments: Iterable[str] = ()) -> "AuditReport":
    """List the subjects that a model or a run knows: `3`, `champion`, `model/3`, `model@alias`, or a run's id."""
    return read(source, experiments).members(name)


def diff(first: str, second: str, source: str = "mlflow", experiments: Iterable[str] = ()) -> "AuditReport":
    """List the subjects that only one of two models or runs knows, named as for `list_members`."""
    return read(source, experiments).diff(first, second)


def export_tables(folder: Path) -> str:
    """Write everything that is known as Parquet tables, for SQL; return a summary: see `export.export`."""
    from .export import export

    return export(read(), folder)


def reindex(source: str = "mlflow") -> "Audit":
    """Create the index anew: fetch and check every manifest; `missing` of the result has those that can't be read."""
    from .index import Index

    Index().clear()
    return read(source)


def read(source: str = "mlflow", experiments: Iterable[str] = ()) -> "Audit":
    """Read all runs, to ask several questions about them."""
    from . import catalog
    from .audit import Audit

    return Audit(catalog.read(source, tuple(experiments)))
