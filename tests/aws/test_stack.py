"""`aws/stack.yaml`: it is a valid template, and its policies allow what jobs need and no more."""

import fnmatch
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml
from policy_sentry.querying.actions import get_action_data

from ..test_bake import SKELETON

TEMPLATE = SKELETON / "aws" / "stack.yaml"
ACCOUNT, REGION = "123456789012", "eu-west-1"
ALL = {
    "Project": "digits",
    "Prefix": "team/digits",
    "VpcId": "vpc-0a1b2c",
    "ErasureRoleArn": f"arn:aws:iam::{ACCOUNT}:role/Eraser",
    "Mlflow": "yes",
}
PLAIN = {"Project": "digits", "Prefix": "digits"}
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NoValue": None,
}
# What AWS makes of the resources that others refer to.
MADE = {
    "Bucket": "digits-bucket",
    "Bucket.Arn": "arn:aws:s3:::digits-bucket",
    "DataPolicy": f"arn:aws:iam::{ACCOUNT}:policy/data",
    "JobRole": "job-role",
    "JobRole.Arn": f"arn:aws:iam::{ACCOUNT}:role/job-role",
    "Key.Arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555",
    "LauncherPolicy": f"arn:aws:iam::{ACCOUNT}:policy/launcher",
    "MlflowApp.Arn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-app/app-ABC",
    "MlflowPolicy": f"arn:aws:iam::{ACCOUNT}:policy/mlflow",
    "MlflowRole.Arn": f"arn:aws:iam::{ACCOUNT}:role/mlflow-role",
    "Repository.Arn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/digits",
    "Repository.RepositoryUri": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/digits",
}
# The only statements on everything; each says why in the template.
ON_EVERYTHING = {
    ("Key", "IamDecides"),  # in a key's policy, everything is the key
    ("JobRole", "Metrics"),
    ("JobRole", "LogInToRegistries"),
    ("JobsInTheVpc", "LookAtTheVpc"),
    ("LauncherPolicy", "ListJobsAndQuotas"),
    ("LauncherPolicy", "LookAtTheVpc"),
}
# The only statements with a wildcard for actions.
ANY_ACTION = {("Key", "IamDecides"), ("BucketPolicy", "TlsOnly")}


class Stack:
    """The template with values for its parameters, as CloudFormation would see it."""

    def __init__(self, **values: str) -> None:
        """Resolve all that the template refers to."""
        self.template = cfn_yaml.load(str(TEMPLATE))
        defaults = {name: entry.get("Default") for name, entry in self.template["Parameters"].items()}
        self.values = {**PSEUDO, **MADE, **defaults, **values}
        conditions = self.template["Conditions"]
        self.conditions = {name: self._is(conditions[name]) for name in conditions}
        self.resources = {
            name: self._value(entry["Properties"])
            for name, entry in self.template["Resources"].items()
            if self.conditions.get(entry.get("Condition"), True)
        }
        self.outputs = {
            name: self._value(entry["Value"])
            for name, entry in self.template["Outputs"].items()
            if self.conditions.get(entry.get("Condition"), True)
        }

    def statements(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each statement with the resource that it stands in; not who may be a role."""
        for name, properties in self.resources.items():
            inline = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
            for document in (properties.get("PolicyDocument"), properties.get("KeyPolicy"), *inline):
                for statement in (document or {}).get("Statement", []):
                    yield name, statement

    def of(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the statements of a resource by Sid."""
        return {statement["Sid"]: statement for owner, statement in self.statements() if owner == name}

    def _is(self, value: Any) -> bool:
        ((function, given),) = value.items()
        if function == "Condition":
            return self._is(self.template["Conditions"][given])
        if function == "Fn::And":
            return all(self._is(item) for item in given)
        if function == "Fn::Not":
            return not self._is(given[0])
        assert function == "Fn::Equals"
        return bool(self._value(given[0]) == self._value(given[1]))

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item for item in map(self._value, value) if item is not None]
        if not isinstance(value, dict):
            return value
        if "Ref" in value:
            return self.values[value["Ref"]]
        if "Fn::GetAtt" in value:
            return self.values[".".join(value["Fn::GetAtt"])]
        if "Fn::If" in value:
            name, yes, no = value["Fn::If"]
            return self._value(yes if self.conditions[name] else no)
        if "Fn::Sub" in value:
            text, own = value["Fn::Sub"] if isinstance(value["Fn::Sub"], list) else (value["Fn::Sub"], {})
            known = {**self.values, **self._value(own)}
            return re.sub(r"\$\{([^}]+)\}", lambda match: str(known[match[1]]), text)
        return {key: resolved for key, item in value.items() if (resolved := self._value(item)) is not None}


def as_list(value: Any) -> list[str]:
    """Return one or several as a list."""
    return [value] if isinstance(value, str) else list(value)


@cache
def kinds_of_resources(action: str) -> tuple[str, ...]:
    """Return what ARNs an action can be about, as AWS documents it; "*" for none in particular."""
    service, name = action.split(":")
    formats = get_action_data(service, name)
    assert formats, f"AWS has no action {action}"
    return tuple(entry["resource_arn_format"] for entry in formats[service])


def is_about(action: str, resource: str) -> bool:
    """Return whether an action can be about a resource: whether some ARN is of both patterns."""
    patterns = [re.sub(r"\$\{[^}]+\}", "*", kind) for kind in kinds_of_resources(action)]
    return any(
        fnmatch.fnmatchcase(resource, pattern) or fnmatch.fnmatchcase(pattern, resource)
        for pattern in patterns
        if pattern != "*"
    )


