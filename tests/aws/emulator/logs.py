"""CloudWatch's logs of jobs: groups, streams and events, with the tokens by which one reads on.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import ServiceError

PAGE = 10_000  # events in one answer, at most
STREAMS = 50  # in one answer


@dataclass(frozen=True)
class Event:
    """A line.

    Args:
        at: When it was printed, seconds since 1970.
        text: Without its end.
        seen: When it can be read, seconds since 1970.
    """

    at: float
    text: str
    seen: float


@dataclass
class Stream:
    """What one machine printed."""

    name: str
    created: float = field(default_factory=time.time)
    events: list[Event] = field(default_factory=list)

    def visible(self) -> list[Event]:
        """Return the events that have arrived."""
        now = time.time()
        return [event for event in self.events if event.seen <= now]


class Logs:
    """All groups of the emulator's jobs.

    Args:
        delay_s: Gives how much later than printed a line can be read.
    """

    def __init__(self, delay_s: Callable[[], float]) -> None:
        """Have none yet."""
        self._delay_s = delay_s
        self._groups: dict[str, dict[str, Stream]] = {}
        self._lock = threading.Lock()

    def open(self, group: str, prefix: str) -> str:
        """Make a stream, and return its name."""
        with self._lock:
            streams, number = self._groups.setdefault(group, {}), int(time.time())
            while f"{prefix}-{number}" in streams:  # of the machine before, in the same second
                number += 1
            streams[f"{prefix}-{number}"] = Stream(f"{prefix}-{number}")
        return f"{prefix}-{number}"

    def write(self, group: str, stream: str, line: str) -> None:
        """Add a line."""
        now = time.time()
        with self._lock:
            self._groups[group][stream].events.append(Event(now, line, now + self._delay_s()))

    def keeps(self, request: dict[str, Any]) -> bool:
        """Return whether a request is about a group for jobs."""
        return str(request.get("logGroupName", "")).startswith("/aws/sagemaker/")

    def has_group(self, group: str) -> bool:
        """Return whether there is a group: not before a job of its kind prints."""
        return group in self._groups

    def describe_streams(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer DescribeLogStreams."""
        prefix, group = request.get("logStreamNamePrefix", ""), request.get("logGroupName", "")
        if prefix and request.get("orderBy") == "LastEventTime":
            text = "Cannot order by LastEventTime with a logStreamNamePrefix."
            raise ServiceError("InvalidParameterException", text)
        with self._lock:
            streams = [
                stream
                for stream in self._group(group).values()
                if stream.name.startswith(prefix) and self._is_there(stream)
            ]
        order: Callable[[Stream], Any] = _last_event if request.get("orderBy") == "LastEventTime" else _name
        streams.sort(key=order, reverse=request.get("descending", False))
        start, limit = int(request.get("nextToken") or 0), int(request.get("limit") or STREAMS)
        page = streams[start : start + limit]
        more = {"nextToken": str(start + limit)} if start + limit < len(streams) else {}
        return {"logStreams": [_described(stream) for stream in page], **more}

    def events(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer GetLogEvents."""
        with self._lock:
            stream = self._group(request.get("logGroupName", "")).get(request.get("logStreamName", ""))
            if not stream or not self._is_there(stream):
                raise ServiceError("ResourceNotFoundException", "The specified log stream does not exist.")
            events = stream.visible()
        start, end = _range(request, len(events))
        page = events[start:end]
        return {
            "events": [
                {"timestamp": _ms(event.at), "message": event.text, "ingestionTime": _ms(event.seen)} for event in page
            ],
            "nextForwardToken": f"f/{start + len(page):056d}",
            "nextBackwardToken": f"b/{start:056d}",
        }

    def _group(self, name: str) -> dict[str, Stream]:
        if name not in self._groups:
            raise ServiceError("ResourceNotFoundException", "The specified log group does not exist.")
        return self._groups[name]

    def _is_there(self, stream: Stream) -> bool:
        """Return whether a stream can be seen: it comes as late as its lines."""
        return stream.created + self._delay_s() <= time.time()


def _range(request: dict[str, Any], number: int) -> tuple[int, int]:
    """Return the first event of a page and the one after its last."""
    limit, token = int(request.get("limit") or PAGE), request.get("nextToken") or ""
    if token.startswith("f/"):
        start = int(token.removeprefix("f/"))
        return start, min(start + limit, number)
    if token.startswith("b/"):
        end = int(token.removeprefix("b/"))
        return max(0, end - limit), end
    return (0, min(limit, number)) if request.get("startFromHead") else (max(0, number - limit), number)


def _name(stream: Stream) -> str:
    return stream.name


def _last_event(stream: Stream) -> float:
    return max((event.at for event in stream.events), default=0.0)


def _described(stream: Stream) -> dict[str, Any]:
    details = {"logStreamName": stream.name, "creationTime": _ms(stream.created), "storedBytes": 0}
    events = stream.visible()
    if events:
        details |= {"firstEventTimestamp": _ms(events[0].at), "lastEventTimestamp": _ms(events[-1].at)}
    return details


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
