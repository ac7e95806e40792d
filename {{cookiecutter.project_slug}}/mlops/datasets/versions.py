"""The versions of the dataset that this clone knows: by their Git tags, by registered models, by any commit.

A version is what `dvc.lock` pins at a commit, or in the work tree: the dataset, and the manifest that lists it. Where
the manifest is of another dataset, as after a `dvc repro prepare` alone, there is no version.
"""

import hashlib
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ProjectError
from ..pipeline import LOCK, training_stage
from ..registry.versions import MANIFEST, tagged_versions
from ..tracking import dvc_remote, lineage_log
from ..tracking.dataset_tags import SHORT
from ..tracking.git import git, try_git
from ..tracking.run_context import DATASET, snapshot

if TYPE_CHECKING:
    import pyarrow as pa

WORKSPACE = "workspace"
# The label of each tag, and its commit, whether it is annotated or not.
TAGS = "--format=%(refname:strip=3) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"


@dataclass(frozen=True)
class Version:
    """A version of the dataset."""

    commit: str  # that pins it; "" for the work tree
    md5: str  # DVC's hash of the dataset
    manifest_md5: str  # DVC's hash of the manifest
    labels: Sequence[str] = ()  # of its tags, the owner's first
    models: Sequence[int] = ()  # numbers of the registered versions that were trained on it

    def report(self, name: str) -> dict[str, Any]:
        """Return a report of the stages that made it, such as `manifest`; empty if its commit does not have it."""
        return dict(json.loads(_read(self.commit, f"reports/{name}.json") or "{}"))

    @property
    def timestamp(self) -> int:
        """Return when its commit was made, in seconds since 1970 UTC."""
        return int(git("show", "-s", "--format=%ct", self.commit))

    def row(self) -> dict[str, Any]:
        """Return what `data list` says of it."""
        report, splits = self.report("manifest"), defaultdict[str, int](int)
        for count in report.get("counts", ()):
            splits[count["split"]] += count["records"]
        time = self.commit and datetime.fromtimestamp(self.timestamp, UTC)
        return {
            "version": self.labels[0] if self.labels else self.md5[:SHORT],
            "tags": [f"data/{label}" for label in self.labels],
            "commit": self.commit or None,
            "date": f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None,
            "dataset_md5": self.md5,
            "records": report.get("records"),
            "subjects": report.get("subjects"),
            "splits": splits,
            "models": self.models,
        }


def tag(label: str) -> str:
    """Label the dataset of the work tree with an annotated Git tag, and return the commit that pins it.

    Raises:
        ProjectError: The label is none for Git, or names another commit already; or `dvc.lock` pins no version.
    """
    if try_git("check-ref-format", f"refs/tags/data/{label}") is None:
        raise ProjectError(f"{label!r} is no valid label", "use letters, digits, dots and dashes: v1.0")
    version, commit = find(WORKSPACE), snapshot(training_stage().name)
    lineage_log.tag(f"data/{label}", commit, version.md5)
    return commit


def known() -> list[Version]:
    """Return the versions that have a tag, or of which a model is registered, the newest first."""
    versions: dict[str, Version] = {}
    labels, models = defaultdict[str, list[str]](list), defaultdict[str, list[int]](list)
    for line in git("for-each-ref", TAGS, "refs/tags/data/").splitlines():
        label, commit = line.rsplit(" ", 1)
        if version := _at(commit):
            versions.setdefault(version.md5, version)
            labels[version.md5].append(label)
    for number, model in tagged_versions().items():
        if version := _at(model.commit):
            versions.setdefault(version.md5, version)
            models[version.md5].append(number)
    for md5, version in versions.items():
        owners_first = sorted(labels[md5], key=lambda label: (label == md5[:SHORT], label))
        versions[md5] = replace(version, labels=owners_first, models=models[md5])
    return sorted(versions.values(), key=lambda version: (version.timestamp, *version.labels), reverse=True)


def find(name: str) -> Version:
    """Return a version: `workspace`, or by its label, the beginning of its hash, or a revision of Git.

    Raises:
        ProjectError: There is no such version, `dvc.lock` pins none there, or several have a hash that begins so.
    """
    commit: str | None = ""
    if name != WORKSPACE:
        commit = _commit(f"refs/tags/data/{name.removeprefix('data/')}") or _commit_of_hash(name) or _commit(name)
    if commit is None:
        problem = f"this clone knows no label, hash of a dataset, or revision {name!r}"
        raise ProjectError(problem, "see what it knows: python -m mlops data list; get other labels: git fetch --tags")
    if not (version := _at(commit)):
        problem = f"dvc.lock{commit and f' of commit {commit[:10]}'} pins no {DATASET} with a manifest of it"
        fix = "name another: python -m mlops data list" if commit else "dvc repro manifest"
        raise ProjectError(problem, fix)
    return version


def read_manifest(version: Version) -> "pa.Table":
    """Return the manifest of a version, from DVC's cache or remote, or from the work tree.

    Raises:
        ProjectError: It is lost, or not the file that `dvc.lock` names.
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        file = MANIFEST
        if version.commit:
            dvc_remote.restore(version.commit, (MANIFEST.as_posix(),), Path(folder))
            file = Path(folder, MANIFEST)
        content = file.read_bytes() if file.exists() else b""
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == version.manifest_md5:
            return pq.read_table(file).combine_chunks()  # Arrow may free a part of a Python object too late
    problem = f"{MANIFEST.as_posix()} is not the file that dvc.lock names ({version.manifest_md5})"
    raise ProjectError(problem, "dvc repro manifest" if content else "dvc pull manifest, or: dvc repro manifest")


def _at(commit: str) -> Version | None:
    """Return the version at a commit, or in the work tree (""); None if there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = _read(commit, LOCK)
    try:
        stages = YAML(typ="safe").load(text)["stages"].values() if text else ()
    except (YAMLError, LookupError, TypeError) as error:
        if commit:  # it was committed so, with conflicts; no version is there
            return None
        fix = "keep one side of each conflict, and take the markers <, = and > out of dvc.lock; then: dvc repro"
        raise ProjectError("dvc.lock can't be read: it is damaged, or a merge has left conflicts in it", fix) from error
    made_by = {out["path"]: (out.get("md5", ""), stage) for stage in stages for out in stage.get("outs", ())}
    md5, _ = made_by.get(DATASET, ("", {}))
    manifest_md5, stage = made_by.get(MANIFEST.as_posix(), ("", {}))
    listed = [dep.get("md5") for dep in stage.get("deps", ()) if dep["path"] == DATASET]
    return Version(commit, md5, manifest_md5) if md5 and manifest_md5 and listed == [md5] else None


def _commit_of_hash(start: str) -> str | None:
    """Return a commit of any branch, tag, run or experiment that pins the dataset whose hash begins so."""
    if not re.fullmatch(r"[0-9a-f]{4,32}(\.dir)?", start):
        return None
    # Commits that brought the text, or removed it.
    commits = git("log", "--all", "--full-history", "--format=%H", f"-Gmd5: {start}", "--", LOCK).split()
    versions = (version for version in map(_at, commits) if version and version.md5.startswith(start))
    by_hash = {version.md5: version.commit for version in versions}
    if len(by_hash) > 1:
        raise ProjectError(f"{start} is the beginning of {' and of '.join(by_hash)}", "give more characters")
    return next(iter(by_hash.values()), None)


def _commit(revision: str) -> str | None:
    return try_git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _read(commit: str, path: str) -> str | None:
    """Return a file of the project at a commit, or in the work tree (""); None where there is none."""
    if commit:
        return try_git("show", f"{commit}:./{path}")
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else None
