"""The container image of jobs: the project's own, built by `python -m mlops aws image`, or else AWS's framework image.

An image that is pushed once serves everybody with the same lock; they need no Docker. A framework image has a torch of
its own; only the other packages are then those of the lock.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ...config import load_platform, read_pins
from ...errors import ProjectError
from ..spec import JobSpec, job_prefix
from .client import call, region
from .machines import gpu_count

# The Python of AWS's image for each torch; and the account that holds the images of a region, COMMON or another.
# Source: sagemaker/core/image_uri_config/pytorch.json of sagemaker-core 2.27.0. The package itself is no dependency:
# it holds protobuf, rich and importlib-metadata back by a major version each.
PYTHON_OF = {"2.8.0": "py312", "2.9.0": "py312", "2.10.0": "py313"}
COMMON = "763104351884"
REGIONS = """
    ap-northeast-1 ap-northeast-2 ap-south-1 ap-southeast-1 ap-southeast-2 ca-central-1 eu-central-1 eu-north-1
    eu-west-1 eu-west-2 eu-west-3 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
"""
ELSEWHERE = """
    af-south-1 626614931356      ap-east-1 871362719292       ap-east-2 975050140332       ap-northeast-3 364406365360
    ap-south-2 772153158452      ap-southeast-3 907027046896  ap-southeast-4 457447274322  ap-southeast-5 550225433462
    ap-southeast-6 633930458069  ap-southeast-7 590183813437  ca-west-1 204538143572       cn-north-1 727897471807
    cn-northwest-1 727897471807  eu-central-2 380420809688    eu-south-1 692866216735      eu-south-2 503227376785
    il-central-1 780543022126    me-central-1 914824155844    me-south-1 217643126080      me-west-1 124382933778
    mx-central-1 637423239942    us-gov-east-1 446045086412   us-gov-west-1 442386744353
"""
REGISTRIES = dict.fromkeys(REGIONS.split(), COMMON) | dict(re.findall(r"(\S+) (\d+)", ELSEWHERE))
OWN = "make image (needs Docker)"
FRAMEWORK = re.compile(r"/pytorch-(?:training|inference):(?P<torch>\d+(?:\.\d+)*)")


def image_of(spec: JobSpec) -> str:
    """Return the image of a job, or raise what `check_image` does."""
    uri = spec.image or default_image(region(), spec.instance_type)
    check_image(uri)
    return uri


def default_image(region: str, instance_type: str) -> str:
    """Return the address of the framework's image: of the pinned torch if AWS has one, else the newest."""
    if region not in REGISTRIES:
        raise ProjectError(f"it is not known where AWS keeps the framework's images for {region}", OWN)
    torch = _pinned_torch() if _pinned_torch() in PYTHON_OF else list(PYTHON_OF)[-1]
    device = "cpu" if gpu_count(instance_type) == 0 else "gpu"
    host = f"{REGISTRIES[region]}.dkr.ecr.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    return f"{host}/pytorch-training:{torch}-{device}-{PYTHON_OF[torch]}"


def check_image(uri: str) -> None:
    """Refuse a framework image whose torch is not the pinned one, unless `platform.yaml` allows it."""
    image = FRAMEWORK.search(uri)  # a project's own image is checked by the job, before it runs the stage
    if image and image["torch"] != _pinned_torch() and not load_platform().allow_other_environment:
        problem = f"the framework's image has torch {image['torch']}, and environment.json pins {_pinned_torch()}"
        raise ProjectError(problem, f"{OWN}, or platform.yaml:allow_other_environment: true")


def install_command(uri: str) -> str:
    """Return the shell command that installs the rest of the lock in a framework image; "" for other images."""
    if not FRAMEWORK.search(uri):
        return ""
    rest = "/tmp/requirements.txt"  # noqa: S108 (the job's own machine)
    pip = "python -m pip install -q --disable-pip-version-check --no-cache-dir --no-compile"
    return f"grep -vEf aws/lock-exclude.txt requirements.lock > {rest} && {pip} -r {rest}"


def _pinned_torch() -> str:
    return read_pins().get("torch", "no torch")


def make_image(gpu: bool, echo: Callable[[str], None]) -> str:
    """Build and push the image unless ECR has it; return its address with the digest. `echo` prints a line."""
    project = job_prefix()
    # An image is named after what it is made of: ECR refuses the same name twice.
    files = map(Path, ("Dockerfile", "aws/lock-exclude.txt", "requirements.lock"))
    content = b"".join(file.read_bytes().replace(b"\r\n", b"\n") for file in files)
    tag = f"{'gpu' if gpu else 'cpu'}-{hashlib.sha256(content).hexdigest()[:12]}"
    repositories = call("ecr", "describe_repositories", "RepositoryNotFoundException:", repositoryNames=[project])
    if not repositories:
        raise ProjectError(f"ECR has no repository {project} in {region()}", "make aws-setup")
    uri = repositories["repositories"][0]["repositoryUri"]

    image, request = f"{uri}:{tag}", {"repositoryName": project, "imageIds": [{"imageTag": tag}]}
    pushed = call("ecr", "describe_images", "ImageNotFoundException:", **request)
    if pushed:
        echo(f"{image} exists already")
    else:
        echo(f"Building {image}")
        arguments = ["--build-arg", "TORCH_INDEX="] if gpu else []
        # SageMaker's machines are x86, whatever this one is.
        _docker(["build", "--platform", "linux/amd64", *arguments, "--tag", image, "."])
        token = call("ecr", "get_authorization_token")["authorizationData"][0]["authorizationToken"]
        user, _, password = base64.b64decode(token).decode().partition(":")
        _docker(["login", "--username", user, "--password-stdin", image.partition("/")[0]], password)
        echo(f"Pushing {image}")
        _docker(["push", image])
        pushed = call("ecr", "describe_images", "ImageNotFoundException:", **request)
    if not pushed:
        raise ProjectError(f"docker pushed {image}, but ECR does not have it", "make image")
    return f"{uri}@{pushed['imageDetails'][0]['imageDigest']}"


def _docker(arguments: list[str], text: str = "") -> None:
    """Run Docker, whose output goes to the terminal."""
    if not shutil.which("docker"):
        fix = "install it; or have somebody with the same requirements.lock run it, then: make image"
        raise ProjectError("docker is not installed here", fix)
    # Without attestations: with them the image becomes an index, a form that SageMaker does not take.
    variables = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    if subprocess.run(["docker", *arguments], input=text.encode(), env=variables).returncode:
        raise ProjectError(f"docker {arguments[0]} failed, as it says above", "correct that, then: make image")
