"""Where a training computes, and in which precision; nothing here has a GPU, so its answers are made up."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  # with all of torch, before a test replaces a part of it
import pytest
import torch
from mlops.errors import ProjectError
from mlops.training import device as module
from mlops.training.device import build_fabric, check_precision, device_facts, find_device, unused_line
from torch import nn


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings, and torch afterwards as it was before."""
    for name in ("TRAIN_DEVICE", "STAGE_MACHINES"):
        monkeypatch.delenv(name, raising=False)
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(is_deterministic)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute on the CPU, also on a machine that has more."""
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, capability: tuple[int, int] = (9, 0), mps: bool = False) -> None:
    """Let the machine have GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_find_device_takes_the_first_that_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert find_device() == "cpu"
    gpus(monkeypatch, 0, mps=True)
    assert find_device() == "mps"
    gpus(monkeypatch, 1)
    assert find_device() == "cuda"
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    assert find_device() == "cpu"


@pytest.mark.parametrize(
    ("value", "error"),
    [("gpu", r"TRAIN_DEVICE is 'gpu'\nFix: .*cuda, mps, cpu"), ("cuda", r"TRAIN_DEVICE is cuda.*\nFix: .*=cpu")],
)
def test_find_device_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, error: str) -> None:
    gpus(monkeypatch, 0)
    monkeypatch.setenv("TRAIN_DEVICE", value)
    with pytest.raises(ProjectError, match=error):
        find_device()


@pytest.mark.parametrize(
    ("precision", "device", "capability", "error"),
    [
        ("fp16", "cpu", (9, 0), "fp16 needs a CUDA GPU"),
        ("fp16", "mps", (9, 0), "fp16 needs a CUDA GPU"),
        ("tf32", "cpu", (9, 0), "tf32 needs a CUDA GPU"),
        ("tf32", "cuda", (7, 5), "tf32 needs a CUDA GPU of compute capability 8.0"),
        ("bf16", "cuda", (7, 5), "bf16 needs .* not Tesla T4"),
    ],
)
def test_check_precision_that_the_device_lacks_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, precision: Any, device: str, capability: tuple[int, int], error: str
) -> None:
    gpus(monkeypatch, int(device == "cuda"), capability)
    with pytest.raises(ProjectError, match=rf"train.precision is {precision}.*{error}[\s\S]*train.precision: fp32"):
        check_precision(precision, device)


def test_build_fabric_of_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(
        ProjectError, match=r"3 processes .* 2 GPU.*\nFix: set params.yaml:train.processes: auto, or .*=cpu"
    ):
        build_fabric(processes=3)


@pytest.mark.parametrize(
    ("precision", "device"),
    [("fp32", "cpu"), ("bf16", "cpu"), ("fp32", "mps"), *((name, "cuda") for name in ("fp32", "tf32", "bf16", "fp16"))],
)
def test_check_precision_that_the_device_has_passes(
    monkeypatch: pytest.MonkeyPatch, precision: Any, device: str
) -> None:
    gpus(monkeypatch, 1)
    check_precision(precision, device)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_build_fabric_computes_in_the_precision_and_keeps_weights_in_fp32(
    cpu: None, precision: Any, dtype: torch.dtype
) -> None:
    fabric = build_fabric(threads=1, precision=precision)
    module, inner = nn.Linear(4, 2), []
    module.register_forward_hook(lambda *arguments: inner.append(arguments[2].dtype))
    wrapped = fabric.setup(module)
    assert wrapped(torch.ones(1, 4)).dtype == torch.float32
    assert (inner, module.weight.dtype) == ([dtype], torch.float32)


@pytest.mark.parametrize("deterministic", [True, False])
def test_build_fabric_sets_what_decides_about_bits(cpu: None, deterministic: bool) -> None:
    fabric = build_fabric(threads=2, deterministic=deterministic)
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    facts = device_facts(fabric)
    assert facts["device_name"]
    assert facts == {
        "device": "cpu",
        "device_name": facts["device_name"],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "precision": "fp32",
        "processes": 1,
        "threads": 2,
    }


def test_build_fabric_for_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    with pytest.raises(
        ProjectError, match=r"2 processes on a machine with 1 GPU[\s\S]*processes: auto.*TRAIN_DEVICE=cpu"
    ):
        build_fabric(processes=2)


def test_build_fabric_prints_nothing_and_torch_is_imported_by_then_only(cpu: None) -> None:
    code = (
        "import sys; from mlops.training import device, processes; print('torch' in sys.modules); device.build_fabric()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(module.__file__).parents[2], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("count", "device", "processes", "line"),
    [
        (4, "cuda", 4, None),
        (4, "cuda", 1, "3 of 4 GPUs are idle; params.yaml:train.processes: auto uses them all"),
        (4, "cpu", 1, "4 GPU(s) are idle: TRAIN_DEVICE is cpu. Unset it to use them"),
    ],
)
def test_unused_line_names_idle_gpus_and_what_uses_them(
    monkeypatch: pytest.MonkeyPatch, count: int, device: str, processes: int, line: str | None
) -> None:
    gpus(monkeypatch, count)
    assert unused_line(device, processes, 1) == line


def test_unused_line_names_gpus_that_torch_can_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [Path("/dev/nvidia0")])
    assert str(unused_line("cpu", 1, 1)).startswith(f"1 GPU(s) are idle: torch {torch.__version__} can't use them")


def test_unused_line_names_idle_cores_of_a_paid_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)), raising=False)
    assert unused_line("cpu", 1, 1) is None
    monkeypatch.setenv("STAGE_MACHINES", '{"instance_type": "ml.m5.xlarge"}')
    assert str(unused_line("cpu", 1, 1)).startswith("3 of 4 cores compute nothing")
    assert unused_line("cpu", 2, 2) is None
