"""The door of a SageMaker MLflow App or tracking server, before a plain `mlflow server`."""

import hashlib
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ..servers.proxies import Proxy, Reply, Request, refusal


class SigV4Proxy(Proxy):
    """The door of a SageMaker MLflow App or tracking server: only who signs with the right secret gets in.

    Args:
        upstream: The server behind.
        arn: Of the App or tracking server.
        key: AWS access key id.
        secret: AWS secret access key.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    KINDS = {  # noqa: RUF012  # kind: name of the service in the signature, header with the ARN
        "mlflow-app": ("sagemaker", "x-sm-mlflow-app-arn"),
        "mlflow-tracking-server": ("sagemaker-mlflow", "x-mlflow-sm-tracking-server-arn"),
    }

    def __init__(self, upstream: str, arn: str, key: str, secret: str) -> None:
        """Listen on a free port."""
        self.arn = arn
        self.passed = self.refused = 0
        region, kind = arn.split(":")[3], arn.split(":")[5].partition("/")[0]
        service, self._header = self.KINDS[kind]
        self._signer = SigV4Auth(Credentials(key, secret), service, region)
        super().__init__(upstream)

    def handle(self, request: Request) -> Reply | None:
        """Let a request pass when its signature is right."""
        problem = self._problem(request)
        if problem:
            self.refused += 1
            return refusal(403, "PERMISSION_DENIED", problem)
        self.passed += 1
        del request.headers["Authorization"]
        return self.forward(request)

    def _problem(self, request: Request) -> str:
        scheme, _, told = request.headers.get("Authorization", "").partition(" ")
        parts = dict(part.strip().split("=", 1) for part in told.split(",") if "=" in part)
        if scheme != "AWS4-HMAC-SHA256" or parts.keys() != {"Credential", "SignedHeaders", "Signature"}:
            return "Missing Authentication Token"
        signed = parts["SignedHeaders"].split(";")
        if request.headers.get(self._header) != self.arn or self._header not in signed or "host" not in signed:
            return f"the header {self._header} is missing, wrong, or not signed"
        if request.headers.get("X-Amz-Content-SHA256") != hashlib.sha256(request.body).hexdigest():
            return "the body is not the one that was signed"
        again = self._canonical(request, signed)
        if self._signer.scope(again) != parts["Credential"]:
            return f"Credential should be scoped to {self._signer.scope(again)}"
        expected = self._signer.string_to_sign(again, self._signer.canonical_request(again))
        if self._signer.signature(expected, again) != parts["Signature"]:
            return "The request signature we calculated does not match the signature you provided"
        return ""

    def _canonical(self, request: Request, signed: list[str]) -> AWSRequest:
        path, _, query = request.target.partition("?")
        # As AWS does: decoded and encoded again. A plus is a plus, and no space.
        pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
        encoded = "&".join("=".join(map(_encoded_again, pair)) for pair in pairs)
        headers = {name: request.headers.get(name, "") for name in signed}
        url = f"http://{request.headers['Host']}{path}" + (f"?{encoded}" if encoded else "")
        again = AWSRequest(method=request.method, url=url, headers=headers, data=request.body)
        again.context["timestamp"] = request.headers.get("X-Amz-Date", "")
        return again


def _encoded_again(text: str) -> str:
    return urllib.parse.quote(urllib.parse.unquote(text), "-_.~")
