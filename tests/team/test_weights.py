"""Pretrained weights: downloaded once and checked, or a file; another network's are refused."""

import functools
import hashlib
import http.server
import runpy
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlops import ProjectError
from safetensors.torch import save_file
from team.model.networks import build, head_parameters
from team.model.weights import Preset, Weights, find_weights, list_weights, load_weights
from torchvision.models import MobileNet_V3_Small_Weights as Published
from torchvision.models import mobilenet_v3_small

ARCH = "mobilenet_v3_small"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of weights, named and served as torchvision's are; the working directory is empty."""
    torch.manual_seed(0)
    torch.save(mobilenet_v3_small().state_dict(), tmp_path / "new.pth")
    digest = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
    (tmp_path / "web").mkdir()
    path = (tmp_path / "new.pth").rename(tmp_path / f"web/mobilenet_v3_small-{digest[:8]}.pth")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=path.parent)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(Published.IMAGENET1K_V1.value, "url", f"http://127.0.0.1:{server.server_port}/{path.name}")
        yield path
        server.shutdown()


@pytest.mark.parametrize("name", ["imagenet", "IMAGENET1K_V1", "DEFAULT"])
def test_weights_of_torchvision_are_downloaded_once_and_have_a_hash(file: Path, name: str, tmp_path: Path) -> None:
    first = find_weights(ARCH, name, None)
    content = file.read_bytes()
    file.unlink()
    assert find_weights(ARCH, name, None) == first
    digest = hashlib.sha256(content).hexdigest()
    assert first is not None and first.file.is_relative_to(tmp_path / "torch") and first.file.read_bytes() == content
    url = Published.IMAGENET1K_V1.url
    facts = {"pretrained": "MobileNet_V3_Small_Weights.IMAGENET1K_V1", "pretrained_url": url}
    assert first.facts == {**facts, "pretrained_sha256": digest}
    assert first.preset == Preset((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, 224, "bilinear")


def test_a_damaged_download_is_refused_before_and_after(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ProjectError, match=r"can't be downloaded: invalid hash value[\s\S]*dvc import-url http://127"):
        find_weights(ARCH, "imagenet", None)
    file.write_bytes(content)
    complete = find_weights(ARCH, "imagenet", None)
    assert complete
    complete.file.write_bytes(content[:-1])
    with pytest.raises(
        ProjectError, match=r"pth is damaged: its SHA-256 is .*\nFix: delete .*pth, then: dvc repro train"
    ):
        find_weights(ARCH, "imagenet", None)


def test_without_internet_it_says_so(file: Path) -> None:
    file.unlink()
    with pytest.raises(ProjectError, match=r"can't be downloaded: HTTP Error 404[\s\S]*connect to the internet"):
        find_weights(ARCH, "imagenet", None)


def test_a_file_takes_the_place_of_the_download(file: Path, tmp_path: Path) -> None:
    copy = Path(file.name)
    copy.write_bytes(file.read_bytes())
    named, alone = find_weights(ARCH, "imagenet", str(copy)), find_weights(ARCH, None, str(copy))
    assert named and alone and named.sha256 == alone.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert not (tmp_path / "torch").exists()
    assert named.name == "MobileNet_V3_Small_Weights.IMAGENET1K_V1" and named.preset
    assert alone.facts == {"pretrained": str(copy), "pretrained_sha256": alone.sha256} and alone.preset is None
    copy.write_bytes(b"damaged")
    fix = rf"git checkout {copy}\.dvc, then: dvc pull --force {copy}; or name another"
    with pytest.raises(ProjectError, match=rf"is damaged: .*\nFix: {fix}"):
        find_weights(ARCH, "imagenet", str(copy))
    assert find_weights(ARCH, None, None) is None


@pytest.mark.parametrize(
    ("arch", "name", "message"),
    [
        (
            ARCH,
            "IMAGENET1K_V9",
            r"no weights 'IMAGENET1K_V9' of mobilenet_v3_small[\s\S]*one of IMAGENET1K_V1, DEFAULT",
        ),
        ("vit_h_14", "imagenet", r"no weights 'IMAGENET1K_V1' of vit_h_14[\s\S]*IMAGENET1K_SWAG_E2E_V1"),
        ("small_cnn", "imagenet", r"no weights .* of small_cnn[\s\S]*leave train.weights empty"),
    ],
)
def test_weights_that_do_not_exist_name_those_that_do(arch: str, name: str, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        find_weights(arch, name, None)


@pytest.mark.parametrize("name", ["imagenet", None])
def test_an_unknown_network_is_told_before_anything_is_read(name: str | None) -> None:
    with pytest.raises(ProjectError, match=r"near are .*mobilenet_v3_small[\s\S]*Fix: correct params.yaml:train.arch"):
        find_weights("mobilenet_v3", name, None)


def load(path: Path, arch: str = ARCH, classes: int = 3) -> torch.nn.Module:
    module: torch.nn.Module = build(arch, classes, 3)
    load_weights(module, Weights(path, "", path.name), head_parameters(module, arch, classes, 3))
    return module


def test_safetensors_give_the_same_network_as_torch_s_own_file(tmp_path: Path) -> None:
    state = mobilenet_v3_small().state_dict()
    torch.save(state, tmp_path / "x.pth")
    save_file(state, tmp_path / "x.safetensors")
    pickled, plain = (load(tmp_path / name).state_dict() for name in ("x.pth", "x.safetensors"))
    unlike = [name for name in pickled if not torch.equal(pickled[name], plain[name])]
    assert unlike == ["classifier.3.weight"], "of the new last layer, whose biases are 0"


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "pickle": (
        "x.pth",
        lambda path: torch.save({"a": pytest.raises}, path),
        r"x.pth holds no weights: it is damaged, of another format, or holds code\nFix: git ch",
    ),
    "no file of torch's": ("x.pth", lambda path: path.write_bytes(b"no"), "x.pth holds no weights"),
    "cut short": ("x.safetensors", lambda path: path.write_bytes(b"no"), "x.safetensors holds no weights"),
    "no tensors": ("x.pth", lambda path: torch.save(3, path), "x.pth holds no weights"),
    "smaller": ("x.pth", lambda path: torch.save(build("resnet18", 9, 3).state_dict(), path), r"layer1.2.* is absent"),
    "larger": (
        "x.pth",
        lambda path: torch.save(build("resnet50", 9, 3).state_dict(), path),
        r"is \(64, 64, 1, 1\), not",
    ),
}


@pytest.mark.parametrize(("name", "write", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_weights_of_another_network_or_damaged_are_refused(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(ProjectError, match=message):
        load(tmp_path / name, "resnet34")


def test_a_larger_network_s_weights_do_not_pass_as_a_smaller_one_s(tmp_path: Path) -> None:
    torch.save(build("resnet34", 9, 3).state_dict(), tmp_path / "x.pth")
    with pytest.raises(ProjectError, match=r"another network: layer1.2.* not absent\nFix: set params.yaml:train.arch"):
        load(tmp_path / "x.pth", "resnet18")


def test_the_command_lists_networks_with_their_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["weights", "resnet50", "small_cnn"])
    with warnings.catch_warnings(action="ignore"):  # it is imported already
        runpy.run_module("team.model.weights", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["resnet50", "  IMAGENET1K_V1  https://download.pytorch.org/models/resnet50-0676ba61.pth"]
    assert lines[-1] == "small_cnn"
    assert list(list_weights("resnet50")) == ["IMAGENET1K_V1", "IMAGENET1K_V2", "DEFAULT"]
