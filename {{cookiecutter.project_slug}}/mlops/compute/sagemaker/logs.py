"""What a job prints, from CloudWatch.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
"""

import re
from collections.abc import Iterator
from typing import Any

from ...tracking.git import without_credentials
from . import client
from .client import KINDS, Job

# Access keys, and what is named as a secret or a token.
# Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
SECRET = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}|(?i:(?<=secret_access_key=)|(?<=session_token=))\S+")


class Log:
    """The log of a job: a stream for each machine, and new ones after an interruption.

    Args:
        name: Of the job.
        kind: "training" or "processing".

    Attributes:
        is_read: Whether the last look found the end of each stream.
    """

    def __init__(self, name: str, kind: str) -> None:
        self._name, self._group = name, KINDS[kind].log_group
        self._tokens: dict[str, str | None] = {}  # of each stream: where we are in it
        self.is_read = False

    def lines(self, look: bool) -> Iterator[str]:
        """Give what is new: up to 10,000 lines of each stream, for which CloudWatch is asked once.

        Args:
            look: Also for streams that are new.

        Raises:
            AwayError: AWS can't be reached; what was given is not given again.
            ProjectError: It refuses.
        """
        if look or not self._tokens:
            for name in self._streams():
                self._tokens.setdefault(name, None)
        self.is_read = True
        for name, token in self._tokens.items():
            page = self._page(name, token)
            self._tokens[name] = page["nextForwardToken"]
            self.is_read &= page["nextForwardToken"] == token
            yield from (masked(event["message"]) for event in page["events"])

    def _streams(self) -> list[str]:
        """Return the names of the streams, the oldest first; none before the job prints."""
        from botocore.exceptions import ClientError

        with client.translate_errors():
            pages = client.client("logs").get_paginator("describe_log_streams")
            try:
                found = [
                    stream
                    for page in pages.paginate(logGroupName=self._group, logStreamNamePrefix=f"{self._name}/")
                    for stream in page["logStreams"]
                ]
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                return []
        return [stream["logStreamName"] for stream in sorted(found, key=_created)]

    def _page(self, stream: str, token: str | None) -> dict[str, Any]:
        more = {"nextToken": token} if token else {}
        with client.translate_errors():
            page: dict[str, Any] = client.client("logs").get_log_events(
                logGroupName=self._group, logStreamName=stream, startFromHead=True, **more
            )
        return page


def masked(line: str) -> str:
    """Return a line without credentials: those in addresses, and AWS's."""
    return SECRET.sub("****", without_credentials(line))


def _created(stream: dict[str, Any]) -> int:
    return int(stream.get("creationTime", 0))


def all_of(job: Job) -> list[str]:
    """Return all that a job printed.

    Raises:
        AwayError: AWS can't be reached.
        ProjectError: It refuses.
    """
    told = Log(job.name, job.kind)
    lines = list(told.lines(look=True))
    while not told.is_read:  # an empty page need not be the last
        lines += told.lines(look=False)
    return lines
