"""Your own images: what is kept byte for byte, and what is refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from mlops import ProjectError, Record, read_records, with_consent, write_dataset
from PIL import Image
from team.data import folder

HEADER = "record_id,subject_id,label,path\n"


def encoded(kind: str) -> bytes:
    """An image of noise, which no format can make so small that half of it is all of it."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype="uint8")
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    place = tmp_path / "raw"
    (place / "images").mkdir(parents=True)
    (place / "images" / "a.jpg").write_bytes(encoded("jpeg"))
    return place


def load(raw: Path, lines: str) -> list[Record]:
    (raw / "records.csv").write_text(HEADER + lines, encoding="utf-8")
    return read_records(folder.records(raw), "folder")


def write(records: list[Record], work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    write_dataset({"train": records}, 1, with_consent(records, "not_required"))


@pytest.mark.parametrize("name", ["00123", "NA", "=cmd()", "ünï-日本", '"a,b"'])
def test_records_unusual_ids_survive(raw: Path, name: str) -> None:
    (record,) = load(raw, f"{name},{name},NA,images/a.jpg\n")
    assert (record.record_id, record.subject_id, record.label) == (name.strip('"'), name.strip('"'), "NA")


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


OUTSIDE = ["../secret.png", "images/../../secret.png", "/etc/passwd", "link.png", "up/secret.png", ""]


@pytest.mark.parametrize("path", OUTSIDE)
def test_read_image_path_outside_is_refused(raw: Path, path: str) -> None:
    (raw.parent / "secret.png").write_bytes(encoded("png"))
    try:
        (raw / "link.png").symlink_to(raw.parent / "secret.png")
        (raw / "up").symlink_to(raw.parent)
    except OSError:
        pytest.skip("this system allows no symbolic links")
    (record,) = load(raw, f"r,s,cat,{path}\n")
    with pytest.raises(ProjectError, match=r"line 2: path .* is not a file inside"):
        record.read()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff"])
def test_read_image_cut_short_is_refused(raw: Path, kind: str) -> None:
    content = encoded(kind)
    (raw / "whole").write_bytes(content)
    (raw / "half").write_bytes(content[: len(content) // 2])
    whole, half = load(raw, "r,s,cat,whole\nt,s,cat,half\n")
    assert whole.read() == content
    with pytest.raises(ProjectError, match="line 3: 'half' is damaged or not an image"):
        half.read()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "only a head"])
def test_read_image_other_bytes_are_refused(raw: Path, content: bytes) -> None:
    (raw / "x.png").write_bytes(content)
    (record,) = load(raw, "r,s,cat,x.png\n")
    with pytest.raises(ProjectError, match=r"line 2: 'x.png' is damaged or not an image"):
        record.read()


@pytest.mark.parametrize("kind", ["gif", "eps"])
def test_read_image_in_another_format_is_refused(raw: Path, kind: str) -> None:
    (raw / "x.png").write_bytes(encoded(kind))
    (record,) = load(raw, "r,s,cat,x.png\n")
    with pytest.raises(ProjectError, match=r"line 2: 'x.png' is damaged or not an image in one of the formats BMP, "):
        record.read()


def test_read_image_with_32_bits_is_refused_with_the_way_out(raw: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, dtype="float32")).save(raw / "x.tiff")
    (record,) = load(raw, "r,s,cat,x.tiff\n")
    with pytest.raises(ProjectError, match=r"line 2: 'x.tiff' has 32-bit.* save it with 8 or 16 bits"):
        record.read()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_write_odd_files_are_all_named_and_none_is_waited_for(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (raw / "loop.png").symlink_to("loop.png")
    (raw / "self").symlink_to("self")
    os.mkfifo(raw / "pipe.png")
    paths = ("loop.png", "self/x.png", "pipe.png", "images/a.jpg/x", "n" * 300, "images", "images/")
    lines = "".join(f"r{number},s,cat,{path}\n" for number, path in enumerate(paths))
    problems = []
    for record in load(raw, lines):
        with pytest.raises(ProjectError) as error:
            record.read()
        problems.append(error.value.problem)
    for number, (path, problem) in enumerate(zip(paths, problems, strict=True), start=2):
        assert f"line {number}: {path!r} can't be read: " in problem
    with pytest.raises(ProjectError, match=f"bad records: {len(paths)}"):
        write(load(raw, lines), tmp_path, monkeypatch)
