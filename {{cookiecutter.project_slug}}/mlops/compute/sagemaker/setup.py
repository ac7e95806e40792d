"""Give the project what its jobs need in the AWS account, and write where that is into its configuration.

`python -m mlops aws setup` changes the CloudFormation stack `aws/stack.yaml` by a change set that a person has seen.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config import load_platform, set_values
from ...errors import ProjectError
from ...tracking.dvc_remote import remote_url, use_url
from ..spec import job_prefix
from ..transfer import S3
from .client import call, client, region, translate_errors
from .image import COMMON, REGISTRIES

PLATFORM, TEMPLATE = Path("platform.yaml"), Path("aws/stack.yaml")
POLL_S, LONGEST_S = 2, 600  # between two looks; at a change set that is being computed
FAILED_FOR_GOOD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
AGAIN = "make aws-setup"


class Stack:
    """The project's stack, whether it exists or not."""

    def __init__(self) -> None:
        self.name = f"{job_prefix()}-sagemaker"

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of it; {} when there is none, or only an empty shell of one."""
        response = call("cloudformation", "describe_stacks", ".*does not exist", StackName=self.name)
        stack: dict[str, Any] = response["Stacks"][0] if response else {}
        return {} if stack.get("StackStatus") in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE") else stack

    def outputs(self) -> dict[str, str]:
        """Return its outputs by name."""
        return {output["OutputKey"]: output["OutputValue"] for output in self.describe().get("Outputs", [])}

    def propose(self, values: dict[str, str]) -> tuple[str, list[str]] | None:
        """Make a change set for new values of parameters; return its ARN and a line for each change, or None."""
        stack = self.describe()
        others = {entry["ParameterKey"] for entry in stack.get("Parameters", [])} - set(values)
        status = stack.get("StackStatus", "")
        if status in FAILED_FOR_GOOD:
            raise self._failure(status, set())
        if status.endswith("_IN_PROGRESS"):
            raise ProjectError(f"the stack {self.name} is being changed: {status}", f"wait for that, then {AGAIN}")
        change_set = call(
            "cloudformation",
            "create_change_set",
            StackName=self.name,
            ChangeSetName=f"setup-{time.time_ns()}",
            ChangeSetType="UPDATE" if status else "CREATE",
            TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                *({"ParameterKey": key, "ParameterValue": value} for key, value in values.items()),
                *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(others)),
            ],
        )
        return self._wait_for_changes(change_set["Id"])

    def _wait_for_changes(self, arn: str) -> tuple[str, list[str]] | None:
        from botocore.exceptions import WaiterError

        waiter = client("cloudformation").get_waiter("change_set_create_complete")
        with translate_errors(), contextlib.suppress(WaiterError):  # the status below says why
            waiter.wait(ChangeSetName=arn, WaiterConfig={"Delay": POLL_S, "MaxAttempts": LONGEST_S // POLL_S})
        change_set = call("cloudformation", "describe_change_set", ChangeSetName=arn)
        status, reason = change_set["Status"], change_set.get("StatusReason") or ""
        if status != "CREATE_COMPLETE":
            self.withdraw(arn)
            if "didn't contain changes" in reason or "No updates" in reason:
                return None
            raise ProjectError(f"CloudFormation refuses {TEMPLATE}: {reason or status}", f"correct that, then {AGAIN}")
        changes = [change["ResourceChange"] for change in change_set.get("Changes", [])]
        lines = [
            f"{change['Action']:<8} {change['ResourceType']:<28} {change['LogicalResourceId']}"
            + ("  (a new one replaces it)" if change.get("Replacement") == "True" else "")
            for change in changes
        ]
        return arn, lines or ["Values and outputs, no resource"]

    def withdraw(self, arn: str) -> None:
        """Delete a change set, and the empty shell of a stack that it was to create."""
        call("cloudformation", "delete_change_set", ChangeSetName=arn)
        if not self.describe():
            call("cloudformation", "delete_stack", StackName=self.name)

    def execute(self, arn: str, echo: Callable[[str], None]) -> None:
        """Make the changes of a change set and wait for their end, or raise what failed first; `echo` prints a line."""
        before = {event["EventId"] for event in self._events()}
        shown = set(before)
        call("cloudformation", "execute_change_set", ChangeSetName=arn)
        while True:
            status = self.describe().get("StackStatus", "")
            for event in [event for event in self._events() if event["EventId"] not in shown]:
                shown.add(event["EventId"])
                echo(f"{event['ResourceStatus']:<28} {event['LogicalResourceId']}")
            if status and not status.endswith("IN_PROGRESS"):
                break
            time.sleep(POLL_S)
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise self._failure(status, before)

    def _events(self) -> list[dict[str, Any]]:
        """Return the events of the stack, the oldest first."""
        return list(reversed(call("cloudformation", "describe_stack_events", StackName=self.name)["StackEvents"]))

    def _failure(self, status: str, before: set[str]) -> ProjectError:
        """Return the first failure after the events `before`, except what AWS cancelled because of another one."""
        events = (event for event in self._events() if event["EventId"] not in before)
        failures = (event for event in events if event["ResourceStatus"].endswith("FAILED"))
        causes = (event for event in failures if "cancelled" not in event.get("ResourceStatusReason", ""))
        first = next(causes, {"LogicalResourceId": self.name})
        problem = f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', status)}"
        if status in FAILED_FOR_GOOD:
            delete = f"aws cloudformation delete-stack --stack-name {self.name} --region {region()}"
            return ProjectError(f"the stack {self.name} is in {status}. {problem}", f"correct that; {delete}; {AGAIN}")
        return ProjectError(f"the stack {self.name} is as it was before. {problem}", f"correct that, then {AGAIN}")


def propose(stack: Stack, mlflow: bool | None, erasure_role: str | None) -> tuple[str, list[str]] | None:
    """Make a change set of what the project needs, and return what `Stack.propose` does.

    `mlflow` says whether there is to be an MLflow App, `erasure_role` is the ARN of the only role that may delete data;
    None leaves that as it is, and without it in a new stack.
    """
    platform, remote, stack_remote = load_platform(), remote_url(), stack.outputs().get("DvcRemoteUrl")
    values = {"Project": job_prefix(), "VpcId": "", "FrameworkRegistry": REGISTRIES.get(region(), COMMON)}
    if subnets := platform.job.get("subnets"):
        vpcs = sorted({subnet["VpcId"] for subnet in call("ec2", "describe_subnets", SubnetIds=subnets)["Subnets"]})
        if len(vpcs) > 1:
            problem = f"the subnets of platform.yaml:job are of several VPCs: {', '.join(vpcs)}"
            raise ProjectError(problem, "platform.yaml:job.subnets: of one VPC")
        values["VpcId"] = vpcs[0]
    if mlflow is not None:
        values["Mlflow"] = "yes" if mlflow else "no"
    if erasure_role is not None:
        values["ErasureRoleArn"] = erasure_role
    if stack_remote is None and remote.startswith(S3):  # it is a new stack, with data where the DVC remote is
        bucket, _, prefix = remote.removeprefix(S3).strip("/").partition("/")
        if not prefix:
            problem = f"the DVC remote is the whole bucket {bucket}: jobs' files would have no place beside it"
            raise ProjectError(problem, use_url(f"{S3}{bucket}/{platform.project}"))
        exists = call("s3", "head_bucket", "404:", Bucket=bucket)
        values |= {"Prefix": prefix, "ExistingBucket" if exists else "BucketName": bucket}
    elif stack_remote is None:  # in a new bucket
        values["Prefix"] = job_prefix()
    elif remote.startswith(S3) and remote.rstrip("/") != stack_remote:
        problem = f"the DVC remote is {remote}, and the stack {stack.name} is made for {stack_remote}"
        raise ProjectError(problem, use_url(stack_remote))
    if values.get("ExistingBucket") and erasure_role:
        problem = f"the bucket {values['ExistingBucket']} existed before: the stack can't change its policy"
        fix = "leave --erasure-role out, and deny deletes in its own policy, as aws/stack.yaml:BucketPolicy does"
        raise ProjectError(problem, fix)
    return stack.propose(values)


def configure(outputs: dict[str, str]) -> list[str]:
    """Write the stack's outputs into `platform.yaml` and DVC's configuration; return what was changed, a line each.

    The DVC remote then is the bucket for all clones, and in this one for commits that know of no bucket too.
    """
    from dvc.repo import Repo

    values = {"region": outputs["Region"], "role_arn": outputs["JobRoleArn"], "job.kms_key": outputs["KeyArn"]}
    uri, app = load_platform().tracking_uri, outputs.get("MlflowAppArn")
    if app and uri in (None, app):
        values["tracking_uri"] = app
    lines = set_values(PLATFORM, values, null="null")
    if app and uri not in (None, app):
        lines.append(f"platform.yaml:tracking_uri stays {uri}; the MLflow App is {app}")
    before, url = remote_url(), outputs["DvcRemoteUrl"]
    with Repo(os.getcwd()) as repo:
        name = repo.config["core"].get("remote", "storage")
        for level in ("local", "repo"):  # in this order: a region does not go with a local folder
            with repo.config.edit(level) as config:
                config["remote"].setdefault(name, {}).update(url=url, region=outputs["Region"])
                config["core"]["remote"] = name
    if before != url:
        push = f"dvc push -A, which brings there what was in {before}; then " if before else ""
        lines += [f"DVC remote: {url}", f"Next: {push}git commit -am 'Data in S3'"]
    return lines
