"""A team's own images: from a new project to a registered model, and back from it to the images."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import BakedProject, copied, made_once, new_project
from ..projects import clone, commit, edit, executed, lock, out_md5, read, runs

SUBJECTS = [f"{number:05}" for number in range(30)]  # as hospitals write them: not numbers


@pytest.fixture
def own_images(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> BakedProject:
    """A project for one's own images, with images, their list and the consents, as docs/data.md says; to change."""
    return copied(made_once(tmp_path_factory, "own-images", make), tmp_path)


def make(folder: Path) -> None:
    """Make the project below a folder."""
    made = new_project(folder, dataset="folder", project_name="Own Images")
    made.run("git", "config", "user.name", "Test")
    made.run("git", "config", "user.email", "test@example.org")
    made.run("python", "-m", "mlops", "setup")
    raw = made.path / "data/raw"
    (raw / "images").mkdir(parents=True)
    rows = [("record_id", "subject_id", "label", "path")]
    for number in range(120):
        label, subject = ("dark", "bright")[number % 2], SUBJECTS[number // 4]
        pixels = np.random.default_rng(number).integers(0, 80, (24, 16, 3), dtype=np.uint8) + 150 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(raw / f"images/{number}.png")
        rows.append((f"NA{number}", subject, label, f"images/{number}.png"))
    write(raw / "records.csv", rows)
    made.run("python", "-m", "mlops", "consent", "add", "--at", "2026-01-01T00:00:00Z", *SUBJECTS)
    made.run("dvc", "add", "--quiet", "data/raw")
    for old, new in (
        ("image_px: 32", "image_px: 8"),
        ("epochs: 15", "epochs: 3"),
        ("batch_size: 64", "batch_size: 16"),
    ):
        edit(made, "params.yaml", old, new)
    commit(made, "Our images")


def write(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


INKS = {"green": (60, 151, 60), "red": (200, 80, 60), "blue": (90, 103, 230)}  # of the same shade of gray


def draw(raw: Path, mode: str) -> None:
    """Draw 180 images, in a folder for each label, which only colour tells apart."""
    for number in range(180):
        random = np.random.default_rng(number)
        label = list(INKS)[number % 3]
        brightness = random.integers(-20, 21) + random.integers(-5, 6, (24, 32, 1))
        (raw / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray((INKS[label] + brightness).astype(np.uint8)).convert(mode).save(raw / label / f"{number}.png")


BY_HAND = {  # what stands for a command that installs packages, or needs them on the PATH
    "make setup": "python -m mlops setup",
    "source .venv/bin/activate": "true",
    "make repro": "dvc repro",
}


@pytest.mark.skipif(os.name == "nt", reason="the steps are typed into a POSIX shell")
def test_steps_that_are_printed_lead_from_folders_of_images_to_a_good_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a new user would: nothing is edited."""
    made = new_project(tmp_path, dataset="folder", lineage="dataset")
    printed = [line.strip() for line in capfd.readouterr().out.split("Next:")[1].splitlines() if line.strip()]
    for part, value in (("name", "Test"), ("email", "test@example.org")):
        made.run("git", "config", f"user.{part}", value)
    draw(made.path / "data/raw", "RGB")
    assert printed[0] == f"cd {made.path.name}"
    for command in (line for line in printed[1:] if not line.startswith("#")):
        output = made.run("sh", "-c", BY_HAND.get(command, command)).stdout
    assert "Images: colour, 3 channels, 32 x 32 pixels\n" in output
    accuracy = read(made, "reports/metrics.json")["test_acc"]
    assert accuracy > 0.9
    line = next(line for line in output.splitlines() if line.startswith("test_acc "))
    assert line.startswith(f"test_acc {accuracy:.4f} is 0.") and " above 0." in line and "majority: always '" in line
    assert read(made, "reports/register.json")["version"] == 1
    assert made.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date.", "with the salt as chosen"
    changed = made.run("git", "diff", "--unified=0", "params.yaml").stdout.splitlines()[5:]
    assert [line.split(":")[0] for line in changed] == ["-  salt", "+  salt"]
    present, best = (made.run("python", "-m", "mlops", "data", "split", *more).stdout for more in ([], ["--suggest"]))
    assert best.startswith("Of 1000 salts, ") and best.endswith(present), "it is the best one already"
    assert present.splitlines()[0].split() == ["train", "val", "test"]
    assert sum(map(int, present.splitlines()[2].split()[1:])) == 180


@pytest.mark.slow
def test_the_same_images_in_gray_teach_nothing_and_nothing_is_registered(tmp_path: Path) -> None:
    made = new_project(tmp_path, dataset="folder", lineage="dataset")
    made.run("git", "config", "user.name", "Test")
    made.run("git", "config", "user.email", "test@example.org")
    made.run("python", "-m", "mlops", "setup")
    draw(made.path / "data/raw", "L")
    made.run("dvc", "add", "--quiet", "data/raw")
    commit(made, "Our images")
    failed = made.run("dvc", "repro", check=False)
    assert "Images: gray, 1 channel, 32 x 32 pixels\n" in failed.stdout
    line = next(line for line in failed.stderr.splitlines() if "not good enough" in line)
    assert "register: test_acc 0." in line and " below 0." in line and "majority: always '" in line
    assert not (made.path / "reports/register.json").exists()


@pytest.mark.slow
def test_own_images_are_learned_and_an_opt_out_is_out(own_images: BakedProject) -> None:
    own_images.run("dvc", "repro")
    assert read(own_images, "reports/manifest.json")["records"] == 120
    own_images.run("python", "-m", "mlops", "data", "export", "exported")
    assert len(list((own_images.path / "exported").rglob("*.png"))) == 120
    first = commit(own_images, "First model")
    own_images.run("python", "-m", "mlops", "consent", "revoke", "00007")
    # The image of someone who withdrew may be erased at once: nothing reads it any more.
    (own_images.path / "data/raw/images/28.png").unlink()
    own_images.run("dvc", "add", "--quiet", "data/raw")
    assert executed(own_images.run("dvc", "repro").stdout) == ["prepare", "manifest", "train", "register"]
    assert read(own_images, "reports/prepare.json")["excluded"] == 4
    params = runs(own_images)[read(own_images, "reports/run.json")["run"]].data.params
    assert params["dataset_md5"] == out_md5(lock(own_images), "data/dataset")
    assert params["dataset_md5"] != out_md5(lock(own_images, first), "data/dataset")
    restored = clone(own_images, own_images.path.parent / "clone", params["data_git_commit_id"])
    for name in ("data/consent.csv", "data/raw/records.csv", "data/raw/images/5.png"):
        assert (restored.path / name).read_bytes() == (own_images.path / name).read_bytes()


@pytest.mark.parametrize(
    ("lines", "broken", "problems"),
    [
        (
            ("NA3,00001,dark,images/5.png", "x1,00001,,images/5.png", "x2,00001 ,dark,images/5.png"),
            {},
            ("'NA3' was given before", "label is empty", "write '00001'"),
        ),
        (
            ("x1,00001,dark,../../params.yaml",),
            {5: None, 6: b"no image", 7: 500},
            ("'../../params.yaml' is not a file inside", "'images/5.png' can't be read", "'images/6.png' is damaged",
             "'images/7.png' is damaged"),
        ),
    ],
    ids=["rows", "images"],
)  # fmt: skip
def test_bad_input_is_told_whole_and_nothing_is_half_there(
    own_images: BakedProject, lines: Sequence[str], broken: dict[int, bytes | int | None], problems: Sequence[str]
) -> None:
    raw = own_images.path / "data/raw"
    with (raw / "records.csv").open("a", encoding="utf-8", newline="") as file:
        file.write("".join(f"{line}\r\n" for line in lines))
    for number, content in broken.items():
        image = raw / f"images/{number}.png"
        if content is None:
            image.unlink()
        else:  # other bytes, or its own cut short
            image.write_bytes(content if isinstance(content, bytes) else image.read_bytes()[:content])
    failed = own_images.run("python", "-m", "mlops", "stage", "prepare", check=False)
    assert failed.returncode == 2
    for problem in (*problems, "Fix: "):
        assert problem in failed.stderr
    assert not (own_images.path / "data/dataset").exists()
    assert not (own_images.path / "reports/prepare.json").exists()
