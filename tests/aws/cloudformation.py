"""CloudFormation on this machine: moto, and what the project's stack needs that moto leaves out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from moto.cloudformation import parsing
from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.kms.models import Key
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from ..servers.s3 import KEY, SECRET

ACCOUNT = "123456789012"
CREATE = "create_from_cloudformation_json"  # what moto calls for each resource of a stack


class Lacking:
    """A resource that moto does not make from a template."""

    def __init__(self, properties: dict[str, Any], physical_resource_id: str) -> None:
        """Be there."""
        self.properties, self.physical_resource_id = properties, physical_resource_id

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property with its name."""
        return ""


class BucketPolicy(Lacking, CloudFormationModel):
    """A policy, put where moto's S3 finds it."""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::S3::BucketPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> Any:
        """Put it to its bucket, without what a condition left out."""
        properties = cloudformation_json["Properties"]
        document = properties["PolicyDocument"]
        document["Statement"] = [statement for statement in document["Statement"] if statement]
        s3_backends[account_id]["aws"].put_bucket_policy(properties["Bucket"], json.dumps(document).encode())
        return cls(properties, resource_name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: Any, new_resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> Any:
        """Put the new one in its place."""
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)


class MlflowApp(Lacking, CloudFormationModel):
    """An MLflow App that is no more than its ARN."""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::SageMaker::MlflowApp"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return whether a template may ask for it."""
        return attr == "Arn"

    def get_cfn_attribute(self, attribute_name: str) -> str:
        """Return its ARN."""
        return self.physical_resource_id

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> Any:
        """Note what it is to be."""
        arn = f"arn:aws:sagemaker:{region_name}:{account_id}:mlflow-app/app-ABCDEF123456"
        return cls(cloudformation_json["Properties"], arn)


def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add to moto what it lacks.

    It forgets the outputs and parameters of a stack that a change set makes, answers a change set without changes
    with an error where AWS makes one that has failed, knows no rollback, and can't read the policy of a key that it
    makes. That is added here.
    """
    execute = CloudFormationBackend.execute_change_set

    def execute_change_set(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
        change_set = self.change_sets[change_set_name]
        stack, kind = self.stacks[change_set.stack_id], change_set.change_set_type
        try:
            execute(self, change_set_name, stack_name)
        except Exception as error:  # AWS tells of any of them in the events
            stack._add_stack_event(f"{kind}_FAILED", resource_status_reason=str(error))
            stack.status = "ROLLBACK_COMPLETE" if kind == "CREATE" else "UPDATE_ROLLBACK_COMPLETE"
            return
        stack._parse_template()
        stack.output_map = stack._create_output_map()
        stack.parameters = stack.resource_map.input_parameters = dict(stack.stack_parameters)

    monkeypatch.setattr(CloudFormationBackend, "execute_change_set", execute_change_set)
    monkeypatch.setattr(CloudFormationResponse, "_validate_different_update", lambda *_: None)
    parsing.get_model_map.cache_clear()  # another test may have filled it before the classes above were there
    parsing.get_name_type_map.cache_clear()

    make_key = vars(Key)[CREATE].__func__

    def create_key(cls: Any, resource_name: str, cloudformation_json: Any, *arguments: Any, **more: Any) -> Any:
        properties = cloudformation_json["Properties"]
        properties["KeyPolicy"] = json.dumps(properties["KeyPolicy"])
        return make_key(cls, resource_name, cloudformation_json, *arguments, **more)

    monkeypatch.setattr(Key, CREATE, classmethod(create_key))


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run moto's server with an empty account, and let this process have credentials for it."""
    complete(monkeypatch)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        yield
    finally:
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10)
        server.stop()
