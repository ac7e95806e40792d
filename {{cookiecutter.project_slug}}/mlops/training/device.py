"""Where a training computes and in which precision, and what its machine has besides.

The device is what the machine has, or what `TRAIN_DEVICE` says: cuda, mps or cpu. Everything that decides about the
last bits of a result is set here, and is among the facts of the run.
"""

import logging
import os
import platform
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import read_machines
from ..errors import ProjectError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
FABRIC_PRECISIONS: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "tf32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}

# What oneDNN, ATen and MKL must not choose by the CPU, for all of x86 to round alike; with oneDNN off.
PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


def find_device() -> str:
    """Return where to compute: cuda, mps or cpu, the first that the machine has; `TRAIN_DEVICE` overrides.

    Raises:
        ProjectError: `TRAIN_DEVICE` is none of them, or the machine lacks it.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = os.environ.get("TRAIN_DEVICE") or next(name for name in available if available[name])
    if device not in available:
        raise ProjectError(f"TRAIN_DEVICE is {device!r}", f"set it to one of {', '.join(available)}, or unset it")
    if not available[device]:
        problem = (
            f"TRAIN_DEVICE is {device}, and this machine has none that torch {torch.__version__}{_driver()} can use"
        )
        raise ProjectError(problem, "set TRAIN_DEVICE=cpu, or unset it; or install a torch for that device")
    return device


def build_fabric(
    processes: int = 1,
    machines: int = 1,
    threads: int = 1,
    precision: Precision = "fp32",
    deterministic: bool = True,
    portable: bool = False,
) -> "Fabric":
    """Set up torch for a training in this process, and return the Fabric that has its device.

    Args:
        processes: On this machine; if there is more than one in all, the environment says which of them this is.
        machines: How many have as many processes each.
        threads: CPU threads of a process. Sums in another order have other last bits, so it is no guess of torch's.
        precision: fp32, also for the products that a GPU would round to TF32; tf32, which lets it; bf16 or fp16, in
            which products are computed while weights stay fp32.
        deterministic: Refuse operations that don't give the same bits again, and let no timing choose algorithms.
        portable: Compute without oneDNN; this process was started with the variables of `PORTABLE`.

    Raises:
        ProjectError: This machine lacks the device, the precision, or a GPU for each process.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for; read when CUDA starts
    import torch

    device = find_device()
    check_precision(precision, device)
    if processes * machines > 1:
        _check_shares(processes, device)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    if portable:
        torch.backends.mkldnn.set_flags(False)
        torch.backends.nnpack.set_flags(False)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"

    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # it announces itself
    warnings.filterwarnings("ignore", module="lightning_fabric")
    strategy: Strategy = SingleDeviceStrategy("cuda:0" if device == "cuda" else device)
    if processes * machines > 1:
        names = [f"cuda:{number}" if device == "cuda" else device for number in range(processes)]
        # So long may the first process push data. gloo notices at once that a process ended, whatever the time.
        timeout = timedelta(days=1)
        places = LightningEnvironment()
        strategy = DDPStrategy(
            parallel_devices=list(map(torch.device, names)), cluster_environment=places, timeout=timeout
        )
    fabric = Fabric(
        accelerator=device,
        strategy=strategy,
        devices=processes,
        num_nodes=machines,
        precision=FABRIC_PRECISIONS[precision],
    )
    fabric.launch()
    return fabric


def check_precision(precision: Precision, device: str) -> None:
    """Raise ProjectError if a device can't compute in this precision."""
    import torch

    lacks = ""
    if precision == "fp16" and device != "cuda":
        lacks = "fp16 needs a CUDA GPU"
    elif precision == "tf32" and not (device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)):
        lacks = "tf32 needs a CUDA GPU of compute capability 8.0 or more"
    elif precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        lacks = f"bf16 needs a GPU of compute capability 8.0 or more, not {torch.cuda.get_device_name()}"
    elif precision == "bf16" and device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        lacks = "bf16 on MPS needs macOS 14 or later"
    if lacks:
        problem = f"params.yaml:train.precision is {precision}, and the device is {device}: {lacks}"
        raise ProjectError(problem, "set params.yaml:train.precision: fp32, or train on another machine")


