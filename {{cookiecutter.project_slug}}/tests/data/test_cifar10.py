"""CIFAR-10, in a small copy with the layout of the published one, and without a network."""

import hashlib
import http.server
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from mlops import ProjectError
from PIL import Image
from torchvision.datasets import CIFAR10

from {{ cookiecutter.package_name }}.data import cifar10


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the working directory, in which nothing was downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    cifar10._part.cache_clear()
    return tmp_path


@pytest.fixture
def small(project: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Two files of three photographs; returns them as (6, 32, 32, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype="uint8")
    folder = project / "data/download" / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def dump(name: str, content: object) -> str:
        (folder / name).write_bytes(data := pickle.dumps(content))
        return hashlib.md5(data).hexdigest()

    def batch(part: np.ndarray) -> dict[str, object]:
        return {"data": part.reshape(3, -1), "labels": [0, 1, 1]}

    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", dump("data_batch_1", batch(pixels[:3]))]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", dump("test_batch", batch(pixels[3:]))]])
    meta = {**CIFAR10.meta, "md5": dump("batches.meta", {"label_names": ["airplane", "truck"]})}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return pixels.transpose(0, 2, 3, 1)


def test_records_are_both_parts_with_their_positions(small: np.ndarray) -> None:
    records = list(cifar10.records())
    names = [f"cifar10-{part}-0000{n}" for part in ("train", "test") for n in range(3)]
    assert [record.record_id for record in records] == names
    assert [record.label for record in records] == ["airplane", "truck", "truck"] * 2
    assert all(record.subject_id == record.record_id for record in records)
    for record, pixels in zip(records, small, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(cifar10.read(record.content)))), pixels)


def test_records_offline_says_so_and_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on this port: what a machine without a network sees at once.
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(ProjectError, match="could not be downloaded") as error:
        next(cifar10.records())
    assert "params.yaml:data.source: digits" in error.value.fix


def test_records_of_a_download_that_is_damaged_says_to_delete_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "cifar.tar.gz").write_bytes(b"cut short")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        with pytest.raises(ProjectError, match="data/download has not the published checksum") as error:
            next(cifar10.records())
        server.shutdown()
    assert error.value.fix == "delete data/download, and run again"
