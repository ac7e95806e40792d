"""Whether others can get what a stage reads: from its commit, from the DVC remote, or from elsewhere.

Git's files are checked in `checkout.py`. Here are those of DVC: outputs of other stages and of `.dvc` files, which may
be imported from another repository, or kept in a remote of their own.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from .git import without_credentials

Stage = Any  # dvc.stage.Stage and dvc.output.Output, which have no types and take long to import
Output = Any


def tracked(stage: Stage) -> dict[str, Output]:
    """Return the outputs of DVC's that a stage reads, by the path of the dep, or of the output where that is in one."""
    outs, fs = {}, stage.repo.fs
    for dep in (dep for dep in stage.deps if dep.protocol == "local" and dep.def_path):
        for out in (out for out in stage.repo.index.outs if out.use_cache):
            if fs.isin_or_eq(dep.fs_path, out.fs_path):
                outs[relative(dep)] = out
            elif fs.isin(out.fs_path, dep.fs_path):
                outs[relative(out)] = out
    return dict(sorted(outs.items()))


def relative(entry: Any) -> str:
    """Return the path of a dep or an output from the working directory: in `dvc.yaml`, it may be from a `wdir`."""
    return Path(os.path.relpath(entry.fs_path)).as_posix() if entry.protocol == "local" else str(entry)


def is_elsewhere(out: Output) -> bool:
    """Return whether a clone gets an output from another place than the default DVC remote."""
    return bool(out.remote or is_imported(out))


def is_imported(out: Output) -> bool:
    """Return whether a clone gets an output from its source: another repository, or a bucket that keeps versions."""
    return bool(out.stage.is_repo_import or (out.stage.is_import and not out.can_push))


def elsewhere(stages: Iterable[Stage]) -> list[dict[str, str]]:
    """Return what stages read from elsewhere: its `path` here, the `url` that has it, and the version there (`rev`).

    It raises ProjectError for an input that others can't get.
    """
    by_path = {}
    for stage in stages:
        _check_deps(stage)
        for out in tracked(stage).values() if stage.cmd else ():
            _check_output(out)
            if is_elsewhere(out):
                url, rev = _source(out)
                path = relative(out)
                by_path[path] = {"path": path, "url": without_credentials(url), "rev": rev}
    return [by_path[path] for path in sorted(by_path)]


def _check_deps(stage: Stage) -> None:
    """Raise ProjectError for a dep that is at an address: nobody keeps the bytes that are there now."""
    for address in (dep.def_path for dep in stage.deps if stage.cmd and "://" in (dep.def_path or "")):
        problem = f"{stage.addressing} reads {without_credentials(address)}, of which neither Git nor DVC keeps a copy"
        fix = f"dvc import-url {address} data/raw, and data/raw in its place in dvc.yaml:stages.{stage.addressing}.deps"
        raise ProjectError(problem, fix)


def _check_output(out: Output) -> None:
    """Raise ProjectError if a clone of another person could not get an output."""
    file, path = out.stage.path_in_repo, relative(out)
    if out.stage.is_partial_import:
        problem = f"{path} was imported without its content, so nothing says which one it is"
        raise ProjectError(problem, f"dvc update {file} && git add {file}")
    if not (out.can_push or out.stage.is_import):
        problem = f"{path} is an input that is never pushed (push: false), so nobody else could get it"
        raise ProjectError(problem, f"take `push: false` from {file}")
    if out.remote and out.remote not in out.repo.config.load_one("repo")["remote"]:
        problem = f"{path} is kept in the DVC remote {out.remote}, which the project's .dvc/config does not have"
        raise ProjectError(problem, f"dvc remote add --project {out.remote} <address>, or take `remote` from {file}")
    remote = without_credentials(_default(out))
    if is_elsewhere(out) and _is_of_this_machine(url := _source(out)[0]) and not _is_of_this_machine(remote):
        problem = f"{path} is from {url}, on this machine, and the DVC remote {remote} is not"
        fix = f"dvc import <an address that others reach> …, in place of {file}"
        if out.remote:
            fix = f"take `remote: {out.remote}` from {file}, then: dvc commit --force {out.stage.addressing}"
        raise ProjectError(problem, fix)


def _source(out: Output) -> tuple[str, str]:
    """Return the address that a clone gets an output from, and the version there."""
    if out.stage.is_repo_import:
        repository = out.stage.deps[0].def_repo
        return repository["url"], repository["rev_lock"]
    url = out.stage.deps[0].def_path if is_imported(out) else out.repo.config["remote"][out.remote]["url"]
    return url, out.hash_info.value or ""


def _default(out: Output) -> str:
    """Return the address of the default DVC remote, or ""."""
    config = out.repo.config
    return str(config["remote"].get(config["core"].get("remote"), {}).get("url", ""))


def _is_of_this_machine(url: str) -> bool:
    """Return whether an address is that of a folder: neither a URL nor Git's `host:path`."""
    return url.startswith("file://") or ("://" not in url and not (":" in url and not os.path.exists(url)))
