"""Labels of datasets, such as v1.0: annotated Git tags `data/<label>` whose message is the dataset's hash.

A label is for people. It is outside the cache key: giving one runs nothing again.
"""

from pathlib import Path

from .. import pipeline
from ..config import home
from ..errors import ProjectError
from . import lineage_log
from .git import GitError, git
from .snapshot import snapshot

DATASET = "data/dataset"


def dataset_md5() -> str:
    """Return the hash of the dataset directory in `dvc.lock`.

    Raises:
        ProjectError: `dvc.lock` doesn't name the dataset.
    """
    from ruamel.yaml import YAML

    lock = YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8")) if Path("dvc.lock").exists() else {}
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            if out["path"] == DATASET:
                return str(out["md5"])
    raise ProjectError(f"dvc.lock does not name {DATASET}", "run the stage through DVC: dvc repro")


def label_of(md5: str) -> str:
    """Return the owner's label of a dataset, or the beginning of its hash."""
    tags = git("tag", "--list", "data/*", "--format=%(refname:strip=2) %(contents:subject)", where=home())
    for line in tags.splitlines():
        name, _, subject = line.partition(" ")
        if subject == md5:
            return name.removeprefix("data/")
    return md5[:8]


def tag(version: str) -> str:
    """Label the dataset of the work tree: the annotated Git tag `data/<version>`.

    Returns:
        The commit that pins it.

    Raises:
        ProjectError: The label is in use for another commit, or is no valid tag name.
    """
    commit = snapshot(pipeline.training_stage().name)
    try:
        git("check-ref-format", f"refs/tags/data/{version}")
    except GitError as error:
        raise ProjectError(f"{version!r} is no valid label", "use letters, digits, dots and dashes: v1.0") from error
    lineage_log.tag(f"data/{version}", commit, dataset_md5())
    return commit
