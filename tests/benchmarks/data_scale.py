"""How `prepare` and `manifest` grow with the data, and how little a first push and an opt-out upload.

    python -m tests.benchmarks data_scale [--full]

Records are synthetic: 3,000 bytes each, ten to a subject, one subject without consent. Each stage runs in a
process of its own, through its `main`, as DVC runs it.
"linear" compares the time per record with the row above.

The synthetic records leave the decoding out. `prepare` decodes each of a team's own images whole before it takes it,
so it is measured on image files too: crops of scikit-learn's two photographs, 224 x 224 pixels, through the source
`folder`. The plain script is a loop that reads the same files, decodes each once with Pillow, and writes them as one
Parquet file a split.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ..conftest import BakedProject

SHARDS = 256
SIZE = 3_000
"""Bytes of an image."""
PER_SUBJECT = 10
SIDE = 224
"""Pixels of a side of an image file."""

PARAMS = """\
data: {{source: folder, fraction: {fraction}, shards: {shards}, consent: required}}
split: {{salt: "7", val: 0.2, test: 0.2}}
"""

PLAIN = """
import csv, io, pathlib, time
import pyarrow as pa, pyarrow.parquet as pq
from PIL import Image
start = time.process_time()
ids = ["record_id", "subject_id", "label"]
schema = pa.schema([*((name, pa.string()) for name in ids), ("image", pa.large_binary())])
options = {"compression": dict.fromkeys(ids, "zstd") | {"image": "none"}, "use_dictionary": ids[1:]}
options["write_statistics"] = ids
with open("data/raw/records.csv", encoding="utf-8") as file:
    rows = sorted(csv.reader(file))[:-1]
parts = {"train": rows[0::5] + rows[1::5] + rows[2::5], "val": rows[3::5], "test": rows[4::5]}
for name, part in parts.items():
    with pq.ParquetWriter(f"{name}.parquet", schema, **options) as writer:
        for first in range(0, len(part), 1024):
            cells = []
            for record_id, subject_id, label, path in part[first : first + 1024]:
                content = pathlib.Path("data/raw", path).read_bytes()
                Image.open(io.BytesIO(content)).load()
                cells.append((record_id, subject_id, label, content))
            writer.write_table(pa.table(list(zip(*cells)), schema=schema))
print(time.process_time() - start)
"""

STAGE = """
import importlib, json, random, resource, sys, time
import numpy
name, package, records, size, each = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
deliveries = int(sys.argv[6])
stage = importlib.import_module(f"{package}.stages.{name}")
if name == "prepare" and size:
    from mlops import Record
    images, folder = (importlib.import_module(f"{package}.{module}") for module in ("images", "data.folder"))
    image = images.encode_png(numpy.zeros((8, 8), "uint8"))
    def read(number):
        # A decoder stops where the image ends, and takes no notice of the noise.
        return image + random.Random(number).randbytes(size - len(image))
    def source():
        for n in range(records):
            # The first is large; those after it have a tenth of its records each.
            delivery = f"d-{max(0, (n - 10_000) // 1_000 + 1)}" if deliveries else ""
            yield Record(f"record-{n:08}", f"subject-{n // each:07}", str(n % 10), str(n), f"line {n}", delivery)
    folder.records, folder.read = source, read
