"""What a check finds."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .. import client


class CheckStatus(StrEnum):
    """How it is with one thing."""

    OK = "ok"
    MEND = "to be mended"
    UNASKED = "could not be asked"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """What was found of one thing.

    Args:
        standing: How it is.
        found: What was found, with values.
        fix: What to do; "" where nothing is to be done.
    """

    standing: CheckStatus
    found: str
    fix: str = ""


Findings = Iterator[CheckResult]


def ok(found: str) -> CheckResult:
    """Return that a thing is as a job needs it."""
    return CheckResult(CheckStatus.OK, found)


def mend(found: str, fix: str) -> CheckResult:
    """Return that a job would fail, and what to do."""
    return CheckResult(CheckStatus.MEND, found, fix)


def unasked(found: str, fix: str) -> CheckResult:
    """Return that we could not see how it is, and who can."""
    return CheckResult(CheckStatus.UNASKED, found, fix)


def boto_client(service: str) -> Any:
    """Return boto3's client of a service; it tries twice, since a person waits."""
    return client.client(service, 2)


def code_of(error: Any) -> str:
    """Return AWS's word for an error."""
    return str(error.response["Error"]["Code"])
