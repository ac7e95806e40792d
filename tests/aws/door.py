"""The way to S3: it knows the sessions of jobs, and goes bad when told."""

from xml.sax.saxutils import escape

from botocore.credentials import Credentials as Keys

from ..servers.proxies import Reply, Request
from ..servers.s3 import CountingProxy
from ..servers.sigv4 import problem_of, signature_of, signed_again
from .emulator.credentials import Credentials, Identity
from .emulator.faults import S3, Faults

ENCRYPTION = "x-amz-server-side-encryption"


class S3Door(CountingProxy):
    """A proxy before an S3 store that only knows the caller's key.

    Whoever comes with a session's key is checked here, and let in with the caller's. So is who asks for encryption with
    a key of KMS: the store has none, and keeps such objects as all others.

    Args:
        upstream: Address of the store.
        credentials: Who may ask.
        faults: What goes wrong; they are switched on later.
    """

    def __init__(self, upstream: str, credentials: Credentials) -> None:
        """Listen on a free port."""
        self._store, self._credentials = upstream, credentials
        self.faults = Faults()
        super().__init__(upstream)

    def forward(self, request: Request) -> Reply | None:
        """Pass a request on, or refuse it."""
        signed = signature_of(request)
        identity = self._credentials.of(signed.key) if signed else None
        refused = self._refusal(request, identity)
        if refused or self._is_lost():
            return refused
        if not signed or not identity or not (identity.token or ENCRYPTION in request.headers):
            return super().forward(request)  # the store knows the caller, and refuses others
        problem = problem_of(request, signed, identity.secret, "s3", signed.region)
        if problem:
            return _refusal(403, "SignatureDoesNotMatch", problem)
        for name in (ENCRYPTION, f"{ENCRYPTION}-aws-kms-key-id"):
            del request.headers[name]
        keys = Keys(self._credentials.key, self._credentials.secret)
        return super().forward(signed_again(request, self._store, keys, signed.region))

    def _refusal(self, request: Request, identity: Identity | None) -> Reply | None:
        if self.faults.slows_down():
            return _refusal(503, "SlowDown", "Please reduce your request rate.")
        if _action(request) in self.faults.denied:
            return _refusal(403, "AccessDenied", f"not authorized to perform: {_action(request)}")
        if identity and identity.is_expired:
            return _refusal(400, "ExpiredToken", "The provided token has expired.")
        if identity and request.headers.get("X-Amz-Security-Token", "") != identity.token:
            return _refusal(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
        return None

    def _is_lost(self) -> bool:
        fault = self.faults.meet(S3)
        return bool(fault and fault.what == "lose request")


def _action(request: Request) -> str:
    """Return what is to be allowed for a request; parts of an upload are a PutObject."""
    key = request.target.partition("?")[0].strip("/").partition("/")[2]
    verbs = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}
    return f"s3:{verbs[request.method]}Object" if key else "s3:ListBucket"


def _refusal(status: int, code: str, message: str) -> Reply:
    """Return an error as S3 tells it."""
    body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Reply(status, [("Content-Type", "application/xml")], body.encode())
