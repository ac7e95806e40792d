"""What a job prints, from CloudWatch.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
"""

import re
from collections.abc import Iterator
from typing import Any

from ...tracking.git import without_credentials
from . import api
from .api import KINDS, Job

# Access keys, and what is named as a secret or a token.
# Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
SECRET = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}|(?i:(?<=secret_access_key=)|(?<=session_token=))\S+")


class Log:
    """The log of a job: a stream for each machine, and new ones after an interruption.

    Args:
        name: Of the job.
        kind: "training" or "processing".
    """

    def __init__(self, name: str, kind: str) -> None:
        self._name, self._group = name, KINDS[kind].log_group
        self._tokens: dict[str, str | None] = {}  # of each stream: where we are in it

    def lines(self, look: bool) -> Iterator[str]:
        """Give what is new.

        Args:
            look: Also for streams that are new.

        Raises:
            AwayError: AWS can't be reached; what was given is not given again.
            ProjectError: It refuses.
        """
        if look or not self._tokens:
            for name in self._streams():
                self._tokens.setdefault(name, None)
        for name in self._tokens:
            yield from self._of(name)

    def _streams(self) -> list[str]:
        """Return the names of the streams, the oldest first; none before the job prints."""
        from botocore.exceptions import ClientError

        with api.answering():
            pages = api.client("logs").get_paginator("describe_log_streams")
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

    def _of(self, stream: str) -> Iterator[str]:
        while True:
            token = self._tokens[stream]
            more = {"nextToken": token} if token else {}
            with api.answering():
                page = api.client("logs").get_log_events(
                    logGroupName=self._group, logStreamName=stream, startFromHead=True, **more
                )
            self._tokens[stream] = page["nextForwardToken"]
            yield from (masked(event["message"]) for event in page["events"])
            if page["nextForwardToken"] == token or not page["events"]:
                return


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
    return list(Log(job.name, job.kind).lines(look=True))
