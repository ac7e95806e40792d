"""The HTTP server: who asks what, and where it is answered.

Jobs, their logs, and a few calls more are answered here; everything else is moto's, in this process.
"""

import io
import json
import re
import socket
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request as HttpRequest
from werkzeug.wrappers import Response

from ...servers.proxies import Request
from . import control, quotas
from .account import Account
from .container import Image, problem
from .credentials import ACCOUNT, Credentials, Identity
from .emulator import Emulator
from .errors import ServiceError, not_emulated
from .faults import Faults
from .gaps import MlflowApps, caller, form_of, simulate
from .jobs import Job
from .logs import Logs
from .quotas import Quotas

JSON = "application/x-amz-json-1.1"
Environ = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A call of AWS's.

    Args:
        identity: Who asks.
        service: Name of the service, as in a signature.
        region: That is asked.
        action: What for; "" where only the path says so.
        body: As it came.
    """

    identity: Identity
    service: str
    region: str
    action: str
    body: bytes

    @property
    def name(self) -> str:
        """Return the action as policies name it."""
        return f"{self.service}:{self.action}"

    @property
    def content(self) -> dict[str, Any]:
        """Return what a body of JSON says."""
        content: dict[str, Any] = json.loads(self.body or b"{}")
        return content


class Quiet(WSGIRequestHandler):
    """Says nothing of requests, and keeps connections."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing."""


