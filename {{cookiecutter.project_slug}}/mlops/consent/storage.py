"""The file of the consent registry: how it is written, and who tracks it, Git or, for real persons, DVC."""

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..errors import ProjectError
from ..explain import explain
from ..records import consent
from ..records.consent import COLUMNS, PATH
from ..records.csv_reader import NoRowsError, column_names
from ..tracking.git import git, try_git

if TYPE_CHECKING:
    import pyarrow as pa

NAME = PATH.as_posix()
DVC_FILE = PATH.with_name(f"{PATH.name}.dvc")  # exists where DVC tracks the registry
LOCK = ".dvc/tmp/consent.lock"  # to hold while the registry is changed
ADD = f"if {NAME} is right as it is now: dvc add {NAME}"
HEADER = f"{','.join(COLUMNS)}\n"
Row = tuple[str, str, str]  # subject, status and time


@dataclass(frozen=True, slots=True)
class Form:
    """How a registry is written, for lines that are appended; by default, how a new one is."""

    columns: Sequence[str] = COLUMNS
    end: str = "\n"  # of a line
    lines: int = 1  # before those that are appended
    start: str = HEADER  # what has to be written before them

    @classmethod
    def of(cls, path: Path) -> "Form":
        """Return the form of a file, read line by line."""
        if not path.exists():
            return cls()
        lines, last = 0, "\n"
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next((cells for cells in csv.reader(file, strict=True) if "".join(cells).strip()), None)
            file.seek(0)
            for lines, last in enumerate(file, 1):  # noqa: B007
                pass
            end = next(end for end in ("\r\n", "\n", "\r") if end in (file.newlines or "\n"))
        start = "" if last.endswith(("\n", "\r")) else end
        if header is None:
            return cls(end=end, lines=lines + 1, start=start + HEADER)
        return cls(column_names(header), end, lines, start)

    def text(self, rows: Iterable[Row]) -> bytes:
        """Return the bytes to append for these rows."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator=self.end)
        writer.writerows(dict(zip(COLUMNS, row, strict=True)) for row in rows)
        return (self.start + text.getvalue()).encode()


def check_current() -> None:
    """Raise ProjectError where the registry is a copy, or older than what DVC tracks, so that it must not grow."""
    if not DVC_FILE.exists():
        return
    if "deps" in _dvc_entry():
        fix = f"change it where it comes from, then: dvc update {DVC_FILE.as_posix()}"
        raise ProjectError(f"{NAME} is a copy that DVC imports", fix)
    if not PATH.exists():
        raise ProjectError(f"{NAME} is not checked out", f"dvc pull {DVC_FILE.as_posix()}")
    if matches_dvc():
        return
    from ..records.consent_table import missing_rows

    present = table_of(PATH.read_bytes(), NAME)
    if missing := len(missing_rows(table_of(tracked_by_dvc(), f"the earlier {NAME}", ADD), present)):
        problem = f"{NAME} lacks {missing} line(s) of the version that {DVC_FILE.name} names, as after git pull"
        fix = f"dvc checkout {DVC_FILE.as_posix()}; if they were taken out on purpose: dvc add {NAME}"
        raise ProjectError(problem, fix)


def table_of(content: bytes, name: str, fix: str = "") -> "pa.Table":
    """Return the lines of a registry, which may have none; `fix` is for a malformed version that nobody can correct."""
    from ..records.consent_table import concat, read_tables

    try:
        return concat(read_tables(io.BytesIO(content), name))
    except NoRowsError:
        return concat([])
    except ProjectError as error:
        raise ProjectError(error.problem, fix or error.fix) from error


def _dvc_entry() -> dict[str, Any]:
    file = DVC_FILE.as_posix()
    try:
        return dict(YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8")))
    except (YAMLError, TypeError, ValueError) as error:
        fix = (
            f"git checkout --ours {file}; dvc checkout {file}; git add {file}; git commit; then append the lines of "
            f"the other side, which python -m mlops consent check lists"
        )
        raise ProjectError(f"{file} can't be read: it is damaged, or a merge has left a conflict in it", fix) from error


def matches_dvc() -> bool:
    """Return whether DVC tracks the registry, and its bytes are those of the version that DVC names."""
    if not (PATH.exists() and DVC_FILE.exists()):
        return False
    with PATH.open("rb") as file:
        md5 = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    return bool(md5 == _dvc_entry()["outs"][0]["md5"])


def tracked_by_dvc() -> bytes:
    """Return the bytes of the version that DVC tracks; raise ProjectError if DVC's cache on this machine lacks it."""
    dvc_file = DVC_FILE.read_text(encoding="utf-8")
    return cached(dvc_file, f"that {DVC_FILE.name} names", f"dvc fetch {DVC_FILE.as_posix()}")


