"""Pretrained weights as a file under DVC, as docs/training.md says: for jobs without internet, and for later."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from ..conftest import BakedProject
from ..projects import clone, commit, edit, read


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of weights that are named as torchvision's are."""
    (tmp_path / "web").mkdir()
    torch.manual_seed(0)
    torch.save(mobilenet_v3_small().state_dict(), tmp_path / "web/new")
    name = f"mobilenet_v3_small-{hashlib.sha256((tmp_path / 'web/new').read_bytes()).hexdigest()[:8]}.pth"
    (tmp_path / "web/new").rename(tmp_path / "web" / name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "web")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()


@pytest.mark.slow
def test_weights_under_dvc_reach_a_job_without_internet_and_a_clone(
    project: BakedProject, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = f"data/weights/{Path(url).name}"
    (project.path / "data/weights").mkdir()
    project.run("dvc", "import-url", "--quiet", url, "data/weights/")
    edit(project, "params.yaml", "arch: small_cnn", "arch: mobilenet_v3_small")
    edit(project, "params.yaml", "  weights:  ", "  weights: imagenet ")
    edit(project, "params.yaml", "  weights_file: ", f"  weights_file: {file} ")
    edit(project, "params.yaml", "image_px: 8", "image_px: 32")
    edit(project, "params.yaml", "epochs: 15", "epochs: 1")
    refused = project.run("dvc", "repro", "train", check=False)
    assert f"train reads {file}, which dvc.yaml does not name" in refused.stderr
    edit(project, "dvc.yaml", "    params: [train]\n", f"      - {file}\n    params: [train]\n")
    commit(project, "Pretrained weights")
    monkeypatch.setenv("RUN_ON", "sandbox")
    project.run("dvc", "repro", "train")
    digest = hashlib.sha256((project.path / file).read_bytes()).hexdigest()
    facts = read(project, "reports/train/lineage.json")
    assert facts["pretrained_sha256"] == digest
    assert facts["pretrained"] == "MobileNet_V3_Small_Weights.IMAGENET1K_V1"
    assert not (tmp_path / "torch").exists(), "nothing was downloaded"
    project.run("dvc", "push", "--quiet")
    copied = clone(project, tmp_path / "clone", commit(project, "A model"))
    assert hashlib.sha256((copied.path / file).read_bytes()).hexdigest() == digest
    assert url in (copied.path / f"{file}.dvc").read_text(encoding="utf-8")
