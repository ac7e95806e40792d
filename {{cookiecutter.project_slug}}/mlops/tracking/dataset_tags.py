"""The Git tags of datasets, `data/<label>`: annotated, on a commit that pins the dataset, its hash as the message.

The owner gives a label, such as v1.0, with `data tag`. A dataset without one, of which a version is registered, gets
the beginning of its hash as its label. Tags are outside the cache key: they run nothing again.
"""

from ..config import home
from ..errors import ProjectError
from . import lineage_log
from .git import git

SHORT = 8  # characters of the hash


def labels() -> dict[str, str]:
    """Return the labels in this repository, each with the hash of its dataset."""
    lines = git("tag", "--list", "data/*", "--format=%(contents:subject) %(refname:strip=3)", where=home()).splitlines()
    return {label: md5 for md5, label in (line.rsplit(" ", 1) for line in lines)}


def label_of(md5: str) -> str:
    """Return the owner's label of a dataset, or the beginning of its hash."""
    given = (label for label, dataset in labels().items() if dataset == md5 and label != md5[:SHORT])
    return next(given, md5[:SHORT])


def tag_registered(md5: str, commit: str) -> None:
    """Tag the dataset of a registered version with the beginning of its hash, unless it has a tag.

    Args:
        md5: DVC's hash of the dataset.
        commit: It pins the dataset. The tag depends on it alone, so that clones make the same one.
    """
    if md5 in labels().values():
        return
    try:
        date = git("show", "-s", "--format=%cI", commit)
        lineage_log.tag(f"data/{md5[:SHORT]}", commit, md5, date)
    except ProjectError:
        if md5 not in labels().values():  # else an experiment that ran at the same time was faster
            raise
