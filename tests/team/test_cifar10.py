"""CIFAR-10 from a server that has something else."""

import functools
import http.server
import threading
from pathlib import Path

import pytest
from mlops import ProjectError
from team.data import cifar10
from torchvision.datasets import CIFAR10


def test_records_wrong_download_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    cifar10._part.cache_clear()
    (tmp_path / "other.tar.gz").write_bytes(b"the log-in page of a hotel")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/other.tar.gz")
        with pytest.raises(ProjectError, match="has not the published checksum") as error:
            next(cifar10.records())
        server.shutdown()
    assert error.value.fix == f"delete {(tmp_path / 'data/download').as_posix()}, and run again"