start, processor = time.perf_counter(), time.process_time()
stage.main()
seconds, processor = time.perf_counter() - start, time.process_time() - processor
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([seconds, peak / 1e6, processor]))
"""


def measure(project: BakedProject, full: bool) -> str:
    """Measure all; `full` adds 1,000,000 records, with 3 GB of disk, and 100,000 JPEGs: a few minutes each."""
    sizes = [10_000, 100_000] + [1_000_000] * full
    images = images_table(project, {"jpeg": 100_000 if full else 2_000, "png": 2_000})
    return f"{stages_table(project, sizes)}\n{images}\n{uploads_table(project)}"


def stages_table(project: BakedProject, sizes: list[int]) -> str:
    """Time the stages for each number of records."""
    rows = [
        "| records | dataset MB | prepare s | linear | peak MB | manifest s | linear | peak MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    above: list[float] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            start(Path(folder), size)
            prepare, manifest = (run(project, Path(folder), name, size) for name in ("prepare", "manifest"))
            disk = sum(file.stat().st_size for file in Path(folder, "data/dataset").rglob("*.parquet")) / 1e6
        each = [prepare[0] / size, manifest[0] / size]
        cells = [f"{size:,}", f"{disk:.0f}"]
        for (seconds, peak, _), now, before in zip((prepare, manifest), each, above or each, strict=True):
            cells += [f"{seconds:.1f}", f"{now / before:.2f}x", f"{peak:.0f}"]
        above = each
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def images_table(project: BakedProject, sizes: dict[str, int]) -> str:
    """Time `prepare` on so many image files of each kind, and a plain script on the same files before and after it."""
    rows = [
        f"| files of {SIDE} x {SIDE} pixels | KB a file | prepare s | processor s "
        "| plain script, processor s | ratio | peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, size in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder)
            start(here, size)
            stored = write_images(here / "data" / "raw", kind, size)
            before = plain(here)
            seconds, peak, processor = run(project, here, "prepare", size, record_bytes=0)
            script = (before + plain(here)) / 2
        cells = [
            f"{size:,} {kind.upper()}",
            f"{stored / size / 1e3:.0f}",
            f"{seconds:.1f}",
            f"{processor:.1f}",
            f"{script:.1f}",
        ]
        rows.append(f"| {' | '.join(cells)} | {processor / script:.2f} | {peak:.0f} |")
    return "\n".join(rows) + "\n"


def write_images(raw: Path, kind: str, size: int) -> int:
    """Write crops of real photographs and their `records.csv`; return the bytes of all files."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    rng, stored = np.random.default_rng(0), 0
    (raw / "images").mkdir(parents=True)
    with (raw / "records.csv").open("w", encoding="utf-8") as file:
        file.write("record_id,subject_id,label,path\n")
        for number in range(size):
            photograph = photographs[number % 2]
            side = int(rng.integers(SIDE, min(photograph.size) + 1))
            left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
            path = raw / "images" / f"{number:05}.{kind}"
            photograph.resize((SIDE, SIDE), box=(left, top, left + side, top + side)).save(path, kind)
            stored += path.stat().st_size
            row = (f"record-{number:05}", f"subject-{number // PER_SUBJECT:07}", str(number % 2), f"images/{path.name}")
            file.write(f"{','.join(row)}\n")
    return stored


def plain(folder: Path) -> float:
    """Read, decode and store all image files by a plain script; return its seconds of processor time."""
    command = [sys.executable, "-c", PLAIN]
    return float(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout)


