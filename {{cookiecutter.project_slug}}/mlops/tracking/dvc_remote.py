"""The DVC remote: its address, what is pushed to it, and the files of earlier commits, restored from it.

DVC (3.67) reads its configuration files in the encoding of the locale and writes them in ASCII: where a path has
another character, its own writer fails and leaves an empty file. `write_config` works with any path.
"""

import hashlib
import locale
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import home, job_file
from ..errors import ProjectError
from ..explain import explain
from ..files import atomic_write, read_json
from ..pipeline import RUN_REPORT, load_stage
from . import inputs
from .git import git, without_credentials
from .run_files import ARTIFACTS, LINEAGE, RUN_DIR, check_manifest, read_facts


class ArtifactMissingError(ProjectError):
    """Files of a commit can't be fetched, or are not what they should be."""


def push_inputs(stage: str, for_job: bool = False) -> None:
    """Push what a stage reads, and all that it is made from; for a job, also what a clone gets from elsewhere.

    It raises ArtifactMissingError for an input that is neither here nor in the remote, and ProjectError if the remote
    does not take the data.
    """
    from dvc.repo import Repo

    if job_file():  # a job pulled them from there
        return
    with Repo(os.getcwd()) as repo:
        address, tracked = url(repo), inputs.tracked(repo.stage.get_target(stage))
        outs = list(tracked.values())
        targets = {*load_stage(stage).upstream, *(out.stage.addressing for out in outs)}
        try:
            if targets:
                repo.push(targets=sorted(targets), with_deps=True)
            for out in outs:
                if for_job and inputs.is_elsewhere(out):
                    if out.changed_cache():
                        repo.fetch(targets=[out.stage.addressing])
                    repo.cloud.push(file_hashes(repo, [out]))
                if for_job or not inputs.is_imported(out):
                    _check_complete(repo, out, None if for_job else out.remote)
        except ProjectError:
            raise
        except Exception as error:  # each kind of remote raises errors of its own
            known = explain(error) or ProjectError(
                str(error.__cause__ or error), "repair the connection, then: dvc push"
            )
            problem = without_credentials(f"the DVC remote {address} does not take the data: {known.problem}")
            raise ProjectError(problem, known.fix) from error


def _check_complete(repo: Any, out: Any, name: str | None) -> None:
    """Raise ArtifactMissingError if a file of an output is lost: `dvc push` warns of it, and succeeds."""
    remote = repo.cloud.get_remote(name)
    if remote.fs.version_aware or remote.worktree:  # it keeps files by their names: there are no hashes to ask for
        return
    try:
        hashes = {info.value for info in file_hashes(repo, [out], name)}
        absent = hashes - set(repo.cache.local.oids_exist(list(hashes)))
        if not absent or not (absent := absent - set(remote.odb.oids_exist(list(absent)))):
            return
        lost = f"{len(absent)} of its {len(hashes)} files"
    except LookupError as error:
        lost = str(error)
    path, stage = inputs.relative(out), out.stage.addressing
    problem = f"{path} is incomplete: {lost} are neither in DVC's cache nor in its remote, so nobody could get it again"
    fix = f"if {path} is whole: dvc commit --force {stage}; else make it again: dvc repro --force {stage}"
    raise ArtifactMissingError(problem, fix)


def fetch(repo: Any, outs: Sequence[Any]) -> None:
    """Fetch outputs into DVC's cache by their hashes; raise LookupError if the default remote lacks some."""
    infos = file_hashes(repo, outs)
    repo.cloud.pull(infos)
    hashes = {info.value for info in infos}
    if missing := hashes - set(repo.cache.local.oids_exist(list(hashes))):
        raise LookupError(f"{len(missing)} of {len(hashes)} files")


def file_hashes(repo: Any, outs: Sequence[Any], remote: str | None = None) -> set[Any]:
    """Return the hashes of all files of outputs, after fetching the lists of those in folders from a remote.

    It raises LookupError if a list can't be fetched: DVC would ask the person at the terminal whether to go on without.
    """
    lists, cache = {out.hash_info for out in outs if out.hash_info.isdir}, repo.cache.local
    if absent := {info for info in lists if not cache.exists(info.value)}:
        repo.cloud.pull(absent, remote=remote)
    if missing := [info.value for info in absent if not cache.exists(info.value)]:
        raise LookupError(f"the lists of files {', '.join(missing)}")
    entries = {info for out in outs if out.hash_info.isdir for _, _, info in out.get_obj()}
    return {out.hash_info for out in outs} | entries


