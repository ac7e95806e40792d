"""What a version was tested on and whose records it has seen, from the data that its result commit pins."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data import consent, manifest, shards
from ..errors import ProjectError
from ..files import read_json
from ..settings import PACKAGE
from ..tracking.git import exists, git
from .aliases import Registry
from .figures import COMMIT

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TEST_SET = "data/dataset/test"
MANIFEST = "data/manifest.parquet"
FACTS = "reports/train/lineage.json"
CONSENT_PATH = Path("data/consent.csv")


class Incomparable(ProjectError):
    """Two versions can't be compared; `--anyway` goes on without."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one version.

    Args:
        version: Its number.
        test: Its test set, a row per record as in `shards.SCHEMA`, sorted by `record_id`.
        seen: Subjects that it has trained on or was chosen by (val), and those of the versions that it started from.
        consenting: Who consents today; None where nobody's consent is asked.
    """

    version: int
    test: pa.Table
    seen: frozenset[str]
    consenting: consent.Registry | None


def result_commit(version: "ModelVersion") -> str:
    """Return the commit that pins a version's data and results.

    Raises:
        Incomparable: The version names none, or this clone does not have it.
    """
    commit = version.tags.get(COMMIT)
    if not commit:
        raise Incomparable(
            f"{version.name} version {version.version} has no tag {COMMIT}, so no `register` stage made it",
            "register it: dvc repro",
        )
    if not exists(commit):
        raise Incomparable(
            f"this clone lacks the commit {commit[:10]} of {version.name} version {version.version}",
            "git fetch --tags origin; if that does not bring it, where it was registered: "
            f"python -m {PACKAGE} lineage push",
        )
    return commit


def collect(registry: Registry, number: int) -> Evidence:
    """Read a version's test set and splits from DVC's cache or remote; the work tree stays as it is.

    Raises:
        Incomparable: The version, its commit or its data are gone, or nobody can tell what it has seen.
        ProjectError: Today's consent registry isn't there, or is malformed.
    """
    if number not in registry.versions:
        raise Incomparable(
            f"{registry.name} version {number} is not in MLflow any more", f"python -m {PACKAGE} mirror repair"
        )
    version = registry.versions[number]
    with _pinned(version, TEST_SET, MANIFEST, FACTS) as folder:
        test = shards.read(folder / TEST_SET)
        seen = _seen(registry, version, folder)
    asked = version.tags.get("consent_sha256") != consent.NOT_REQUIRED
    return Evidence(number, test, seen, consent.read(CONSENT_PATH) if asked else None)


def _seen(registry: Registry, version: "ModelVersion", folder: Path) -> frozenset[str]:
    rows = pq.read_table(folder / MANIFEST, partitioning=None)
    if manifest.digest(rows) != version.tags.get("manifest_sha256"):
        raise Incomparable(
            f"{MANIFEST} at the commit of version {version.version} is not the one that it was registered with",
            "restore the DVC remote from a copy",
        )
    seen = frozenset(rows.filter(pc.field("split") != "test")["subject_id"].to_pylist())
    for run in read_json(folder / FACTS).get("parents", ["unknown"]):
        parent = registry.of_run(run)
        if parent is None:
            raise Incomparable(
                f"version {version.version} started from the weights of run {run}, which is not registered (any more): "
                "nobody can tell what it has seen",
                f"python -m {PACKAGE} mirror repair",
            )
        with _pinned(parent, MANIFEST, FACTS) as above:
            seen |= _seen(registry, parent, above)
    return seen


@contextlib.contextmanager
def _pinned(version: "ModelVersion", *paths: str) -> Iterator[Path]:
    """Give a temporary folder with files of the project as they were when a version was registered.

    Raises:
        Incomparable: The commit, or the data, aren't there.
    """
    from dvc.api import DVCFileSystem

    commit, remotes = result_commit(version), _remotes_of_today()
    with tempfile.TemporaryDirectory() as folder:
        try:
            # Below its Git repository's root, the project is a sub-repository to DVC, and its paths begin there.
            files = DVCFileSystem(rev=commit, subrepos=True, config=remotes)
            project = git("rev-parse", "--show-prefix")
            for path in paths:
                Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
                files.get(project + path, str(Path(folder, path)), recursive=True)
        except Exception as error:  # each kind of remote lets its own kinds of errors through
            raise Incomparable(
                f"the data of version {version.version} (commit {commit[:10]}) are not to be had: {error}",
                "see that the DVC remote can be reached; in a clone that has them: dvc push --all-commits",
            ) from error
        yield Path(folder)


def _remotes_of_today() -> dict[str, Any]:
    """Return where data are kept now: since the commit was made, they may have moved to a bucket."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        name, remotes = repo.config["core"].get("remote"), repo.config["remote"]
    if name not in remotes:
        raise Incomparable("no DVC remote is set, to have the data from", f"python -m {PACKAGE} setup")
    return {"core": {"remote": name}, "remote": remotes}
