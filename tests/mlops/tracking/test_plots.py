"""Pictures of the plots that DVCLive writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlops.errors import ProjectError
from mlops.tracking.live import Live
from mlops.tracking.run_files import PLOTS, render
from PIL import Image


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Live("run", save_dvc_exp=False, dvcyaml=None, report=None)


def drawn(live: Live) -> np.ndarray:
    """Draw the one plot that was logged, and return the pixels of the picture."""
    run_dir = Path(live.dir)
    ((name, config),) = json.loads(Path(live.dir, PLOTS).read_text(encoding="utf-8")).items()
    render(run_dir / name, config, run_dir / "plot.png")
    return np.asarray(Image.open(run_dir / "plot.png").convert("RGB"))


def coloured(pixels: np.ndarray) -> int:
    """Return how many pixels are neither black, white nor grey: the data are in colour."""
    return int((pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 40).sum())


@pytest.mark.parametrize(
    "kind", ["roc", "precision_recall", "calibration", "det", "confusion_matrix", "confusion_matrix_normalized"]
)
def test_draw_each_kind_of_scikit_learn(live: Live, kind: str) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    scores = np.clip(labels * 0.4 + random.random(200) * 0.6, 0, 1)
    matrix = kind.startswith("confusion")
    live.log_sklearn_plot(
        "confusion_matrix" if matrix else kind,
        labels.tolist(),
        (scores > 0.5).astype(int).tolist() if matrix else scores.tolist(),
        name=kind,
        normalized=kind.endswith("normalized") if matrix else None,
    )
    pixels = drawn(live)
    assert min(pixels.shape[:2]) >= 600
    assert coloured(pixels) > 300


@pytest.mark.parametrize("template", ["linear", "simple", "smooth", "scatter", "scatter_jitter", "mine"])
@pytest.mark.parametrize("x", [[0, 1, 2, 3], ["mon", "tue", "wed", "thu"]], ids=["numbers", "texts"])
def test_draw_fields_over_x(live: Live, template: str, x: list[Any]) -> None:
    points = [{"x": at, "a": 0.1 * number, "b": 1 - 0.1 * number} for number, at in enumerate(x)]
    live.log_plot("fields", points, x="x", y=["a", "b"], template=template, title="$half a formula")
    assert coloured(drawn(live)) > 100


@pytest.mark.parametrize("template", ["bar_horizontal", "bar_horizontal_sorted"])
def test_draw_bars_by_name(live: Live, template: str) -> None:
    live.log_plot("bars", [{"n": f"label {n}", "count": n} for n in range(200)], x="count", y="n", template=template)
    assert coloured(drawn(live)) > 10_000


def test_draw_matrix_of_many_labels(live: Live) -> None:
    points = [{"actual": f"label {n}", "predicted": f"label {n * 7 % 120}"} for n in range(120)]
    live.log_plot("matrix", points, x="actual", y="predicted", template="confusion")
    assert coloured(drawn(live)) > 100


def test_draw_values_that_are_not_finite_leaves_gaps(live: Live) -> None:
    values = [0.5, float("nan"), float("inf"), 1e308, None, 0.25, 0.3]
    points = [{"step": step, "loss": loss} for step, loss in enumerate(values)]
    live.log_plot("gaps", points, x="step", y="loss", template="scatter")
    assert coloured(drawn(live)) > 10


@pytest.mark.parametrize("content", [[], {"roc": []}, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]])
def test_draw_without_a_config_takes_the_last_field(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "plot.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    render(path, {}, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size == (800, 600)


@pytest.mark.parametrize(
    ("text", "config", "problem"),
    [
        ('[{"a": 1}, {"a"', {}, "can't be drawn"),
        ('{"a": 1, "b": 2}', {}, "can't be drawn"),
        ("[1, 2]", {}, "no list of points"),
        ('[{"a": 1}]', {"x": "a", "y": "c"}, "no field 'c'"),
        ('[{"a": "text"}]', {"x": "a", "y": "a", "template": "bar_horizontal"}, "text"),
    ],
)
def test_draw_what_is_no_plot_says_why(tmp_path: Path, text: str, config: dict[str, Any], problem: str) -> None:
    path = tmp_path / "plot.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError, match=problem) as error:
        render(path, config, tmp_path / "plot.png")
    assert error.value.problem.startswith("plot.json can't be drawn: ")
    assert error.value.fix == "log the plot again: live.log_plot"
