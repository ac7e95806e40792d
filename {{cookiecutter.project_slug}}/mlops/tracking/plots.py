"""Draw the plots that DVCLive writes as JSON: MLflow shows pictures, and can't draw from DVCLive's data.

Lines, dots, bars and matrices look as in `dvc plots show`. Other templates, which only DVC knows, become lines.
"""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_VALUE = 1e300  # beyond, matplotlib's axes overflow
MAX_NUMBERED = 25  # labels of a matrix up to which each cell shows its number
MAX_TICKS = 40  # names on an axis, and characters of each; of more names, every n-th is shown

Point = dict[str, Any]


def render(json_path: Path, config: dict[str, Any], png_path: Path) -> None:
    """Draw a plot of `Live.log_plot` or `Live.log_sklearn_plot`, 800 pixels wide or more.

    Args:
        json_path: The points, as DVCLive wrote them.
        config: How to draw them, as DVCLive has it: `template`, `x`, `y` (a field or more), `title`, `x_label`,
            `y_label`. Where it is empty, the last field is drawn row by row, as in DVC.
        png_path: The picture to write.

    Raises:
        ProjectError: The file is no plot, or is incomplete, or the config does not fit it.
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
            _draw_lines(axes, points, x, fields, "o" if template.startswith("scatter") else "-")
        axes.set_title(config.get("title", json_path.stem), parse_math=False)
        axes.set_xlabel(config.get("x_label", str(x or "row")), parse_math=False)
        axes.set_ylabel(config.get("y_label", ", ".join(fields)), parse_math=False)
        figure.savefig(png_path, format="png")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ProjectError(f"{json_path.name} can't be drawn: {reason}", "log the plot again: live.log_plot") from error


def _draw_lines(axes: "Axes", points: list[Point], x: Any, fields: list[str], style: str) -> None:
    across = range(len(points)) if x is None else _values([point[str(x)] for point in points])
    for field in fields:
        axes.plot(across, _values([point[field] for point in points]), style, label=field)
    axes.grid(alpha=0.3)
    if len(fields) > 1:
        axes.legend()


def _draw_bars(axes: "Axes", points: list[Point], length: str, name: str, is_sorted: bool) -> None:
    bars = [(str(point[name]), float(point[length])) for point in points]
    if is_sorted:
        bars.sort(key=lambda bar: -bar[1])
    axes.barh(range(len(bars)), [width for _, width in bars])
    axes.set_yticks(*_ticks([name for name, _ in bars]))
    axes.invert_yaxis()


def _draw_matrix(axes: "Axes", points: list[Point], across: str, down: str, normalized: bool) -> None:
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
    return [number if abs(number) < MAX_VALUE else math.nan for number in numbers]
