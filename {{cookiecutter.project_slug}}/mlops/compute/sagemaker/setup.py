"""Give the project what its jobs need in the AWS account, and write where that is.

python -m mlops aws setup
"""

import os
from typing import Any

from ...config import load_platform
from ...errors import ProjectError
from ...tracking.dvc_remote import remote_url
from ..remote import S3
from . import client, config_writer, image
from .stack import Proposal, Stack


def stack() -> Stack:
    """Return the project's stack."""
    return Stack(f"{load_platform().project}-sagemaker", client.client("cloudformation"))


def propose(own: Stack, mlflow: bool | None, erasure_role: str | None) -> Proposal | None:
    """Make a change set of what the project needs.

    Args:
        own: The project's stack.
        mlflow: Whether there is to be an MLflow App; None: as it is, and none in a new stack.
        erasure_role: ARN of the only role that may delete data; None: as it is, and no such role in a new stack.

    Returns:
        What it would change; None when all is as it should be.

    Raises:
        ProjectError: The DVC remote is not the stack's, or see `Stack.propose`.
    """
    platform, remote = load_platform(), remote_url()
    there = own.outputs()
    values = {
        "Project": platform.project,
        "VpcId": _vpc(platform.job.get("subnets") or []),
        "FrameworkRegistry": image.REGISTRIES.get(client.region(), image.COMMON),
    }
    if mlflow is not None:
        values["Mlflow"] = "yes" if mlflow else "no"
    if erasure_role is not None:
        values["ErasureRoleArn"] = erasure_role
    if not own.parameters():
        values |= _bucket(remote, platform.project)
    elif remote.startswith(S3) and remote.rstrip("/") != there.get("DvcRemoteUrl"):
        raise ProjectError(
            f"the DVC remote is {remote}, and the stack {own.name} is made for {there.get('DvcRemoteUrl')}",
            f"dvc remote modify storage url {there.get('DvcRemoteUrl')}",
        )
    if values.get("ExistingBucket") and erasure_role:
        raise ProjectError(
            f"the bucket {values['ExistingBucket']} was there before: its policy is not the stack's to change",
            "leave --erasure-role out, and deny deletes in its own policy, as aws/stack.yaml:BucketPolicy does",
        )
    return own.propose(values)


def configure(outputs: dict[str, str]) -> list[str]:
    """Write where the stack's things are into `platform.yaml` and DVC's configuration.

    Returns:
        What was changed, and what is to do next, a line each.
    """
    values = {
        "region": outputs["Region"],
        "role_arn": outputs["JobRoleArn"],
        "job.kms_key": outputs["KeyArn"],
    }
    uri, app = load_platform().tracking_uri, outputs.get("MlflowAppArn")
    lines = []
    if app and uri in (None, app):
        values["tracking_uri"] = app
    elif app:
        lines = [f"platform.yaml:tracking_uri stays {uri}; the MLflow App is {app}"]
    return [*config_writer.write(values), *lines, *_write_remote(outputs["DvcRemoteUrl"], outputs["Region"])]


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
    moved = f"dvc push -A, which brings there what was in {before}; then " if before else ""
    return [f"DVC remote: {url}", f"Next: {moved}git commit -am 'Data in S3'"]


def _bucket(remote: str, project: str) -> dict[str, str]:
    """Return the parameters of a new stack that say where data go: where the DVC remote is, else into a new bucket."""
    if not remote.startswith(S3):
        return {"Prefix": project}
    bucket, _, prefix = remote.removeprefix(S3).strip("/").partition("/")
    if not prefix:
        raise ProjectError(
            f"the DVC remote is the whole bucket {bucket}: jobs' files would have no place beside it",
            f"dvc remote modify storage url {S3}{bucket}/{project}",
        )
    return {"Prefix": prefix, "ExistingBucket" if _is_there(bucket) else "BucketName": bucket}


def _is_there(bucket: str) -> bool:
    from botocore.exceptions import ClientError

    with client.translate_errors():
        try:
            client.client("s3").head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
    return True


def _vpc(subnets: list[Any]) -> str:
    """Return the VPC of the jobs' subnets; "" when jobs run in none."""
    if not subnets:
        return ""
    with client.translate_errors():
        found = client.client("ec2").describe_subnets(SubnetIds=subnets)["Subnets"]
    vpcs = sorted({subnet["VpcId"] for subnet in found})
    if len(vpcs) > 1:
        raise ProjectError(
            f"the subnets of platform.yaml:job are of several VPCs: {', '.join(vpcs)}",
            "platform.yaml:job.subnets: of one VPC",
        )
    return str(vpcs[0])
