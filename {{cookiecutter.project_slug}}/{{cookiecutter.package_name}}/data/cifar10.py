"""CIFAR-10: 60,000 public colour photographs of 32x32 pixels in 10 classes, downloaded once (170 MB).

Nobody stands behind a photograph here that could withdraw, so a record's subject is the record itself: use it with
`data.consent: not_required`. Both published parts are taken, and split anew by `params.yaml:split`.
The archive's files are Python pickles; torchvision opens them only if their published checksums are right.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import http.client
import os
import urllib.error
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlops import ProjectError, Record

from ..images import encode_png


def records() -> Iterator[Record]:
    """Yield the training part, then the test part, in their published order.

    Yields:
        `cifar10-train-00042`: the published part, and the position in it from 0; labels "airplane" to "truck".

    Raises:
        ProjectError: The archive isn't in `data/download` of the project and can't be downloaded.
    """
    for part in ("train", "test"):
        photographs = _part(part)
        for position, label in enumerate(photographs.targets):
            name = f"cifar10-{part}-{position:05}"
            yield Record(name, name, photographs.classes[label], content=f"{part} {position}", origin=name)


def read(place: str) -> bytes:
    """Return a photograph as PNG; `place` is part and position."""
    part, position = place.split()
    return encode_png(_part(part).data[int(position)])


@cache
def _part(part: str) -> Any:
    # In experiments that DVC runs in a throw-away copy, the project's own folder too: all share one download.
    return _open(Path(os.environ.get("DVC_ROOT", ""), "data", "download"), part == "train")


def _open(download: Path, train: bool) -> Any:
    from torchvision.datasets import CIFAR10

    download.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(download / "cifar10.lock"):
            return CIFAR10(download, train=train, download=True)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise ProjectError(
            f"CIFAR-10 could not be downloaded: {getattr(error, 'reason', error)}",
            f"try again when online, put {CIFAR10.filename} ({CIFAR10.url}) into {download.as_posix()}, "
            "or choose data that needs no download: params.yaml:data.source: digits",
        ) from error
    except RuntimeError as error:
        problem = f"CIFAR-10 in {download.as_posix()} has not the published checksum"
        raise ProjectError(problem, f"delete {download.as_posix()}, and run again") from error