def check_portable(precision: Precision) -> None:
    """Raise ProjectError if bits can't be those of all x86 CPUs: on another device, or in another precision."""
    device, machine = find_device(), platform.machine().lower()
    lacks = f"the device is {device}" if device != "cpu" else f"the precision is {precision}"
    if device == "cpu" and machine not in ("x86_64", "amd64"):
        lacks = f"this CPU is {machine}"
    elif device == "cpu" and precision == "fp32":
        return
    problem = f"params.yaml:train.portable gives the bits of x86 CPUs in fp32, and {lacks}"
    raise ProjectError(problem, "set TRAIN_DEVICE=cpu and train.precision: fp32; or params.yaml:train.portable: false")


def _check_shares(processes: int, device: str) -> None:
    """Raise ProjectError unless each of several processes on this machine has a device of its own, or they use CPUs."""
    import torch

    if device == "cpu" or processes <= (most := torch.cuda.device_count() if device == "cuda" else 1):
        return
    problem = f"params.yaml:train.processes asks for {processes} processes on a machine with {most} GPU(s)"
    raise ProjectError(problem, "set params.yaml:train.processes: auto, or compute on CPUs: TRAIN_DEVICE=cpu")


def device_facts(fabric: "Fabric") -> dict[str, Any]:
    """Return what decides about the last bits of a result, by name, such as `device`, `precision` or `processes`."""
    import torch

    kind = fabric.device.type
    name = platform.processor() or platform.machine()
    capability, driver = torch.backends.cpu.get_cpu_capability(), ""
    if kind == "cuda":
        name, driver = torch.cuda.get_device_name(fabric.device), f"CUDA {torch.version.cuda}{_driver()}"
        capability = ".".join(map(str, torch.cuda.get_device_capability(fabric.device)))
    elif kind == "mps":
        capability = f"macOS {platform.mac_ver()[0]}"
    elif (info := Path("/proc/cpuinfo")).exists():
        fields = (line.partition(":") for line in info.read_text(encoding="utf-8").splitlines())
        name = next((value.strip() for key, _, value in fields if key.strip() == "model name"), name)
    precisions = {value: key for key, value in reversed(FABRIC_PRECISIONS.items())}
    precision = precisions[fabric.strategy.precision.precision]  # type: ignore[index]
    return {
        "device": kind,
        "device_name": name,
        "capability": capability,
        **({"driver": driver} if driver else {}),
        "precision": "tf32" if precision == "fp32" and torch.backends.cuda.matmul.allow_tf32 else precision,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
    }


def _driver() -> str:
    """Return the version of NVIDIA's driver, behind a comma; "" where there is none."""
    path = Path("/sys/module/nvidia/version")
    return f", driver {path.read_text(encoding='utf-8').strip()}" if path.exists() else ""


def unused_line(device: str, processes: int, threads: int) -> str | None:
    """Return a line about what this machine has and so many processes on it don't use; None if there is nothing.

    Idle cores are mentioned on a machine that a job pays for: on a laptop they are for its owner.
    """
    import torch

    usable = torch.cuda.device_count()
    gpus = usable or len(list(Path("/dev").glob("nvidia[0-9]*")))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device == "cuda" and processes < usable:
        return f"{usable - processes} of {usable} GPUs are idle; params.yaml:train.processes: auto uses them all"
    if device == "cpu" and gpus > usable:
        return f"{gpus} GPU(s) are idle: torch {torch.__version__}{_driver()} can't use them. Install a torch for them"
    if device == "cpu" and (gpus or torch.backends.mps.is_available()):
        return f"{gpus or 1} GPU(s) are idle: TRAIN_DEVICE is cpu. Unset it to use them"
    if device == "cpu" and read_machines()["instance_type"] and processes * threads * 2 <= cores:
        fix = "raise params.yaml:train.threads, or take a smaller machine"
        return f"{cores - processes * threads} of {cores} cores compute nothing; {fix}"
    return None