class Server:
    """The emulator, listening.

    Args:
        work: Folder for the jobs' files.
        images: What stands for an image, by a regular expression for the beginning of its address.
        credentials: Who may ask.
        s3: SageMaker's own client of S3.
        network: Variables by which a job finds AWS. AWS_ENDPOINT_URL is set; others may come later.
        hidden: Folders of this machine that jobs do not see.
        grace_s: Between SIGTERM and SIGKILL.
        port: To listen on; 0 for a free one.

    Attributes:
        url: Its address.
        faults: What goes wrong, and what was asked.
        emulator: The jobs.
        apps: MLflow Apps.
        quotas: How many machines there may be.

    Raises:
        RuntimeError: Containers can't be had here.
    """

    def __init__(
        self,
        work: Path,
        images: Mapping[str, Image],
        credentials: Credentials,
        s3: Any,
        network: dict[str, str],
        hidden: Iterable[Path] = (),
        grace_s: float = 120.0,
        port: int = 0,
    ) -> None:
        """Listen."""
        if problem():
            raise RuntimeError(f"no jobs can run here: {problem()}")
        self.credentials, self.faults, self.apps, self.quotas = credentials, Faults(), MlflowApps(), Quotas()
        self.logs = Logs(lambda: self.faults.log_delay_s)
        self._images = images
        self._moto = DomainDispatcherApplication(_backend)
        self._http = make_server("127.0.0.1", port, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        network["AWS_ENDPOINT_URL"] = self.url
        account = Account(
            work=work,
            image_of=self._image_of,
            logs=self.logs,
            faults=self.faults,
            credentials=credentials,
            s3=s3,
            network=network,
            credentials_url=f"{self.url}{control.PATH}/credentials",
            hidden=[work, Path.cwd(), Path.home(), *hidden],
            grace_s=grace_s,
        )
        self.account = account
        self.emulator = Emulator(account, self._assume, self.quotas)
        self.emulator.actions |= self.apps.actions()
        self._control = control.Control(self.faults, credentials, self.emulator.jobs)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def jobs(self) -> dict[str, Job]:
        """Return all jobs by their names."""
        return self.emulator.jobs

    def close(self) -> None:
        """End all jobs, and listen no more."""
        self.emulator.close()
        self._http.shutdown()
        self._http.server_close()

    def client(self, service: str, region: str, url: str = "", **config: Any) -> Any:
        """Return boto3's client of a service, for the caller.

        Args:
            service: Its name.
            region: That it asks.
            url: Another address than that of the emulator.
            config: Of botocore's.
        """
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=url or self.url,
            aws_access_key_id=self.credentials.key,
            aws_secret_access_key=self.credentials.secret,
            config=Config(**config),
        )

    def _image_of(self, uri: str) -> Image | None:
        return next((image for pattern, image in self._images.items() if re.match(pattern, uri)), None)

    def _assume(self, role_arn: str) -> None:
        """See that SageMaker can assume a role.

        Raises:
            ServiceError: There is none, or it does not trust SageMaker.
        """
        from moto.backends import get_backend

        known = {role.arn: role for role in get_backend("iam")[ACCOUNT]["aws"].roles.values()}
        role = known.get(role_arn)
        if not role or "sagemaker.amazonaws.com" not in str(role.assume_role_policy_document):
            raise ServiceError(
                "ValidationException",
                f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role.",
            )

    # HTTP

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        request = _request(environ)
        if request.target.startswith(control.PATH):
            return self._steer(request)(environ, start)
        try:
            call = self._call(request)
            fault = self.faults.meet(call.action)
            if fault and fault.what == "lose request":
                return _hang_up(environ)
            if fault and fault.error:
                raise fault.error
            if call.name in self.faults.denied:
                text = f"User: {call.identity.arn} is not authorized to perform: {call.name}"
                raise ServiceError("AccessDeniedException", text)
        except ServiceError as error:
            return _refusal(request, error)(environ, start)
        environ["wsgi.input"] = io.BytesIO(request.body)
        answer = self._answer(call, request, environ)
        return _hang_up(environ) if fault else answer(environ, start)

    def _call(self, request: Request) -> Call:
        """Return what is asked, and by whom.

        Raises:
            ServiceError: By nobody who may.
        """
        identity, signature = self.credentials.check(request)
        return Call(identity, signature.service, signature.region, _action(request), request.body)

    def _answer(self, call: Call, request: Request, environ: Environ) -> Response:
        """Answer a call."""
        try:
            return self._own(call) or Response.from_app(self._moto, environ, buffered=True)
        except NotImplementedError as error:
            return _refusal(request, not_emulated(f"{call.service} {call.action}: {error}"))
        except ServiceError as error:
            return _refusal(request, error)
        except Exception:
            traceback.print_exc()  # a fault of the emulator: who runs it must see it
            return _refusal(request, ServiceError("InternalFailure", traceback.format_exc(limit=-1), 500))

    def _own(self, call: Call) -> Response | None:
        """Answer a call that is not for moto."""
        if call.service == "sagemaker" and call.action in self.emulator.actions:
            return _json(self.emulator.call(call.action, call.content, call.region))
        if call.name == "logs:GetLogEvents" and self.logs.keeps(call.content):
            return _json(self.logs.events(call.content))
        if call.name == "logs:DescribeLogStreams" and self.logs.keeps(call.content):
            return _json(self.logs.describe_streams(call.content))
        if call.name == "servicequotas:ListServiceQuotas" and call.content["ServiceCode"] == quotas.SERVICE:
            return _json(self.quotas.list())
        if call.name == "servicequotas:GetServiceQuota" and call.content["ServiceCode"] == quotas.SERVICE:
            return _json(self.quotas.get(call.content["QuotaCode"]))
        if call.name == "sts:GetCallerIdentity":
            return Response(caller(call.identity), content_type="text/xml")
        if call.name == "iam:SimulatePrincipalPolicy":
            return Response(simulate(form_of(call.body), self.faults), content_type="text/xml")
        return None

    def _steer(self, request: Request) -> Response:
        try:
            return _json(self._control.answer(request))
        except ServiceError as error:
            return _json({"code": error.code, "message": error.message}, error.status)


def _backend(service: Any) -> Any:
    """Return moto's application of a service, which lets what it lacks be known."""
    app = create_backend_app(service)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    return app


def _request(environ: Environ) -> Request:
    http = HttpRequest(environ)
    headers = Message()
    for name, value in http.headers.items():
        headers[name] = value
    return Request(http.method, str(environ["REQUEST_URI"]), headers, http.get_data())


def _action(request: Request) -> str:
    target = request.headers.get("X-Amz-Target", "")
    if target:
        return target.rpartition(".")[2]
    if "x-www-form-urlencoded" in request.headers.get("Content-Type", ""):
        return form_of(request.body).get("Action", [""])[0]
    return ""


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, content_type=JSON)


def _refusal(request: Request, error: ServiceError) -> Response:
    """Return an error in the form that the caller reads."""
    if request.headers.get("X-Amz-Target"):
        return _json({"__type": error.code, "message": error.message}, error.status)
    xml = (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
        "<RequestId>emulated</RequestId></ErrorResponse>"
    )
    return Response(xml, error.status, content_type="text/xml")


def _hang_up(environ: Environ) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("on purpose")
