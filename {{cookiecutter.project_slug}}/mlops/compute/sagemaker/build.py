"""Make the image of jobs from `requirements.lock`, and push it to the project's repository in ECR.

python -m mlops aws image

What is pushed once is used by all: whoever has the same lock finds the image there, and needs no Docker.
"""

import base64
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from . import client, config_writer

MADE_OF = ("Dockerfile", "aws/lock-exclude.txt", "requirements.lock")


def make_image(gpu: bool, tell: Callable[[str], None]) -> list[str]:
    """Build and push the image, unless it is there, and write its address into `platform.yaml:job.image`.

    Args:
        gpu: With the torch that computes on NVIDIA's GPUs.
        tell: Is given what happens, a line at a time.

    Returns:
        What was changed in `platform.yaml`, a line each.

    Raises:
        ProjectError: There is no repository or no Docker, or one of them failed.
    """
    ecr, project, tag = client.client("ecr"), load_platform().project, _tag(gpu)
    uri = _repository_uri(ecr, project)
    digest = _digest(ecr, project, tag)
    if digest:
        tell(f"{uri}:{tag} is there already")
    else:
        _build_and_push(ecr, f"{uri}:{tag}", ["--build-arg", "TORCH_INDEX="] if gpu else [], tell)
        digest = _digest(ecr, project, tag)
    if not digest:
        raise ProjectError(f"docker pushed {uri}:{tag}, but it is not there", "make image")
    return config_writer.write({"job.image": f"{uri}@{digest}"})


def _tag(gpu: bool) -> str:
    """Name the image after what it is made of: the same name is never built twice, as ECR would refuse it."""
    digest = hashlib.sha256()
    for name in MADE_OF:
        digest.update(Path(name).read_bytes().replace(b"\r\n", b"\n"))
    return f"{'gpu' if gpu else 'cpu'}-{digest.hexdigest()[:12]}"


def _repository_uri(ecr: Any, project: str) -> str:
    try:
        with client.translate_errors():
            return str(ecr.describe_repositories(repositoryNames=[project])["repositories"][0]["repositoryUri"])
    except ProjectError as error:
        if isinstance(error.__cause__, ecr.exceptions.RepositoryNotFoundException):
            raise ProjectError(f"ECR has no repository {project} in {client.region()}", "make aws-setup") from error
        raise


def _digest(ecr: Any, project: str, tag: str) -> str:
    """Return the digest of an image in ECR; "" when it is not there."""
    with client.translate_errors():
        try:
            found = ecr.describe_images(repositoryName=project, imageIds=[{"imageTag": tag}])
        except ecr.exceptions.ImageNotFoundException:
            return ""
    return str(found["imageDetails"][0]["imageDigest"])


def _build_and_push(ecr: Any, image: str, arguments: list[str], tell: Callable[[str], None]) -> None:
    tell(f"Building {image}")
    # SageMaker's machines are x86, whatever this one is.
    _docker(["build", "--platform", "linux/amd64", *arguments, "--tag", image, "."])
    with client.translate_errors():
        data = ecr.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    _docker(["login", "--username", user, "--password-stdin", image.partition("/")[0]], password)
    tell(f"Pushing {image}")
    _docker(["push", image])


def _docker(arguments: list[str], text: str = "") -> None:
    """Run Docker; what it prints is seen.

    Raises:
        ProjectError: It is not there, or failed.
    """
    if not shutil.which("docker"):
        raise ProjectError(
            "docker is not installed here",
            "install it; or have somebody with the same requirements.lock do it, then: make image",
        )
    # Without attestations: they make of the image an index, a form that SageMaker does not take.
    quiet = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run(["docker", *arguments], input=text.encode(), env=quiet)
    if done.returncode:
        raise ProjectError(f"docker {arguments[0]} failed, as it says above", "correct that, then: make image")
