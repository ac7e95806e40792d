"""What is seen of a job while it runs."""

import subprocess

import pytest

from .laptops import Laptop, job_dir

WAIT = """
    import time

    print("a word of the stage", flush=True)
    deadline = time.monotonic() + 60
    while not Path("go").exists():
        assert time.monotonic() < deadline, "nobody heard it"
        time.sleep(0.1)
"""


@pytest.mark.slow
def test_repro_shows_what_a_job_prints_while_it_runs(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.let_prepare(WAIT)
    monkeypatch.setenv("RUN_ON", "sandbox")
    with subprocess.Popen(
        ["dvc", "repro", "prepare"],
        cwd=laptop.project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as dvc:
        assert dvc.stdout
        lines = []
        for line in dvc.stdout:
            lines.append(line)
            if "a word of the stage" in line:
                (job_dir(laptop.project, "prepare") / "work" / "go").touch()
    assert dvc.returncode == 0, "".join(lines)
    assert sum("Running stage" in line for line in lines) == 1, "the job's own DVC is quiet"
