"""DVCLive at a constant price: the cost of a step does not grow with the length of the run.

`dvclive.Live` opens a file for every figure, and at every step reads all curves again, rewrites its summary and waits
for the disk. Here the files stay open, and what is not needed at every step is done every five seconds. Files and
interface are DVCLive's own, so the callbacks of Lightning, Hugging Face and Keras take this object too.
"""

import io
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import dvclive
from dvclive.error import InvalidParameterTypeError
from dvclive.plots import Metric, NumpyEncoder
from dvclive.serialize import dump_json, dump_yaml
from ruamel.yaml.representer import RepresenterError

from ..files import atomic_write, write_json
from .run_files import CURVES, PLOTS, Curves

SYNC_S = 5.0  # between two writes of summary and report, and two signals to the VS Code extension
FLUSH_SHARE = 0.003  # the share of the time that flushing rows may take
MAX_ROW_AGE_S = 1.0  # the longest time that a row waits for the end of its step


class Live(dvclive.Live):
    """A `dvclive.Live` to log many steps with.

    Every row has a timestamp. A row is flushed at the end of its step; where steps are so short that this would take
    more than 0.3 % of the time, after a few of them. A flushed row survives the end of the process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._curves: dict[str, _Curve] = {}
        self._sync_due = self._flush_due = 0.0
        self._sync_s = SYNC_S
        self._opening = threading.Lock()
        super().__init__(*args, **kwargs)

    def log_metric(self, name: str, val: float | str, timestamp: bool = True, plot: bool = True) -> None:
        """Add a row to the curve `name` at the current step, and set the value in `summary`.

        Args:
            name: Slashes group curves: `train/loss`.
            val: A number (NaN and infinity are valid), or a text; others raise InvalidDataTypeError.
            timestamp: Ignored: MLflow needs one in each row.
            plot: Whether to add the row, or only set the summary.
        """
        curve = self._curves.get(name)
        if type(val) is not float or curve is None or not plot or not math.isfinite(val):
            super().log_metric(name, val, plot=False)  # checks it, and sets the summary
            if plot:
                with self._opening:  # DVCLive's monitor of the machine logs from a thread
                    if name not in self._curves:
                        self._curves[name] = _Curve(self._metrics[name])
                self._curves[name].write(self._step or 0, _quoted(str(val)))
            return
        curve.write(self._step or 0, repr(val))
        summary = self.summary
        for group in curve.groups:
            summary = summary.setdefault(group, {})
        summary[curve.key] = val
        if time.monotonic() > self._flush_due + MAX_ROW_AGE_S:  # the caller ends no steps
            self._flush()

    def next_step(self) -> None:
        """End the current step."""
        if time.monotonic() >= self._sync_due:
            super().next_step()
            return
        self._step = self.summary["step"] = self.step
        self.sync()
        self._step += 1

    def sync(self) -> None:
        """Write curves, summary and report, where due. Lightning calls it at each step."""
        now = time.monotonic()
        if now >= min(self._sync_due, self._flush_due):
            self._flush()
        if now >= self._sync_due:
            super().sync()
            self._sync_due = time.monotonic() + self._sync_s

    def _flush(self) -> None:
        begin = time.monotonic()
        for curve in list(self._curves.values()):
            curve.file.flush()
        end = time.monotonic()
        self._flush_due = end + (end - begin) / FLUSH_SHARE

    def write(self) -> None:
        """Write curves and summary now, for a copy to resume from: the last step is the last that ended."""
        self._flush()
        self._write_summary()

    def end(self) -> None:
        """Write what is left, and close the files."""
        self._sync_due = self._sync_s = 0.0  # Lightning tests after the end, and calls nothing but `sync`
        super().end()
        if not self._inside_with:
            for curve in self._curves.values():
                curve.file.close()
            self._curves.clear()

    def make_summary(self) -> None:
        """Write the summary."""
        if self._step is not None:
            self.summary["step"] = self.step
        self._write_summary()

    def _write_summary(self) -> None:
        with atomic_write(Path(self.metrics_file)) as new:  # another process reads it meanwhile
            dump_json(self.summary, new, cls=NumpyEncoder)

    def _dump_params(self) -> None:
        with atomic_write(Path(self.params_file)) as new:
            try:
                dump_yaml(self._params, new)
            except RepresenterError as error:
                raise InvalidParameterTypeError(error.args[0]) from error

    def post_data_to_studio(self) -> None:
        """Send to DVC Studio, where it is configured; DVCLive reads all curves again before it checks that."""
        if self._dvc_studio_config:
            super().post_data_to_studio()

    def log_plot(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Write the points of a plot, and how to draw it."""
        super().log_plot(name, *args, **kwargs)
        self._describe_plots()

    def log_sklearn_plot(self, kind: str, *args: Any, **kwargs: Any) -> None:
        """Write the points of one of scikit-learn's plots, and how to draw it."""
        super().log_sklearn_plot(kind, *args, **kwargs)
        self._describe_plots()

    def _describe_plots(self) -> None:
        folder, plots = Path(self.dir), self._plots.values()
        write_json(folder / PLOTS, {p.output_path.relative_to(folder).as_posix(): p.plot_config for p in plots})

    def _init_resume(self) -> None:
        super()._init_resume()
        if self._step == 0 and any((Path(self.dir) / CURVES).rglob("*.tsv")):
            self._step = 1  # DVCLive takes a run of one step for one of none

    def read_step(self) -> int:
        """Return the last step of a run to resume; the summary may be seconds behind the curves."""
        return max([int(super().read_step()), *(row.step for row in Curves(Path(self.dir), 0).new_rows())])


class _Curve:
    """One TSV file, kept open."""

    def __init__(self, metric: Metric) -> None:
        path = metric.output_path
        *self.groups, self.key = metric.summary_keys
        self.file: io.BufferedWriter = path.open("ab")
        # Drop half a row at the end: the disk was full, or the power failed.
        if not self.file.truncate(path.read_bytes().rfind(b"\n") + 1):
            self.file.write(f"timestamp\tstep\t{_quoted(os.path.basename(metric.name))}\n".encode())

    def write(self, step: int, text: str) -> None:
        # Into Python's buffer, in whole rows: no system call until it is flushed.
        self.file.write(f"{int(time.time() * 1000)}\t{step}\t{text}\n".encode())


def _quoted(text: str) -> str:
    """Return a text as a field of a TSV file."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in '\t\r\n"') else text
