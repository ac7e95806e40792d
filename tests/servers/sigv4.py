"""Signatures of requests, as AWS checks them.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import urllib.parse
from dataclasses import dataclass
from email.message import Message

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .proxies import HOP, Request


@dataclass(frozen=True)
class Signature:
    """What the header `Authorization` says.

    Args:
        key: AWS access key id.
        scope: Key, day, region, service.
        headers: Names of those that are signed.
        text: The signature.
    """

    key: str
    scope: str
    headers: list[str]
    text: str

    @property
    def region(self) -> str:
        """Return the region that is asked."""
        return self.scope.split("/")[2]

    @property
    def service(self) -> str:
        """Return the service that is asked."""
        return self.scope.split("/")[3]


def signature_of(request: Request) -> Signature | None:
    """Return the signature of a request; None when it has none."""
    scheme, _, fields = request.headers.get("Authorization", "").partition(" ")
    parts = dict(part.strip().split("=", 1) for part in fields.split(",") if "=" in part)
    if scheme != "AWS4-HMAC-SHA256" or parts.keys() != {"Credential", "SignedHeaders", "Signature"}:
        return None
    scope = parts["Credential"]
    if scope.count("/") != 4:
        return None
    return Signature(scope.partition("/")[0], scope, parts["SignedHeaders"].split(";"), parts["Signature"])


def problem_of(request: Request, signed: Signature, secret: str, service: str, region: str) -> str:
    """Return what is wrong with a signature; "" for nothing.

    Args:
        request: As it came.
        signed: Its signature.
        secret: Of the key.
        service: That must be meant.
        region: That must be meant.
    """
    digest = request.headers.get("X-Amz-Content-SHA256")
    if digest and len(digest) == 64 and digest != hashlib.sha256(request.body).hexdigest():
        return "the body is not the one that was signed"
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    signer = kind(Credentials(signed.key, secret), service, region)
    again = _canonical(request, signed.headers)
    if signer.scope(again) != signed.scope:
        return f"Credential should be scoped to {signer.scope(again)}"
    expected = signer.string_to_sign(again, signer.canonical_request(again))
    if signer.signature(expected, again) != signed.text:
        return "The request signature we calculated does not match the signature you provided"
    return ""


class _AsSigned(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """S3's signer for a body that is sent as it came, in chunks and without a hash perhaps."""

    digest = ""

    def payload(self, request: AWSRequest) -> str:
        return self.digest


def signed_again(request: Request, url: str, credentials: Credentials, region: str) -> Request:
    """Return a request to S3 as it is passed on to another server, with other credentials."""
    lost = HOP | {"authorization", "x-amz-security-token", "x-amz-date", "x-amz-content-sha256"}
    signable = {name: value for name, value in request.headers.items() if name.lower() not in lost}
    again = AWSRequest(method=request.method, url=f"{url}{request.target}", headers=signable, data=request.body)
    signer = _AsSigned(credentials, "s3", region)
    signer.digest = request.headers["X-Amz-Content-SHA256"]
    signer.add_auth(again)
    headers = Message()
    for name, value in (("Host", url.removeprefix("http://")), *again.headers.items()):
        headers[name] = value
    return Request(request.method, request.target, headers, request.body)


def _canonical(request: Request, signed: list[str]) -> AWSRequest:
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
