"""`reproduce`: a version is made again, byte for byte, in a clone that leaves nothing; or it is said why not."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
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


def train_and_commit(project: BakedProject) -> str:
    """Run the pipeline up to the training, commit the results, and return the run."""
    project.run("dvc", "repro", "train")
    commit(project, "Trained")
    return str(json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"])


@pytest.mark.slow
def test_reproduce_against_runs_with_other_threads_and_another_pixel_names_that_alone(project: BakedProject) -> None:
    """Each is a run of its own, compared with version 2."""
    edit(project, "params.yaml", "threads: 1 ", "threads: 2 ")
    _, report = reproduce(project, "2", "--against", train_and_commit(project))
    assert report["causes"] == [{"kind": "threads", "text": "1, then 2"}]
    assert report["verdict"] in ("IDENTICAL", "EQUIVALENT")
    edit(project, "params.yaml", "threads: 2 ", "threads: 1 ")
    source = f"{project.package}/data/digits.py"
    old = '    return encode_png((_digits().images[int(position)] * 255 / 16).round().astype("uint8"))\n'
    pixel = '    if position == "0":\n        image[0, 0] ^= 255\n'
    image = "    image = (_digits().images[int(position)] * 255 / 16).round().astype('uint8')\n"
    edit(project, source, old, f"{image}{pixel}    return encode_png(image)\n")
    code, report = reproduce(project, "2", "--against", train_and_commit(project))
    assert (code, report["verdict"], [cause["kind"] for cause in report["causes"]]) == (1, "DIFFERENT", ["data"])
    assert "(1 of " in report["causes"][0]["text"], "one file of the dataset has the record"


@pytest.mark.slow
def test_reproduce_against_runs_with_other_params_and_code_names_them(project: BakedProject) -> None:
    edit(project, "params.yaml", "epochs: 15", "epochs: 2")
    _, report = reproduce(project, "2", "--against", train_and_commit(project))
    assert report["causes"] == [{"kind": "params", "text": "train.epochs 15, then 2"}]
    path = project.path / project.package / "model/networks.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n# Another.\n", encoding="utf-8")
    _, report = reproduce(project, "2", "--against", train_and_commit(project))
    assert [cause["kind"] for cause in report["causes"]] == ["code", "params"]
    assert report["causes"][0]["text"].endswith(f"({project.package}/model/networks.py)")


@pytest.mark.slow
def test_reproduce_with_another_package_that_rounds_otherwise_names_it_first(
    project: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package only says that it is another one; that it rounds otherwise is the variable's doing."""
    made = tmp_path / "site/numpy-2.4.5.dist-info/METADATA"
    made.parent.mkdir(parents=True)
    made.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.5\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    code, report = reproduce(project, "1", "--environment", "current")
    assert (code, report["verdict"]) == (0, "EQUIVALENT")
    assert report["causes"][0] == {"kind": "packages", "text": "numpy 2.4.6, then 2.4.5"}


@pytest.mark.slow
def test_reproduce_weights_that_were_swapped_with_their_hashes_is_different_without_a_cause(
    project: BakedProject, tmp_path: Path
) -> None:
    """Somebody changes a byte of the weights, and every hash of them that DVC and Git have."""
    stores = [project.path / store / "files/md5" for store in (".dvc/cache", "dvc-storage")]

    def put(content: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
        for store in stores:
            (store / md5[:2]).mkdir(exist_ok=True)
            (store / md5[:2] / md5[2:]).write_bytes(content)
        return md5

    project.run("git", "checkout", "--quiet", "--detach", MARK)
    old = out_md5(lock(project, MARK), "models/model")
    listing = json.loads((stores[0] / old[:2] / old[2:]).read_text(encoding="utf-8"))
    (weights,) = (file for file in listing if file["relpath"].endswith(".safetensors"))
    content = bytearray((stores[0] / weights["md5"][:2] / weights["md5"][2:]).read_bytes())
    content[-1] ^= 1
    weights["md5"] = put(bytes(content))
    edit(project, "dvc.lock", old, put(json.dumps(listing).encode(), ".dir"))
    message = project.run("git", "for-each-ref", "--format=%(contents)", f"refs/tags/{MARK}").stdout
    commit(project, "Swapped")
    project.run("git", "tag", "--force", "--annotate", "-m", message, MARK, "HEAD")
    code, report = reproduce(project, "1")
    assert (code, report["verdict"], report["causes"], report["first_epoch"]) == (1, "DIFFERENT", [], None)
    assert report["text"].startswith(f"not the same bytes: {weights['relpath']}, though the epochs are alike; no cause")
    assert Path(report["clone"]).is_relative_to(tmp_path / "scratch")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_reproduce_that_is_stopped_ends_its_training_and_leaves_nothing(project: BakedProject, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlops", "reproduce", "1"]
    process = subprocess.Popen(command, cwd=project.path, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert process.stderr.readline().startswith("IDENTICAL can be expected"), "it trains now"
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    assert process.wait() == 130
    assert list((tmp_path / "scratch").glob("reproduce-*")) == []


def test_reproduce_dry_run_as_a_job_is_refused_before_it_starts_one(project: BakedProject) -> None:
    done = project.run(sys.executable, "-m", "mlops", "reproduce", "1", "--at", "sandbox", "--dry-run", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Fix: python -m mlops reproduce 1 --dry-run" in done.stderr


@pytest.mark.slow
def test_reproduce_version_of_template_0_1_after_an_update(tmp_path: Path) -> None:
    project = unpack(tmp_path)
    update(project)
    code, report = reproduce(project, "1", "--dry-run")
    assert (code, report["verdict"]) == (0, "EXPECTED")
    assert "no numeric fingerprint" in report["text"]
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
