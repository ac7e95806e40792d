"""A new project on images whose labels only colour tells apart: its defaults learn them, and say by how much."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import BakedProject, new_project
from ..projects import commit

INKS = {"green": (60, 151, 60), "red": (200, 80, 60), "blue": (90, 103, 230)}
"""Colours of the same shade of gray."""


def project_of_inks(folder: Path, mode: str) -> BakedProject:
    """Make a project with 180 images of 60 subjects, as docs/data.md says, and nothing else of its own."""
    project = new_project(folder, dataset="folder", compute="local", lineage="dataset")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("python", "-m", "mlops", "setup")
    raw = project.path / "data/raw"
    raw.mkdir(exist_ok=True)
    rows = [("record_id", "subject_id", "label", "path")]
    for number in range(180):
        random = np.random.default_rng(number)
        label = str(random.choice(list(INKS)))
        brightness = random.integers(-20, 21) + random.integers(-5, 6, (24, 24, 1))
        Image.fromarray((INKS[label] + brightness).astype(np.uint8)).convert(mode).save(raw / f"{number}.png")
        rows.append((f"r{number}", f"s{number // 3}", label, f"{number}.png"))
    with (raw / "records.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    project.run("dvc", "add", "--quiet", "data/raw")
    commit(project, "Images")
    return project


@pytest.mark.slow
def test_the_same_images_in_gray_teach_nothing_and_nothing_is_registered(tmp_path: Path) -> None:
    project = project_of_inks(tmp_path, "L")
    failed = project.run("dvc", "repro", check=False)
    assert "Images: gray, 1 channel, 32 x 32 pixels\n" in failed.stdout
    line = next(line for line in failed.stderr.splitlines() if "not good enough" in line)
    assert "register: test_acc 0." in line and " below 0." in line and "majority: always '" in line
    assert not (project.path / "reports/register.json").exists()