def test_template_cfn_lint_finds_nothing() -> None:
    regions = ["us-east-1", "eu-west-1", "ap-southeast-2"]
    done = subprocess.run(["cfn-lint", str(TEMPLATE), "--regions", *regions], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_policies_cover_everything_only_where_listed() -> None:
    stack = Stack(**ALL)
    everything = {
        (name, statement["Sid"])
        for name, statement in stack.statements()
        if "*" in as_list(statement["Resource"]) and statement["Effect"] == "Allow"
    }
    assert everything == ON_EVERYTHING
    any_action = {
        (name, statement["Sid"])
        for name, statement in stack.statements()
        if any("*" in action for action in as_list(statement["Action"]))
    }
    assert any_action == ANY_ACTION


def test_policies_name_actions_that_exist_on_resources_that_they_can_be_about() -> None:
    for name, statement in Stack(**ALL).statements():
        if (name, statement["Sid"]) in ANY_ACTION:
            continue
        actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
        if resources == ["*"]:
            kinds = {action: set(kinds_of_resources(action)) for action in actions}
            assert all(formats == {"*"} for formats in kinds.values()), (
                f"{name}.{statement['Sid']} can be narrowed: {kinds}"
            )
            continue
        for action in actions:
            assert any(is_about(action, resource) for resource in resources), f"{name}: {action} is about none of these"
        for resource in resources:
            assert any(is_about(action, resource) for action in actions), f"{name}: no action is about {resource}"


@pytest.mark.parametrize("name", ["DataPolicy", "LauncherPolicy", "MlflowPolicy"])
def test_managed_policy_is_as_small_as_aws_takes_it(name: str) -> None:
    longest = Stack(**{**ALL, "Project": "p" * 32, "Prefix": "p" * 32})
    assert len(json.dumps(longest.resources[name]["PolicyDocument"], separators=(",", ":"))) <= 6144


def test_job_role_reads_and_writes_below_its_prefixes_and_deletes_nothing() -> None:
    stack = Stack(**PLAIN)
    data = stack.of("DataPolicy")
    bucket = MADE["Bucket.Arn"]
    assert data["ReadAndWriteObjects"]["Resource"] == [
        f"{bucket}/{prefix}/*" for prefix in ("digits", "digits-jobs", "digits-mlflow")
    ]
    prefixes = data["ListOwnPrefixes"]["Condition"]["StringLike"]["s3:prefix"]
    assert "digits/*" in prefixes
    assert not any(fnmatch.fnmatchcase("digits-of-others/x", prefix) for prefix in prefixes)
    assert stack.resources["JobRole"]["ManagedPolicyArns"] == [MADE["DataPolicy"]]
    actions = [
        action
        for statement in (*data.values(), *stack.of("JobRole").values())
        for action in as_list(statement["Action"])
    ]
    assert [action for action in actions if "Delete" in action or action.startswith("sagemaker:")] == []
    assert data["KeyOfDisks"]["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    assert data["KeyOfObjects"]["Condition"] == {"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}}
    (trust,) = stack.resources["JobRole"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


def test_launcher_starts_own_jobs_with_the_one_role() -> None:
    own = Stack(**PLAIN).of("LauncherPolicy")
    assert all(resource.endswith("-job/digits-*") for resource in own["OwnJobs"]["Resource"])
    assert own["GiveJobsTheirRole"]["Resource"] == MADE["JobRole.Arn"]
    assert own["GiveJobsTheirRole"]["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_vpc_and_mlflow_are_there_only_when_asked_for() -> None:
    plain, full = Stack(**PLAIN), Stack(**ALL)
    extra = {"JobsInTheVpc", "MlflowApp", "MlflowPolicy", "MlflowRole"}
    assert set(full.resources) - set(plain.resources) == extra
    assert {"MlflowAppArn", "MlflowPolicyArn"} == set(full.outputs) - set(plain.outputs)
    assert "OnlyTheErasureRoleDeletes" not in plain.of("BucketPolicy")
    denied = full.of("BucketPolicy")["OnlyTheErasureRoleDeletes"]
    assert denied["Effect"] == "Deny"
    assert denied["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": ALL["ErasureRoleArn"]}}
    assert "s3:DeleteObjectVersion" in denied["Action"]
    vpc = full.of("JobsInTheVpc")["NetworkInterfacesInTheVpc"]["Condition"]["ArnEquals"]["ec2:Vpc"]
    assert vpc == f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-0a1b2c"


def test_existing_bucket_is_used_and_not_touched() -> None:
    stack = Stack(**PLAIN, ExistingBucket="theirs")
    assert {"Bucket", "BucketPolicy"} & set(stack.resources) == set()
    assert stack.outputs["DvcRemoteUrl"] == "s3://theirs/digits"
    assert stack.of("DataPolicy")["ListOwnPrefixes"]["Resource"] == "arn:aws:s3:::theirs"


def test_what_holds_data_outlives_the_stack() -> None:
    policies = {
        name: resource.get("DeletionPolicy") for name, resource in cfn_yaml.load(str(TEMPLATE))["Resources"].items()
    }
    holding = {"Bucket", "Key", "MlflowApp", "Repository"}
    assert {name for name, policy in policies.items() if policy == "RetainExceptOnCreate"} == holding
