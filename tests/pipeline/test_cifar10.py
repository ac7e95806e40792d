"""CIFAR-10 as published: its whole walkthrough, with an archive and ImageNet weights of the same format, made here."""

import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v3_small

from ..conftest import Bake, BakedProject
from ..projects import commit, edit, read
from ..walkthroughs import walk

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
PHOTOGRAPHS = 1000  # of a batch, not 10,000


def make_archive(folder: Path) -> dict[str, str]:
    """Write `cifar-10-python.tar.gz`, in which a label is a colour; return the MD5 of it and of its files."""
    random = np.random.default_rng(0)
    colours = random.permutation(np.stack(np.meshgrid([60, 120, 180], [60, 180], [60, 180])).reshape(3, -1).T)
    content: dict[str, bytes] = {"batches.meta": pickle.dumps({"label_names": list(LABELS)})}
    for name in BATCHES:
        labels = random.integers(0, len(LABELS), PHOTOGRAPHS)
        shades = random.integers(-25, 26, (PHOTOGRAPHS, 1, 32, 32), dtype=np.int16)
        pixels = (colours[labels][:, :, None, None] + shades).astype(np.uint8)
        content[name] = pickle.dumps({"data": pixels.reshape(PHOTOGRAPHS, -1), "labels": labels.tolist()})
    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    content["archive"] = (folder / "cifar-10-python.tar.gz").read_bytes()
    return {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in content.items()}


def accept(project: BakedProject, digests: dict[str, str]) -> None:
    """Let the project expect the archive's checksums in place of those of the published one."""
    lists = {"train_list": BATCHES[:5], "test_list": BATCHES[5:]}
    lines = [f"CIFAR10.{name} = {[[batch, digests[batch]] for batch in batches]}" for name, batches in lists.items()]
    lines += [f"CIFAR10.tgz_md5 = {digests['archive']!r}", f"CIFAR10.meta['md5'] = {digests['batches.meta']!r}"]
    line = "    from torchvision.datasets import CIFAR10\n"
    edit(project, f"{project.package}/data/cifar10.py", line, line + "".join(f"    {text}\n" for text in lines))


def make_weights(project: BakedProject, torch_home: Path) -> None:
    """Write weights that pass signals on, as trained ones do, where torch keeps what it downloads."""
    torch.manual_seed(0)
    network = mobilenet_v3_small()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the statistics are those of all images below
    with torch.no_grad():
        network(torch.randn(32, 3, 96, 96))
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    # The name of the file, and thus its address, has the beginning of its SHA-256.
    name = f"mobilenet_v3_small-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    (torch_home / "hub/checkpoints").mkdir(parents=True)
    (torch_home / "hub/checkpoints" / name).write_bytes(file.getvalue())
    line = "    from torchvision.models import get_model_weights\n"
    enum = 'get_model_weights("mobilenet_v3_small").IMAGENET1K_V1'
    change = f'    {enum}.value.url = "http://localhost/{name}"\n'
    edit(project, f"{project.package}/model/weights.py", line, line + change)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the walkthroughs are written for bash")
def test_walkthrough_from_5_to_10_percent_gives_what_it_shows(
    bake: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    project = bake(dataset="cifar10", compute="local")
    make_weights(project, tmp_path / "torch")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    accept(project, make_archive(project.path / "data/download"))
    commit(project, "Another archive")
    walk(project, "docs/dataset-walkthrough.md")
    model = read(project, "models/model/model.json")
    assert (model["arch"], model["channels"], sorted(model["classes"])) == ("mobilenet_v3_small", 3, list(LABELS))
    assert read(project, "reports/manifest.json")["records"] == pytest.approx(600, abs=80)
    assert read(project, "reports/metrics.json")["test_acc"] > 0.5
    facts = read(project, "reports/train/lineage.json")
    assert facts["pretrained"] == "MobileNet_V3_Small_Weights.IMAGENET1K_V1"
    (file,) = (tmp_path / "torch/hub/checkpoints").iterdir()
    assert facts["pretrained_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
