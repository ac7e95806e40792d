"""The GPUs of SageMaker's machines, and what a job would leave idle of them or lack: said before it costs anything."""

import re
from collections.abc import Iterator

from ... import pipeline
from ...config import read_params
from ..spec import JobSpec

# Families with NVIDIA's GPUs, and their sizes with more than one.
# Source: `GpuInfo` of `aws ec2 describe-instance-types`, whose types have the same names without `ml.`
SEVERAL_GPUS = {
    "p2": {"8xlarge": 8, "16xlarge": 16},
    "p3": {"8xlarge": 4, "16xlarge": 8},
    "g4dn": {"12xlarge": 4},
    "p6e-gb200": {"36xlarge": 4},
    **{family: {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8} for family in ("g5", "g6", "g6e")},
    **{family: {"12xlarge": 2, "24xlarge": 4, "48xlarge": 8} for family in ("g7", "g7e")},
    **{family: {"24xlarge": 8} for family in ("p3dn", "p4d", "p4de")},
    **{family: {"48xlarge": 8} for family in ("p5", "p5e", "p5en", "p6-b200", "p6-b300")},
}
BEFORE_AMPERE = ("p2", "p3", "p3dn", "g4dn")  # of compute capability below 8.0: no bf16, no TF32


def gpu_count(instance_type: str) -> int | None:
    """Return how many GPUs a machine such as `ml.g5.12xlarge` has; None if that is not known of its family."""
    family, _, size = instance_type.removeprefix("ml.").partition(".")
    if not re.match(r"[gp]\d", family):
        return 0
    return SEVERAL_GPUS[family].get(size, 1) if family in SEVERAL_GPUS else None


def mismatches(stage: str, spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield what a job would leave idle of its machines' GPUs, or ask of them that they lack; and the fix."""
    job, machine, per_machine = f"dvc.yaml:stages.{stage}.meta.job", spec.instance_type, gpu_count(spec.instance_type)
    gpus = (per_machine or 0) * spec.instance_count
    idle = f"{gpus} GPU(s) of {spec.instance_count} x {machine} would be idle"
    params = read_params().get("train", {}) if pipeline.load_stage(stage).is_training else None
    if params is None:
        if per_machine != 0:
            yield f"{machine} has GPUs, and {stage} does not train", f"{job}.instance_type: ml.m5.xlarge"
        return
    precision, processes = params.get("precision", "fp32"), params.get("processes", "auto")
    device = spec.environment.get("TRAIN_DEVICE") or ("cpu" if per_machine == 0 else "cuda")
    if device == "cpu" and precision in ("fp16", "tf32"):
        yield f"train.precision is {precision}, which needs a GPU", f"params.yaml:train.precision: fp32; or {job}"
    if per_machine == 0:
        return
    if device == "cpu":
        yield f"{idle}: TRAIN_DEVICE is cpu", f"take it from {job}.environment, or {job}.instance_type: ml.m5.xlarge"
        return
    if machine.removeprefix("ml.").partition(".")[0] in BEFORE_AMPERE and precision in ("bf16", "tf32"):
        problem = f"train.precision is {precision}, which the GPUs of {machine} are too old for"
        yield problem, f"params.yaml:train.precision: fp16 or fp32; or {job}.instance_type: ml.g5.xlarge"
    if re.search("[:-]cpu-", spec.image or ""):
        yield (
            f"{idle}: torch in the image {spec.image} is for CPUs",
            f"{job}.image: one for GPUs, make image ARGS=--gpu",
        )
    if per_machine and processes != "auto" and processes != gpus:
        used = f"train.processes is {processes}, one on each GPU, and {spec.instance_count} x {machine} has {gpus}"
        yield used, "params.yaml:train.processes: auto, or another instance_type in meta.job"
