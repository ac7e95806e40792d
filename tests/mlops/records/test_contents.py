"""Contents one by one: the bytes that Parquet holds, from any process, in little memory, or a clear refusal."""

import multiprocessing
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlops.errors import ProjectError
from mlops.records import contents, shards
from mlops.records.contents import open_split

from .. import small_datasets
from ..small_datasets import record


def write(folder: Path, count: int = 300, most: int = 3000) -> Path:
    """Write a split of contents of any length, in several shards and deliveries; return its folder."""
    draw = random.Random(0)
    sizes = {
        f"{number * 7919 % 10_007:05}": draw.choice([0, 1, 3, 40, draw.randrange(most)]) for number in range(count)
    }
    values = {name: draw.randbytes(size) for name, size in sizes.items()}
    rows = [record(name, f"s{int(name) % 40}", "ab"[int(name) % 2], name) for name in sizes]
    rows = [replace(row, delivery=("", "2024", "x/y")[int(row.record_id) % 3]) for row in rows]
    small_datasets.write(rows, folder, 4, values.__getitem__)
    return folder / "train"


def check(split: Path) -> contents.Contents:
    """Compare all that is opened with what is read at once."""
    opened, table = open_split(split), shards.read(split)
    assert list(opened) == table["image"].to_pylist()
    for name in ("record_id", "subject_id", "label"):
        texts = getattr(opened, f"{name}s")
        assert list(texts) == table[name].to_pylist()
        assert texts[7] == table[name][7].as_py()
        assert texts[-2:][0] == table[name][-2].as_py()
    assert opened.labels.unique() == ["a", "b"]
    assert opened.labels.positions(["b", "a"]).tolist() == [int(label == "a") for label in opened.labels]
    assert set(opened.labels.positions(["b"]).tolist()) == {0, -1}
    return opened


def test_contents_of_shards_and_deliveries_are_in_the_order_of_ids(tmp_path: Path) -> None:
    assert len(check(write(tmp_path))) == 300


def test_contents_of_many_row_groups_and_pages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH", 16)
    check(write(tmp_path / "groups"))
    table = shards.read(write(tmp_path / "pages"))
    (tmp_path / "train").mkdir()
    options = {"compression": "none", "use_dictionary": False}
    for version in ("1.0", "2.0"):
        file = tmp_path / "train" / "shard-000.parquet"
        pq.write_table(table, file, data_page_size=2000, data_page_version=version, **options)
        assert contents._index(file)[0] is not None
        check(tmp_path / "train")


def test_contents_that_look_like_lengths_are_not_mistaken(tmp_path: Path) -> None:
    values = [b"\0\0\0\0" * n for n in range(12)] + [b"\4\0\0\0" * n for n in range(12)] + [b""] * 3
    small_datasets.write(
        [record(f"{n:02}", content=str(n)) for n in range(len(values))], tmp_path, read=lambda text: values[int(text)]
    )
    assert list(open_split(tmp_path / "train")) == values


@pytest.mark.parametrize("options", [{"compression": "snappy"}, {"use_dictionary": True}], ids=["compressed", "coded"])
def test_contents_of_others_parquet_are_copied_and_removed(
    tmp_path: Path, options: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    split = write(tmp_path / "dataset")
    for file in shards.shard_files(split)[::2]:
        pq.write_table(pq.read_table(file, partitioning=None), file, **options)
    opened = check(split)
    assert "contents are compressed in" in capsys.readouterr().out
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    expected = list(opened)
    if hasattr(os, "fork"):  # a process of a DataLoader leaves the files to the others
        context = multiprocessing.get_context("fork")
        child = context.Process(target=opened.__getitem__, args=(0,))
        child.start()
        child.join()
    assert list(pickle.loads(pickle.dumps(opened))) == expected
    del opened
    assert list((tmp_path / "tmp").iterdir()) == []


def test_contents_without_pread_or_with_many_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = write(tmp_path)
    expected = list(open_split(split))
    monkeypatch.setattr(contents, "OPEN_FILES", 2)
    opened = open_split(split)
    assert list(opened) == expected and len(opened._opened) == 2
    monkeypatch.delattr(os, "pread")  # Windows
    opened = open_split(split)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(opened.__getitem__, range(300))) == expected
    assert opened._opened == {}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_contents_are_read_by_other_processes(tmp_path: Path, method: str) -> None:
    opened = open_split(write(tmp_path))
    expected = [opened[index] for index in range(300)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(opened.__getitem__, range(300)) == expected


def test_open_split_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="dvc repro prepare"):
        open_split(tmp_path)
    split = write(tmp_path)
    file = shards.shard_files(split)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(ProjectError, match=rf"{file.name} is damaged[\s\S]*dvc repro --force prepare"):
        open_split(split)
    file.write_bytes(b"")
    with pytest.raises(ProjectError, match=rf"{file.name} is damaged"):
        open_split(split)
    row = {"record_id": ["r"], "subject_id": ["s"], "label": ["a"], "image": [b"x"]}
    for column in ("label", "image"):
        pq.write_table(pa.table({name: values for name, values in row.items() if name != column}), file)
        with pytest.raises(ProjectError, match=rf"{file.name} is damaged: .*{column}"):
            open_split(split)


def test_open_split_of_broken_bytes_gives_other_bytes_or_names_the_shard(tmp_path: Path) -> None:
    split = write(tmp_path, 20, 200)
    files = shards.shard_files(split)
    file = files[0]
    whole, draw = file.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        place = draw.choice([draw.randrange(len(whole)), draw.randrange(len(whole) - 900, len(whole))])
        broken[place] = draw.randrange(256)
        file.write_bytes(broken)
        try:
            opened = open_split(split)
            table = pa.concat_tables((shards.read_shard(file) for file in files), promote_options="permissive")
            assert list(opened) == table.sort_by("record_id")["image"].to_pylist()
        except ProjectError as error:
            assert f"{file.as_posix()} is damaged" in error.problem
            refused += 1
    assert 0 < refused < 300


def test_open_split_with_a_record_without_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    row = {"record_id": ["r"], "subject_id": ["s"], "label": ["a"], "image": pa.array([None], pa.large_binary())}
    pq.write_table(pa.table(row), tmp_path / "train" / "shard-000.parquet")
    with pytest.raises(ProjectError, match="is damaged: a record has no content"):
        open_split(tmp_path / "train")


def test_contents_of_a_file_that_shrank_or_went_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = write(tmp_path)
    opened, other = open_split(split), open_split(split)
    files = shards.shard_files(split)
    for file in files:
        os.truncate(file, 100)
    with pytest.raises(ProjectError, match=r"was changed while it was read\nFix: change .*, then: dvc repro"):
        list(opened)
    for file in files:
        file.unlink()
    with pytest.raises(ProjectError, match=r"can't be read: No such file or directory\nFix: dvc repro$"):
        list(other)
