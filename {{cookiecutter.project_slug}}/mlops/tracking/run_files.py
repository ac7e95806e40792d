"""The files of one run: where they are, what they say, the new rows of its curves while they grow, and its pictures.

MLflow shows pictures, and can't draw the plots that DVCLive writes as JSON. Lines, dots, bars and matrices look as in
`dvc plots show`. Other templates, which only DVC knows, become lines.
"""

import contextlib
import csv
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

RUN_DIR = Path("reports/train")
LINEAGE = RUN_DIR / "lineage.json"
WEIGHTS = RUN_DIR / "weights.tsv"  # a hash of the weights after each epoch
CURVES = Path("plots/metrics")  # in the run's folder
PLOTS = "plots.json"  # in the run's folder: how DVCLive would draw each of its plots
INPUT_FILES = ("data/manifest.parquet", "reports/manifest.json")  # as they were when the run started
ARTIFACTS = (*INPUT_FILES, "reports/confusion.csv", "reports/per_class.csv")
# What the run is made from: params in MLflow, where they can't be changed.
FACTS = ("data_git_commit_id", "data_version", "dataset_md5", "manifest_sha256", "consent_sha256", "parents")
MAX_PARAM_CHARACTERS = 5000  # MLflow takes 6,000
MAX_NUMBERED = 25  # labels of a matrix up to which each cell shows its number
MAX_TICKS = 40  # names on an axis, and characters of each; of more names, every n-th is shown


def read_facts(root: Path = Path()) -> dict[str, Any]:
    """Read what the run below `root` is made from, and how it ended; raise ProjectError if that is not there."""
    try:
        return dict(read_json(root / LINEAGE))
    except FileNotFoundError as error:
        raise ProjectError(f"there is no run in {root / RUN_DIR}", "dvc repro train, or dvc pull train") from error
    except ValueError as error:
        fix = f"dvc checkout --force {RUN_DIR}" if root == Path() else f"drop what it would send: rm -r {root}"
        raise ProjectError(f"{root / LINEAGE} is damaged", f"{fix}; then the same command") from error


def check_manifest(root: Path) -> None:
    """Raise ProjectError unless the data manifest below `root` is the one that the run read."""
    if not has_manifest(root):
        facts, (manifest, report) = read_facts(root), INPUT_FILES
        commit = facts["data_git_commit_id"][:12]
        restore = f"git restore --source {commit} {report}"
        get = f"dvc get . {manifest} --rev {commit} --force -o {manifest}"
        back = f"git restore {report} && dvc checkout --force {manifest}"
        fix = f"{restore} && {get}, then the same command; after that: {back}"
        raise ProjectError(f"{manifest} is not the one of run {facts['run']}", fix)


def has_manifest(root: Path) -> bool:
    """Return whether the data manifest below `root` is the one that the run there read."""
    report = root / INPUT_FILES[1]
    return report.exists() and read_json(report)["sha256"] == [read_facts(root)["manifest_sha256"]]


def params(root: Path) -> dict[str, str]:
    """Return the params that were logged, by names such as `train.max_lr`, and the facts."""
    from ruamel.yaml import YAML

    path = root / RUN_DIR / "params.yaml"
    logged = (YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}
    facts = read_facts(root)
    values = {name.replace("/", "."): value for name, value in _flatten(logged)} | {name: facts[name] for name in FACTS}
    texts = {name: v if isinstance(v, str) else json.dumps(v, default=str) for name, v in values.items()}
    long = {name: text for name, text in texts.items() if len(text) > MAX_PARAM_CHARACTERS}
    cut = MAX_PARAM_CHARACTERS - 30
    return texts | {name: f"{text[:cut]}… ({len(text)} characters)" for name, text in long.items()}


def summary(root: Path) -> dict[str, float]:
    """Return the figures of DVCLive's summary; none when the file is damaged, as after a full disk."""
    path = root / RUN_DIR / "metrics.json"
    try:
        figures = dict(_flatten(read_json(path))) if path.exists() else {}
    except ValueError as error:
        log.warning("%s is incomplete: %s", path, error)
        return {}
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float) and name != "step"}


