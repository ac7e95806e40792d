"""What `runs.py` reads in MLflow, from the history that Git and DVC keep: when MLflow is lost, or is to be checked.

A training that failed, or whose results nobody committed, has left only the commit that it read. Its times are not
known then, so it counts as trained after any revocation.
"""

import json
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ..config import load_platform
from ..errors import ProjectError
from ..files import read_json
from ..registry.versions import MODEL_URI
from ..tracking import dvc_remote, lineage_log
from ..tracking.git import GitError, git
from ..tracking.lineage_log import KnownRun
from ..tracking.run_files import LINEAGE
from .catalog_mlflow import MANIFEST, Catalog, Run
from .deployments import read_log
from .manifests import Fetch


def read(without: Collection[str] = ()) -> Catalog:
    """Read the runs that the history of this clone has, also of branches and logs that were fetched.

    Args:
        without: Runs to leave out.

    Raises:
        ShallowCloneError: This clone is shallow.
        ProjectError: It can't be read.
    """
    past = {run: one for run, one in lineage_log.runs().items() if run not in without}
    log = lineage_log.log() if past or not without else []
    made: dict[int, list[str]] = {}
    for entry in log:
        if entry.version is not None:
            made.setdefault(entry.version, []).append(entry.run)
    read_at = {entry.run: entry.commit for entry in log if entry.version is None}
    found = [_run(one, read_at.get(run, ""), made) for run, one in past.items()]
    commits = {run: (*one.commits, *filter(None, [read_at.get(run)])) for run, one in past.items()}
    return Catalog(found, [], partial(_places, found, commits))


def read_all() -> Catalog:
    """Read all that the history has: runs, and by the log the versions and who has which alias.

    Raises:
        ShallowCloneError: This clone is shallow.
        ProjectError: It can't be read.
    """
    there, log, refs = read(), read_log(), lineage_log.log_refs()
    holders = log.aliases or {}
    versions = [
        replace(version, aliases=tuple(alias for alias, holder in holders.items() if holder == number))
        for number, version in sorted(log.versions.items())
    ]
    tips = git("for-each-ref", "--format=%(objectname)", *refs).split() if refs else ["no log"]
    source = {"git": " ".join(dict.fromkeys(tips)), "experiments": None}
    return replace(there, versions=versions, source=source, doubts=log.doubts)


def _run(past: KnownRun, read_at: str, made: dict[int, list[str]]) -> Run:
    facts = _facts(past) or (_of_commit(read_at, made) if read_at else {})
    times = [datetime.fromisoformat(facts[key]) if key in facts else None for key in ("started_at", "ended_at")]
    parents = facts.get("parents")
    return Run(
        id=past.run,
        names=(past.run,),
        title=past.name,
        experiment=load_platform().project,
        started=times[0],
        ended=times[1],
        deleted=False,
        manifest=facts.get("manifest_sha256"),
        parents=None if parents is None else tuple(parents),
    )


def _facts(past: KnownRun) -> dict[str, Any]:
    """Return what a run wrote down of itself, from the newest commit with its results that is to be had."""
    for commit in past.commits:
        with tempfile.TemporaryDirectory() as folder:
            try:
                dvc_remote.restore(commit, (LINEAGE.as_posix(),), Path(folder))
                facts: dict[str, Any] = read_json(Path(folder) / LINEAGE)
            except (ProjectError, OSError, ValueError):
                continue
        if facts.get("run") == past.run:
            return facts
    return {}


def _of_commit(commit: str, made: dict[int, list[str]]) -> dict[str, Any]:
    """Return what a commit that a training read says of it."""
    try:
        sha256 = json.loads(git("show", f"{commit}:./reports/manifest.json"))["sha256"][0]
        start = YAML(typ="safe").load(git("show", f"{commit}:./params.yaml"))["train"]["init_from"]
    except (GitError, ValueError, KeyError, TypeError):
        return {}
    named = MODEL_URI.fullmatch(start) if start else None
    ours = named and named["name"] == load_platform().project
    parents = made.get(int(named["version"])) if named and ours else None
    return {"manifest_sha256": sha256, "parents": parents[:1] if parents else None if start else []}


def _places(found: list[Run], commits: dict[str, tuple[str, ...]], sha256: str) -> Iterator[Fetch]:
    for commit in dict.fromkeys(commit for run in found if run.manifest == sha256 for commit in commits[run.id]):
        yield partial(_restore, commit)


def _restore(commit: str, folder: Path) -> Path:
    dvc_remote.restore(commit, (MANIFEST,), folder)
    return folder / MANIFEST