def remote_url() -> str:
    """Return the address of the DVC remote without credentials, or "" when none is set."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        try:
            return without_credentials(url(repo))
        except ProjectError:
            return ""


def url(repo: Any) -> str:
    """Return the address of the default remote; raise ProjectError if there is none, or it is a throw-away folder."""
    name = repo.config["core"].get("remote")
    url = repo.config["remote"].get(name, {}).get("url")
    if not url:
        fix = "python -m mlops setup (a local folder), or: dvc remote add -d storage s3://…"
        raise ProjectError("no DVC remote is set", fix)
    if "://" not in url and ".dvc/tmp" in Path(url).as_posix():
        # A relative url resolves inside the throw-away copy of `dvc exp run --temp`: the data would be deleted with it.
        with type(repo)(str(home())) as parent:
            address = parent.config["remote"][name]["url"]
        problem = f"the address of the DVC remote {name} is relative, and means {url} here, a throw-away folder"
        raise ProjectError(problem, f"dvc remote modify --local {name} url {address}")
    return str(url)


def use_url(url: str) -> str:
    """Return the commands that make an address that of the default remote, here and for everybody, whatever it was."""
    return f"dvc remote add -d -f storage {url} && dvc remote modify --local storage url {url}"


def write_config(path: Path, sections: dict[str, dict[str, Any]]) -> None:
    """Add sections to a configuration file of DVC; raise ProjectError, and change nothing, if DVC could not read it."""
    from configobj import ConfigObj

    encoding = locale.getpreferredencoding(False)  # as DVC reads it
    content = ConfigObj(str(path), encoding=encoding)
    content.merge(sections)
    try:
        with atomic_write(path) as new:
            with new.open("wb") as file:
                content.write(file)
            if path.exists():
                shutil.copymode(path, new)  # it may hold secrets
    except UnicodeEncodeError as error:
        problem = f"DVC reads {path} in the encoding {encoding}, which lacks characters of {error.object.strip()!r}"
        fix = "set PYTHONUTF8=1 for every command, or move the project, and its storage, to a path in ASCII"
        raise ProjectError(problem, fix) from error


def config_url(url: str, file: Path) -> str:
    """Return the address of a remote as a configuration file should hold it."""
    if "://" in url or url.isascii():
        return url
    # A folder is relative to the file where only that is ASCII: DVC reads it in any locale, and can rewrite the file.
    try:
        relative = Path(os.path.relpath(url, file.absolute().parent)).as_posix()
    except ValueError:  # on another drive of Windows
        return url
    return relative if relative.isascii() else url


def restore(commit: str, paths: tuple[str, ...], folder: Path) -> None:
    """Write files and folders of the project, as they were at a commit of this clone, below an empty folder.

    They come from Git, DVC's cache or its remote; the work tree does not change. `paths` start at the project's root;
    those that the commit doesn't have are left out. It raises ArtifactMissingError for one that is lost or damaged.
    """
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

    try:
        with Repo(os.getcwd()) as repo:
            # Where data are stored now: since the commit was made, they may have moved to a bucket.
            config = {section: repo.config[section] for section in ("core", "remote", "cache")}
            cache = repo.cache.local
        # In a folder of its Git repository, the project is a sub-repository to DVC, and its paths begin there.
        files, project = DVCFileSystem(rev=commit, subrepos=True, config=config), git("rev-parse", "--show-prefix")
        for path in paths:
            if files.exists(project + path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                files.get(project + path, str(folder / path), recursive=True)
        for file in (path for path in folder.rglob("*") if path.is_file()):
            # DVC links or copies a file of its cache without a look at its content. Git's files have no md5 here.
            md5 = files.info(project + file.relative_to(folder).as_posix()).get("md5")
            if md5 and hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
                problem = f"{file.relative_to(folder).as_posix()} of commit {commit[:10]} is damaged in DVC's cache"
                raise ArtifactMissingError(problem, f"rm -f {cache.oid_to_path(md5)}, then the same command")
        files.close()
    except ArtifactMissingError:
        raise
    except Exception as error:  # each kind of remote raises errors of its own
        known = explain(error) or ProjectError(str(error), "in a clone that has them: dvc push --all-commits")
        problem = f"the files of commit {commit[:10]} can't be restored: {without_credentials(known.problem)}"
        raise ArtifactMissingError(problem, known.fix) from error


def restore_run(commit: str, folder: Path, *more: str) -> dict[str, Any]:
    """Restore what MLflow needs of the run whose results a commit holds, and `more`; check it, and return its facts."""
    restore(commit, (RUN_REPORT, RUN_DIR.as_posix(), *ARTIFACTS, *more), folder)
    fix = "in the clone that trained it: dvc repro, and commit dvc.lock and reports/"
    if missing := [path for path in (RUN_REPORT, LINEAGE.as_posix(), *more) if not (folder / path).exists()]:
        raise ArtifactMissingError(f"commit {commit[:10]} has no {', '.join(missing)}", fix)
    facts, run = read_facts(folder), read_json(folder / RUN_REPORT)["run"]
    if facts["run"] != run:
        problem = f"{RUN_DIR} at commit {commit[:10]} is of run {facts['run']}, not of {run}"
        raise ArtifactMissingError(problem, fix)
    check_manifest(folder)
    return facts