def files(root: Path) -> Iterator[tuple[Path, str, dict[str, Any] | None]]:
    """Yield the files that are artifacts in MLflow, their folder there, and how to draw those that are plots."""
    yield from ((root / name, Path(name).parent.as_posix(), None) for name in ARTIFACTS if (root / name).exists())
    folder = root / RUN_DIR
    configs = read_json(folder / PLOTS) if (folder / PLOTS).exists() else {}
    for path in (path for part in ("plots", "artifacts") for path in sorted((folder / part).rglob("*"))):
        name = path.relative_to(folder)
        if path.is_file() and not name.is_relative_to(CURVES):
            is_plot = name.parts[0] == "plots" and name.suffix == ".json"
            yield path, name.parent.as_posix(), configs.get(name.as_posix(), {}) if is_plot else None


def end(root: Path) -> tuple[str, int]:
    """Return how the run ended and when, in milliseconds since 1970 UTC.

    A killed run could not record its end: it failed when its last row was written, whenever this is called.
    """
    facts = read_facts(root)
    if "ended_at" in facts:
        ended = milliseconds(facts["ended_at"])
    else:
        rows = (path.stat().st_mtime for path in (root / RUN_DIR / CURVES).rglob("*.tsv"))
        ended = round(max(rows, default=0) * 1000)
    return facts.get("status", "FAILED"), max(ended, milliseconds(facts["started_at"]))


def milliseconds(moment: str) -> int:
    """Return an ISO 8601 time in milliseconds since 1970 UTC."""
    return round(datetime.fromisoformat(moment).astimezone(UTC).timestamp() * 1000)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


@dataclass(frozen=True)
class Row:
    """One row of a curve."""

    name: str  # of the curve, with slashes: `train/loss`
    timestamp: int  # milliseconds since 1970 UTC
    step: int  # counted from 0
    value: float | str  # a number, or the text that was logged instead
    end: int  # where the row ends in its file, in bytes


class Curves:
    """The rows below a run's folder that have not been sent yet, also while DVCLive writes more."""

    def __init__(self, run_dir: Path, started_ms: int) -> None:
        self._folder, self._started_ms = run_dir / CURVES, started_ms
        self.sent: dict[str, int] = {}  # bytes, by the names of curves

    def new_rows(self) -> Iterator[Row]:
        """Yield the rows after the last one passed to `done`, curve by curve."""
        csv.field_size_limit(sys.maxsize)  # a text metric may be a page
        for path in sorted(self._folder.rglob("*.tsv")):
            name = path.relative_to(self._folder).with_suffix("").as_posix()
            with path.open("rb") as file:
                header = file.readline()
                columns = next(csv.reader([header.decode()], delimiter="\t"), [])
                end = file.seek(max(self.sent.get(name, 0), len(header)))
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # the rest of the row is not written yet
                    end += len(line)
                    text = line.decode(errors="replace")
                    fields = next(csv.reader([text], delimiter="\t"), [])
                    try:
                        values = dict(zip(columns[:-1], fields[:-1], strict=True))
                        step = int(float(values["step"]))
                    except (KeyError, ValueError):  # cut off by a full disk, or the second line of a text of several
                        log.warning("unreadable row in %s: %r", name, text[:80])
                        continue
                    value: float | str = fields[-1]
                    with contextlib.suppress(ValueError):
                        value = float(value)
                    # Without a timestamp (stock DVCLive), always the same one: rows are identified by it.
                    yield Row(name, int(values.get("timestamp", self._started_ms + step)), step, value, end)

    def done(self, row: Row) -> None:
        """Never yield this row, or one before it in its curve, again."""
        self.sent[row.name] = row.end


