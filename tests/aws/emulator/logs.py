"""CloudWatch's logs."""

import threading
import time
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A line and when it was printed, seconds since 1970."""

    at: float
    text: str


class Logs:
    """Streams of lines.

    Attributes:
        delay_s: So much later than it was printed a line is seen.
        lost: Whether there is no stream at all.
    """

    def __init__(self) -> None:
        """Have none."""
        self.delay_s, self.lost = 0.0, False
        self._streams: dict[tuple[str, str], list[Line]] = {}
        self._lock = threading.Lock()

    def put(self, group: str, stream: str, line: str) -> None:
        """Take a line."""
        with self._lock:
            self._streams.setdefault((group, stream), []).append(Line(time.time(), line or " "))

    def streams(self, group: str, prefix: str) -> list[dict[str, Any]] | None:
        """Return the streams of a group; None when there is no such group."""
        with self._lock:
            seen = {key: self._seen(lines) for key, lines in self._streams.items() if key[0] == group}
        if self.lost or not any(seen.values()):
            return None
        return [
            {"logStreamName": name, "creationTime": int(lines[0].at * 1000)}
            for (_, name), lines in seen.items()
            if lines and name.startswith(prefix)
        ]

    def events(self, group: str, stream: str, token: str | None) -> dict[str, Any]:
        """Return the lines after a token."""
        begin = int(token.removeprefix("f/")) if token else 0
        with self._lock:
            lines = self._seen(self._streams.get((group, stream), []))
        found = [{"timestamp": int(line.at * 1000), "message": line.text} for line in lines[begin:]]
        return {"events": found, "nextForwardToken": f"f/{len(lines)}", "nextBackwardToken": f"b/{begin}"}

    def _seen(self, lines: list[Line]) -> list[Line]:
        now = time.time()
        return [line for line in lines if line.at + self.delay_s <= now]
