"""The dataset on disk: the same bytes every time, and little to upload after a change."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops.datasets import compaction
from mlops.errors import ProjectError
from mlops.files import sha256
from mlops.records import manifest, shards
from mlops.records.source import Record, read_records
from mlops.records.splits import SplitParams, split_by_subject

from .. import small_datasets
from ..conftest import SKELETON
from ..small_datasets import record, source


def records(subjects: int, each: int = 3, split: str = "train") -> list[Record]:
    """Return records whose ids are in another order than their subjects."""
    return [
        record(f"r{(each * s + n) * 7919 % 10_007:05}-{split}", f"{split}-{s}", "ab"[n % 2], f"{s} {n}", split)
        for s in range(subjects)
        for n in range(each)
    ]


def digests(dataset: Path) -> dict[str, str]:
    return {file.relative_to(dataset).as_posix(): sha256(file) for file in dataset.rglob("*.parquet")}


def test_write_twice_in_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    images = records(20)
    small_datasets.write(images, tmp_path / "first", 4)
    small_datasets.write(images[::-1], tmp_path / "second", 4)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_write_replaces_all_of_an_older_dataset(tmp_path: Path) -> None:
    small_datasets.write([*records(40), *records(1, split="val")], tmp_path / "dataset", 4)
    small_datasets.write(records(20), tmp_path / "dataset")
    assert list(digests(tmp_path / "dataset")) == ["train/shard-000.parquet"]
    assert list(tmp_path.iterdir()) == [tmp_path / "dataset"]


def test_read_any_number_of_shards_gives_the_same_rows(tmp_path: Path) -> None:
    tables = []
    for count in (1, 3, 1000):
        small_datasets.write(records(300), tmp_path / "dataset", count)
        tables.append(shards.read(tmp_path / "dataset" / "train"))
    names = tables[0]["record_id"].to_pylist()
    assert names == sorted(names) and len(names) == 900
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_write_more_rows_than_a_batch_are_in_bounded_row_groups(tmp_path: Path) -> None:
    small_datasets.write(records(1, each=2 * shards.BATCH + 1), tmp_path)
    assert row_groups(tmp_path) == [shards.BATCH, shards.BATCH, 1]


def test_write_large_contents_are_in_bounded_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_BYTES", 1000)
    small_datasets.write(records(1, each=7), tmp_path, read=lambda _: bytes(400))
    assert row_groups(tmp_path) == [3, 3, 1]


def row_groups(dataset: Path) -> list[int]:
    """Return the rows of each row group of the only file."""
    metadata = pq.read_metadata(dataset / "train" / "shard-000.parquet")
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def test_write_contents_that_cant_be_read_are_all_counted_by_where_they_are_listed(tmp_path: Path) -> None:
    def read(content: str) -> bytes:
        if content == "bad":
            raise ProjectError("it is damaged", "mend it")
        return content.encode()

    lines = [
        record(f"r{n:02}", f"s{n}", content="bad" if n % 5 == 0 else "good", origin=f"line {n}") for n in range(99)
    ]
    with pytest.raises(
        ProjectError, match="bad records: 20\n  line 0: it is damaged\n[\\s\\S]*and 15 more\nFix: mend it"
    ):
        small_datasets.write(lines, tmp_path / "dataset", read=read)
    assert list(tmp_path.iterdir()) == []


def test_read_missing_split_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="dvc repro prepare"):
        shards.read(tmp_path / "train")


def test_read_damaged_shard_is_named(tmp_path: Path) -> None:
    small_datasets.write(records(3), tmp_path)
    file = tmp_path / "train" / "shard-000.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ProjectError, match=r"shard-000.parquet is damaged"):
        shards.read(tmp_path / "train")


class History:
    """Deliveries and withdrawals, in any order, and the dataset that is written after each."""

    def __init__(self, folder: Path, shards_: int, fraction: float = 1.0) -> None:
        self.folder, self.shards, self.fraction = folder, shards_, fraction
        self.listed: list[Record] = []
        self.withdrawn: set[str] = set()

    def deliver(self, name: str, subjects: Iterable[int], each: int) -> None:
        """Add records; a subject may have some in earlier deliveries too."""
        self.listed += [
            Record(f"{subject * 7919 % 997:03}-{n}-{name}", f"s{subject}", "a", f"{name} {n}", "", name)
            for subject in subjects
            for n in range(each)
        ]

    def write(self, compact_until: str = "") -> dict[str, str]:
        """Write the dataset; return the digest of each file."""
        with read_records(source(self.listed), self.fraction) as table:
            table.table.create_function("stays", 1, lambda subject: subject not in self.withdrawn)
            table.table.execute("UPDATE records SET allowed = stays(subject_id)")
            split_by_subject(table, SplitParams(salt="7", val=0.25, test=0.25))
            shards.write(table, self.shards, self.folder, compact_until)
        return digests(self.folder)

    def rows(self) -> list[list[dict[str, object]]]:
        """Return what training reads."""
        return [shards.read(self.folder / split).to_pylist() for split in shards.SPLITS]


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 59), st.integers(1, 8)), min_size=1, max_size=8),
    count=st.sampled_from([1, 3, 8, 64]),
)
def test_growth_new_deliveries_are_new_files_and_an_opt_out_changes_one_file_a_delivery(
    steps: list[tuple[bool, int, int]], count: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder, "dataset"), count)
        history.deliver("d-0", range(60), 3)
        before = history.write()
        for number, (is_delivery, subject, each) in enumerate(steps, start=1):
            if is_delivery:
                history.deliver(f"d-{number}", range(subject, 60), each)
            else:
                history.withdrawn.add(f"s{subject}")
            after = history.write()
            if is_delivery:
                assert before.items() <= after.items(), "what was stored stays as it is"
                assert all(f"delivery=d-{number}/" in file for file in after.keys() - before.keys())
            else:
                changed = [Path(file).parts[1] for file in after if after[file] != before[file]]
                assert after.keys() <= before.keys() and len(set(changed)) == len(changed), "one file a delivery"
            before = after
        stored = history.rows()
        for each_record in history.listed:
            object.__setattr__(each_record, "delivery", "")
        history.write()
        assert history.rows() == stored, "where records are stored changes nothing that is read"


@settings(max_examples=20, deadline=None)
@given(
    removed=st.integers(0, 39),
    fractions=st.tuples(st.floats(0.2, 0.4), st.floats(0.2, 0.4)),
    fraction=st.floats(0.7, 1.0),
    count=st.integers(1, 50),
    salt=st.text("ab7", min_size=1),
)
def test_write_without_one_subject_moves_nobody(
    removed: int, fractions: tuple[float, float], fraction: float, count: int, salt: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        places, files = [], []
        for withdrawn in ("", f"train-{removed}"):
            dataset = Path(folder, "dataset")
            undecided = [Record(r.record_id, r.subject_id, r.label, r.content, "") for r in records(40)]
            with read_records(source(undecided), fraction) as table:
                split_by_subject(table, SplitParams(salt=salt, val=fractions[0], test=fractions[1]))
                table.table.execute("UPDATE records SET allowed = subject_id <> ?", [withdrawn])
                shards.write(table, count, dataset)
            rows = [row for part in manifest.build(dataset) for row in part.to_pylist()]
            places.append({row["record_id"]: (row["split"], row["path"]) for row in rows})
            files.append(digests(dataset))
    assert places[1].items() <= places[0].items()
    assert files[1].keys() <= files[0].keys()


def test_growth_of_a_fraction_writes_its_new_slices_only(tmp_path: Path) -> None:
    history = History(tmp_path / "dataset", 64, fraction=0.05)
    for subject in range(4_000):
        history.listed.append(Record(f"r{subject:04}", f"r{subject:04}", "a", "x", ""))
    five = history.write()
    history.fraction = 0.1
    ten = history.write()
    assert five.items() < ten.items()
    assert {Path(file).parts[1] for file in ten.keys() - five.keys()} == {"delivery=percent-010"}


@pytest.mark.parametrize("growth", ["a delivery of 10 %", "5 % to 10 %"])
def test_growth_writes_hardly_more_than_the_new_contents(tmp_path: Path, growth: str) -> None:
    def listed(count: int, delivery: str) -> list[Record]:
        names = (f"{delivery}record-{n:06}" for n in range(count))
        return [Record(name, f"of {name}", "a", name, "", delivery) for name in names]

    def write(records: list[Record], fraction: float = 1.0) -> dict[str, tuple[int, int]]:
        """Return bytes and records of each file, by its digest."""
        with read_records(source(records, lambda name: name.encode().ljust(3_000)), fraction) as table:
            split_by_subject(table, SplitParams(salt="7", val=0.2, test=0.2))
            shards.write(table, 64, tmp_path / "dataset")
        files = (tmp_path / "dataset").rglob("*.parquet")
        return {sha256(file): (file.stat().st_size, pq.read_metadata(file).num_rows) for file in files}

    if growth == "5 % to 10 %":
        source_records = listed(40_000, "")
        before, after = write(source_records, 0.05), write(source_records, 0.1)
    else:
        before = write(listed(4_000, "2026-10"))
        after = write([*listed(4_000, "2026-10"), *listed(400, "2026-11")])
    written = sum(size for digest, (size, _) in after.items() if digest not in before)
    new = sum(rows for _, rows in after.values()) - sum(rows for _, rows in before.values())
    assert written <= 1.1 * 3_000 * new


@pytest.mark.parametrize(("deliveries", "each", "most"), [(1, 10_000, 260), (10, 1_000, 260), (2, 5_000, 260)])
def test_objects_stay_few(tmp_path: Path, deliveries: int, each: int, most: int) -> None:
    history = History(tmp_path / "dataset", 64)
    for number in range(deliveries):
        name = f"2026-{number:02}"
        history.listed += [Record(f"{name}-{n}", f"{name}-{n}", "a", "x", "", name) for n in range(each)]
    assert len(history.write()) <= most


def test_compact_stores_deliveries_up_to_one_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("data:\n  compact_until:   # empty\n", encoding="utf-8")
    history = History(Path("data/dataset"), 64)
    for month in ("2026-01", "2026-02", "2026-03"):
        history.deliver(month, range(60), 3)
    before, rows = history.write(), history.rows()
    printed = compaction.compact("2026-02")
    assert "compact_until: '2026-02' # empty" in Path("params.yaml").read_text(encoding="utf-8")
    assert "The next dvc repro stores 2 deliveries as one: " in printed
    after = history.write("2026-02")
    assert {Path(file).parts[1] for file in after} == {"delivery=until-2026-02", "delivery=2026-03"}
    assert len(after) < len(before) and history.rows() == rows
    later = {file: digest for file, digest in before.items() if "2026-03" in file}
    assert later.items() <= after.items()
    with pytest.raises(
        ProjectError, match=r"has no delivery '2025'; it has 2026-03, until-2026-02\nFix: name one of these"
    ):
        compaction.compact("2025")


@pytest.mark.parametrize("name", ["..", "con", "a/b", "v1.", "Nürnberg 1", "50%"])
def test_delivery_of_any_name_is_a_folder_in_its_split(tmp_path: Path, name: str) -> None:
    with read_records(source([Record("r", "s", "a", "x", "", name, "train")])) as table:
        shards.write(table, 1, tmp_path / "dataset")
    (file,) = digests(tmp_path / "dataset")
    assert file.startswith("train/delivery=") and file.count("/") == 2 and "./" not in file
    assert shards.read(tmp_path / "dataset/train").num_rows == 1


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("May", "may"), "the deliveries 'May' and 'may' differ in case only"),
        (("x" * 201,), "is too long for the name of a folder"),
        (("May ",), "line 0: delivery 'May ' has hidden"),
    ],
    ids=["case", "long", "space"],
)
def test_delivery_that_cant_be_a_folder_everywhere_is_refused(names: tuple[str, ...], problem: str) -> None:
    listed = [Record(f"r{n}", "s", "a", "x", f"line {n}", name) for n, name in enumerate(names)]
    with pytest.raises(ProjectError, match=problem), read_records(source(listed)):
        pass


FILL = """
import resource, signal, sys
sys.dont_write_bytecode = True  # half of a module would be kept
sys.path.append(sys.argv[2])
from pathlib import Path
from types import SimpleNamespace
from mlops.records import shards
from mlops.records.source import Record, read_records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
listed = [Record(f"r{n}", "s", "a", "", "", split="train") for n in range(3000)]
source = SimpleNamespace(__name__="test", records=lambda: listed, read=lambda _: bytes(1000))
with read_records(source) as records:
    shards.write(records, 1, Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on a file's size is Unix's")
def test_write_no_space_left_keeps_the_older_dataset(tmp_path: Path) -> None:
    small_datasets.write(records(3), tmp_path / "dataset")
    before = digests(tmp_path / "dataset")
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "dataset"), str(SKELETON)], capture_output=True, text=True
    )
    assert "OSError: [Errno 27]" in done.stderr, done.stderr
    assert digests(tmp_path / "dataset") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "dataset"]
