"""The CloudFormation stack of a project: `aws/stack.yaml`, changed by a change set that a person has seen."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ProjectError
from . import client

TEMPLATE = Path("aws/stack.yaml")
POLL_S = 2.0
FAILED_FOR_GOOD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
AGAIN = "make aws-setup"


@dataclass(frozen=True)
class Proposal:
    """A change set: by its ARN, with what it would change, a line each."""

    arn: str
    changes: list[str]


@dataclass(frozen=True)
class Stack:
    """A stack by its name, whether it is there or not."""

    name: str
    cloudformation: Any

    def found(self) -> dict[str, Any] | None:
        """Return what AWS says of it; None when there is none, or only an empty shell of one."""
        from botocore.exceptions import ClientError

        with client.translate_errors():
            try:
                stack: dict[str, Any] = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]
            except ClientError as error:
                if "does not exist" in str(error):
                    return None
                raise
        return None if stack["StackStatus"] in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE") else stack

    def outputs(self) -> dict[str, str]:
        """Return its outputs."""
        stack = self.found() or {}
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def parameters(self) -> set[str]:
        """Return the names of the parameters that it has a value for."""
        return {parameter["ParameterKey"] for parameter in (self.found() or {}).get("Parameters", [])}

    def propose(self, values: dict[str, str]) -> Proposal | None:
        """Make a change set.

        Args:
            values: Of parameters. The others keep the value that they have.

        Returns:
            What it would change; None when all is as it should be.

        Raises:
            ProjectError: The stack is not in a state to be changed, or AWS refused the template.
        """
        stack = self.found()
        self._check_state(stack)
        kept = self.parameters() - set(values)
        with client.translate_errors():
            made = self.cloudformation.create_change_set(
                StackName=self.name,
                ChangeSetName=f"setup-{time.time_ns()}",
                ChangeSetType="UPDATE" if stack else "CREATE",
                TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
                Capabilities=["CAPABILITY_IAM"],
                Parameters=[
                    *({"ParameterKey": key, "ParameterValue": value} for key, value in values.items()),
                    *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)),
                ],
            )
        return self._proposed(made["Id"])

    def withdraw(self, arn: str) -> None:
        """Drop a change set, and the empty shell that it stands in when it was to make the stack."""
        with client.translate_errors():
            self.cloudformation.delete_change_set(ChangeSetName=arn)
            if not self.found():
                self.cloudformation.delete_stack(StackName=self.name)

    def carry_out(self, proposal: Proposal, tell: Callable[[str], None]) -> None:
        """Make the proposed changes, and wait for their end.

        Args:
            proposal: Of this stack.
            tell: Is given what happens, a line at a time.

        Raises:
            ProjectError: A resource could not be made or changed; AWS has then put back what was.
        """
        before = {event["EventId"] for event in self._events()}
        told = set(before)
        with client.translate_errors():
            self.cloudformation.execute_change_set(ChangeSetName=proposal.arn)
        while True:
            stack = self.found()
            for event in [event for event in self._events() if event["EventId"] not in told]:
                told.add(event["EventId"])
                tell(f"{event['ResourceStatus']:<28} {event['LogicalResourceId']}")
            if stack and not stack["StackStatus"].endswith("IN_PROGRESS"):
                break
            time.sleep(POLL_S)
        if stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise self._failure(stack["StackStatus"], before)

    def _check_state(self, stack: dict[str, Any] | None) -> None:
        status = stack["StackStatus"] if stack else ""
        if status in FAILED_FOR_GOOD:
            raise self._failure(status, set())
        if status.endswith("_IN_PROGRESS"):
            raise ProjectError(f"the stack {self.name} is being changed: {status}", f"wait for that, then {AGAIN}")

    def _proposed(self, arn: str) -> Proposal | None:
        """Wait until AWS knows what a change set would change."""
        while True:
            with client.translate_errors():
                paginator = self.cloudformation.get_paginator("describe_change_set")
                pages = list(paginator.paginate(ChangeSetName=arn))
            status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
            if status == "CREATE_COMPLETE":
                break
            if status == "FAILED":
                self.withdraw(arn)
                if "didn't contain changes" in reason or "No updates" in reason:
                    return None
                raise ProjectError(f"CloudFormation refuses {TEMPLATE}: {reason}", f"correct that, then {AGAIN}")
            time.sleep(POLL_S)
        changes = [one["ResourceChange"] for page in pages for one in page.get("Changes", [])]
        return Proposal(arn, [_line(change) for change in changes] or ["Values and outputs, no resource"])

    def _events(self) -> Iterator[dict[str, Any]]:
        """Return what happened to the stack, the first thing first."""
        with client.translate_errors():
            paginator = self.cloudformation.get_paginator("describe_stack_events")
            pages = paginator.paginate(StackName=self.name)
            yield from reversed([event for page in pages for event in page["StackEvents"]])

    def _failure(self, status: str, before: set[str]) -> ProjectError:
        """Return what failed first; what AWS cancelled because of it is no reason."""
        failed = [
            event
            for event in self._events()
            if event["EventId"] not in before
            and event["ResourceStatus"].endswith("FAILED")
            and "cancelled" not in event.get("ResourceStatusReason", "")
        ]
        first = failed[0] if failed else {"LogicalResourceId": self.name}
        problem = f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', status)}"
        if status in FAILED_FOR_GOOD:
            delete = f"aws cloudformation delete-stack --stack-name {self.name} --region {client.region()}"
            return ProjectError(f"the stack {self.name} is in {status}. {problem}", f"correct that; {delete}; {AGAIN}")
        return ProjectError(f"the stack {self.name} is as it was before. {problem}", f"correct that, then {AGAIN}")


def _line(change: dict[str, str]) -> str:
    replaced = "  (a new one takes its place)" if change.get("Replacement") == "True" else ""
    return f"{change['Action']:<8} {change['ResourceType']:<28} {change['LogicalResourceId']}{replaced}"
