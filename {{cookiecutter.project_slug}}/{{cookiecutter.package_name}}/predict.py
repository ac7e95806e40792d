"""Predict the labels of images: files, folders of them, and Parquet files, from the shell or from Python.

python -m <package>.predict models/model scans/
python -m <package>.predict models:/<name>/<number> scans.parquet --output predictions.csv
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from mlops import ProjectError, predict_files, write_predictions
from PIL import Image

from .images import FORMATS

SUFFIXES = {".parquet", *(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)}
# Of what `interface.predict` returns.
COLUMNS = {"label": pa.string(), "score": pa.float64(), "scores": pa.map_(pa.string(), pa.float64())}


def predict(model: str, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield a row for each image, in order: `file`, `record_id` (in a Parquet file), a prediction or an `error`.

    A prediction is the likeliest `label`, its probability, `score`, and those of all labels, `scores`.

    Args:
        model: A model directory, such as `models/model`, or a registered version, `models:/<name>/<number>`.
        paths: Images; Parquet files with a column `image`, and `record_id` if they have it; folders of both.

    Raises:
        ProjectError: The model or a file can't be read. A damaged image raises nothing: its row has an `error`.
    """
    return predict_files(model, (file for path in paths for file in find_images(path)))


def find_images(path: Path) -> list[Path]:
    """Return the image and Parquet files below a folder, sorted, without hidden ones; a file is taken as it is."""
    if not path.is_dir():
        return [path]
    if not (files := sorted(file for file in path.rglob("[!.]*") if file.suffix.lower() in SUFFIXES)):
        raise ProjectError(f"{path} holds no images", f"name folders with {', '.join(sorted(SUFFIXES))}")
    return files


@click.command()
@click.argument("model")
@click.argument("files", metavar="FILES…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Write a .csv or .parquet file.")
@click.option("--allow-damaged", is_flag=True, help="Exit with 0 also when images are damaged.")
def main(model: str, files: tuple[Path, ...], output: Path | None, allow_damaged: bool) -> None:
    """Predict the labels of images.

    MODEL is a directory, such as models/model, or a registered version, models:/<name>/<number>. FILES are images,
    folders that are searched for images, and Parquet files with a column `image`.

    A damaged image has an error in place of a label, and the exit code is 2 when all others are predicted.
    """
    try:
        write_predictions(predict(model, files), COLUMNS, output, allow_damaged)
    except ProjectError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
