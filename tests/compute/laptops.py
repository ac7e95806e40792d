"""A laptop whose DVC remote is in S3, with a proxy for itself and one for each of its jobs."""

import json
import os
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..conftest import BakedProject, new_project
from ..projects import commit, edit
from ..servers.s3 import BUCKET, CountingProxy, ObjectStore, Traffic
from . import hashing

JOBS = {"prepare": "processing", "manifest": "processing", "train": "training"}
LAPTOP = "laptop"
MODULE = """
import contextlib
import json
import os
from pathlib import Path

from mlops import write_report


def main() -> None:
    dataset = Path("data", "dataset")
    dataset.mkdir(parents=True, exist_ok=True)
    write_report(Path("reports", "prepare.json"), {"excluded": 0})
"""


@dataclass(frozen=True)
class Hashed:
    """A file, or a stream of bytes, that DVC hashed."""

    path: str
    size_bytes: int
    by: list[str]


class Laptop:
    """A generated project with its remote in S3.

    Args:
        folder: Where it is made, with all that belongs to it.
        store: The store.
        apart: Whether what each job asks of the store is counted apart from what the laptop asks.
        answers: To the prompts.

    Attributes:
        project: The project; its first commit has the settings.
        proxies: By the name of a stage, and of the laptop.
        environment: Variables by which its DVC finds the store.
    """

    def __init__(self, folder: Path, store: ObjectStore, apart: bool = True, **answers: str) -> None:
        """Generate it, and set it up."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.proxies = {name: CountingProxy(store.url) for name in (LAPTOP, *(JOBS if apart else ()))}
        # The index that DVC keeps of what is in a remote would outlive the store.
        site = {"DVC_SITE_CACHE_DIR": str(folder / "site")}
        self.environment = {**store.environment(), **site, "AWS_ENDPOINT_URL_S3": self.proxies[LAPTOP].url}
        self.project = new_project(folder, s3_bucket=BUCKET, **answers)
        # A place for each: the store is everybody's.
        edit(self.project, ".dvc/config", f"s3://{BUCKET}", f"s3://{BUCKET}/{folder.name}")
        for name in self.proxies.keys() & JOBS.keys():
            self._send_through(name)
        self.project.run("git", "config", "user.name", "Test")
        self.project.run("git", "config", "user.email", "test@example.org")
        commit(self.project, "Data in S3")

    @property
    def prefix(self) -> str:
        """Return how the names of its objects begin."""
        return f"{self._folder.name}/{self.project.path.name}/"

    def _send_through(self, stage: str) -> None:
        text = f"python -m mlops stage {stage}\n    meta:\n      job: {{kind: {JOBS[stage]}"
        url = self.proxies[stage].url
        edit(self.project, "dvc.yaml", text, f"{text}, environment: {{AWS_ENDPOINT_URL_S3: '{url}'}}")

    def let_prepare(self, body: str) -> None:
        """Let the stage `prepare` do something else, and commit that.

        Args:
            body: Of its `main`, after its folder `dataset` was made.
        """
        code = f"{MODULE}{textwrap.indent(textwrap.dedent(body).strip(), ' ' * 4)}\n"
        module = self.project.path / self.project.package / "stages" / "prepare.py"
        module.write_text(code, encoding="utf-8", newline="\n")
        commit(self.project, "Another stage")

    def prepare_here(self) -> None:
        """Call the stage as a script would: DVC has no part in it."""
        self.project.run("python", "-c", f"from {self.project.package}.stages.prepare import main; main()")

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make its environment that of this process."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def count_hashes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Write down what DVC hashes from now on, for `hashed`."""
        place = self._folder / "counting"
        place.mkdir(exist_ok=True)
        shutil.copy(str(hashing.__file__), place / "sitecustomize.py")
        monkeypatch.setenv("PYTHONPATH", str(place))
        monkeypatch.setenv(hashing.LOG, str(self._log))

    @property
    def _log(self) -> Path:
        return self._folder / "hashed.jsonl"

    def hashed(self) -> list[Hashed]:
        """Return what DVC hashed here while it was counted."""
        return [Hashed(**json.loads(line)) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def traffic(self) -> dict[str, Traffic]:
        """Return what the laptop and each job asked of the store until now."""
        return {name: proxy.traffic() for name, proxy in self.proxies.items()}

    def close(self) -> None:
        """Close the ways to the store."""
        for proxy in self.proxies.values():
            proxy.close()


def job_dir(project: BakedProject, stage: str) -> Path:
    """Return the folder of the one job of a stage."""
    (folder,) = (project.path / ".dvc" / "tmp" / "jobs").glob(f"*-{stage}-*-[0-9]/")
    return folder


def result(project: BakedProject, stage: str) -> dict[str, Any]:
    """Return what the one job of a stage handed back."""
    content: dict[str, Any] = json.loads((job_dir(project, stage) / "out" / "result.json").read_text(encoding="utf-8"))
    return content


def as_jobs(project: BakedProject, *targets: str, check: bool = True) -> str:
    """Run `dvc repro` with its stages in the sandbox, and return all that it printed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RUN_ON", "sandbox")
        done = project.run("dvc", "repro", *targets, check=check)
    assert check or done.returncode, f"it did not fail:\n{done.stdout}"
    return done.stdout + done.stderr


def clone(project: BakedProject, folder: Path) -> BakedProject:
    """Do what a colleague would, but for the data: clone, and set up."""
    project.run("git", "clone", "--quiet", str(project.path), str(folder))
    copied = BakedProject(folder, project.package)
    copied.run("python", "-m", "mlops", "setup")
    return copied


def contents(path: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, by their paths in it."""
    return {
        os.path.relpath(file, path): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not file.is_symlink()
    }
