"""What a stage costs as a job in the sandbox, over the same stage run here.

    python -m tests.benchmarks job_overhead

Each run is in a copy of a project in which the stage never ran. Its remote is a folder. When a job ends, its outputs
are in the remote, so the stage run here is also shown with a `dvc push` after it. What DVC hashes on this machine is
counted inside its processes, jobs apart.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..compute import hashing
from ..conftest import BakedProject
from .timing import copy_of

PARTS = ("push and describe", "start", "pull", "run", "push", "rest of job", "take over", "rest of dvc")
HEAD = (
    "outputs",
    "rounds",
    "here, s",
    "here and `dvc push`, s",
    "as a job, s",
    "ratio",
    "ratio with push",
    "hashed, MB",
    "hashed for a job, MB",
)
FILE_BYTES = 1_000_000_000
STAGE = '''"""Make {files} files that compress badly."""

import os
from pathlib import Path

from mlops import write_report


def main() -> None:
    """Write them."""
    noise, folder = os.urandom({size} // 256), Path("data", "dataset")
    folder.mkdir(parents=True)
    for number in range({files}):
        with (folder / str(number)).open("wb") as file:
            for part in range(256 // {files}):
                file.write(f"{{number}}/{{part}}".encode() + noise)
    write_report(Path("reports", "prepare.json"), {{"excluded": 0}})
'''

MARKS = {"command": "Running stage", "starts": " starts", "taken": "has the results of job"}  # in what is printed


@dataclass
class Measured:
    """What was measured of one stage, a value for each run.

    Args:
        here: Seconds of `dvc repro` where the stage ran here.
        pushed: Seconds of `dvc push` after that.
        job: Seconds of `dvc repro` where it ran as a job.
        parts: Seconds of each part of that.
        hashed_bytes: What DVC hashed on this machine, by where the stage ran.
    """

    here: list[float] = field(default_factory=list)
    pushed: list[float] = field(default_factory=list)
    job: list[float] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    hashed_bytes: dict[str, list[int]] = field(default_factory=lambda: {"local": [], "sandbox": []})


def measure(project: BakedProject, full: bool) -> str:
    """Run three stages both ways, and tell where a job's time goes."""
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        small = copy_of(project, Path(folder, "small"))
        small.run("dvc", "repro", "prepare")
        rows = [
            _row("manifest of the digits", "manifest", small, 7 if full else 3),
            *(
                _row(name, "prepare", _noisy(project, Path(folder, name), files), 3 if full else 1)
                for name, files in (("a file of 1 GB", 1), ("256 files of 4 MB", 256))
            ),
        ]
    summary, parts = ("".join(lines) for lines in zip(*rows, strict=True))
    return f"{_head(HEAD)}{summary}\n{_head(('seconds of a job', *PARTS, 'to its start'))}{parts}"


def _head(names: tuple[str, ...]) -> str:
    return f"| {' | '.join(names)} |\n|---|{'---:|' * (len(names) - 1)}\n"


def _noisy(project: BakedProject, folder: Path, files: int) -> BakedProject:
    """Return a copy whose stage `prepare` writes 1 GB."""
    made = copy_of(project, folder)
    code = STAGE.format(files=files, size=FILE_BYTES)
    module = made.path / made.package / "stages" / "prepare.py"
    module.write_text(code, encoding="utf-8", newline="\n")
    made.run("git", "-c", "user.name=Bench", "-c", "user.email=bench@localhost", "commit", "-qam", "Noise")
    return made


def _row(name: str, stage: str, source: BakedProject, rounds: int) -> tuple[str, str]:
    """Return a row of either table."""
    times = _alternate(stage, source, rounds)
    here, pushed, job = (statistics.median(seconds[1:]) for seconds in (times.here, times.pushed, times.job))
    medians = [statistics.median(part) for part in zip(*times.parts[1:], strict=True)]
    hashed = [statistics.median(times.hashed_bytes[where][1:]) / 1e6 for where in ("local", "sandbox")]
    figures = (here, here + pushed, job, job / here, job / (here + pushed), *hashed)
    return (
        f"| {name} | {rounds} | {' | '.join(f'{figure:.2f}' for figure in figures)} |\n",
        f"| {name} | {' | '.join(f'{part:.2f}' for part in (*medians, sum(medians[:2])))} |\n",
    )


def _alternate(stage: str, source: BakedProject, rounds: int) -> Measured:
    """Run it both ways in turn, each time in a fresh copy; the first round is to warm up."""
    times = Measured()
    for _ in range(1 + rounds):
        with _fresh(source) as copied:
            times.here.append(_seconds(_repro(copied, stage, "local", times)))
            start = time.perf_counter()
            copied.run("dvc", "push", stage)
            times.pushed.append(time.perf_counter() - start)
        with _fresh(source) as copied:
            marks = _repro(copied, stage, "sandbox", times)
            times.job.append(_seconds(marks))
            times.parts.append(_parts(copied, stage, marks))
    return times


@contextmanager
def _fresh(source: BakedProject) -> Iterator[BakedProject]:
    """Give a copy, for one run."""
    with tempfile.TemporaryDirectory(dir=source.path.parent.parent, ignore_cleanup_errors=True) as folder:
        yield copy_of(source, Path(folder))


def _repro(project: BakedProject, stage: str, where: str, times: Measured) -> dict[str, float]:
    """Run a stage; return when DVC started its command, when the job did start and was taken over, and the end."""
    log, place = project.path.parent / "hashed", project.path.parent / "counting"
    place.mkdir()
    shutil.copy(str(hashing.__file__), place / "sitecustomize.py")
    counting = {"PYTHONPATH": str(place), hashing.LOG: str(log)}
    marks: dict[str, float] = {}
    output = []
    with subprocess.Popen(
        ["dvc", "repro", "--single-item", stage],
        cwd=project.path,
        env={**os.environ, **counting, "RUN_ON": where},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as dvc:
        assert dvc.stdout is not None
        for line in dvc.stdout:
            output.append(line)
            marks |= {name: time.time() for name, text in MARKS.items() if text in line and name not in marks}
    assert dvc.returncode == 0, "".join(output)
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    times.hashed_bytes[where].append(sum(line["size_bytes"] for line in lines))
    return {**marks, "end": time.time()}


def _seconds(marks: dict[str, float]) -> float:
    return marks["end"] - marks["command"]


def _parts(project: BakedProject, stage: str, marks: dict[str, float]) -> list[float]:
    """Return the seconds of each part, from what a job leaves."""
    (place,) = (project.path / ".dvc/tmp/jobs").glob(f"*-{stage}-*-1/")
    inside = json.loads((place / "out/result.json").read_text(encoding="utf-8"))["seconds"]
    files = [place / name for name in ("job.json", "started.json", "ended.json")]
    described, started, ended = (file.stat().st_mtime for file in files)
    pull, run, push = (float(inside[part]) for part in ("pull", "stage", "push"))
    return [
        described - marks["command"],
        started - described,
        pull,
        run,
        push,
        ended - started - (pull + run + push),
        marks["taken"] - ended,
        marks["end"] - marks["taken"],
    ]
