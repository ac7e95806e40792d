"""Give the project what its jobs need in the AWS account, and write where that is into its configuration.

python -m mlops aws setup
"""

import os
from pathlib import Path
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from ...files import atomic_write
from ...tracking.dvc_remote import remote_url
from ..transfer import S3
from . import client, image
from .stack import ChangeSet, Stack

PLATFORM = Path("platform.yaml")


def project_stack() -> Stack:
    """Return the project's stack."""
    return Stack(f"{load_platform().project}-sagemaker", client.client("cloudformation"))


def propose(stack: Stack, mlflow: bool | None, erasure_role: str | None) -> ChangeSet | None:
    """Make a change set of what the project needs.

    Args:
        stack: The project's.
        mlflow: Whether there is to be an MLflow App; None: as it is, and none in a new stack.
        erasure_role: ARN of the only role that may delete data; None: as it is, and no such role in a new stack.

    Returns:
        What it would change; None when nothing would.

    Raises:
        ProjectError: The DVC remote is not the stack's, or see `Stack.propose`.
    """
    platform, remote, stack_remote = load_platform(), remote_url(), stack.outputs().get("DvcRemoteUrl")
    values = {
        "Project": platform.project,
        "VpcId": _vpc_of(platform.job.get("subnets") or []),
        "FrameworkRegistry": image.REGISTRIES.get(client.region(), image.COMMON),
    }
    if mlflow is not None:
        values["Mlflow"] = "yes" if mlflow else "no"
    if erasure_role is not None:
        values["ErasureRoleArn"] = erasure_role
    if not stack.parameters():
        values |= _bucket_parameters(remote, platform.project)
    elif remote.startswith(S3) and remote.rstrip("/") != stack_remote:
        raise ProjectError(
            f"the DVC remote is {remote}, and the stack {stack.name} is made for {stack_remote}",
            f"dvc remote modify storage url {stack_remote}",
        )
    if values.get("ExistingBucket") and erasure_role:
        raise ProjectError(
            f"the bucket {values['ExistingBucket']} existed before: the stack can't change its policy",
            "leave --erasure-role out, and deny deletes in its own policy, as aws/stack.yaml:BucketPolicy does",
        )
    return stack.propose(values)


def _bucket_parameters(remote: str, project: str) -> dict[str, str]:
    """Return the parameters of a new stack that say where data go: where the DVC remote is, else into a new bucket."""
    if not remote.startswith(S3):
        return {"Prefix": project}
    bucket, _, prefix = remote.removeprefix(S3).strip("/").partition("/")
    if not prefix:
        raise ProjectError(
            f"the DVC remote is the whole bucket {bucket}: jobs' files would have no place beside it",
            f"dvc remote modify storage url {S3}{bucket}/{project}",
        )
    exists = client.call(client.client("s3").head_bucket, "404:", Bucket=bucket)
    return {"Prefix": prefix, "ExistingBucket" if exists else "BucketName": bucket}


def _vpc_of(subnets: list[Any]) -> str:
    """Return the VPC of the jobs' subnets; "" when jobs run in none."""
    if not subnets:
        return ""
    response = client.call(client.client("ec2").describe_subnets, SubnetIds=subnets)
    vpcs = sorted({subnet["VpcId"] for subnet in response["Subnets"]})
    if len(vpcs) > 1:
        raise ProjectError(
            f"the subnets of platform.yaml:job are of several VPCs: {', '.join(vpcs)}",
            "platform.yaml:job.subnets: of one VPC",
        )
    return str(vpcs[0])


def configure(outputs: dict[str, str]) -> list[str]:
    """Write the stack's outputs into `platform.yaml` and DVC's configuration.

    Returns:
        What was changed, and what to do next, a line each.
    """
    values = {"region": outputs["Region"], "role_arn": outputs["JobRoleArn"], "job.kms_key": outputs["KeyArn"]}
    uri, app = load_platform().tracking_uri, outputs.get("MlflowAppArn")
    lines = []
    if app and uri in (None, app):
        values["tracking_uri"] = app
    elif app:
        lines = [f"platform.yaml:tracking_uri stays {uri}; the MLflow App is {app}"]
    return [*write_platform(values), *lines, *_write_remote(outputs["DvcRemoteUrl"], outputs["Region"])]


def write_platform(values: dict[str, str]) -> list[str]:
    """Set keys of `platform.yaml`, and leave the rest of the file, comments among it, as it is.

    Args:
        values: By key, with dots for sections, such as `job.image`.

    Returns:
        What was changed, a line each.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    content, changes = yaml.load(PLATFORM.read_text(encoding="utf-8")), []
    for path, value in values.items():
        *sections, key = path.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        if section.get(key) != value:
            section[key] = value
            changes.append(f"platform.yaml:{path}: {value}")
    if changes:
        with atomic_write(PLATFORM) as new, new.open("w", encoding="utf-8", newline="\n") as file:
            yaml.dump(content, file)
    return changes


def _write_remote(url: str, region: str) -> list[str]:
    """Point the DVC remote to the bucket: for all clones, and in this one for commits that know of no bucket too."""
    from dvc.repo import Repo

    before = remote_url()
    with Repo(os.getcwd()) as repo:
        name = repo.config["core"].get("remote", "storage")
        for level in ("local", "repo"):  # in this order: a region does not go with a local folder
            with repo.config.edit(level) as config:
                config["remote"].setdefault(name, {}).update(url=url, region=region)
                config["core"]["remote"] = name
    if before == url:
        return []
    push = f"dvc push -A, which brings there what was in {before}; then " if before else ""
    return [f"DVC remote: {url}", f"Next: {push}git commit -am 'Data in S3'"]
