"""`reproduce`: a version is made again, byte for byte, in a clone that leaves nothing; or it is said why not."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ..conftest import BakedProject
from ..past.project import unpack, update
from ..projects import commit, copied, edit, lock, out_md5

MARK = "digit-classifier@v1.0.0"


@pytest.fixture
def project(opted_out: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakedProject:
    """A project with two versions, and a temporary folder in which clones are seen."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    return copied(opted_out, tmp_path / "project")


def reproduce(project: BakedProject, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the verb; return its exit code and its report."""
    done = project.run(sys.executable, "-m", "mlops", "reproduce", *arguments, "--json", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def shard(project: BakedProject) -> str:
    """Return the hash of a file of the dataset of version 1."""
    md5 = out_md5(lock(project, MARK), "data/dataset")
    listing = (project.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text(encoding="utf-8")
    return str(json.loads(listing)[0]["md5"])


def test_reproduce_first_version_is_identical_and_leaves_nothing(project: BakedProject, tmp_path: Path) -> None:
    def state() -> tuple[str, set[str]]:
        refs = project.run("git", "for-each-ref", "--format=%(refname) %(objectname)").stdout
        runs = project.run("git", "status", "--short").stdout
        return refs + runs, {name for name in project.files() if ".dvc/tmp" not in name and "/__pycache__/" not in name}

    before = state()
    code, report = reproduce(project, "1")
    assert (code, report["verdict"], report["causes"]) == (0, "IDENTICAL", [])
    assert report["expectation"].startswith("IDENTICAL can be expected")
    after = state()
    assert after[0] == before[0]
    (written,) = after[1] - before[1]
    assert written.startswith(f"reports/reproduce/{report['run']}-")
    assert list((tmp_path / "scratch").glob("reproduce-*")) == []


def test_reproduce_dry_run_on_another_machine_class_says_so_and_stops(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    code, report = reproduce(project, "1", "--dry-run")
    assert (code, report["verdict"]) == (0, "EXPECTED")
    assert report["expectation"].startswith("EQUIVALENT at best")
    assert report["machine"]["device_name"] in report["expectation"]
    assert list((tmp_path / "scratch").glob("reproduce-*")) == []


def test_reproduce_against_a_run_of_other_data_names_them_first(project: BakedProject) -> None:
    code, report = reproduce(project, "1", "--against", "2")
    assert (code, report["verdict"], report["causes"][0]["kind"]) == (1, "DIFFERENT", "data")
    assert report["text"] == "the weights differ from epoch 1 on; the first cause: data"


def test_reproduce_damaged_or_lost_data_cannot(project: BakedProject) -> None:
    md5 = shard(project)
    cached, stored = (project.path / store / "files/md5" / md5[:2] / md5[2:] for store in (".dvc/cache", "dvc-storage"))
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.unlink()
    cached.write_bytes(content)
    code, report = reproduce(project, "1")
    assert (code, report["verdict"]) == (3, "CANNOT")
    assert f"{md5}" in report["text"].replace("/", "") and "has the md5" in report["text"]
    shutil.rmtree(cached.parent)
    stored.unlink()
    code, report = reproduce(project, "1")
    assert (code, report["verdict"]) == (3, "CANNOT")
    assert f"the file {md5} is neither in DVC's cache nor in its remote" in report["text"]


def test_reproduce_run_without_results_cannot(project: BakedProject) -> None:
    edit(project, "params.yaml", "seed: 0", "seed: 1")
    project.run("dvc", "repro", "train")
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    code, report = reproduce(project, run)
    assert (code, report["verdict"]) == (3, "CANNOT")
    assert "are in no commit of this clone" in report["text"]
    commit(project, "Committed")
    assert reproduce(project, run, "--against", "2")[1]["causes"][0]["text"] == "train.seed 1, then 0"


@pytest.mark.slow
def test_reproduce_on_another_machine_class_is_equivalent(
    project: BakedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    code, report = reproduce(project, "1")
    assert (code, report["verdict"], report["causes"][0]["kind"]) == (0, "EQUIVALENT", "CPU or GPU")
    assert "chance explains ±" in report["text"]


@pytest.mark.slow
def test_reproduce_in_the_sandbox_is_identical(project: BakedProject) -> None:
    code, report = reproduce(project, "1", "--at", "sandbox")
    assert (code, report["verdict"], report["at"]) == (0, "IDENTICAL", "sandbox")


@pytest.mark.slow
def test_reproduce_with_other_threads_another_package_and_one_pixel_names_the_cause(project: BakedProject) -> None:
    """Each is a run of its own, compared with version 2."""
    edit(project, "params.yaml", "threads: 1 ", "threads: 2 ")
    project.run("dvc", "repro", "train")
    commit(project, "Two threads")
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    _, report = reproduce(project, "2", "--against", run)
    assert (report["causes"][0]["kind"], report["causes"][0]["text"]) == ("threads", "1, then 2")
    edit(project, "params.yaml", "threads: 2 ", "threads: 1 ")
    source = next((project.path / project.package / "data").glob("digits.py"))
    text = source.read_text(encoding="utf-8")
    assert "def read(" in text
    source.write_text(f"{text}\n\n_read = read\n\n\ndef read(content):\n    return _read(content)\n", encoding="utf-8")
    edit(project, "environment.json", '"numpy": "2.4.6"', '"numpy": "2.4.5"')
    edit(project, "platform.yaml", "allow_other_environment: false", "allow_other_environment: true")
    project.run("dvc", "repro", "train")
    commit(project, "Another package")
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    _, report = reproduce(project, "2", "--against", run)
    assert report["verdict"] == "IDENTICAL", "the package that is installed is the same: only the pin is another"
    code, report = reproduce(project, run, "--environment", "current")
    assert (code, report["verdict"]) == (0, "IDENTICAL")


@pytest.mark.slow
def test_reproduce_version_of_template_0_1_after_an_update(tmp_path: Path) -> None:
    project = unpack(tmp_path)
    update(project)
    code, report = reproduce(project, "1")
    assert (code, report["verdict"]) == (0, "IDENTICAL")


@pytest.mark.slow
def test_reproduce_version_that_started_from_another(project: BakedProject) -> None:
    edit(project, "params.yaml", "init_from:  ", "init_from: models:/digit-classifier/1  ")
    edit(project, "params.yaml", "epochs: 15", "epochs: 3")
    project.run("dvc", "repro", "train")
    commit(project, "Started from version 1")
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    code, report = reproduce(project, run)
    assert (code, report["verdict"]) == (0, "IDENTICAL")
