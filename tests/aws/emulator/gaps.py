"""Calls that moto has no answer for, or none that a user would get.

Source: https://docs.getmoto.org/en/latest/docs/services/index.html
"""

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from .credentials import Identity
from .errors import ServiceError
from .faults import Faults

Form = dict[str, list[str]]


def form_of(body: bytes) -> Form:
    """Return the fields of a call of AWS's older kind."""
    return urllib.parse.parse_qs(body.decode(errors="replace"))


def caller(identity: Identity) -> str:
    """Answer sts:GetCallerIdentity."""
    fields = {"Arn": identity.arn, "UserId": identity.key, "Account": identity.arn.split(":")[4]}
    return _xml("sts", "2011-06-15", "GetCallerIdentity", "".join(f"<{k}>{v}</{k}>" for k, v in fields.items()))


def simulate(form: Form, faults: Faults) -> str:
    """Answer iam:SimulatePrincipalPolicy: everything is allowed but what is denied."""
    resources = _members(form, "ResourceArns") or ["*"]
    rows = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        f"<EvalDecision>{'implicitDeny' if action in faults.denied else 'allowed'}</EvalDecision></member>"
        for action in _members(form, "ActionNames")
        for resource in resources
    )
    content = f"<IsTruncated>false</IsTruncated><EvaluationResults>{rows}</EvaluationResults>"
    return _xml("iam", "2010-05-08", "SimulatePrincipalPolicy", content)


def _members(form: Form, name: str) -> list[str]:
    return [values[0] for key, values in form.items() if key.startswith(f"{name}.member.")]


def _xml(service: str, version: str, action: str, content: str) -> str:
    space = f"https://{service}.amazonaws.com/doc/{version}/"
    return (
        f'<{action}Response xmlns="{space}"><{action}Result>{content}</{action}Result>'
        f"<ResponseMetadata><RequestId>emulated</RequestId></ResponseMetadata></{action}Response>"
    )


@dataclass
class MlflowApps:
    """SageMaker's MLflow Apps, which are made elsewhere.

    Attributes:
        apps: By ARN, as DescribeMlflowApp tells of them.
    """

    apps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, arn: str, name: str, store: str, role_arn: str, status: str = "Created") -> None:
        """Let there be one.

        Args:
            arn: Its ARN.
            name: Its name.
            store: Where its artifacts go, s3://….
            role_arn: Of its role.
            status: Such as Created, Creating, Deleted.
        """
        app = {"Arn": arn, "Name": name, "Status": status, "ArtifactStoreUri": store, "RoleArn": role_arn}
        self.apps[arn] = {**app, "MlflowVersion": "3.4", "ModelRegistrationMode": "AutoModelRegistrationDisabled"}

    def actions(self) -> dict[str, Callable[[dict[str, Any], str], dict[str, Any]]]:
        """Return what can be asked."""
        return {"DescribeMlflowApp": self._describe, "ListMlflowApps": self._list}

    def _describe(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        if request["Arn"] not in self.apps:
            raise ServiceError("ResourceNotFound", f"MLflow App {request['Arn']} does not exist.")
        return self.apps[request["Arn"]]

    def _list(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        fields = ("Arn", "Name", "Status", "MlflowVersion")
        return {"Summaries": [{name: app[name] for name in fields} for app in self.apps.values()]}