def cached(dvc_file: str, described: str, fix: str) -> bytes:
    """Return the version that the text of a .dvc file names; if DVC's cache lacks it, raise with this fix."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        path = Path(repo.cache.local.oid_to_path(YAML(typ="safe").load(dvc_file)["outs"][0]["md5"]))
    if not path.exists():
        raise ProjectError(f"the version of {NAME} {described} is not here", fix)
    return path.read_bytes()


def keep_out_of_git() -> str:
    """Let DVC track a registry that has no lines yet, so that Git never has an id; return what is to be committed.

    A registry with lines stays where it is, and "" is returned.
    """
    if DVC_FILE.exists() or consent.has_rows(PATH):
        return ""
    if not PATH.exists():
        replace(HEADER.encode())
    if try_git("ls-files", "--", NAME):
        git("rm", "--cached", "--force", "--quiet", "--", NAME)
    _dvc_add(quiet=True)
    return (
        f"{NAME} is tracked by DVC from now on, so that ids stay out of Git's history: "
        f"commit {DVC_FILE.as_posix()} and {PATH.with_name('.gitignore').as_posix()}"
    )


def replace(content: bytes, append: bool = False) -> bool:
    """Replace the registry by this content, or append it to the registry; return whether it changed.

    It is done whole or not at all. Where DVC tracks the registry, it gets the new version.
    """
    if changed := bool(content) if append else not PATH.exists() or content != PATH.read_bytes():
        PATH.parent.mkdir(exist_ok=True)
        # One name, under the lock, that Git ignores: what a killed process left is overwritten, and never committed.
        new = PATH.with_name(f".{PATH.name}.new")
        new.touch(mode=0o600)
        with new.open("wb") as file:
            if append and PATH.exists():
                with PATH.open("rb") as present:
                    shutil.copyfileobj(present, file)
            file.write(content)
        # Not in place: DVC may have protected the file, or linked it to its cache, which must not change.
        new.chmod(PATH.stat().st_mode | 0o200 if PATH.exists() else 0o644)
        _sync(new)
        os.replace(new, PATH)
        if os.name == "posix":
            _sync(PATH.parent)  # the name too: a withdrawal that was confirmed must survive a power failure
    if DVC_FILE.exists() and not matches_dvc():  # else `dvc add` would wait for whoever reads the registry
        _dvc_add()
    return changed


def _dvc_add(quiet: bool = False) -> None:
    from dvc.repo import Repo

    try:
        with Repo(os.getcwd()) as repo:
            repo.scm_context.quiet = quiet  # about what is to be committed
            repo.add([NAME])
    except Exception as error:  # each kind of storage raises errors of its own
        known = explain(error)
        reason, fix = (known.problem, f"{known.fix}; then") if known else (str(error), "when DVC can")
        done, next_command = "is changed", f"dvc add {NAME}"
        if quiet:
            done, next_command = "is as it was", "type the command again"
        problem = f"{NAME} {done}, and DVC does not track it yet: {reason}"
        raise ProjectError(problem, f"{fix}: {next_command}") from error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
