"""`train.portable`: the bits that one x86 CPU gives, each of them gives."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.training import device

pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="it is of x86 CPUs")

LIMIT = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "avx2"}
"""Variables that make the libraries of this CPU compute as those of another one."""


def bits(folder: Path, **variables: str) -> str:
    """Train a little in a process with these variables, and return what bits that gave."""
    command = [sys.executable, "-m", "tests.mlops.training.worker", "stage", "bits", str(folder), "1"]
    environment = {**os.environ, "TRAIN_DEVICE": "cpu", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("bits "))


def test_portable_training_gives_the_same_bits_under_a_limit_of_the_cpu(tmp_path: Path) -> None:
    assert bits(tmp_path) != bits(tmp_path, **LIMIT), "without it, the limit matters"
    assert bits(tmp_path, TEST_PORTABLE="1") == bits(tmp_path, TEST_PORTABLE="1", **LIMIT)


@pytest.mark.parametrize(
    ("machine", "precision", "words"),
    [("x86_64", "bf16", "the precision is bf16"), ("arm64", "fp32", "this CPU is arm64")],
)
def test_portable_elsewhere_is_refused(
    machine: str, precision: device.Precision, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(ProjectError, match=words) as raised:
        device.check_portable(precision)
    assert "params.yaml:train.portable: false" in raised.value.fix


def test_portable_in_fp32_on_x86_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    device.check_portable("fp32")
