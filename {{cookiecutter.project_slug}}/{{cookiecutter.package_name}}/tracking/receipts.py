"""Ask MLflow which of thousands of runs it has whole, in seconds.

MLflow answers a search with all params, tags and metrics of each run: 10,000 runs are 58 MB. So the ids of runs that
were seen whole are kept, a file that can be deleted at any time, and MLflow is asked to count those: it sends one run
for a thousand. Only runs that are new here, or not whole any more, are read.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProjectError
from ..files import read_json, write_json
from ..settings import home, load_platform
from .mirror import ENDED, MIRROR_ID
from .server import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COUNTED = 1000  # ids in one question; MLflow's parser takes no more than a few thousand
PAGE = 1000  # runs; a busy server takes 5 s for them, and a request has 20
WHOLE = "attributes.status != 'RUNNING' and attributes.status != 'SCHEDULED'"
FEW = 300  # that are asked for one by one; more, and reading all there are is quicker


@dataclass(frozen=True)
class Standing:
    """A run in MLflow.

    Args:
        run_id: MLflow's id.
        whole: Whether it has its end: that is sent last.
        deleted: Whether a person deleted it.
    """

    run_id: str
    whole: bool
    deleted: bool


def look(client: "MlflowClient", runs: Iterable[str]) -> dict[str, Standing]:
    """Return those of `runs` that MLflow has.

    Raises:
        ProjectError: A person deleted the project's MLflow experiment.
    """
    experiment = client.get_experiment_by_name(load_platform().project)
    if experiment is None:
        return {}
    if experiment.lifecycle_stage == "deleted":
        raise ProjectError(
            f"the MLflow experiment {experiment.name} was deleted at {tracking_uri()}",
            f"to have it back: mlflow experiments restore --experiment-id {experiment.experiment_id}",
        )
    return _Search(client, experiment.experiment_id).look(set(runs))


class _Search:
    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self._client, self._experiment = client, experiment
        # By a digest: there may be a password in the address.
        server = hashlib.sha256(f"{tracking_uri()} {experiment}".encode()).hexdigest()[:12]
        self._path: Path = home() / ".dvc" / "tmp" / "mirrored" / f"{server}.json"

    def look(self, runs: set[str]) -> dict[str, Standing]:
        kept: dict[str, str] = read_json(self._path) if self._path.exists() else {}
        found: dict[str, Standing] = {}
        seen = sorted(runs & kept.keys())
        for start in range(0, len(seen), COUNTED):
            found |= self._confirm({run: kept[run] for run in seen[start : start + COUNTED]})
        rest = runs - found.keys()
        if len(rest) > FEW:
            found |= {run: one for run, one in _standings(self._read("")) if run in rest}
        else:
            for run in rest:
                found |= _standings(self._read(f"tags.{MIRROR_ID} = '{run}'"))
        whole = {run: one.run_id for run, one in found.items() if one.whole and not one.deleted}
        if whole.items() - kept.items() or (runs & kept.keys()) - whole.keys():
            write_json(self._path, {run: run_id for run, run_id in kept.items() if run not in runs} | whole)
        return found

    def _confirm(self, ids: dict[str, str]) -> dict[str, Standing]:
        """Return those of the runs seen before that are still there, whole or not."""
        query = f"attributes.run_id IN ({','.join(repr(run_id) for run_id in ids.values())})"
        if self._count_is(f"{query} and {WHOLE}", len(ids)):
            return {run: Standing(run_id, whole=True, deleted=False) for run, run_id in ids.items()}
        return {run: one for run, one in _standings(self._read(query)) if ids.get(run) == one.run_id}

    def _count_is(self, query: str, number: int) -> bool:
        """Return whether exactly so many runs match: there is a last one, and none after it."""
        from mlflow.entities import ViewType

        last, beyond = (
            self._client.search_runs([self._experiment], query, ViewType.ACTIVE_ONLY, 1, page_token=_after(skipped))
            for skipped in (number - 1, number)
        )
        return len(last) == 1 and not beyond

    def _read(self, query: str) -> "Iterator[Run]":
        from mlflow.entities import ViewType

        # The oldest first: a run that begins meanwhile doesn't move the pages.
        order, token = ["attributes.start_time ASC"], None
        while True:
            page = self._client.search_runs([self._experiment], query, ViewType.ALL, PAGE, order, token)
            yield from page
            token = page.token
            if not token:
                return


def _after(runs: int) -> str | None:
    """Return what MLflow gives as the token of the page after so many runs."""
    from mlflow.utils.search_utils import SearchUtils

    token: bytes = SearchUtils.create_page_token(runs)  # type: ignore[no-untyped-call]
    return token.decode() if runs else None


def _standings(found: "Iterable[Run]") -> Iterator[tuple[str, Standing]]:
    # Where one run is there twice, the one that was not deleted counts.
    told = ((run.data.tags.get(MIRROR_ID, ""), run.info) for run in found)
    all_of = sorted(told, key=lambda one: (one[0], one[1].lifecycle_stage != "deleted"))
    for run, infos in itertools.groupby(all_of, key=lambda one: one[0]):
        info = list(infos)[-1][1]
        yield run, Standing(info.run_id, info.status in ENDED, info.lifecycle_stage == "deleted")
