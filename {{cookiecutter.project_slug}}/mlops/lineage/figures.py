"""What a page shows beside words: curves of a training, its confusion matrix, and some records of the data.

What can't be read raises ProjectError. mlops knows nothing of images: their bytes are shown as they are stored.
"""

import base64
import csv
import io
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..errors import ProjectError
from ..records import consent
from ..tracking.run_context import DATASET
from ..tracking.run_files import RUN_DIR
from .commits import Pinned, blobs
from .objects import Objects

CURVES = "plots/metrics/"  # below reports/train, where DVCLive has them
MOST_CURVES, MOST_POINTS = 9, 150
MOST_LABELS = 25  # of a confusion matrix
WIDTH, HEIGHT = 240, 96  # of a curve, in units of its drawing
PER_LABEL, MOST_SAMPLES = 3, 60
MOST_SHARDS, MOST_SHARD_BYTES = 4, 16 * 2**20
MOST_IMAGE_BYTES, MOST_IMAGES_BYTES = 60_000, 1_500_000
TYPES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


@dataclass(frozen=True)
class Series:
    """One line of a curve: its name, its points in the drawing, and its first, last, lowest and highest value."""

    name: str
    points: str
    first: float
    last: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A metric by step, of one split or several.

    Args:
        name: Of the metric.
        series: One for each split.
        steps: The first and the last one.
        range: The lowest and the highest value drawn.
    """

    name: str
    series: list[Series]
    steps: tuple[float, float]
    range: tuple[float, float]


@dataclass
class Samples:
    """Records of a dataset: images by label, as data: addresses, and what they were chosen from."""

    images: dict[str, list[str]] = field(default_factory=dict)
    origin: str = ""


def curves(results: Pinned, objects: Objects) -> list[Curve]:
    """Return the curves of the run whose results a commit pins, losses first."""
    md5 = results.out(RUN_DIR.as_posix())
    files = objects.listing(md5) if md5 else {}
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for path in sorted(files):
        if path.startswith(CURVES) and path.endswith(".tsv"):
            split, _, name = path.removeprefix(CURVES).removesuffix(".tsv").rpartition("/")
            if points := _points(objects.read(files[path]).decode(errors="replace")):
                groups.setdefault(name, {})[split or name] = points
    names = sorted(groups, key=lambda name: (name != "loss", -len(groups[name]), name))
    return [_curve(name, groups[name]) for name in names[:MOST_CURVES]]


def _points(text: str) -> list[tuple[float, float]]:
    """Return the steps and values of a file of DVCLive; what is no finite number is left out."""
    points = []
    for row in csv.reader(io.StringIO(text), delimiter="\t"):
        try:
            step, value = float(row[1]), float(row[2])
        except (ValueError, IndexError):  # the header, a line that was cut off
            continue
        if math.isfinite(step) and math.isfinite(value):
            points.append((step, value))
    return points


def _curve(name: str, groups: dict[str, list[tuple[float, float]]]) -> Curve:
    steps = [step for points in groups.values() for step, _ in points]
    values = [value for points in groups.values() for _, value in points]
    (left, right), (low, high) = (min(steps), max(steps)), (min(values), max(values))

    def place(step: float, value: float) -> str:
        x, y = (step - left) / ((right - left) or 1), (value - low) / ((high - low) or 1)
        return f"{x * WIDTH:.1f},{(1 - y) * HEIGHT:.1f}"

    series = []
    for split, points in groups.items():
        shown = [*points[:: -(-len(points) // MOST_POINTS)], points[-1]]
        of_split = [value for _, value in points]
        drawn = " ".join(place(*point) for point in shown)
        series.append(Series(split, drawn, of_split[0], of_split[-1], min(of_split), max(of_split)))
    return Curve(name, series, (left, right), (low, high))


def confusion(results: Pinned) -> dict[str, Any] | None:
    """Return labels, and counts by actual and predicted label; None if Git has none, or it has too many labels."""
    name = (results.commit, "reports/confusion.csv")
    text = blobs([name]).get(name, b"").decode(errors="replace")
    pairs = [tuple(row) for row in csv.reader(io.StringIO(text)) if len(row) == 2][1:]
    labels = sorted({label for pair in pairs for label in pair}, key=lambda label: (len(label), label))
    return {"labels": labels, "counts": Counter(pairs)} if 0 < len(labels) <= MOST_LABELS else None


def samples(facts: dict[str, Any], rule: str | None, md5: str, objects: Objects) -> Samples:
    """Return a few records of each label, of subjects who consent today.

    Args:
        facts: Of the dataset, in a graph.
        rule: Of its consent; unless it says that none is needed, today's registry decides.
        md5: DVC's hash of the dataset.
        objects: The files that DVC keeps.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (manifest := facts.get("manifest_md5")):
        raise ProjectError("the manifest of the dataset is not known here", "git fetch --tags origin")
    registry = None if rule == consent.NOT_REQUIRED else consent.read(consent.PATH)
    files = {path.removeprefix(f"{DATASET}/"): each for path, each in objects.listing(md5).items()}
    labels, result, used, size = Counter[str](), Samples(), list[str](), 0
    try:
        table = read_table(manifest, objects)
        paths = sorted(table["path"].unique().to_pylist(), key=lambda path: (not path.startswith("train/"), path))
        paths = [path for path in paths[:MOST_SHARDS] if _size(files[path], objects) <= MOST_SHARD_BYTES]
        for path in paths:
            chosen: list[str] = []
            rows = table.filter(pc.field("path") == path).sort_by("record_id")
            for row in rows.select(["record_id", "subject_id", "label"]).to_pylist():
                is_allowed = registry is None or registry.allows(row["subject_id"])
                if is_allowed and labels[row["label"]] < PER_LABEL and labels.total() < MOST_SAMPLES:
                    labels[row["label"]] += 1
                    chosen.append(row["record_id"])
            if not chosen:
                continue
            used.append(path)
            shard = read_table(files[path], objects).filter(pc.field("record_id").isin(chosen))
            for row in shard.to_pylist():
                uri = data_uri(row["image"])
                if uri and size + len(uri) <= MOST_IMAGES_BYTES:
                    size += len(uri)
                    result.images.setdefault(row["label"], []).append(uri)
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise ProjectError(
            f"the dataset's files can't be read: {error}", f"python -m mlops verify data:{md5} --deep"
        ) from error
    whose = "all subjects: no consent is needed" if registry is None else "subjects who consent today"
    result.origin = f"the first {PER_LABEL} of each label in {', '.join(used) or 'no file'}, of {whose}"
    return result


def read_table(md5: str, objects: Objects) -> Any:
    """Return the table of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with objects.file(md5) as path, pq.ParquetFile(path) as file:
        return pa.Table.from_batches(file.iter_batches(), file.schema_arrow)


def _size(md5: str, objects: Objects) -> int:
    """Return the bytes of a file; 0 if neither the cache nor the remote has it."""
    return objects.cache.sizes([md5]).get(md5) or objects.remote.sizes([md5]).get(md5, 0)


def data_uri(content: bytes) -> str:
    """Return a small image as an address that holds it; "" for what a browser may not show, or is large."""
    kind = next((kind for start, kind in TYPES.items() if content.startswith(start)), "")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "webp"
    if not kind or len(content) > MOST_IMAGE_BYTES:
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
