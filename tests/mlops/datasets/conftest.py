"""A project with two versions of its dataset: Git and DVC, a pipeline without a training, real shards and manifests."""

import shutil
import sys
from pathlib import Path

import pytest

from ..conftest import SKELETON
from ..conftest import Run as Run

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


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The shell of all tests of `mlops`, in which `mlops` can be imported."""
    monkeypatch.setenv("PYTHONPATH", str(SKELETON))
    return run


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
