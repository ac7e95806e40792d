"""The CloudFormation stack of a project: `aws/stack.yaml`, changed by a change set that a person has seen."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ProjectError
from .client import call, region, translate_errors

TEMPLATE = Path("aws/stack.yaml")
POLL_S, LONGEST_S = 2, 600  # between two looks; at a change set that is being computed
FAILED_FOR_GOOD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
AGAIN = "make aws-setup"


@dataclass(frozen=True)
class ChangeSet:
    """A change set: its ARN, and what it would change, a line each."""

    arn: str
    changes: list[str]


@dataclass(frozen=True)
class Stack:
    """A stack by its name, whether it exists or not.

    Args:
        name: Of the stack.
        cloudformation: boto3's client.
    """

    name: str
    cloudformation: Any

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of it; {} when there is none, or only an empty shell of one."""
        response = call(self.cloudformation.describe_stacks, ".*does not exist", StackName=self.name)
        stack: dict[str, Any] = response["Stacks"][0] if response else {}
        return {} if stack.get("StackStatus") in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE") else stack

    def outputs(self) -> dict[str, str]:
        """Return its outputs."""
        return {output["OutputKey"]: output["OutputValue"] for output in self.describe().get("Outputs", [])}

    def parameters(self) -> set[str]:
        """Return the names of the parameters that it has a value for."""
        return {parameter["ParameterKey"] for parameter in self.describe().get("Parameters", [])}

    def propose(self, values: dict[str, str]) -> ChangeSet | None:
        """Make a change set.

        Args:
            values: Of parameters. The others keep the value that they have.

        Returns:
            What it would change; None when nothing would.

        Raises:
            ProjectError: The stack is not in a state to be changed, or AWS refused the template.
        """
        status = self.describe().get("StackStatus", "")
        if status in FAILED_FOR_GOOD:
            raise self._failure(status, set())
        if status.endswith("_IN_PROGRESS"):
            raise ProjectError(f"the stack {self.name} is being changed: {status}", f"wait for that, then {AGAIN}")
        change_set = call(
            self.cloudformation.create_change_set,
            StackName=self.name,
            ChangeSetName=f"setup-{time.time_ns()}",
            ChangeSetType="UPDATE" if status else "CREATE",
            TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                *({"ParameterKey": key, "ParameterValue": value} for key, value in values.items()),
                *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(self.parameters() - set(values))),
            ],
        )
        return self._wait_for_changes(change_set["Id"])

    def _wait_for_changes(self, arn: str) -> ChangeSet | None:
        from botocore.exceptions import WaiterError

        waiter = self.cloudformation.get_waiter("change_set_create_complete")
        with translate_errors():
            with contextlib.suppress(WaiterError):  # the status below says why
                waiter.wait(ChangeSetName=arn, WaiterConfig={"Delay": POLL_S, "MaxAttempts": LONGEST_S // POLL_S})
            pages = list(self.cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=arn))
        status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
        if status != "CREATE_COMPLETE":
            self.withdraw(arn)
            if "didn't contain changes" in reason or "No updates" in reason:
                return None
            raise ProjectError(f"CloudFormation refuses {TEMPLATE}: {reason or status}", f"correct that, then {AGAIN}")
        changes = [change["ResourceChange"] for page in pages for change in page.get("Changes", [])]
        lines = [
            f"{change['Action']:<8} {change['ResourceType']:<28} {change['LogicalResourceId']}"
            + ("  (a new one replaces it)" if change.get("Replacement") == "True" else "")
            for change in changes
        ]
        return ChangeSet(arn, lines or ["Values and outputs, no resource"])

    def withdraw(self, arn: str) -> None:
        """Delete a change set, and the empty shell of a stack that it was to create."""
        call(self.cloudformation.delete_change_set, ChangeSetName=arn)
        if not self.describe():
            call(self.cloudformation.delete_stack, StackName=self.name)

    def execute(self, change_set: ChangeSet, echo: Callable[[str], None]) -> None:
        """Make the proposed changes, and wait for their end.

        Args:
            change_set: Of this stack.
            echo: Prints a line of progress.

        Raises:
            ProjectError: A resource could not be made or changed; AWS has then undone the rest.
        """
        before = {event["EventId"] for event in self._events()}
        shown = set(before)
        call(self.cloudformation.execute_change_set, ChangeSetName=change_set.arn)
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
        with translate_errors():
            pages = self.cloudformation.get_paginator("describe_stack_events").paginate(StackName=self.name)
            return list(pages.search("StackEvents[]"))[::-1]

    def _failure(self, status: str, before: set[str]) -> ProjectError:
        """Return the first failure after the events `before`, except what AWS cancelled because of another one."""
        failures = (
            event
            for event in self._events()
            if event["EventId"] not in before
            and event["ResourceStatus"].endswith("FAILED")
            and "cancelled" not in event.get("ResourceStatusReason", "")
        )
        first = next(failures, {"LogicalResourceId": self.name})
        problem = f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', status)}"
        if status in FAILED_FOR_GOOD:
            delete = f"aws cloudformation delete-stack --stack-name {self.name} --region {region()}"
            return ProjectError(f"the stack {self.name} is in {status}. {problem}", f"correct that; {delete}; {AGAIN}")
        return ProjectError(f"the stack {self.name} is as it was before. {problem}", f"correct that, then {AGAIN}")
