"""Is a version as good as the champion? Both answer the same records, and none that one of them has seen before."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from ..errors import ProjectError
from ..settings import PACKAGE
from .aliases import Registry
from .evidence import Evidence, Incomparable, collect
from .measures import MEASURES, Model, lower_is_better

NEEDS = "see that MLflow answers, and what the model needs: mlflow.pyfunc.get_model_dependencies('{uri}')"


@dataclass(frozen=True)
class Bout:
    """Both versions on one test set.

    Args:
        test_set_of: The version whose test set it is.
        records: How many both answered.
        seen: Records left out, since one of the two has trained on their subject (or was chosen by it).
        without_consent: Records left out, since their subject does not consent today.
        candidate: The candidate's figure.
        champion: The champion's figure.
    """

    test_set_of: int
    records: int
    seen: int
    without_consent: int
    candidate: float
    champion: float

    def worse(self, by: str) -> bool:
        """Return whether the candidate is worse; a figure that is no number is."""
        return not (self.candidate <= self.champion if lower_is_better(by) else self.candidate >= self.champion)

    def told(self, by: str) -> str:
        """Return it as a phrase."""
        return (
            f"{by} {self.candidate:.4f} against {self.champion:.4f} on the test set of version {self.test_set_of} "
            f"({self.records} records; left out: {self.seen} that one of them has trained on, "
            f"{self.without_consent} without consent)"
        )


@dataclass(frozen=True)
class Comparison:
    """A candidate and the champion, by one measure, on the candidate's test set and on the champion's if it differs."""

    by: str
    candidate: int
    champion: int
    bouts: tuple[Bout, ...]

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse on any of the test sets."""
        return any(bout.worse(self.by) for bout in self.bouts)

    def told(self) -> str:
        """Return it as a sentence without its end."""
        versions = f"version {self.candidate} against the champion, version {self.champion}"
        return f"{versions}: {'; '.join(bout.told(self.by) for bout in self.bouts)}"

    def figures(self) -> dict[str, object]:
        """Return it as the record keeps it."""
        return {"by": self.by, "champion": self.champion, "test_sets": [asdict(bout) for bout in self.bouts]}


def check_measure(by: str) -> None:
    """See that a measure is known.

    Raises:
        ProjectError: It is not.
    """
    if by not in MEASURES:
        raise ProjectError(
            f"{by!r} can't be measured on a test set (known: {', '.join(MEASURES)})",
            f"--by {next(iter(MEASURES))}, or add it to {PACKAGE}/registry/measures.py:MEASURES",
        )


def compare(registry: Registry, candidate: int, champion: int, by: str) -> Comparison:
    """Measure two versions on the same records.

    Raises:
        Incomparable: Data or a model isn't to be had, or nothing is left that is fair to both.
        ProjectError: Today's consent registry is malformed.
    """
    ours, theirs = collect(registry, candidate), collect(registry, champion)
    rounds = list(_rounds(ours, theirs))
    with tempfile.TemporaryDirectory() as folder:
        uris = [f"models:/{registry.name}/{number}" for number in (candidate, champion)]
        models = {uri: _load(uri, f"{folder}/{index}") for index, uri in enumerate(uris)}
        bouts = []
        for number, records, seen, denied in rounds:
            figures = [_measure(uri, model, records, by) for uri, model in models.items()]
            bouts.append(Bout(number, len(records), seen, denied, *figures))
    return Comparison(by, candidate, champion, tuple(bouts))


def _rounds(ours: Evidence, theirs: Evidence) -> Iterator[tuple[int, pa.Table, int, int]]:
    """Give the records of each test set that are fair to both, and how many are not: seen, without consent."""
    seen, before = ours.seen | theirs.seen, None
    for one in (ours, theirs):
        subjects = one.test["subject_id"].to_pylist()
        trained_on = [subject in seen for subject in subjects]
        denied = [one.consenting is not None and not one.consenting.allows(subject) for subject in subjects]
        left = one.test.filter(pa.array([not (a or b) for a, b in zip(trained_on, denied, strict=True)]))
        counts = (sum(trained_on), sum(b and not a for a, b in zip(trained_on, denied, strict=True)))
        if not len(left):
            raise Incomparable(
                f"of the {len(one.test)} records in the test set of version {one.version} none is left: one of "
                f"the two has trained on {counts[0]}, and {counts[1]} more have no consent",
                f"python -m {PACKAGE} registry promote {ours.version} --anyway --why …",
            )
        if before is None or not left.equals(before):
            yield one.version, left, *counts
        before = left


def _load(uri: str, folder: str) -> Model:
    import mlflow

    Path(folder).mkdir()
    try:
        return mlflow.pyfunc.load_model(uri, dst_path=folder)
    except Exception as error:  # it runs code of its own, which raises what it likes
        raise Incomparable(f"{uri} does not load: {error}", NEEDS.format(uri=uri)) from error


def _measure(uri: str, model: Model, records: pa.Table, by: str) -> float:
    try:
        return MEASURES[by](model, records)
    except Exception as error:  # the same
        raise Incomparable(f"{by} of {uri} can't be measured: {error}", NEEDS.format(uri=uri)) from error
