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

Told = dict[str, Any]

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
    is_broken: Callable[[Told], bool]


def apply(noun: str, told: Told) -> None:
    """See that a request keeps all rules.

    Raises:
        ServiceError: It breaks one.
    """
    for rule in RULES:
        if rule.noun in ("", noun) and rule.is_broken(told):
            raise ServiceError("ValidationException", rule.text)


def _is_spot(told: Told) -> bool:
    return bool(told.get("EnableManagedSpotTraining"))


def _wait_s(told: Told) -> int:
    return int(told.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds", 0))


def _runtime_s(told: Told) -> int:
    return int(told.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DAY_S))


def _machines(told: Told) -> Told:
    found: Told = told.get("ResourceConfig") or told.get("ProcessingResources", {}).get("ClusterConfig", {})
    return found


def _has_local_storage(told: Told) -> bool:
    return bool(LOCAL_STORAGE.fullmatch(_machines(told).get("InstanceType", "")))


def _algorithm(told: Told) -> Told:
    found: Told = told.get("AlgorithmSpecification", {})
    return found


def _image(told: Told) -> str:
    return str(_algorithm(told).get("TrainingImage") or told.get("AppSpecification", {}).get("ImageUri", ""))


def _is_private_registry(told: Told) -> bool:
    return "Vpc" in _algorithm(told).get("TrainingImageConfig", {}).values()


def _tag_keys(told: Told) -> list[str]:
    return [tag["Key"] for tag in told.get("Tags", [])]


def _sources(told: Told) -> list[Told]:
    return [one["S3Input"] for one in told.get("ProcessingInputs", []) if "S3Input" in one]


def _targets(told: Told) -> list[Told]:
    outputs = told.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return [one["S3Output"] for one in outputs if "S3Output" in one]


def _paths(told: Told) -> Iterator[PurePosixPath]:
    for one in (*_sources(told), *_targets(told)):
        if "LocalPath" in one:
            yield PurePosixPath(one["LocalPath"])


def _is_twice(names: list[Any]) -> bool:
    return any(number > 1 for number in Counter(names).values())


RULES = (
    Rule(
        "TrainingJob",
        "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds",
        f"{GUIDE}/model-managed-spot-training.html, {API}/API_StoppingCondition.html",
        lambda told: _is_spot(told) and _wait_s(told) < _runtime_s(told),
    ),
    Rule(
        "TrainingJob",
        "MaxWaitTimeInSeconds is for managed spot training: set EnableManagedSpotTraining, or leave it out",
        f"{API}/API_StoppingCondition.html",
        lambda told: not _is_spot(told) and _wait_s(told) > 0,
    ),
    Rule(
        "TrainingJob",
        "MaxRuntimeInSeconds must be at most 28 days",
        f"{API}/API_StoppingCondition.html",
        lambda told: _runtime_s(told) > LONGEST_S,
    ),
    Rule(
        "TrainingJob",
        "KeepAlivePeriodInSeconds is not supported with managed spot training",
        f"{GUIDE}/train-warm-pools.html",
        lambda told: _is_spot(told) and _machines(told).get("KeepAlivePeriodInSeconds", 0) > 0,
    ),
    Rule(
        "TrainingJob",
        "KeepAlivePeriodInSeconds is not supported with InstanceGroups",
        f"{GUIDE}/train-warm-pools.html",
        lambda told: bool(_machines(told).get("InstanceGroups")) and "KeepAlivePeriodInSeconds" in _machines(told),
    ),
    Rule(
        "TrainingJob",
        "InstancePreferences can't be used with InstanceType, InstanceGroups or managed spot training",
        f"{API}/API_ResourceConfig.html",
        lambda told: (
            bool(_machines(told).get("InstancePreferences"))
            and (_is_spot(told) or not {"InstanceType", "InstanceGroups"}.isdisjoint(_machines(told)))
        ),
    ),
    Rule(
        "",
        "SelectedInstanceType and SelectedInstanceCount are read-only",
        f"{API}/API_ResourceConfig.html, {API}/API_ProcessingClusterConfig.html",
        lambda told: not {"SelectedInstanceType", "SelectedInstanceCount"}.isdisjoint(_machines(told)),
    ),
    Rule(
        "TrainingJob",
        "VolumeSizeInGB must be set for an instance type that has no storage of its own",
        f"{API}/API_ResourceConfig.html, {TYPES}",
        lambda told: (
            "InstanceType" in _machines(told)
            and not _has_local_storage(told)
            and not _machines(told).get("VolumeSizeInGB")
        ),
    ),
    Rule(
        "",
        "VolumeKmsKeyId can't be requested for an instance type with local storage",
        f"{API}/API_ResourceConfig.html, {API}/API_ProcessingClusterConfig.html, {TYPES}",
        lambda told: _has_local_storage(told) and "VolumeKmsKeyId" in _machines(told),
    ),
    Rule(
        "TrainingJob",
        "Exactly one of TrainingImage and AlgorithmName must be specified",
        f"{API}/API_AlgorithmSpecification.html",
        lambda told: (
            "AlgorithmSpecification" in told and len({"TrainingImage", "AlgorithmName"} & _algorithm(told).keys()) != 1
        ),
    ),
    Rule(
        "",
        "The image must be given as registry/repository[:tag] or registry/repository[@digest]",
        f"{API}/API_AlgorithmSpecification.html",
        lambda told: bool(_image(told)) and not IMAGE.fullmatch(_image(told)),
    ),
    Rule(
        "",
        "The image must be in Amazon ECR, unless TrainingRepositoryAccessMode is Vpc",
        f"{GUIDE}/docker-containers-adapt-your-own-private-registry.html",
        lambda told: bool(_image(told)) and not _is_private_registry(told) and not ECR.fullmatch(_image(told)),
    ),
    Rule(
        "TrainingJob",
        "An image of another registry than Amazon ECR needs a VpcConfig",
        f"{GUIDE}/docker-containers-adapt-your-own-private-registry.html",
        lambda told: _is_private_registry(told) and "VpcConfig" not in told,
    ),
    Rule(
        "",
        "Tag keys must be unique",
        f"{API}/API_Tag.html",
        lambda told: _is_twice(_tag_keys(told)),
    ),
    Rule(
        "",
        "Tag keys must not begin with aws:, which is reserved",
        TAGGING,
        lambda told: any(key.lower().startswith("aws:") for key in _tag_keys(told)),
    ),
    Rule(
        "ProcessingJob",
        "LocalPath must begin with /opt/ml/processing/",
        f"{GUIDE}/build-your-own-processing-container.html, {API}/API_ProcessingS3Input.html",
        lambda told: any(PROCESSING not in path.parents or ".." in path.parts for path in _paths(told)),
    ),
    Rule(
        "ProcessingJob",
        "LocalPath is required when AppManaged is False",
        f"{API}/API_ProcessingS3Input.html",
        lambda told: any(
            "LocalPath" not in one["S3Input"]
            for one in told.get("ProcessingInputs", [])
            if "S3Input" in one and not one.get("AppManaged")
        ),
    ),
    Rule(
        "ProcessingJob",
        "Each LocalPath must be unique",
        "https://github.com/aws/sagemaker-python-sdk/issues/4939",
        lambda told: _is_twice(list(_paths(told))),
    ),
    Rule(
        "ProcessingJob",
        "S3CompressionType Gzip is for S3InputMode Pipe",
        f"{API}/API_ProcessingS3Input.html",
        lambda told: any(
            one.get("S3CompressionType") == "Gzip" and one.get("S3InputMode") != "Pipe" for one in _sources(told)
        ),
    ),
)