def uploads_table(project: BakedProject, size: int = 10_000) -> str:
    """Push the dataset to a real DVC remote, again after one subject left, and the same as one file per image.

    Then let it grow: by a tenth, as a delivery, and from 5 % to 10 % of the source. "of the new" compares the bytes
    that are pushed with the contents of the new records.
    """
    rows = [
        f"| {size:,} records | first push: objects | MB | one opt-out: objects | kB |",
        "|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        start(here, size)
        init(here)
        sharded, images = here / "data" / "dataset", here / "images"
        pushes_of: dict[Path, list[tuple[int, int]]] = {sharded: [], images: []}
        for subject in ("subject-0000000", "subject-0000123"):
            with (here / "data" / "consent.csv").open("a", encoding="utf-8") as file:
                file.write(f"{subject},revoked,\n")
            run(project, here, "prepare", size)
            export(sharded, images)
            for path, pushes in pushes_of.items():
                pushes.append(push(here, path))
    for name, path in ((f"Parquet, {SHARDS} shards a split", sharded), ("a file per image", images)):
        (count, sent), (more, change) = pushes_of[path]
        rows.append(f"| {name} | {count:,} | {sent / 1e6:.1f} | {more} | {change / 1e3:.0f} |")
    rows += ["", "| growth | new records | objects | MB | of the new |", "|---|---:|---:|---:|---:|"]
    rows.append(growth_row(project, "+10 %, a delivery", (size, 1.0), (size + size // 10, 1.0)))
    rows.append(growth_row(project, "5 % to 10 %", (10 * size, 0.05), (10 * size, 0.1)))
    return "\n".join(rows) + "\n"


def growth_row(project: BakedProject, name: str, small: tuple[int, float], large: tuple[int, float]) -> str:
    """Push a dataset, then a larger one, each of so many records and the fraction that is used of them."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        start(here, large[0])
        init(here)
        counts, pushes = [], []
        for size, fraction in (small, large):
            (here / "params.yaml").write_text(PARAMS.format(shards=64, fraction=fraction), encoding="utf-8")
            run(project, here, "prepare", size, deliveries=int(fraction == 1))
            counts.append(records_in(here / "data" / "dataset"))
            pushes.append(push(here, here / "data" / "dataset"))
    new = counts[1] - counts[0]
    count, sent = pushes[1]
    return f"| {name} | {new:,} | {count} | {sent / 1e6:.2f} | {sent / (new * SIZE):.3f} x |"


def init(folder: Path) -> None:
    """Make a DVC project whose remote is a folder."""
    for command in (["init", "--no-scm", "-q"], ["remote", "add", "-q", "-d", "storage", str(folder / "remote")]):
        dvc(folder, *command)


def records_in(dataset: Path) -> int:
    """Return the number of records of a dataset."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in dataset.rglob("*.parquet"))


def start(folder: Path, size: int) -> None:
    """Write params and a registry in which everybody consents."""
    (folder / "data").mkdir()
    (folder / "params.yaml").write_text(PARAMS.format(shards=SHARDS, fraction=1.0), encoding="utf-8")
    with (folder / "data" / "consent.csv").open("w", encoding="utf-8") as file:
        file.write("subject_id,consent_status,effective_at\n")
        file.writelines(f"subject-{n:07},active,2025-01-01T00:00:00Z\n" for n in range(size // PER_SUBJECT))


def run(
    project: BakedProject, folder: Path, stage: str, size: int, record_bytes: int = SIZE, deliveries: int = 0
) -> list[float]:
    """Run a stage of the project in a folder; return seconds, peak megabytes and seconds of processor time.

    Args:
        project: Whose stage.
        folder: To run it in.
        stage: Its name.
        size: Records of the synthetic source.
        record_bytes: Of a synthetic record; 0 reads the image files below `data/raw`.
        deliveries: 1 gives synthetic records deliveries.
    """
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(project.path)!r})\n{STAGE}"]
    arguments = [stage, project.package, str(size), str(record_bytes), str(PER_SUBJECT), str(deliveries)]
    done = subprocess.run([*command, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    figures: list[float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def export(sharded: Path, images: Path) -> None:
    """Write the dataset as `<split>/<label>/<record>` files; only those that come or go are touched."""
    import pyarrow.parquet as pq

    wanted = set()
    for shard in sharded.rglob("*.parquet"):
        for row in pq.read_table(shard, partitioning=None).to_pylist():
            file = images / shard.relative_to(sharded).parts[0] / row["label"] / row["record_id"]
            wanted.add(file)
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(row["image"])
    for file in images.rglob("*"):
        if file.is_file() and file not in wanted:
            file.unlink()


def push(folder: Path, path: Path) -> tuple[int, int]:
    """`dvc add` and `dvc push` a path; return the objects and bytes that are new in the remote."""
    before = objects(folder / "remote")
    dvc(folder, "add", "-q", str(path))
    dvc(folder, "push", "-q", f"{path}.dvc")
    new = objects(folder / "remote").items() - before.items()
    return len(new), sum(size for _, size in new)


def objects(remote: Path) -> dict[Path, int]:
    """Return the files of a remote with their sizes in bytes."""
    return {file: file.stat().st_size for file in remote.rglob("*") if file.is_file()}


def dvc(folder: Path, *arguments: str) -> None:
    """Run DVC in a folder."""
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
