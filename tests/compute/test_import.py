"""Images that lie in a bucket already: `dvc import-url`, and a job that reads them."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import BakedProject
from ..projects import clone, commit, edit, lock, out_md5
from ..servers.s3 import BUCKET, ObjectStore
from .laptops import Laptop, as_jobs, contents

pytestmark = pytest.mark.slow


@pytest.fixture
def empty(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laptop]:
    """A project for one's own images."""
    laptop = Laptop(tmp_path / tmp_path.parent.name, object_store, apart=False, dataset="folder", lineage="dataset")
    laptop.enter(monkeypatch)
    edit(laptop.project, "params.yaml", "  salt:", "  salt: '1'")
    commit(laptop.project, "A salt, which a job can't choose")
    yield laptop
    laptop.close()


@pytest.fixture
def images(empty: Laptop, object_store: ObjectStore) -> BakedProject:
    """The same, with 60 images in the bucket, below `<its prefix>/images`."""
    upload(empty, object_store, range(60))
    return empty.project


def test_versions_of_objects_are_brought_to_a_job_and_a_clone_gets_them_from_their_bucket(
    empty: Laptop, object_store: ObjectStore, tmp_path: Path
) -> None:
    bucket, project = "versioned", empty.project
    object_store.client.create_bucket(Bucket=bucket)
    object_store.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    upload(empty, object_store, range(60), bucket)
    url = f"s3://{bucket}/{empty.prefix}images"
    project.run("dvc", "import-url", "--quiet", "--version-aware", url, "data/raw")
    upload(empty, object_store, range(30, 90), bucket, shade=10)  # later versions, and more
    first = clone(project, tmp_path / "clone", commit(project, "Images"))
    assert contents(first.path / "data/raw") == contents(project.path / "data/raw")
    as_jobs(project, "prepare")
    by_job = out_md5(lock(project), "data/dataset")
    project.run("dvc", "repro", "--force", "--single-item", "prepare")
    assert out_md5(lock(project), "data/dataset") == by_job


def upload(laptop: Laptop, store: ObjectStore, numbers: range, bucket: str = BUCKET, shade: int = 100) -> None:
    """Put images into a bucket."""
    for number in numbers:
        file = io.BytesIO()
        pixels = np.full((8, 8, 3), shade + number, dtype="uint8")
        Image.fromarray(pixels).save(file, "png")
        key = f"{laptop.prefix}images/{('cat', 'dog')[number % 2]}/{number:02}.png"
        store.client.put_object(Bucket=bucket, Key=key, Body=file.getvalue())


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
