"""A training as a process that can be hurt, and what MLflow has of it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from ..conftest import BakedProject
from ..servers.mlflow import PATIENCE_S, until

TRAINER = Path(__file__).with_name("trainer.py")
CURVES = Path("reports/train/plots/metrics")
SUMMARY = {"test_acc"}  # what `trainer.py` logs besides curves
LIMIT_S = 0.005  # for the calls of a step, in 99 of 100 steps

Points = Counter[tuple[str, int, int, str]]  # curve, milliseconds, step, value


class Training:
    """One training in a project of its own.

    Args:
        project: Where.
        run: Its id.
        uri: The MLflow that its sidecar sends to; "" for the project's own.
        arguments: For `trainer.py`.
        environment: Variables for it.
    """

    def __init__(self, project: BakedProject, run: str, uri: str, *arguments: str, **environment: str) -> None:
        """Start it."""
        self.project, self.run, self.uri = project, run, uri
        self.outbox = project.path / ".dvc" / "tmp" / "outbox" / run
        self._environment = {**os.environ, **environment} | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
        self._log = project.path / f"{run}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(TRAINER), run, *arguments],
                cwd=project.path,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def output(self) -> str:
        """Return what it printed."""
        return self._log.read_text(encoding="utf-8")

    def mirror_log(self) -> str:
        """Return what the process that sends its run printed; "" when the run left the outbox."""
        path = self.outbox / "mirror.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def rows(self) -> int:
        """Return how many steps are in its files."""
        path = self.project.path / CURVES / "train" / "0.tsv"
        return max(path.read_text(encoding="utf-8").count("\n") - 1, 0) if path.exists() else 0

    def has_rows(self, more: int) -> None:
        """Wait until it has written that many steps more."""
        until(self._more_than(self.rows() + more))

    def _more_than(self, rows: int) -> Callable[[], bool]:
        def enough() -> bool:
            assert self.process.poll() is None, self.output()
            return self.rows() >= rows

        return enough

    def end(self) -> int:
        """Let it end by itself, and return its exit code."""
        (self.project.path / f"{self.run}.end").touch()
        return self.process.wait(PATIENCE_S)

    def sidecar(self) -> psutil.Process:
        """Wait for the process that sends its run, and return it."""
        return until(self._sidecar)

    def _sidecar(self) -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-3:] == ["mirror", "follow", self.run]:
                return process
        return None

    def is_followed(self) -> bool:
        """Return whether a process sends its run."""
        return self._sidecar() is not None

    def kill_all(self) -> None:
        """End the training and its sidecar at once: neither gets to say anything."""
        sidecar = self.sidecar()
        for process in (self.process, sidecar):
            process.send_signal(signal.SIGSTOP)
        for process in (self.process, sidecar):
            process.send_signal(signal.SIGKILL)
        self.process.wait()
        sidecar.wait()

    def sync(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Do `mirror sync`."""
        command = [sys.executable, "-m", "mlops", "mirror", "sync"]
        return subprocess.run(
            command,
            cwd=self.project.path,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    def p99_s(self) -> float:
        """Return how long the calls of a step took at most, in 99 of 100 steps."""
        text = (self.project.path / f"{self.run}.latency").read_text(encoding="utf-8")
        whole = text[: text.rindex("\n")].split()  # it may have been killed within a line
        times = sorted(map(float, whole))
        assert len(times) >= 100, f"{len(times)} steps are too few to tell"
        return times[int(len(times) * 0.99)]


def runs_of(client: MlflowClient, run: str, experiment_name: str = "digit-classifier") -> list[Run]:
    """Return the runs, deleted ones too, that bear an id."""
    experiment = client.get_experiment_by_name(experiment_name)
    query = f"tags.mirror_id = '{run}'"
    view = ViewType.ALL
    return list(client.search_runs([experiment.experiment_id], query, run_view_type=view)) if experiment else []


def until_sent(training: Training, client: MlflowClient, more: int = 1) -> None:
    """Wait until MLflow has that many points of a curve more than now, while the training goes on."""
    begin = sent(client, training.run)

    def enough() -> bool:
        assert training.process.poll() is None, training.output()
        return sent(client, training.run) >= begin + more

    until(enough)


def sent(client: MlflowClient, run: str) -> int:
    """Return how many points of the first curve MLflow has."""
    runs = runs_of(client, run)
    return len(client.get_metric_history(runs[0].info.run_id, "train/0")) if runs else 0


def written(folder: Path) -> Points:
    """Return the points in the files of a run."""
    points: Points = Counter()
    for path in (folder / CURVES).rglob("*.tsv"):
        name = path.relative_to(folder / CURVES).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].splitlines()  # a killed process may leave half a row
        for time_ms, step, value in list(csv.reader(whole, delimiter="\t"))[1:]:
            points[name, int(time_ms), int(step), repr(float(value))] += 1
    return points


def points_of(client: MlflowClient, run: Run, besides: set[str]) -> Points:
    """Return the points that MLflow has of a run, but for figures of the whole run, which are in no TSV file."""
    points: Points = Counter()
    for name in run.data.metrics.keys() - besides:
        for point in client.get_metric_history(run.info.run_id, name):
            points[name, point.timestamp, point.step, repr(point.value)] += 1
    return points


def keep_files(training: Training, folder: Path) -> Path:
    """Copy what a run has written, before someone clears it away."""
    shutil.copytree(training.project.path / "reports" / "train", folder / "reports" / "train")
    return folder


def assert_mirrored(
    training: Training, client: MlflowClient, status: str = "FINISHED", files: Path | None = None
) -> Run:
    """Check that MLflow has one run, with exactly the points of its files, each once, and how it ended.

    Returns:
        The run.
    """
    until(lambda: not training.is_followed())  # it may go on after the training, while MLflow answers
    expected = written(files or training.project.path)
    assert expected and set(expected.values()) == {1}
    (run,) = runs_of(client, training.run)
    points = points_of(client, run, SUMMARY)
    assert points == expected, f"lacks {len(expected - points)}, has too many: {len(points - expected)}"
    assert run.info.status == status
    assert run.info.end_time >= run.info.start_time
    assert not training.outbox.exists(), training.mirror_log()
    return run


def assert_unhurt(training: Training) -> None:
    """Check that the training felt nothing."""
    p99 = training.p99_s()
    print(f"{training.run}: {p99 * 1e3:.2f} ms")
    assert p99 < LIMIT_S, f"the calls of a step took {p99 * 1e3:.1f} ms in 1 of 100 steps"
