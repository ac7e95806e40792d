"""A network that stands between a client and a server, and that counts, or goes bad when told."""

import http.client
import json
import math
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple

# Headers of one connection, and not of the message.
HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive"})
ANSWER_S = 120  # for the server behind


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    method: str
    target: str  # path and query, as they came
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What it gets."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def refusal(status: int, code: str, message: str) -> Reply:
    """Return an error as MLflow's clients read it."""
    body = json.dumps({"error_code": code, "message": message}).encode()
    return Reply(status, [("Content-Type", "application/json")], body)


class Server(ABC):
    """An HTTP server in threads of the test process, on a free port."""

    def __init__(self) -> None:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @abstractmethod
    def handle(self, request: Request) -> Reply | None:
        """Answer a request; None means to hang up without an answer."""

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()


class Proxy(Server):
    """An HTTP proxy, which forwards everything.

    Args:
        upstream: Address of the server behind: `http://127.0.0.1:5000`.

    Attributes:
        hop: Headers that are not passed on.
    """

    hop: frozenset[str] = HOP

    def __init__(self, upstream: str) -> None:
        """Listen on a free port."""
        self._upstream = upstream.removeprefix("http://")
        super().__init__()

    def handle(self, request: Request) -> Reply | None:
        """Answer a request; None means to hang up without an answer."""
        return self.forward(request)

    def forward(self, request: Request) -> Reply | None:
        """Ask the server behind; None when it is away."""
        connection = http.client.HTTPConnection(self._upstream, timeout=ANSWER_S)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in self.hop}
        try:
            connection.request(request.method, request.target, request.body, headers)
            answer = connection.getresponse()
            # The reply to a HEAD tells the length of a body that it does not have.
            lost = self.hop - {"content-length"} if request.method == "HEAD" else self.hop
            passed_on = [(name, value) for name, value in answer.getheaders() if name.lower() not in lost]
            return Reply(answer.status, passed_on, answer.read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = server.handle(Request(self.command, self.path, self.headers, body))
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else reply.body)  # the rest of it would be the next reply

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    return Handler


class Point(NamedTuple):
    """A point of a curve, as it is sent."""

    run_id: str
    key: str
    timestamp: int
    step: int
    value: str


@dataclass
class Fault:
    """What goes wrong with requests.

    Args:
        action: The request never arrives; it is applied and its reply never arrives; it is answered with `status`.
        times: How often.
        path: Only where this is part of the path.
        status: Of HTTP.
    """

    action: Literal["lose request", "lose reply", "answer"]
    times: float = math.inf
    path: str = ""
    status: int = 500
    hits: int = 0


class FaultProxy(Proxy):
    """A bad network.

    Attributes:
        token: What clients must bring as bearer token; "" for none.
        delay_s: How long every request is held up.
        requests: How often each path was asked for.
        applied: How often each point was sent to the server and taken by it.
    """

    def __init__(self, upstream: str, token: str = "") -> None:
        """Break nothing yet."""
        self.token = token
        self.delay_s = 0.0
        self.requests: Counter[str] = Counter()
        self.applied: Counter[Point] = Counter()
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        super().__init__(upstream)

    def breaks(self, fault: Fault) -> Fault:
        """Let something go wrong from now on."""
        with self._lock:
            self._fault = fault
        return fault

    def heals(self) -> None:
        """Let everything go right again."""
        with self._lock:
            self._fault = None

    def handle(self, request: Request) -> Reply | None:
        """Do to a request what is in force."""
        with self._lock:
            self.requests[urllib.parse.urlsplit(request.target).path] += 1
            fault = self._hit(request)
        time.sleep(self.delay_s)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return refusal(401, "UNAUTHENTICATED", "a bearer token is missing, or wrong")
        if fault and fault.action == "answer":
            return refusal(fault.status, "TEMPORARILY_UNAVAILABLE", f"the test's {fault.status}")
        if fault and fault.action == "lose request":
            return None
        reply = self.forward(request)
        if reply and reply.status == 200 and request.target.endswith("/runs/log-batch"):
            with self._lock:
                self.applied.update(_points(request.body))
        return None if fault else reply

    def _hit(self, request: Request) -> Fault | None:
        fault = self._fault
        if not fault or fault.hits >= fault.times or fault.path not in request.target:
            return None
        fault.hits += 1
        return fault


def _points(body: bytes) -> Iterator[Point]:
    batch = json.loads(body)
    for metric in batch.get("metrics", []):
        step = int(metric.get("step", 0))  # zero is left out
        yield Point(batch["run_id"], metric["key"], int(metric["timestamp"]), step, repr(metric.get("value", 0)))
