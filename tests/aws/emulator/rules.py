"""What AWS asks of a request beyond its API's model, which `checks` has: a table.

Each rule stands in AWS's documentation; its source says where. The words of an error are AWS's where they are known.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .errors import ServiceError

Json = dict[str, Any]

API = "https://docs.aws.amazon.com/sagemaker/latest/APIReference"
GUIDE = "https://docs.aws.amazon.com/sagemaker/latest/dg"
TAGGING = "https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html"
# Options in names of instance types: d is for local storage. p4, g5 and so on have it without the letter.
TYPES = "https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html"

DAY_S, LONGEST_S = 86_400, 28 * 86_400
IMAGE = re.compile(r"[^/:]+(\.[^/:]+)+/[^:@]+(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})?")
ECR = re.compile(r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/.+")
LOCAL_STORAGE = re.compile(r"ml\.([a-z]+\d+[a-z]*d[a-z]*|p4de|g5|p5)\..+")
PROCESSING = PurePosixPath("/opt/ml/processing")


@dataclass(frozen=True)
class Rule:
    """A rule.

    Args:
        noun: TrainingJob or ProcessingJob; "" for both.
        text: Of the error.
        source: Where AWS says so.
        is_broken: Says it of a request.
    """

    noun: str
    text: str
    source: str
    is_broken: Callable[[Json], bool]


def apply(noun: str, request: Json) -> None:
    """See that a request keeps all rules.

    Raises:
        ServiceError: It breaks one.
    """
    for rule in RULES:
        if rule.noun in ("", noun) and rule.is_broken(request):
            raise ServiceError("ValidationException", rule.text)


def _is_spot(request: Json) -> bool:
    return bool(request.get("EnableManagedSpotTraining"))


def _wait_s(request: Json) -> int:
    return int(request.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds", 0))


def _runtime_s(request: Json) -> int:
    return int(request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DAY_S))


def _machines(request: Json) -> Json:
    machines: Json = request.get("ResourceConfig") or request.get("ProcessingResources", {}).get("ClusterConfig", {})
    return machines


def _has_local_storage(request: Json) -> bool:
    return bool(LOCAL_STORAGE.fullmatch(_machines(request).get("InstanceType", "")))


def _algorithm(request: Json) -> Json:
    algorithm: Json = request.get("AlgorithmSpecification", {})
    return algorithm


def _image(request: Json) -> str:
    return str(_algorithm(request).get("TrainingImage") or request.get("AppSpecification", {}).get("ImageUri", ""))


def _is_private_registry(request: Json) -> bool:
    return "Vpc" in _algorithm(request).get("TrainingImageConfig", {}).values()


def _tag_keys(request: Json) -> list[str]:
    return [tag["Key"] for tag in request.get("Tags", [])]


def _sources(request: Json) -> list[Json]:
    return [entry["S3Input"] for entry in request.get("ProcessingInputs", []) if "S3Input" in entry]


def _targets(request: Json) -> list[Json]:
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return [entry["S3Output"] for entry in outputs if "S3Output" in entry]


def _paths(request: Json) -> Iterator[PurePosixPath]:
    for entry in (*_sources(request), *_targets(request)):
        if "LocalPath" in entry:
            yield PurePosixPath(entry["LocalPath"])


def _is_twice(names: list[Any]) -> bool:
    return any(number > 1 for number in Counter(names).values())


RULES = (
    Rule(
        "TrainingJob",
        "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds",
        f"{GUIDE}/model-managed-spot-training.html, {API}/API_StoppingCondition.html",
        lambda request: _is_spot(request) and _wait_s(request) < _runtime_s(request),
    ),
    Rule(
        "TrainingJob",
        "MaxWaitTimeInSeconds is for managed spot training: set EnableManagedSpotTraining, or leave it out",
        f"{API}/API_StoppingCondition.html",
        lambda request: not _is_spot(request) and _wait_s(request) > 0,
    ),
    Rule(
        "TrainingJob",
        "MaxRuntimeInSeconds must be at most 28 days",
        f"{API}/API_StoppingCondition.html",
        lambda request: _runtime_s(request) > LONGEST_S,
    ),
    Rule(
        "TrainingJob",
        "KeepAlivePeriodInSeconds is not supported with managed spot training",
        f"{GUIDE}/train-warm-pools.html",
        lambda request: _is_spot(request) and _machines(request).get("KeepAlivePeriodInSeconds", 0) > 0,
    ),
    Rule(
        "TrainingJob",
        "KeepAlivePeriodInSeconds is not supported with InstanceGroups",
        f"{GUIDE}/train-warm-pools.html",
        lambda request: (
            bool(_machines(request).get("InstanceGroups")) and "KeepAlivePeriodInSeconds" in _machines(request)
        ),
    ),
    Rule(
        "TrainingJob",
        "InstancePreferences can't be used with InstanceType, InstanceGroups or managed spot training",
        f"{API}/API_ResourceConfig.html",
        lambda request: (
            bool(_machines(request).get("InstancePreferences"))
            and (_is_spot(request) or not {"InstanceType", "InstanceGroups"}.isdisjoint(_machines(request)))
        ),
    ),
    Rule(
        "",
        "SelectedInstanceType and SelectedInstanceCount are read-only",
        f"{API}/API_ResourceConfig.html, {API}/API_ProcessingClusterConfig.html",
        lambda request: not {"SelectedInstanceType", "SelectedInstanceCount"}.isdisjoint(_machines(request)),
    ),
    Rule(
        "TrainingJob",
        "VolumeSizeInGB must be set for an instance type that has no storage of its own",
        f"{API}/API_ResourceConfig.html, {TYPES}",
        lambda request: (
            "InstanceType" in _machines(request)
            and not _has_local_storage(request)
            and not _machines(request).get("VolumeSizeInGB")
        ),
    ),
    Rule(
        "",
        "VolumeKmsKeyId can't be requested for an instance type with local storage",
        f"{API}/API_ResourceConfig.html, {API}/API_ProcessingClusterConfig.html, {TYPES}",
        lambda request: _has_local_storage(request) and "VolumeKmsKeyId" in _machines(request),
    ),
    Rule(
        "TrainingJob",
        "Exactly one of TrainingImage and AlgorithmName must be specified",
        f"{API}/API_AlgorithmSpecification.html",
        lambda request: (
            "AlgorithmSpecification" in request
            and len({"TrainingImage", "AlgorithmName"} & _algorithm(request).keys()) != 1
        ),
    ),
    Rule(
        "",
        "The image must be given as registry/repository[:tag] or registry/repository[@digest]",
        f"{API}/API_AlgorithmSpecification.html",
        lambda request: bool(_image(request)) and not IMAGE.fullmatch(_image(request)),
    ),
    Rule(
        "",
        "The image must be in Amazon ECR, unless TrainingRepositoryAccessMode is Vpc",
        f"{GUIDE}/docker-containers-adapt-your-own-private-registry.html",
        lambda request: (
            bool(_image(request)) and not _is_private_registry(request) and not ECR.fullmatch(_image(request))
        ),
    ),
    Rule(
        "TrainingJob",
        "An image of another registry than Amazon ECR needs a VpcConfig",
        f"{GUIDE}/docker-containers-adapt-your-own-private-registry.html",
        lambda request: _is_private_registry(request) and "VpcConfig" not in request,
    ),
    Rule(
        "",
        "Tag keys must be unique",
        f"{API}/API_Tag.html",
        lambda request: _is_twice(_tag_keys(request)),
    ),
    Rule(
        "",
        "Tag keys must not begin with aws:, which is reserved",
        TAGGING,
        lambda request: any(key.lower().startswith("aws:") for key in _tag_keys(request)),
    ),
    Rule(
        "ProcessingJob",
        "LocalPath must begin with /opt/ml/processing/",
        f"{GUIDE}/build-your-own-processing-container.html, {API}/API_ProcessingS3Input.html",
        lambda request: any(PROCESSING not in path.parents or ".." in path.parts for path in _paths(request)),
    ),
    Rule(
        "ProcessingJob",
        "LocalPath is required when AppManaged is False",
        f"{API}/API_ProcessingS3Input.html",
        lambda request: any(
            "LocalPath" not in entry["S3Input"]
            for entry in request.get("ProcessingInputs", [])
            if "S3Input" in entry and not entry.get("AppManaged")
        ),
    ),
    Rule(
        "ProcessingJob",
        "Each LocalPath must be unique",
        "https://github.com/aws/sagemaker-python-sdk/issues/4939",
        lambda request: _is_twice(list(_paths(request))),
    ),
    Rule(
        "ProcessingJob",
        "S3CompressionType Gzip is for S3InputMode Pipe",
        f"{API}/API_ProcessingS3Input.html",
        lambda request: any(
            entry.get("S3CompressionType") == "Gzip" and entry.get("S3InputMode") != "Pipe"
            for entry in _sources(request)
        ),
    ),
)
