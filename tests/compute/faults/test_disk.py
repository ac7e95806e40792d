"""Disks that are full, under a job and under its launcher."""

import os
import re
import subprocess

import pytest

from ...conftest import BakedProject
from .launches import jobs, lock

pytestmark = pytest.mark.slow


def on_small_disk(project: BakedProject, folder: str, size: str, *then: str) -> str:
    """Run commands where a folder of the project is a disk of its own, and return what they print.

    It is there for these commands only. What the folder holds is copied to it, as far as there is room.
    """
    copied = project.path.parent / "copied"
    (project.path / folder).mkdir(parents=True, exist_ok=True)
    first = (
        f"rm -rf {copied}",
        f"cp -a {folder} {copied}",
        f"mount -t tmpfs -o size={size} none {folder}",
        f"cp -a {copied}/. {folder}",
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "\n".join((*first, *then))],
        cwd=project.path,
        env={**os.environ, "RUN_ON": "sandbox"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    return done.stdout


@pytest.mark.parametrize("size", ["800k", "2000k"], ids=["at its start", "later"])
def test_full_disk_under_a_job_is_told_and_leaves_dvc_lock(project: BakedProject, expected: bytes, size: str) -> None:
    before, copied, folder = lock(project), project.path.parent / "before", ".dvc/tmp/jobs"
    output = on_small_disk(
        project,
        folder,
        size,
        "dvc repro --allow-missing manifest && echo no failure",
        f"cp dvc.lock {copied}",
        f"mount -o remount,size=100m {folder}",
        "dvc repro manifest",
    )
    assert "no failure" not in output
    assert re.search("failed: the disk of .* is full", output)
    assert copied.read_bytes() == before
    assert lock(project) == expected, output


@pytest.mark.parametrize(
    ("folder", "problem"),
    [(".dvc/cache", "No space left on device"), ("data", "see that the disk has room")],
    ids=["cache", "work tree"],
)
def test_full_disk_of_the_launcher_is_told_and_then_the_job_is_not_run_again(
    left: BakedProject, expected: bytes, folder: str, problem: str
) -> None:
    before, copied = lock(left), left.path.parent / "before"
    fill = f"dd if=/dev/zero of={folder}/filler bs=4k"
    output = on_small_disk(
        left,
        folder,
        "2m",
        f"rm -f data/manifest.parquet; {fill}",
        "dvc repro --allow-missing manifest && echo no failure",
        f"cp dvc.lock {copied}; rm {folder}/filler",
        "dvc repro manifest",
    )
    assert "no failure" not in output
    assert problem in output
    assert "Traceback" not in output
    assert copied.read_bytes() == before
    assert lock(left) == expected, output
    assert len(jobs(left)) == 1
