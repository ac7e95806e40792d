"""Compare two versions on the same records, which must be fair to both: the test set of each, by one metric."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..contract import Metric, known_metrics, package_name
from ..errors import ProjectError
from ..records import consent, shards
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.sync_status import STATUS
from .aliases import Registry
from .evaluation import IncomparableError, Predictions, fair_part, find_metric, predict, restored, seen_subjects
from .paired import POWER, Difference, difference
from .predictions import open_registered
from .versions import download

TEST_SET = "data/dataset/test"
POINT = 0.01  # a loss of which is said how often it would pass


@dataclass(frozen=True)
class Comparison(Difference):
    """How good a version is, and another one that is or was champion, on the same records of one test set."""

    against: int  # the other version
    test_set_of: int  # a version
    seen: int  # records left out, since one of the two has trained on their subject, or was chosen by it (val)
    without_consent: int  # further records left out
    candidate: float
    champion: float  # the other version's

    def blind_spot(self, margin: float) -> str:
        """Say what these records can't show."""
        if (rate := self.pass_rate(POINT, margin)) is None:
            return "the two say the same of all these records"
        seen = self.refused_from(margin) + POWER * self.error
        text = f"a true loss of {POINT} would pass {100 * rate:.0f} % of the time, one of {seen:.4f} 20 %"
        if self.low is None:
            few = f"{self.subjects} subject(s) are too few to tell a loss from chance: only promote.margin counts"
            return f"{few}; if their records were independent, {text}"
        if self.low < -margin:
            text += f"; a loss above promote.margin ({margin}) is not ruled out"
        return text


def compare(
    registry: Registry, candidate: int, other: int, by: str, known: dict[tuple[str, ...], Predictions]
) -> list[Comparison]:
    """Measure two versions on the test set of the first, and on that of the second where it differs.

    IncomparableError is raised where a version, its data or its trainings aren't there, no record is fair to both, or
    the metric says nothing of them. `known` has predictions of other comparisons, and gets those of this one.
    """
    if other not in registry.versions:
        raise IncomparableError(f"{registry.name} version {other} is not in MLflow any more", STATUS)
    versions, metric = [registry.versions[number] for number in (candidate, other)], find_metric(by, "test_")
    seen = frozenset[str]().union(*(seen_subjects(registry, version) for version in versions))
    test_sets = {int(version.version): _fair_records(version, seen) for version in versions}
    if test_sets[candidate][0].equals(test_sets[other][0]):
        del test_sets[other]
    predicted = [
        _predict(version, {n: records for n, (records, *_) in test_sets.items()}, known) for version in versions
    ]
    comparisons = []
    for (number, (_, trained_on, without_consent)), *pair in zip(test_sets.items(), *predicted, strict=True):
        for version, each in zip(versions, pair, strict=True):
            _check_defined(metric, int(version.version), each)
        try:
            figures = [metric.function(each.actual, each.probabilities) for each in pair]
            result = difference(metric, pair[0], pair[1])
        except Exception as error:  # the metric is the team's
            problem = f"{by} is not defined on the test set of version {number}: {error}"
            raise IncomparableError(problem, f"another --by, or {package_name()}/interface.py:METRICS") from error
        comparisons.append(
            Comparison(
                **vars(result),
                against=other,
                test_set_of=number,
                seen=trained_on,
                without_consent=without_consent,
                candidate=figures[0],
                champion=figures[1],
            )
        )
    return comparisons


def _check_defined(metric: Metric, version: int, predictions: Predictions) -> None:
    """Raise IncomparableError if a metric says nothing of what a version predicts."""
    names = [f"test_{each.name}" for each in known_metrics().values() if not each.needs_probabilities]
    fix = f"--by {names[0]}" if names else "another --by"
    if metric.needs_probabilities and not predictions.has_scores:
        problem = f"version {version} gives labels without scores, and {metric.name} needs the probability of each"
        raise IncomparableError(problem, fix)
    if len(predictions.classes) < metric.labels:
        raise IncomparableError(f"{metric.name} says nothing of {len(predictions.classes)} labels", fix)


def _predict(
    version: StoredVersion, test_sets: dict[int, pa.Table], known: dict[tuple[str, ...], Predictions]
) -> list[Predictions]:
    """Return what a version says of test sets; it is loaded if that is not `known`."""
    keys = [(version.version, str(number), *records["record_id"].to_pylist()) for number, records in test_sets.items()]
    if missing := [each for each in zip(keys, test_sets.values(), strict=True) if each[0] not in known]:
        uri = f"models:/{version.name}/{version.version}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = open_registered(uri, download(uri, Path(folder)))
                known |= {key: predict(model, records) for key, records in missing}
            except ProjectError as error:
                raise IncomparableError(error.problem, error.fix) from error
            except Exception as error:  # the model runs code of its own, which raises what it likes
                fix = f"take another version; where it fails is shown by: python -m mlops evaluate {version.version}"
                raise IncomparableError(f"{uri} predicts nothing: {error}", fix) from error
    return [known[key] for key in keys]


def _fair_records(version: StoredVersion, seen: frozenset[str]) -> tuple[pa.Table, int, int]:
    """Return the records of a test set that are fair to both, and how many are not: seen, without consent."""
    with restored(version, TEST_SET) as folder:
        test = shards.read(folder / TEST_SET)
    today = consent.read(consent.PATH) if version.tags.get("consent_sha256") != consent.NOT_REQUIRED else None
    records, trained_on, without_consent = fair_part(test, seen, today)
    if not len(records):
        raise IncomparableError(
            f"of the {len(test)} records in the test set of version {version.version} none is left: one of the two has "
            f"trained on {trained_on}, and {without_consent} more have no consent",
            "compare versions of the same split (params.yaml:split)",
        )
    return records, trained_on, without_consent
