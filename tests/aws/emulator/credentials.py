"""Who asks, and the session credentials of jobs.

A caller has a key for good. A job gets, at an address that only it knows a token for, keys of a session that end.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...servers.proxies import Request
from ...servers.sigv4 import Signature, problem_of, signature_of
from .errors import ServiceError

ACCOUNT = "123456789012"
VALID_S = 3600.0
INVALID = "The security token included in the request is invalid."
EXPIRED = "The security token included in the request is expired"


@dataclass
class Identity:
    """A key, and whose it is.

    Args:
        key: AWS access key id.
        secret: AWS secret access key.
        arn: Who has it.
        token: Of the session; "" for a key for good.
        expires: When it ends, seconds since 1970; infinite for a key for good.
    """

    key: str
    secret: str
    arn: str
    token: str = ""
    expires: float = float("inf")

    @property
    def is_expired(self) -> bool:
        """Return whether it has ended."""
        return time.time() >= self.expires


@dataclass
class Credentials:
    """All keys that there are.

    Args:
        key: Of the caller: of whoever uses the emulator.
        secret: Of the caller.
        valid_s: How long a job's session credentials are good.
    """

    key: str
    secret: str
    valid_s: float = VALID_S
    _known: dict[str, Identity] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)  # of the address: role
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Know the caller."""
        self._known[self.key] = Identity(self.key, self.secret, f"arn:aws:iam::{ACCOUNT}:user/developer")

    def admit(self, role_arn: str) -> str:
        """Return the token with which a job asks for credentials of its role."""
        token = secrets.token_urlsafe()
        with self._lock:
            self._tokens[token] = role_arn
        return token

    def dismiss(self, token: str) -> None:
        """Give nothing more for a token: its job has ended."""
        with self._lock:
            self._tokens.pop(token, None)

    def issue(self, token: str) -> dict[str, str]:
        """Return new session credentials.

        Raises:
            ServiceError: The token is none.
        """
        with self._lock:
            role_arn = self._tokens.get(token)
            if not role_arn:
                raise ServiceError("AccessDenied", "the Authorization token is wrong, or its job has ended", 403)
            arn = role_arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/SageMaker"
            key, expires = f"ASIA{secrets.token_hex(8).upper()}", time.time() + self.valid_s
            made = Identity(key, secrets.token_urlsafe(30), arn, secrets.token_urlsafe(60), expires)
            self._known[key] = made
        until = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"AccessKeyId": key, "SecretAccessKey": made.secret, "Token": made.token, "Expiration": until}

    def of(self, key: str) -> Identity | None:
        """Return whose a key is."""
        return self._known.get(key)

    def secret_of(self, key: str) -> str | None:
        """Return the secret of a key that is good now."""
        identity = self.of(key)
        return identity.secret if identity and not identity.is_expired else None

    def expire(self, key: str | None = None) -> None:
        """End credentials at once: of one key, or of all sessions of jobs."""
        for identity in list(self._known.values()):
            if identity.key == key or (key is None and identity.token):
                identity.expires = 0

    def renew(self, key: str) -> None:
        """Make the caller's credentials good again, as after a new login."""
        self._known[key].expires = float("inf")

    def check(self, request: Request) -> tuple[Identity, Signature]:
        """Return who signed a request.

        Raises:
            ServiceError: Nobody that is known, or not rightly.
        """
        signed = signature_of(request)
        if not signed:
            raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        identity = self.of(signed.key)
        if not identity or request.headers.get("X-Amz-Security-Token", "") != identity.token:
            raise ServiceError("UnrecognizedClientException", INVALID, 400)
        if identity.is_expired:
            raise ServiceError("ExpiredTokenException", EXPIRED, 400)
        problem = problem_of(request, signed, identity.secret, signed.service, signed.region)
        if problem:
            raise ServiceError("InvalidSignatureException", problem, 403)
        return identity, signed
