"""What answers somewhere: a registered version that an alias points at. Add to `SERVING` who else serves models."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .runs import Version, World


@dataclass(frozen=True, slots=True)
class Served:
    """A version that answers somewhere.

    Args:
        where: For people, such as `alias champion`.
        version: The version.
    """

    where: str
    version: Version

    def __str__(self) -> str:
        return f"{self.where} ({self.version.model}/{self.version.number})"


def aliased(there: World) -> Iterator[Served]:
    """Give the versions that have an alias."""
    for version in there.versions:
        for alias in version.aliases:
            yield Served(f"alias {alias}", version)


SERVING: list[Callable[[World], Iterable[Served]]] = [aliased]
"""Who knows what is served. Yours to add to."""
