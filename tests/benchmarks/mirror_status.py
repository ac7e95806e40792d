"""What `mirror status` costs with 10,000 runs in one MLflow: the first time in a clone, and from then on.

    python -m tests.benchmarks mirror_status

One run is trained, and then copied: in MLflow's database with all its params, tags, metrics and inputs, and in Git with
a commit of its results and an entry in the branch `lineage`. So each of the runs is as big as a real one.
"""

import json
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..conftest import BakedProject
from ..servers.mlflow import MlflowServer
from .timing import copy_of

RUNS = 10_000
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
ID = "printf('%032x', n.i)"
COPIED: dict[str, dict[str, str]] = {  # table: what differs between the copies
    "runs": {"run_uuid": ID, "name": "printf('run-%d', n.i)", "start_time": "t.start_time + n.i"},
    "params": {"run_uuid": ID},
    "metrics": {"run_uuid": ID},
    "latest_metrics": {"run_uuid": ID},
    "tags": {"run_uuid": ID, "value": "CASE t.key WHEN 'mirror_id' THEN printf('%012x', n.i) ELSE t.value END"},
    "inputs": {"destination_id": ID, "input_uuid": ID},
}


def measure(project: BakedProject, full: bool) -> str:
    """Make the runs, and ask for their status on a database and on a server."""
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        done = copy_of(project, Path(folder))
        done.run("dvc", "repro", "train")
        _copy_runs(done.path / "mlflow.db")
        _copy_history(done)
        rounds = 9 if full else 3
        rows = [_row(done, "SQLite", rounds, ())]
        server = MlflowServer(Path(folder, "server"), f"sqlite:///{(done.path / 'mlflow.db').as_posix()}")
        try:
            rows.append(_row(done, "`mlflow server`", rounds, ("env", f"MLFLOW_TRACKING_URI={server.url}")))
        finally:
            server.kill()
    head = "| MLflow | runs | first time, s | again, s |\n|---|---:|---:|---:|\n"
    return head + "".join(rows)


def _row(project: BakedProject, name: str, rounds: int, prefix: tuple[str, ...]) -> str:
    first, *again = (_status(project, prefix) for _ in range(1 + rounds))
    spread = f"{statistics.median(again):.1f} ({min(again):.1f} to {max(again):.1f})"
    return f"| {name} | {RUNS + 1:,} | {first:.1f} | {spread} |\n"


def _status(project: BakedProject, prefix: tuple[str, ...]) -> float:
    start = time.perf_counter()
    status = json.loads(project.run(*prefix, "python", "-m", "mlops", "mirror", "status", "--json").stdout)
    seconds = time.perf_counter() - start
    assert status["runs"] == RUNS + 1, status
    assert status["complete"], status["lacking"][:3]
    return seconds


def _copy_runs(database: Path) -> None:
    with sqlite3.connect(database) as connected:
        ((run,),) = connected.execute("SELECT run_uuid FROM runs").fetchall()
        for table, changes in COPIED.items():
            columns = [row[1] for row in connected.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(changes.get(column, f"t.{column}") for column in columns)
            key = "run_uuid" if "run_uuid" in columns else "destination_id"
            copied = f"SELECT {values} FROM n, {table} t WHERE t.{key} = ?"  # noqa: S608 (names of columns)
            connected.execute(f"INSERT INTO {table} ({', '.join(columns)}) {COUNT} {copied}", (RUNS, run))
    connected.close()


def _copy_history(project: BakedProject) -> None:
    project.run("git", "add", ".")
    project.run("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "One")
    lock = (project.path / "dvc.lock").read_text(encoding="utf-8")
    stream = "".join(_commits(lock)).encode()
    subprocess.run(["git", "fast-import", "--quiet"], input=stream, cwd=project.path, check=True)


def _commits(lock: str) -> Iterator[str]:
    """Give the commands that make a branch with the results of each run, and the log's entry of its training."""
    for number in range(1, RUNS + 1):
        by = f"committer Test <test@example.org> {1_700_000_000 + number} +0000\n"
        run = f"{number:012x}"
        before = "" if number > 1 else "from refs/heads/main^0\n"
        yield f"commit refs/heads/past\nmark :{number}\n{by}{_data('Results')}{before}"
        yield f"M 100644 inline reports/run.json\n{_data(json.dumps({'run': run}))}"
        yield f"M 100644 inline dvc.lock\n{_data(f'{lock}# {number}')}"
        before = "" if number > 1 else "from refs/heads/lineage^0\n"
        entry = _data(f"train run-{number}\n\nrun: {run}\n")
        yield f"commit refs/heads/lineage\n{by}{entry}{before}merge :{number}\n"


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"
