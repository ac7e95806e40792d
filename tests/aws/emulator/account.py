"""The account in which jobs run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .container import Image
from .credentials import Credentials
from .faults import Faults
from .logs import Logs


@dataclass
class Account:
    """What jobs have of it.

    Args:
        work: Folder for their files.
        image_of: Gives the image of an address; None for one that is not there.
        logs: Where they print to.
        faults: What goes wrong.
        credentials: Who may ask.
        s3: SageMaker's own client of S3, which no fault touches.
        network: Variables by which a job finds AWS here, instead of in the Internet.
        credentials_url: Where jobs ask for credentials.
        hidden: Folders of this machine that jobs do not see.
        grace_s: Between the signal to stop and SIGKILL.
    """

    work: Path
    image_of: Callable[[str], Image | None]
    logs: Logs
    faults: Faults
    credentials: Credentials
    s3: Any
    network: Mapping[str, str]
    credentials_url: str
    hidden: list[Path]
    grace_s: float
