"""A network between DVC and an S3 store, which counts what is written and goes away on request."""

import threading
from collections import Counter
from collections.abc import Callable

from ...servers.proxies import ANSWER_S, HOP, Proxy, Reply, Request, refusal


class Network(Proxy):
    """An HTTP proxy that leaves signatures valid.

    Attributes:
        writes: How often each object was written.
        is_away: Says of a request whether the network is away just then; it is asked about each.
        holding: Whether a request is being held up.
    """

    hop = HOP - {"host"}  # which is signed

    def __init__(self, upstream: str) -> None:
        """Let everything through."""
        self.writes: Counter[str] = Counter()
        self.is_away: Callable[[Request], bool] = lambda _: False
        self._holds: Callable[[Request], bool] = lambda _: False
        self.holding = threading.Event()
        self._released = threading.Event()
        super().__init__(upstream)

    def handle(self, request: Request) -> Reply | None:
        """Answer a request, when the network is there."""
        if not self._released.is_set() and self._holds(request):
            self.holding.set()
            self._released.wait(ANSWER_S)
        if self.is_away(request):
            return refusal(403, "AccessDenied", "the test's network is away")  # which clients don't try again
        reply = self.forward(request)
        if reply and reply.status == 200 and request.method in ("PUT", "POST"):
            self.writes[request.target.partition("?")[0]] += 1
        return reply

    def hold(self, which: Callable[[Request], bool]) -> None:
        """Hold up requests of a kind until `release`."""
        self.holding.clear()
        self._released.clear()
        self._holds = which

    def release(self) -> None:
        """Let go on what is held up, and hold nothing more."""
        self._released.set()
