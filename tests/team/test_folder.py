"""Your own images: what is kept byte for byte, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from mlops import ProjectError, read_records, read_split, split_by_subject, write_dataset
from mlops.records.splits import SplitParams
from PIL import Image
from team.data import folder

PARAMS = "data: {source: folder, folders: label, fraction: 1.0, shards: 1, consent: not_required}\n"


def encoded(kind: str) -> bytes:
    """An image of noise, which no format can make so small that half of it is all of it."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype="uint8")
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the images; the working directory is the project."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    path = Path("data/raw")
    path.mkdir(parents=True)
    return path


def load(raw: Path, lines: str) -> list[tuple[str, str, str]]:
    """Return id, subject and label of each record of a list."""
    (raw / "records.csv").write_text(f"record_id,subject_id,label,path\n{lines}", encoding="utf-8")
    with read_records(folder) as records:
        return list(records.table.execute("SELECT record_id, subject_id, label FROM records"))


@pytest.mark.parametrize("name", ["00123", "NA", "=cmd()", "ünï-日本", '"a,b"'])
def test_records_unusual_ids_survive(raw: Path, name: str) -> None:
    assert load(raw, f"{name},{name},NA,images/a.jpg\n") == [(name.strip('"'), name.strip('"'), "NA")]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("r,s,cat,images/a.jpg\nr,t,cat,images/a.jpg\n", "line 3: record_id 'r' was given before, at .* line 2"),
        ("r,s,,images/a.jpg\n", "line 2: label is empty"),
        ("r,s ,cat,images/a.jpg\n", "line 2: subject_id 's ' has hidden .* write 's'"),
        ("r,s,cat\n", "line 2 has 3 cells, the header has 4"),
        ("", "holds no rows"),
    ],
    ids=["duplicate", "label missing", "trailing space", "cell missing", "no rows"],
)
def test_records_bad_row_is_refused_with_its_line(raw: Path, lines: str, problem: str) -> None:
    with pytest.raises(ProjectError, match=problem):
        load(raw, lines)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff"])
def test_read_image_cut_short_is_refused(raw: Path, kind: str) -> None:
    content = encoded(kind)
    (raw / "whole").write_bytes(content)
    (raw / "half").write_bytes(content[: len(content) // 2])
    assert folder.read("whole") == content
    with pytest.raises(ProjectError, match="'half' is damaged or not an image"):
        folder.read("half")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "only a head"])
def test_read_image_other_bytes_are_refused(raw: Path, content: bytes) -> None:
    (raw / "x.png").write_bytes(content)
    with pytest.raises(ProjectError, match=r"'x.png' is "):
        folder.read("x.png")


@pytest.mark.parametrize(
    ("content", "problem", "fix"),
    [
        (b"", "'cat/x.jpg' is empty, 0 bytes", "correct the file, or take it out of data/raw"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "'cat/x.jpg' is HEIC", "convert it to JPEG or PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS", "git lfs pull"),
        (b"{}", "is damaged or not an image in one of the formats BMP, JPEG, PNG", "correct the file, or take it out"),
    ],
    ids=["empty", "HEIC", "Git LFS", "JSON"],
)
def test_file_that_is_no_image_is_named_for_what_it_is(raw: Path, content: bytes, problem: str, fix: str) -> None:
    (raw / "cat").mkdir()
    (raw / "cat/x.jpg").write_bytes(content)
    with pytest.raises(ProjectError) as error:
        folder.read("cat/x.jpg")
    assert problem in error.value.problem and error.value.fix.startswith(fix)


@pytest.mark.parametrize("kind", ["gif", "eps"])
def test_read_image_in_another_format_is_refused(raw: Path, kind: str) -> None:
    (raw / "x.png").write_bytes(encoded(kind))
    with pytest.raises(ProjectError, match=r"'x.png' is damaged or not an image in one of the formats BMP, "):
        folder.read("x.png")


def test_read_image_with_32_bits_is_refused_with_the_way_out(raw: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, dtype="float32")).save(raw / "x.tiff")
    with pytest.raises(ProjectError, match=r"'x.tiff' has 32-bit.* save it with 8 or 16 bits"):
        folder.read("x.tiff")


def test_folders_of_labels_become_a_dataset_with_the_files_own_bytes(raw: Path) -> None:
    for number in range(12):
        path = raw / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded("jpeg"))
    with read_records(folder) as records:
        split_by_subject(records, SplitParams(salt="1", val=0.3, test=0.3))
        write_dataset(records, 1)
    rows = [row for split in ("train", "val", "test") for row in read_split(Path("data/dataset", split)).to_pylist()]
    assert {row["label"] for row in rows} == {"cat", "dog"} and len(rows) == 12
    assert {row["image"] for row in rows} == {encoded("jpeg")}
