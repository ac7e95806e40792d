"""The door of a SageMaker MLflow App or tracking server, before a plain `mlflow server`."""

from collections.abc import Callable

from .proxies import Proxy, Reply, Request, refusal
from .sigv4 import problem_of, signature_of

SecretOf = Callable[[str], str | None]


class SigV4Proxy(Proxy):
    """The door of a SageMaker MLflow App or tracking server: only who signs with the right secret gets in.

    Args:
        upstream: The server behind.
        arn: Of the App or tracking server.
        secret_of: Gives the secret of an AWS access key id; None for a key that is not known.
    """

    KINDS = {  # noqa: RUF012  # kind: name of the service in the signature, header with the ARN
        "mlflow-app": ("sagemaker", "x-sm-mlflow-app-arn"),
        "mlflow-tracking-server": ("sagemaker-mlflow", "x-mlflow-sm-tracking-server-arn"),
    }

    def __init__(self, upstream: str, arn: str, secret_of: SecretOf) -> None:
        """Listen on a free port."""
        self.arn = arn
        self.passed = self.refused = 0
        self._region, kind = arn.split(":")[3], arn.split(":")[5].partition("/")[0]
        self._service, self._header = self.KINDS[kind]
        self._secret_of = secret_of
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
        signed = signature_of(request)
        if not signed:
            return "Missing Authentication Token"
        if request.headers.get(self._header) != self.arn or not {self._header, "host"} <= set(signed.headers):
            return f"the header {self._header} is missing, wrong, or not signed"
        if not request.headers.get("X-Amz-Content-SHA256"):
            return "the body is not signed"
        secret = self._secret_of(signed.key)
        if not secret:
            return "The security token included in the request is invalid."
        return problem_of(request, signed, secret, self._service, self._region)
