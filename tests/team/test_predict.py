"""Predictions from the shell and from Python: which images are found, what is written, what a damaged one does."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from mlops import ProjectError
from team import interface
from team.images import encode_png
from team.model.networks import build
from team.model.predictor import ModelConfig, save
from team.predict import main, predict

MODEL = "models/model"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with a model that knows nothing, and twelve images; the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text('[tool.mlops]\npackage = "team"\nnumeric = []\n', encoding="utf-8")
    torch.manual_seed(0)
    config = ModelConfig(arch="small_cnn", classes=("no", "yes"), image_px=8, channels=1, mean=(0.5,), std=(0.25,))
    Path("models").mkdir()
    save(Path(MODEL), build("small_cnn", 2, 1), config)
    Path("scans/deep").mkdir(parents=True)
    for number in range(12):
        Path("scans", "deep" if number > 9 else "", f"{number:02}.png").write_bytes(image(number))


def image(number: int) -> bytes:
    content: bytes = encode_png(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8))
    return content


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def read_csv(name: str) -> list[dict[str, str]]:
    with Path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predict_files_folders_and_parquet_say_what_the_interface_says() -> None:
    Path("scans/records.csv").write_text("not an image", encoding="utf-8")
    Path("scans/._00.png").write_bytes(b"what macOS leaves behind")
    pq.write_table(pa.table({"record_id": ["007", "NA"], "image": [image(20), image(21)]}), "with.parquet")
    pq.write_table(pa.table({"image": pa.array([image(22), image(23)], pa.large_binary())}), "without.parquet")
    Path("no-suffix").write_bytes(image(24))
    rows = list(predict(MODEL, [Path(name) for name in ("with.parquet", "scans", "without.parquet", "no-suffix")]))
    numbers = (20, 21, *range(12), 22, 23, 24)
    expected = interface.predict(interface.load(Path(MODEL)), [image(number) for number in numbers])
    assert [{name: row[name] for name in ("label", "score", "scores")} for row in rows] == expected
    assert [(row["file"], row.get("record_id")) for row in rows] == [
        *(("with.parquet", name) for name in ("007", "NA")),
        *((f"scans/{number:02}.png", None) for number in range(10)),
        *((f"scans/deep/{number:02}.png", None) for number in (10, 11)),
        *(("without.parquet", name) for name in "01"),
        ("no-suffix", None),
    ]


def test_predict_reads_a_batch_at_a_time() -> None:
    for number in range(100, 200):
        Path("scans", f"{number}.png").write_bytes(image(number))
    rows = predict(MODEL, [Path("scans")])
    next(rows)
    Path("scans/199.png").unlink()
    with pytest.raises(
        ProjectError, match=r"199.png can't be read: .*No such file or directory\nFix: restore it, or name other files"
    ):
        list(rows)


def test_predict_reads_of_a_parquet_file_what_it_needs() -> None:
    contents = pa.array([np.random.default_rng(number).bytes(2**17) for number in range(400)])
    pq.write_table(pa.table({"image": contents}), "large.parquet", row_group_size=40, use_dictionary=False)
    del contents
    before = pa.total_allocated_bytes()
    rows = predict(MODEL, [Path("large.parquet")])
    next(rows)
    assert pa.total_allocated_bytes() - before < 25 * 2**20, "of 50 MB"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("options", "code"), [((), 2), (("--allow-damaged",), 0)], ids=["default", "allowed"])
def test_main_predicts_all_but_damaged_images_and_says_so(suffix: str, options: tuple[str, ...], code: int) -> None:
    undamaged = {row["file"]: row for row in predict(MODEL, [Path("scans")])}
    for number in (3, 11):
        path = next(Path("scans").rglob(f"{number:02}.png"))
        path.write_bytes(path.read_bytes()[:-40])
    output = f"out/predictions.{suffix}"
    done = run(MODEL, "scans", "--output", output, *options)
    assert done.exit_code == code
    if code:
        error, fix = done.stderr.splitlines()[-2:]
        assert error.startswith(
            "Error: 2 of 12 can't be predicted; the first, scans/03.png, is damaged or not an image:"
        )
        assert fix.endswith("--allow-damaged")
    rows = read_csv(output) if suffix == "csv" else pq.read_table(output).to_pylist()
    scores = ["scores"] if suffix == "parquet" else []
    assert list(rows[0]) == ["file", "record_id", "label", "score", *scores, "error"]
    for row in rows:
        if row["file"] in ("scans/03.png", "scans/deep/11.png"):
            assert "damaged" in row["error"] and not row["label"] and not row["score"]
        else:  # to the bit, whatever is predicted with it
            expected = undamaged[row["file"]]
            assert (row["label"], float(row["score"])) == (expected["label"], expected["score"]) and not row["error"]
            assert dict(row.get("scores", expected["scores"])) == expected["scores"]


def test_main_prints_a_table_with_the_columns_that_have_something() -> None:
    header, *lines = run(MODEL, "scans").stdout.splitlines()
    assert (header.split(), len(lines)) == (["file", "label", "score"], 12)
    pq.write_table(pa.table({"image": pa.array([image(0), None])}), "two.parquet")
    header, *lines = run(MODEL, "two.parquet").stdout.splitlines()
    assert header.split() == ["file", "record_id", "label", "score", "error"]
    assert lines[1].startswith("two.parquet  1 ") and "is damaged" in lines[1]


def test_main_output_of_before_stays_until_all_is_predicted() -> None:
    Path("out.csv").write_text("of before", encoding="utf-8")
    assert run(MODEL, "scans", "nowhere.png", "--output", "out.csv").exit_code == 2
    assert Path("out.csv").read_text(encoding="utf-8") == "of before"
    assert {path.name for path in Path().iterdir()} == {"models", "scans", "pyproject.toml", "out.csv"}


MISTAKES: dict[str, tuple[Callable[[], object], str, str]] = {
    "no such file": (lambda: None, "nowhere.png", "nowhere.png can't be read: .*No such file"),
    "empty folder": (lambda: Path("empty").mkdir(), "empty", r"empty holds no images\nFix: name .*\.jpeg.*\.parquet"),
    "no Parquet": (lambda: Path("x.parquet").write_bytes(b"PAR1"), "x.parquet", "x.parquet can't be read: "),
    "no column": (
        lambda: pq.write_table(pa.table({"picture": [b""]}), "x.parquet"),
        "x.parquet",
        "x.parquet can't be read: it has no column `image` of bytes",
    ),
    "paths in place of images": (
        lambda: pq.write_table(pa.table({"image": ["00.png"]}), "x.parquet"),
        "x.parquet",
        "x.parquet can't be read: it has no column `image` of bytes",
    ),
    "no model": (
        lambda: Path(MODEL, "model.json").unlink(),
        "scans",
        "the model in models/model is damaged: .*model.json",
    ),
}


@pytest.mark.parametrize(("make", "name", "problem"), MISTAKES.values(), ids=MISTAKES.keys())
def test_predict_what_cannot_be_read_is_named(make: Callable[[], object], name: str, problem: str) -> None:
    make()
    with pytest.raises(ProjectError, match=problem):
        list(predict(MODEL, [Path(name)]))


def test_main_another_kind_of_file_is_refused_before_anything_is_predicted() -> None:
    done = run(MODEL, "nowhere.png", "--output", "out.xlsx")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ["Error: out.xlsx is neither .csv nor .parquet", "Fix: --output out.csv"]
