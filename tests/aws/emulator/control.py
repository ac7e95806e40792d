"""Switches for who runs the emulator by hand, and the address at which jobs ask for credentials."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ...servers.proxies import Request
from .credentials import Credentials
from .errors import ServiceError
from .faults import Faults
from .jobs import Job

PATH = "/_emulator"


class Control:
    """What only the emulator is asked.

    Args:
        faults: What goes wrong.
        credentials: Who may ask.
        jobs: By their names.
    """

    def __init__(self, faults: Faults, credentials: Credentials, jobs: Mapping[str, Job]) -> None:
        """Keep the three."""
        self._faults, self._credentials, self._jobs = faults, credentials, jobs
        self._switches: dict[str, Callable[..., Any]] = {
            "throttle": faults.throttle,
            "drop": faults.drop,
            "set": faults.set,
            "heal": faults.heal,
            "expire": credentials.expire,
            "renew": credentials.renew,
            "interrupt": lambda job: self._job(job).interrupt(),
            "kill": lambda job: self._job(job).kill(),
        }

    def answer(self, request: Request) -> dict[str, Any]:
        """Answer a request below `PATH`.

        Raises:
            ServiceError: It is none of those that there are.
        """
        verb = request.target.removeprefix(f"{PATH}/")
        if verb == "credentials":
            return self._credentials.issue(request.headers.get("Authorization", ""))
        if verb == "calls":
            return dict(self._faults.calls)
        if request.method != "POST" or verb not in self._switches:
            known = ", ".join(self._switches)
            raise ServiceError("NotFound", f"{request.method} {verb}: GET calls, or POST one of {known}", 404)
        try:
            self._switches[verb](**json.loads(request.body or b"{}"))
        except (TypeError, ValueError) as error:
            raise ServiceError("BadRequest", f"{verb}: {error}") from error
        return {}

    def _job(self, name: str) -> Job:
        if name not in self._jobs:
            raise ServiceError("NotFound", f"there is no job {name!r}", 404)
        return self._jobs[name]