def render(json_path: Path, config: dict[str, Any], png_path: Path) -> None:
    """Draw a plot of `Live.log_plot` or `Live.log_sklearn_plot`, 800 pixels wide or more.

    `config` is DVCLive's: `template`, `x`, `y` (a field or more), `title`, `x_label`, `y_label`. Where it is empty, the
    last field is drawn row by row, as in DVC. It raises ProjectError if the file is no whole plot or does not fit.
    """
    from matplotlib.figure import Figure

    template = config.get("template") or "linear"
    figure = Figure(figsize=(8, 6), dpi=100, layout="constrained")  # without pyplot, which has global state
    axes = figure.subplots()
    try:
        points = read_json(json_path)
        if isinstance(points, dict):  # scikit-learn's kinds have the list inside an object
            (points,) = points.values()
        if not all(isinstance(point, dict) for point in points):
            raise ValueError("it holds no list of points")
        x, y = config.get("x"), config.get("y", list(points[0])[-1] if points else "")
        fields = [str(field) for field in (y if isinstance(y, list) else [y])]
        if template.startswith("confusion"):
            _draw_matrix(axes, points, str(x), fields[0], normalized=template.endswith("normalized"))
            side = max(8.0, 0.4 * len(axes.get_xticks()))
            figure.set_size_inches(side, side)
        elif template.startswith("bar"):
            _draw_bars(axes, points, str(x), fields[0], is_sorted=template.endswith("sorted"))
        else:
            across = range(len(points)) if x is None else _values([point[str(x)] for point in points])
            for field in fields:
                style = "o" if template.startswith("scatter") else "-"
                axes.plot(across, _values([point[field] for point in points]), style, label=field)
            axes.grid(alpha=0.3)
            if len(fields) > 1:
                axes.legend()
        axes.set_title(config.get("title", json_path.stem), parse_math=False)
        axes.set_xlabel(config.get("x_label", str(x or "row")), parse_math=False)
        axes.set_ylabel(config.get("y_label", ", ".join(fields)), parse_math=False)
        figure.savefig(png_path, format="png")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ProjectError(f"{json_path.name} can't be drawn: {reason}", "log the plot again: live.log_plot") from error


def _draw_bars(axes: "Axes", points: list[dict[str, Any]], length: str, name: str, is_sorted: bool) -> None:
    bars = [(str(point[name]), float(point[length])) for point in points]
    if is_sorted:
        bars.sort(key=lambda bar: -bar[1])
    axes.barh(range(len(bars)), [width for _, width in bars])
    axes.set_yticks(*_ticks([name for name, _ in bars]))
    axes.invert_yaxis()


def _draw_matrix(axes: "Axes", points: list[dict[str, Any]], across: str, down: str, normalized: bool) -> None:
    pairs = Counter((str(point[down]), str(point[across])) for point in points)
    names = sorted({name for pair in pairs for name in pair}, key=lambda name: (len(name), name))
    counts = [[pairs[y, x] for x in names] for y in names]
    cells = [[count / (sum(row) or 1) for count in row] if normalized else row for row in counts]
    image = axes.imshow(cells or [[0]], cmap="Blues", vmin=0)
    if axes.figure:
        axes.figure.colorbar(image, shrink=0.8)
    axes.set_xticks(*_ticks(names), rotation=90 if len(names) > MAX_NUMBERED else 0)
    axes.set_yticks(*_ticks(names))
    top = max((max(row) for row in cells), default=0)
    for y, row in enumerate(cells if len(names) <= MAX_NUMBERED else []):
        for x, cell in enumerate(row):
            color = "white" if cell > top / 2 else "black"
            axes.text(x, y, format(cell, ".2f" if normalized else "d"), ha="center", va="center", color=color)


def _ticks(names: list[str]) -> tuple[list[int], list[str]]:
    places = list(range(0, len(names), math.ceil(len(names) / MAX_TICKS) or 1))
    return places, [names[place][:MAX_TICKS] for place in places]


def _values(column: list[Any]) -> list[Any]:
    """Return numbers, with gaps for what is not finite; or texts, when any of them is one."""
    try:
        numbers = [math.nan if value is None else float(value) for value in column]
    except ValueError:
        return [str(value) for value in column]
    return [number if abs(number) < 1e300 else math.nan for number in numbers]  # beyond, matplotlib's axes overflow
