"""The dataset on disk: the same bytes every time, and little to upload after a change."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops.errors import ProjectError
from mlops.files import sha256
from mlops.records import manifest, shards
from mlops.records.source import Record
from team.data import splits

from ..conftest import SKELETON


def records(subjects: int, each: int = 3) -> list[Record]:
    return [
        Record(f"r{(each * s + n) * 7919 % 10_007:05}", f"s{s}", "ab"[n % 2], f"image {s} {n}".encode, "")
        for s in range(subjects)
        for n in range(each)
    ]


def digests(dataset: Path) -> dict[str, str]:
    return {file.relative_to(dataset).as_posix(): sha256(file) for file in dataset.rglob("*.parquet")}


def test_write_twice_in_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    images = records(20)
    shards.write({"train": images}, 4, tmp_path / "first")
    shards.write({"train": images[::-1]}, 4, tmp_path / "second")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_write_replaces_all_of_an_older_dataset(tmp_path: Path) -> None:
    shards.write({"train": records(20), "val": records(1)}, 4, tmp_path / "dataset")
    shards.write({"train": records(20)}, 1, tmp_path / "dataset")
    assert list(digests(tmp_path / "dataset")) == ["train/shard-000.parquet"]
    assert list(tmp_path.iterdir()) == [tmp_path / "dataset"]


def test_read_any_number_of_shards_gives_the_same_rows(tmp_path: Path) -> None:
    tables = []
    for count in (1, 3, 1000):
        shards.write({"train": records(30)}, count, tmp_path / "dataset")
        tables.append(shards.read(tmp_path / "dataset" / "train"))
    names = tables[0]["record_id"].to_pylist()
    assert names == sorted(names) and len(names) == 90
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_write_more_rows_than_a_batch_are_in_bounded_row_groups(tmp_path: Path) -> None:
    shards.write({"train": records(1, each=2 * shards.BATCH + 1)}, 1, tmp_path)
    metadata = pq.read_metadata(tmp_path / "train" / "shard-000.parquet")
    assert [metadata.row_group(n).num_rows for n in range(3)] == [shards.BATCH, shards.BATCH, 1]


def test_read_missing_split_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="dvc repro prepare"):
        shards.read(tmp_path / "train")


def test_read_damaged_shard_is_named(tmp_path: Path) -> None:
    shards.write({"train": records(3)}, 1, tmp_path)
    file = tmp_path / "train" / "shard-000.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ProjectError, match=r"shard-000.parquet is damaged"):
        shards.read(tmp_path / "train")


@settings(max_examples=25, deadline=None)
@given(
    removed=st.integers(0, 39),
    fractions=st.tuples(st.floats(0.2, 0.4), st.floats(0.2, 0.4)),
    fraction=st.floats(0.7, 1.0),
    count=st.integers(1, 50),
    salt=st.text("ab7", min_size=1),
)
def test_write_without_one_subject_moves_nobody_and_changes_one_file(
    removed: int, fractions: tuple[float, float], fraction: float, count: int, salt: str
) -> None:
    everyone = splits.subsample(records(40), fraction)
    with tempfile.TemporaryDirectory() as folder:
        places, files = [], []
        for chosen in (everyone, [record for record in everyone if record.subject_id != f"s{removed}"]):
            dataset = Path(folder, str(len(chosen)))
            shards.write(splits.split(chosen, salt, *fractions), count, dataset)
            rows = [row for part in manifest.build(dataset) for row in part.to_pylist()]
            places.append({row["record_id"]: (row["split"], row["path"]) for row in rows})
            files.append(digests(dataset))
    assert places[1].items() <= places[0].items()
    assert len(files[1].items() - files[0].items()) <= 1
    assert files[1].keys() <= files[0].keys()


FILL = """
import resource, signal, sys
sys.dont_write_bytecode = True  # half of a module would be kept
sys.path.append(sys.argv[2])
from pathlib import Path
from mlops.records import shards
from mlops.records.source import Record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
shards.write({"train": [Record(f"r{n}", "s", "a", lambda: bytes(1000), "") for n in range(3000)]}, 1, Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on a file's size is Unix's")
def test_write_no_space_left_keeps_the_older_dataset(tmp_path: Path) -> None:
    shards.write({"train": records(3)}, 1, tmp_path / "dataset")
    before = digests(tmp_path / "dataset")
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "dataset"), str(SKELETON)], capture_output=True, text=True
    )
    assert "OSError: [Errno 27]" in done.stderr, done.stderr
    assert digests(tmp_path / "dataset") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "dataset"]
