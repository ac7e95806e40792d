"""Where the consent registry is, and who keeps it: Git, or DVC for real persons."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ..config import home, read_params
from ..errors import ProjectError
from ..records import consent
from ..records.consent import PATH, Entry
from ..records.ids import parse_id

NAME = PATH.as_posix()
KEPT = PATH.with_name(PATH.name + ".dvc")  # what DVC writes beside a file that it keeps
VERB = "python -m mlops consent"


def lock_path() -> Path:
    """Return the lock that whoever writes the registry holds."""
    return home() / ".dvc/tmp/consent.lock"


def check_asked() -> None:
    """See that this project asks for consent at all.

    Raises:
        ProjectError: It does not, and has no registry.
    """
    data = read_params().get("data", {})
    if data.get("consent") != consent.NOT_REQUIRED or PATH.exists():
        return
    record = "; in cifar10 a subject is the record itself" if data.get("source") == "cifar10" else ""
    raise ProjectError(
        f"nobody's consent is asked here (params.yaml:data.consent is {consent.NOT_REQUIRED}{record})",
        f"if there are persons behind the data: params.yaml:data.consent: required, then {VERB} add <subject>",
    )


def read_bytes() -> bytes:
    """Return the registry's bytes; those of the version that DVC keeps must be among them.

    Raises:
        ProjectError: It isn't there, DVC imports it from elsewhere, or it lacks lines that DVC's version has.
    """
    check_asked()
    if not KEPT.exists():
        return consent.load(PATH)
    if "deps" in _kept():
        raise ProjectError(
            f"{NAME} is a copy that DVC imports", f"change it where it comes from, then: dvc update {KEPT.as_posix()}"
        )
    if not PATH.exists():
        raise ProjectError(f"{NAME} is not checked out", f"dvc pull {KEPT.as_posix()}")
    content = consent.load(PATH)
    if gone := lost(kept_by_dvc(), content):
        raise ProjectError(
            f"{NAME} lacks {len(gone)} line(s) of the version that {KEPT.name} names, as after git pull",
            f"dvc checkout {KEPT.as_posix()}; if they were taken out on purpose: dvc add {NAME}",
        )
    return content


def kept_by_dvc() -> bytes:
    """Return the bytes of the version that DVC keeps.

    Raises:
        ProjectError: DVC's cache on this machine lacks it.
    """
    return cached(str(_kept()["outs"][0]["md5"]), f"that {KEPT.name} names", f"dvc fetch {KEPT.as_posix()}")


def cached(digest: str, named: str, fix: str) -> bytes:
    """Return a version of the registry from DVC's cache.

    Args:
        digest: Its MD5.
        named: Which version it is, for the error.
        fix: What to do where the cache lacks it.

    Raises:
        ProjectError: DVC's cache on this machine lacks it.
    """
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        path = Path(repo.cache.local.oid_to_path(digest))
    if not path.exists():
        raise ProjectError(f"the version of {NAME} {named} is not here", fix)
    return path.read_bytes()


def committed() -> bytes | None:
    """Return the bytes of the registry in the last commit of Git; None when Git has none."""
    done = subprocess.run(["git", "show", f"HEAD:./{NAME}"], capture_output=True)
    return None if done.returncode else done.stdout


def lost(before: bytes, now: bytes) -> list[Entry]:
    """Return the lines of an earlier registry that a later one lacks; spelling and order don't count."""
    there = set(map(key, consent.entries(now, NAME)))
    return [one for one in consent.entries(before, f"the earlier {NAME}") if key(one) not in there]


def key(entry: Entry) -> tuple[str, str, str]:
    """Return what a line says, to compare it and to sort by it."""
    return entry.subject_id, entry.since.isoformat() if entry.since else "", entry.status


def replace(content: bytes) -> None:
    """Put a new registry in place of the old one, whole or not at all, and let DVC keep it where it does.

    Raises:
        ProjectError: DVC does not take it; the registry is the new one all the same.
    """
    if not PATH.exists() or content != PATH.read_bytes():
        _replace(content)
    if not KEPT.exists() or content == kept_by_dvc():  # DVC would wait for whoever reads the registry
        return
    from dvc.repo import Repo

    try:
        with Repo(os.getcwd()) as repo:
            repo.add([NAME])
    except Exception as error:  # each kind of storage lets its own kinds of errors through
        raise ProjectError(f"{NAME} is changed, but DVC does not keep it yet: {error}", f"dvc add {NAME}") from error


def _replace(content: bytes) -> None:
    PATH.parent.mkdir(exist_ok=True)
    # One name, under the lock, that Git ignores: what a killed writer left is overwritten, and never committed.
    new = PATH.with_name(f".{PATH.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    # DVC may have protected the file, or linked it to its cache, which must not change: hence no writing in place.
    new.chmod(PATH.stat().st_mode | 0o200 if PATH.exists() else 0o644)
    _sync(new)
    os.replace(new, PATH)
    if os.name == "posix":
        _sync(PATH.parent)  # the name too: who was told that it is recorded must not lose it with the power


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _kept() -> dict[str, Any]:
    told: dict[str, Any] = YAML(typ="safe").load(KEPT.read_text(encoding="utf-8"))
    return told


def spelled(subjects: Iterable[str]) -> list[str]:
    """Return ids as the registry has them: in plain form, each once.

    Raises:
        ProjectError: One is empty, or no text.
    """
    plain = list(dict.fromkeys(map(parse_id, subjects)))
    if "" in plain:
        raise ProjectError("an id is empty", "name the subject as data/manifest.parquet has it")
    return plain
