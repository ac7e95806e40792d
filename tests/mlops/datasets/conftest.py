"""A project with two versions of its dataset: Git and DVC, a pipeline without a training, real shards and manifests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import SKELETON

PIPELINE = """\
stages:
  prepare:
    cmd: PYTHON make.py dataset
    deps: [make.py, records.csv]
    outs: [data/dataset]
    metrics: [reports/prepare.json: {cache: false}]
  manifest:
    cmd: PYTHON make.py manifest
    deps: [make.py, data/dataset]
    outs: [data/manifest.parquet]
    metrics: [reports/manifest.json: {cache: false}]
  train:
    cmd: PYTHON make.py train
    deps: [data/dataset, data/manifest.parquet]
    metrics: [reports/run.json: {cache: false}]
"""
MAKE = """\
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.csv, pyarrow.parquet
from mlops.files import write_json
from mlops.records import shards
from mlops.records.manifest import write_manifest

dataset = Path("data/dataset")
if sys.argv[1] == "dataset":
    records = pa.csv.read_csv("records.csv")
    contents = records["record_id"]
    records = records.append_column("image", contents.cast("large_binary")).sort_by("record_id")
    for split in shards.SPLITS:
        (dataset / split).mkdir(parents=True)
        rows = records.filter(pa.compute.field("split") == split).select(shards.SCHEMA.names)
        pa.parquet.write_table(rows, dataset / split / "shard-000.parquet")
    write_json(Path("reports/prepare.json"), {"excluded": 2})
else:
    made = write_manifest(dataset, Path("data/manifest.parquet"))
    report = {"records": made.records, "subjects": made.subjects, "counts": made.counts, "sha256": [made.sha256]}
    write_json(Path("reports/manifest.json"), report)
"""
FILES = {
    "dvc.yaml": PIPELINE.replace("PYTHON", Path(sys.executable).as_posix()),
    "make.py": MAKE,
    "platform.yaml": "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: true\n",
    "pyproject.toml": '[tool.mlops]\npackage = "pictures"\nnumeric = []\n',
    "pictures/interface.py": "def decode(content):\n    return 'bin'\n",
    ".gitignore": "__pycache__\n/data\n",
}
FIRST = """\
record_id,subject_id,split,label
r1,ann,train,cat
r2,ann,train,dog
r3,bob,val,cat
r4,cem,test,cat
r5,cem,test,dog
"""
SECOND = """\
record_id,subject_id,split,label
r1,ann,train,cat
r2,ann,train,fox
r3,bob,test,cat
r4,dan,test,cat
r6,bob,test,dog
r7,eve,val,cat
r8,eve,val,cat
"""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A shell without anyone's settings, in which `mlops` can be imported: `run("git", "status")`."""
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "PYTHONPATH": str(SKELETON),
        **{f"GIT_{who}_NAME": "Test" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "test@example.org" for who in ("AUTHOR", "COMMITTER")},
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def call(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, to copy; it is made when it is first needed."""
    return tmp_path_factory.mktemp("made") / "project"


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """The project, with a commit of the first version and one of the second; the working directory."""
    if not made.exists():
        made.mkdir()
        run("git", "init", "--quiet", "--initial-branch=main", str(made))
        monkeypatch.chdir(made)
        make_project(run)
    folder = tmp_path / "project"
    shutil.copytree(made, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def make_project(run: Run) -> None:
    """Make the project in the working directory, a folder of a Git repository."""
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    run("dvc", "init", "--quiet", *([] if Path(".git").exists() else ["--subdir"]))
    for records, name in ((FIRST, "first"), (SECOND, "second")):
        reproduce(run, records)
        run("git", "add", ".")
        run("git", "commit", "--quiet", "-m", name)


def reproduce(run: Run, records: str, stage: str = "manifest") -> None:
    """Make the dataset of these records."""
    Path("records.csv").write_text(records, encoding="utf-8")
    run("dvc", "repro", "--quiet", stage)
