"""A store for data in S3, and a project whose pipeline has run as jobs in the sandbox."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import BakedProject, isolate
from ..projects import commit, edit
from ..servers.s3 import ObjectStore, Traffic
from .laptops import Hashed, Laptop, as_jobs

collect_ignore = [] if sys.platform == "linux" else ["test_s3.py", "test_secrets.py"]

NOISE_BYTES = 8_000_000
NOISE = f"""    import random

    for noise in (REPORTS_DIR / "samples" / "noise.bin", Path("data", "noise.bin")):
        noise.write_bytes(random.Random(str(noise)).randbytes({NOISE_BYTES}))
"""


@dataclass(frozen=True)
class Counted:
    """A run of the pipeline, and what it took."""

    laptop: Laptop
    traffic: dict[str, Traffic]
    hashed: list[Hashed]

    @property
    def project(self) -> BakedProject:
        """Return the project."""
        return self.laptop.project


@pytest.fixture(scope="session")
def by_jobs(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[Counted]:
    """What `RUN_ON=sandbox dvc repro` made from nothing; to look at and not to change.

    The stage `manifest` makes two large files more, one of them in a folder.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        laptop = Laptop(tmp_path_factory.mktemp("by-jobs"), object_store)
        laptop.enter(monkeypatch)
        _make_noise(laptop)
        with monkeypatch.context() as counted:
            laptop.count_hashes(counted)
            as_jobs(laptop.project)
        took = laptop.traffic(), laptop.hashed()
        commit(laptop.project, "First results")
    yield Counted(laptop, *took)
    laptop.close()


def _make_noise(laptop: Laptop) -> None:
    """Let `manifest` make what is too large to be read twice."""
    project, first = laptop.project, "data/manifest.parquet"
    counts = '    write_report(REPORTS_DIR / "labels.csv"'
    edit(project, f"{project.package}/stages/manifest.py", counts, f"{NOISE}{counts}")
    edit(project, "dvc.yaml", f"outs:\n      - {first}", f"outs:\n      - {first}\n      - data/noise.bin")
    edit(project, ".gitignore", f"/{first}", f"/{first}\n/data/noise.bin")
    commit(project, "A stage that makes much")


@pytest.fixture
def laptop(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laptop]:
    """A fresh one with its environment; its jobs are not told apart."""
    made = Laptop(tmp_path / tmp_path.parent.name, object_store, apart=False)
    made.enter(monkeypatch)
    yield made
    made.close()
