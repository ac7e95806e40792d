"""Images that lie in a bucket already: `dvc import-url`, and a job that reads them."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import BakedProject
from ..projects import commit, edit, lock, out_md5
from ..servers.s3 import BUCKET, ObjectStore
from .laptops import Laptop, as_jobs

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[BakedProject]:
    """A project for one's own images, of which 60 are in the bucket, below `<its prefix>/images`."""
    laptop = Laptop(tmp_path / tmp_path.parent.name, object_store, apart=False, dataset="folder", lineage="dataset")
    laptop.enter(monkeypatch)
    upload(laptop, object_store, range(60))
    edit(laptop.project, "params.yaml", "  salt:", "  salt: '1'")
    commit(laptop.project, "A salt, which a job can't choose")
    yield laptop.project
    laptop.close()


def upload(laptop: Laptop, store: ObjectStore, numbers: range) -> None:
    """Put images into the bucket."""
    for number in numbers:
        file = io.BytesIO()
        pixels = np.full((8, 8, 3), 100 + number, dtype="uint8")
        Image.fromarray(pixels).save(file, "png")
        key = f"{laptop.prefix}images/{('cat', 'dog')[number % 2]}/{number:02}.png"
        store.client.put_object(Bucket=BUCKET, Key=key, Body=file.getvalue())


def test_images_of_a_bucket_are_read_by_a_job(images: BakedProject) -> None:
    images.run("dvc", "import-url", "--quiet", read_url(images), "data/raw")
    commit(images, "Images")
    as_jobs(images, "prepare")
    by_job = out_md5(lock(images), "data/dataset")
    images.run("dvc", "repro", "--force", "--single-item", "prepare")
    assert out_md5(lock(images), "data/dataset") == by_job


def read_url(project: BakedProject) -> str:
    """Return the address of the images: beside the project's data."""
    config = (project.path / ".dvc/config").read_text(encoding="utf-8")
    remote = next(line.split("=")[1].strip() for line in config.splitlines() if "url" in line)
    return f"{remote}/images"
