"""The pipeline as jobs in the sandbox with its data in S3: the same results, and nothing moved or hashed twice."""

from collections import Counter
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml

from ..conftest import BakedProject
from ..projects import executed, lock, out_md5, read, runs, versions
from ..servers.mlflow import until
from .conftest import NOISE_BYTES, Counted
from .jobs import FOLDER, jobs
from .laptops import JOBS, LAPTOP, clone, result

LARGE_BYTES = 1_000_000


@pytest.fixture(autouse=True)
def on_the_laptop(by_jobs: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the store."""
    by_jobs.laptop.enter(monkeypatch)


def test_jobs_make_what_a_local_run_makes(by_jobs: Counted, reproduced: BakedProject) -> None:
    for path in ("data/dataset", "data/manifest.parquet", "models/model"):
        assert out_md5(lock(by_jobs.project), path) == out_md5(lock(reproduced), path), path
    assert read(by_jobs.project, "reports/register.json")["version"] == 1


def test_jobs_entries_are_in_the_lock_to_the_byte(by_jobs: Counted) -> None:
    assert [name.split("-")[-3] for name in jobs(by_jobs.project)] == list(JOBS)
    written = (by_jobs.project.path / "dvc.lock").read_text(encoding="utf-8")
    for stage in JOBS:
        _, entry = dumps_yaml({"stages": {stage: result(by_jobs.project, stage)["entry"]}}).split("\n", 1)
        assert entry in written, stage


def test_repro_here_after_jobs_runs_nothing(by_jobs: Counted) -> None:
    again = by_jobs.project.run("dvc", "repro").stdout
    assert executed(again) == []
    assert "up to date" in again
    assert by_jobs.project.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_repro_in_a_fresh_clone_runs_nothing_and_asks_for_no_data_until_they_are_pulled(
    by_jobs: Counted, tmp_path: Path
) -> None:
    copied = clone(by_jobs.project, tmp_path / "clone")
    requests = by_jobs.laptop.proxies[LAPTOP].requests
    before = len(requests)
    assert executed(copied.run("dvc", "repro", "--allow-missing").stdout) == []
    assert requests[before:] == []
    copied.run("dvc", "pull")
    assert (copied.path / "data/noise.bin").stat().st_size == NOISE_BYTES
    assert executed(copied.run("dvc", "repro").stdout) == []


def test_repro_by_jobs_puts_and_gets_each_object_once(by_jobs: Counted) -> None:
    summary = "\n".join(f"{name}: {traffic.summary()}" for name, traffic in by_jobs.traffic.items())
    puts = {name: traffic.objects("PUT") for name, traffic in by_jobs.traffic.items()}
    gets = {name: _files(traffic.objects("GET")) for name, traffic in by_jobs.traffic.items()}
    put = sum(puts.values(), Counter[str]())
    assert set(put.values()) == {1}, summary
    assert not puts[LAPTOP], f"the laptop put what jobs had put\n{summary}"
    assert gets[LAPTOP] == _files(put), f"the laptop gets all that was made, once\n{summary}"
    assert not gets["prepare"], summary
    assert gets["manifest"] == _files(puts["prepare"]), summary
    of_manifest = _files(puts["manifest"]) & gets["train"]
    assert len(of_manifest) == 1, f"of manifest's outputs, train reads data/manifest.parquet alone\n{summary}"
    assert gets["train"] == _files(puts["prepare"]) + of_manifest, summary


def _files(objects: Counter[str]) -> Counter[str]:
    """Leave out the lists of what is in a folder: DVC looks into them each time it compares, and they are small."""
    return Counter({key: times for key, times in objects.items() if not key.endswith(".dir")})


def test_mlflow_has_the_run_once_its_results_are_here(by_jobs: Counted) -> None:
    project = by_jobs.project
    (run,) = runs(project).values()
    facts = read(project, "reports/train/lineage.json")
    assert run.info.status == "FINISHED"
    assert run.data.tags["job"] == jobs(project)[-1]
    assert run.data.params["data_git_commit_id"] == facts["data_git_commit_id"]
    assert run.data.metrics["test_acc"] == read(project, "reports/metrics.json")["test_acc"]
    assert list(versions(project)) == [1]
    log = project.run("git", "log", "--first-parent", "--format=%s", "lineage").stdout.splitlines()
    assert log == [f"register {project.path.name} version 1", f"train {facts['name']}", "The log begins"]


def test_jobs_leave_no_working_folder(by_jobs: Counted) -> None:
    expected = {"code.tar.gz", "ended.json", "job.json", "log", "out", "started.json", "supervised"}
    places = [by_jobs.project.path / FOLDER / name for name in jobs(by_jobs.project)]
    until(lambda: all({path.name for path in place.iterdir()} == expected for place in places))


def test_laptop_hashes_nothing_large(by_jobs: Counted) -> None:
    assert len(by_jobs.hashed) > len(JOBS), "nothing was counted"
    assert [file for file in by_jobs.hashed if file.size_bytes > LARGE_BYTES] == []


def test_counter_of_hashes_sees_a_large_file(by_jobs: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as counted:
        by_jobs.laptop.count_hashes(counted)
        code = "import sys; from dvc_data.hashfile.hash import file_md5; file_md5(sys.argv[1])"
        by_jobs.project.run("python", "-c", code, "data/noise.bin")
    assert by_jobs.laptop.hashed()[-1].size_bytes == NOISE_BYTES
