"""Reading curves while they are written."""

from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.tracking.run_files import CURVES, LINEAGE, Curves, read_facts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A curve with its header and two rows."""
    path = tmp_path / CURVES / "train" / "loss.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"timestamp\tstep\tloss\n100\t0\t0.5\n101\t1\tnan\n")
    return path


def test_new_rows_half_a_row_waits_for_its_end(tmp_path: Path, path: Path) -> None:
    curves = Curves(tmp_path, 0)
    for row in curves.new_rows():
        curves.done(row)
    with path.open("ab") as file:
        file.write(b"102\t2\t0.2")
    assert list(curves.new_rows()) == []
    with path.open("ab") as file:
        file.write(b"5\n")
    (row,) = curves.new_rows()
    assert (row.name, row.timestamp, row.step, row.value) == ("train/loss", 102, 2, 0.25)


def test_new_rows_that_were_not_done_come_again(tmp_path: Path, path: Path) -> None:
    curves = Curves(tmp_path, 0)
    first, second = curves.new_rows()
    curves.done(first)
    (again,) = curves.new_rows()
    assert again.step == second.step


def test_new_rows_row_that_was_cut_off_is_left_out(tmp_path: Path, path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"102\n103\t3\t0.1\n")
    assert [row.step for row in Curves(tmp_path, 0).new_rows()] == [0, 1, 3]


def test_new_rows_without_times_get_the_same_ones_each_time(tmp_path: Path, path: Path) -> None:
    path.write_bytes(b"step\tloss\n0\t0.5\n1\twarm up\n")
    assert [(row.timestamp, row.value) for row in Curves(tmp_path, 5000).new_rows()] == [(5000, 0.5), (5001, "warm up")]


def test_read_facts_without_a_run_or_of_a_damaged_one_says_what_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=r"no run in reports/train\nFix: dvc repro train, or dvc pull train"):
        read_facts()
    LINEAGE.parent.mkdir(parents=True)
    LINEAGE.write_text("{", encoding="utf-8")
    with pytest.raises(
        ProjectError, match=r"is damaged\nFix: dvc checkout --force reports/train; then the same command"
    ):
        read_facts()
