"""What SageMaker refuses: its own model of the API, and what its documentation says beyond that."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator

DOCS = "https://docs.aws.amazon.com/sagemaker/latest"
API = f"{DOCS}/APIReference"

Params = dict[str, Any]


class Rule(NamedTuple):
    """A rule of the documentation that the model does not have."""

    name: str
    holds: Callable[[Params], bool]
    said: str
    source: str


@functools.cache
def model() -> Any:
    """Return botocore's model of the API."""
    return botocore.session.get_session().get_service_model("sagemaker")


def problems(operation: str, params: Params) -> list[str]:
    """Return what is wrong with a request, in words like SageMaker's."""
    shape = model().operation_model(operation).input_shape
    report = ParamValidator().validate(params, shape)
    if report.has_errors():
        return [report.generate_report()]
    found = list(_walk(params, shape, "request"))
    return found + [f"{rule.said} ({rule.source})" for rule in RULES.get(operation, ()) if not rule.holds(params)]


def _walk(value: Any, shape: Shape, where: str) -> Iterator[str]:
    """Give what breaks the constraints that botocore's own check leaves out."""
    if shape.type_name == "structure":
        for name, part in value.items():
            if name not in shape.members:
                yield f"Unknown field {where}.{name}"
            else:
                yield from _walk(part, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        yield from _size(len(value), shape, where)
        for n, part in enumerate(value):
            yield from _walk(part, shape.member, f"{where}[{n}]")
    elif shape.type_name == "map":
        yield from _size(len(value), shape, where)
        for name, part in value.items():
            yield from _walk(name, shape.key, f"{where}.key")
            yield from _walk(part, shape.value, f"{where}.{name}")
    elif shape.type_name == "string":
        yield from _size(len(value), shape, where)
        yield from _text(value, shape, where)
    elif shape.type_name in ("integer", "long"):
        yield from _size(value, shape, where)


def _size(size: int, shape: Shape, where: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if (least is not None and size < least) or (most is not None and size > most):
        yield f"{where}: {size} is outside {least}..{most}"


def _text(value: str, shape: Shape, where: str) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        yield f"{where}: {value!r} is none of the known values"
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_for_python(pattern), value):
        yield f"{where}: {value!r} failed to satisfy constraint: {pattern}"


def _for_python(pattern: str) -> str:
    """Return a pattern of Java's, with what Python lacks in Python's words."""
    return pattern.replace(r"\p{L}", r"\w").replace(r"\p{Z}", r"\s").replace(r"\p{N}", r"\d").replace(r"\p{M}", "")


def _runtime(params: Params) -> int:
    return int(params.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400))


def _wait(params: Params) -> int | None:
    wait: int | None = params.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds")
    return wait


def _reserved(params: Params) -> bool:
    return any(tag["Key"].lower().startswith("aws:") for tag in params.get("Tags", []))


def _repeated(params: Params) -> bool:
    keys = [tag["Key"] for tag in params.get("Tags", [])]
    return len(keys) != len(set(keys))


TAGS = (
    Rule(
        "reserved tag", lambda p: not _reserved(p), "aws: prefixed tag key names are not allowed", f"{API}/API_Tag.html"
    ),
    Rule("repeated tag", lambda p: not _repeated(p), "Tag keys must be unique", f"{API}/API_Tag.html"),
)
SPOT = f"{DOCS}/dg/model-managed-spot-training.html"
STOPPING = f"{API}/API_StoppingCondition.html"
WARM = f"{DOCS}/dg/train-warm-pools.html"
RULES: dict[str, tuple[Rule, ...]] = {
    "CreateTrainingJob": (
        *TAGS,
        Rule(
            "spot without a wait",
            lambda p: not p.get("EnableManagedSpotTraining") or _wait(p) is not None,
            "MaxWaitTimeInSeconds must be present when EnableManagedSpotTraining is true",
            SPOT,
        ),
        Rule(
            "wait without spot",
            lambda p: bool(p.get("EnableManagedSpotTraining")) or _wait(p) is None,
            "MaxWaitTimeInSeconds is for managed spot training only",
            STOPPING,
        ),
        Rule(
            "wait shorter than the run",
            lambda p: (_wait(p) or _runtime(p)) >= _runtime(p),
            "MaxWaitTimeInSeconds must be equal to or greater than MaxRuntimeInSeconds",
            STOPPING,
        ),
        Rule(
            "long spot without checkpoints",
            lambda p: (
                not p.get("EnableManagedSpotTraining") or "CheckpointConfig" in p or (_wait(p) or _runtime(p)) <= 3600
            ),
            "without checkpoints MaxWaitTimeInSeconds is at most 3600",
            SPOT,
        ),
        Rule(
            "spot in a warm pool",
            lambda p: not (p.get("EnableManagedSpotTraining") and p["ResourceConfig"].get("KeepAlivePeriodInSeconds")),
            "a warm pool does not support spot instances",
            WARM,
        ),
        Rule(
            "no image",
            lambda p: bool({"TrainingImage", "AlgorithmName"} & p.get("AlgorithmSpecification", {}).keys()),
            "AlgorithmSpecification needs TrainingImage or AlgorithmName",
            f"{API}/API_AlgorithmSpecification.html",
        ),
        Rule(
            "instances",
            lambda p: "InstanceType" in p["ResourceConfig"] and "InstanceCount" in p["ResourceConfig"],
            "ResourceConfig needs InstanceType and InstanceCount",
            f"{API}/API_ResourceConfig.html",
        ),
    ),
    "CreateProcessingJob": TAGS,
}
