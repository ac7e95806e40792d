"""What verbs that only read cost: seconds of CPU time, which other processes change least, in a project with versions.

python -m tests.benchmarks verbs
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ..conftest import BakedProject
from ..projects import commit, edit
from ..servers.mlflow import MlflowServer
from .timing import copy_of

VERBS = (
    *("registry list", "registry show 1", "mirror status", "consent status form-03", "consent check", "jobs list"),
    *("audit find form-03", "audit verify form-03", "audit deployed", "audit list 1", "audit diff 1 2"),
    *("audit find form-03 --source dvc", "optout form-03 --dry-run"),
)


def measure(project: BakedProject, full: bool) -> str:
    """Make two versions, and ask about them in MLflow's file and on a server."""
    rounds = 15 if full else 5
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        done = copy_of(project, Path(folder))
        done.run("git", "config", "user.name", "Test")
        done.run("git", "config", "user.email", "test@example.org")
        done.run("dvc", "repro")
        commit(done, "One")
        edit(done, "params.yaml", "epochs: 15", "epochs: 14")
        done.run("dvc", "repro")
        commit(done, "Two")
        server = MlflowServer(Path(folder, "server"), f"sqlite:///{(done.path / 'mlflow.db').as_posix()}")
        try:
            stores: tuple[dict[str, str], ...] = ({}, {"MLFLOW_TRACKING_URI": server.url})
            rows = [
                f"| `{verb}` | {' | '.join(_cpu_s(done, verb, rounds, **store) for store in stores)} |"
                for verb in VERBS
            ]
        finally:
            server.kill()
    return "\n".join(["| verb | SQLite, CPU-s | `mlflow server`, CPU-s |", "|---|---:|---:|", *rows, ""])


def _cpu_s(project: BakedProject, verb: str, rounds: int, **environment: str) -> str:
    seconds = []
    for _ in range(1 + rounds):  # the first one compiles, and makes caches
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "mlops", *verb.split()]
        done = subprocess.run(
            command, cwd=project.path, env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return f"{statistics.median(seconds[1:]):.2f} ({min(seconds[1:]):.2f} to {max(seconds[1:]):.2f})"
