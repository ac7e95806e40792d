"""Which image a job runs in: the project's own, or where there is none, the framework's.

AWS's images come with a torch of their own. Only the packages beside it are then those of `requirements.lock`.
"""

import re

from ... import environment
from ...config import load_platform
from ...errors import ProjectError
from ...files import read_json
from ..spec import JobSpec
from . import client

# Which image there is for which torch, with its Python; and the accounts that hold them, where it is not COMMON.
# Source: sagemaker/core/image_uri_config/pytorch.json of sagemaker-core 2.27.0. The package itself is no dependency:
# it holds protobuf, rich and importlib-metadata back by a major version each.
PYTHON_OF = {"2.8.0": "py312", "2.9.0": "py312", "2.10.0": "py313"}
COMMON = "763104351884"
REGISTRIES = {
    **dict.fromkeys(
        (
            *("ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1"),
            *("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1"),
            *("us-east-1", "us-east-2", "us-west-1", "us-west-2"),
        ),
        COMMON,
    ),
    "af-south-1": "626614931356",
    "ap-east-1": "871362719292",
    "ap-east-2": "975050140332",
    "ap-northeast-3": "364406365360",
    "ap-south-2": "772153158452",
    "ap-southeast-3": "907027046896",
    "ap-southeast-4": "457447274322",
    "ap-southeast-5": "550225433462",
    "ap-southeast-6": "633930458069",
    "ap-southeast-7": "590183813437",
    "ca-west-1": "204538143572",
    "cn-north-1": "727897471807",
    "cn-northwest-1": "727897471807",
    "eu-central-2": "380420809688",
    "eu-south-1": "692866216735",
    "eu-south-2": "503227376785",
    "il-central-1": "780543022126",
    "me-central-1": "914824155844",
    "me-south-1": "217643126080",
    "me-west-1": "124382933778",
    "mx-central-1": "637423239942",
    "us-gov-east-1": "446045086412",
    "us-gov-west-1": "442386744353",
}
OWN = "make image (needs Docker)"
FRAMEWORK = re.compile(r"/pytorch-(?:training|inference):(?P<torch>\d+(?:\.\d+)*)")


def of(spec: JobSpec) -> tuple[str, str]:
    """Return the image of a job, and the shell command that brings what it lacks; "" for none.

    Raises:
        ProjectError: It would be the framework's, and computes with another torch.
    """
    uri = spec.image or default_image(client.region(), spec.instance_type)
    check_image(uri)
    return uri, fallback_install() if FRAMEWORK.search(uri) else ""


def default_image(region: str, instance_type: str) -> str:
    """Return the address of the framework's image: of the pinned torch if there is one, else the newest.

    Args:
        region: Of the jobs.
        instance_type: Such as ml.m5.xlarge; families p and g have GPUs.

    Raises:
        ProjectError: It is not known where the images of this region are.
    """
    if region not in REGISTRIES:
        raise ProjectError(f"it is not known where AWS keeps the framework's images for {region}", OWN)
    newest = list(PYTHON_OF)[-1]
    torch = _pinned() if _pinned() in PYTHON_OF else newest
    device = "gpu" if re.match(r"ml\.[gp]\d", instance_type) else "cpu"
    host = f"{REGISTRIES[region]}.dkr.ecr.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    return f"{host}/pytorch-training:{torch}-{device}-{PYTHON_OF[torch]}"


def check_image(uri: str) -> None:
    """Refuse a framework's image whose torch is not the pinned one, unless `platform.yaml` lets it pass.

    What a project's own image holds, only the job can see: it checks that before it runs the stage.

    Raises:
        ProjectError: The versions differ.
    """
    found = FRAMEWORK.search(uri)
    if found and found["torch"] != _pinned() and not load_platform().allow_other_environment:
        raise ProjectError(
            f"the framework's image has torch {found['torch']}, and environment.json pins {_pinned()}",
            f"{OWN}, or platform.yaml:allow_other_environment: true",
        )


def fallback_install() -> str:
    """Return the shell command by which a job in a framework's image gets the other packages of `requirements.lock`."""
    rest = "/tmp/requirements.txt"  # noqa: S108 (the job's own machine)
    pip = "python -m pip install -q --disable-pip-version-check --no-cache-dir --no-compile"
    return f"grep -vEf aws/lock-exclude.txt requirements.lock > {rest} && {pip} -r {rest}"


def _pinned() -> str:
    return str(read_json(environment.PINS_PATH)["torch"])
