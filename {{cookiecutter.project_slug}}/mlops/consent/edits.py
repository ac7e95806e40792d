"""Append to the consent registry (`consent add`, `consent revoke`), which Git tracks; or DVC, for real persons.

Existing lines never change. A line is written whole or not at all, also when the process is killed. What a line changes
is checked before it is written.
"""

import csv
import difflib
import hashlib
import io
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from ruamel.yaml import YAML

from ..config import home, read_params
from ..errors import ProjectError
from ..records import consent
from ..records.consent import COLUMNS, DOUBT, PATH, Entry
from ..records.csv_reader import NoRowsError
from ..records.ids import difference, id_problem, match_key, parse_id
from ..tracking.git import git, try_git

if TYPE_CHECKING:
    import pyarrow as pa

NAME = PATH.as_posix()
DVC_FILE = PATH.with_name(f"{PATH.name}.dvc")  # exists where DVC tracks the registry
VERB = "python -m mlops consent"
ACTIVE, REVOKED = "active", "revoked"
LOCK = ".dvc/tmp/consent.lock"  # to hold while the registry is changed
Row = tuple[str, str, str]  # subject, status and time
HEADER = f"{','.join(COLUMNS)}\n"


def add(subjects: Collection[str], at: datetime | None = None, alike: bool = False) -> list[str]:
    """Record that subjects consent, from a time on (by default now); return the result for each, a line each.

    Who consents already gets no line. The first consent creates the registry. ProjectError is raised, and nothing is
    written, where the time is in the future, earlier lines outweigh it, a new id looks like another one (unless
    `alike`) or has hidden characters, or the registry is malformed.
    """
    # For a withdrawal, the normalized id is enough. Consent must not be given by an id that only looks like theirs.
    for problem in filter(None, (id_problem(subject.strip()) for subject in subjects if subject.strip())):
        raise ProjectError(f"the id {problem}", f"see who consents, then: {VERB} add <their id, as it is in the data>")
    return _append(normalized(subjects), ACTIVE, at, alike)


def revoke(subjects: Iterable[str], at: datetime | None = None, unlisted: bool = False) -> list[str]:
    """Record that subjects withdraw their consent, from a time on (by default now); return the result for each.

    Who withdrew already gets no line. It holds from today, whatever `at` is. ProjectError is raised, and nothing is
    written, where a subject is not in the registry, so may be misspelt (unless `unlisted`), a later grant outweighs the
    withdrawal, or the registry is malformed.
    """
    return _append(normalized(subjects), REVOKED, at, unlisted)


def _append(subjects: list[str], status: str, at: datetime | None, anyway: bool) -> list[str]:
    time = at or datetime.now(UTC)
    if time.tzinfo is None:
        raise ProjectError(f"{time.isoformat()} lacks its time zone", f"add Z (UTC) or an offset: {time.isoformat()}Z")
    with FileLock(home() / LOCK):
        check_required()
        check_current()
        is_first = status == ACTIVE and not PATH.exists()
        known = {} if is_first else consent.persons(PATH, subjects)
        new = []  # of whom the registry does not have this status without doubt
        for subject in subjects:
            lines = known.get(match_key(subject), [])
            # A consent counts for the id as it is spelt.
            has_id = status == REVOKED or subject in {entry.subject_id for entry in lines}
            if not (lines and has_id) or consent.decide(lines)[0] != status or consent.overruled(lines):
                new.append(subject)
        if not anyway:
            _check_ids(subjects, known, status)
        form = Form.of(PATH) if new else Form()
        rows = [(subject, status, stamp(time)) for subject in new]
        persons = _extended(known, rows, form.lines)
        doubtful = [subject for subject in new if consent.decide(persons[match_key(subject)])[0] == DOUBT]
        if status == ACTIVE and doubtful:
            # The first grant after a merge might be from one of its branches. Only a second one is surely later.
            rows += [(subject, status, stamp(time)) for subject in doubtful]
            persons = _extended(known, rows, form.lines)
        results = [_result(persons[match_key(subject)], subject, subject in new, status) for subject in subjects]
        if rows and (moved := keep_out_of_git()):
            results.append(moved)
            form = Form.of(PATH)
        replace(form.text(rows) if rows else b"", append=True)
    return results


def _extended(known: dict[str, list[Entry]], rows: list[Row], lines: int) -> dict[str, list[Entry]]:
    """Return the lines of persons with those that will be appended to a file of so many lines."""
    now = datetime.now(UTC)
    new = (consent.parse_entry(list(row), number, NAME, now) for number, row in enumerate(rows, lines + 1))
    return consent.by_person([*chain.from_iterable(known.values()), *new])


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
        return cls([name.strip().lower() for name in header], end, lines, start)

    def text(self, rows: Iterable[Row]) -> bytes:
        """Return the bytes to append for these rows."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator=self.end)
        writer.writerows(dict(zip(COLUMNS, row, strict=True)) for row in rows)
        return (self.start + text.getvalue()).encode()


def stamp(time: datetime) -> str:
    """Format a time as the registry has it: UTC, 2025-06-01T00:00:00Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _check_ids(subjects: list[str], known: dict[str, list[Entry]], status: str) -> None:
    """Refuse a new id that looks like one of the registry or of these, and a withdrawal of who is not in it."""
    earlier: dict[str, str] = {}
    for subject in subjects:
        lines = known.get(match_key(subject), [])
        if lines and subject not in {entry.subject_id for entry in lines}:
            other, where = lines[0].subject_id, f"which line {lines[0].line} of {NAME} has"
        elif not lines and (first := earlier.setdefault(match_key(subject), subject)) != subject:
            other, where = first, "which is named here too"
        else:
            continue
        raise ProjectError(
            f"{subject!r} looks like {other!r}, {where}: it has {difference(subject, other)}",
            f"if that is the person, write {other!r}; if they are two: {VERB} add --alike, or revoke --unlisted "
            "(neither counts as consenting unless both do)",
        )
    for subject in (subject for subject in subjects if status == REVOKED and match_key(subject) not in known):
        # Not among all: of a million ids, many are as near, and to compare them takes half a minute.
        keys = (match_key(entry.subject_id) for entry in islice(consent.scan(PATH), 20_000))
        near = difflib.get_close_matches(match_key(subject), keys, n=1)
        hint = f" (did you mean {consent.persons(PATH, near)[near[0]][0].subject_id!r}?)" if near else ""
        problem = f"{NAME} does not know {subject!r}{hint}, whose records are left out anyway"
        raise ProjectError(problem, "correct the id; to record the withdrawal all the same: --unlisted")


def _result(lines: list[Entry], subject: str, is_new: bool, status: str) -> str:
    """Return what the lines of a subject say; raise ProjectError where a new one would not have its effect."""
    result, by = consent.decide(lines)
    where = f"line {by.line}" if by else "its lines contradict each other, so the answer is no"
    if not is_new:
        return f"{subject} is {status} already ({where}); nothing was written"
    if result == status:
        later = by and by.since and by.since > datetime.now(UTC)
        return f"{subject} is {status} ({where}){'; it holds from today, not from that day on' if later else ''}"
    if by:
        problem = f"line {by.line} of {NAME} is later: {subject} would still be {result}"
        raise ProjectError(problem, "leave --at out, or give a later time")
    if result == DOUBT:
        latest = max((entry.since, entry.line) for entry in lines if entry.since)[1]
        doubt = f"in doubt for line {', '.join(str(entry.line) for entry in consent.overruled(lines))}"
        problem = f"line {latest} of {NAME} is later: {subject} would still be active by date, {doubt}"
        raise ProjectError(problem, "leave --at out, or give a time after all their lines")
    ids = ", ".join(sorted({entry.subject_id for entry in lines}))
    raise ProjectError(
        f"{subject} would still count as {result}: the lines of {ids} contradict each other "
        "(one without a date, two at one time, or ids that look alike)",
        f"see them: {VERB} history {subject}; then date the line without a date, or spell the id as the registry does",
    )


def check_required() -> None:
    """Raise ProjectError where the project requires no consent, and its registry lists nobody."""
    data = read_params().get("data", {})
    if data.get("consent") == consent.NOT_REQUIRED and not consent.has_rows(PATH):
        record = "; in cifar10 a subject is the record itself" if data.get("source") == "cifar10" else ""
        problem = f"no consent is required here (params.yaml:data.consent is {consent.NOT_REQUIRED}{record})"
        fix = f"if the data are of persons: params.yaml:data.consent: required, then {VERB} add <subject>"
        raise ProjectError(problem, fix)


def normalized(subjects: Iterable[str]) -> list[str]:
    """Return ids as the registry has them, each once; raise ProjectError if one is empty, or holds no character."""
    ids = list(dict.fromkeys(map(parse_id, subjects)))
    if "" in ids:
        raise ProjectError("an id is empty", "name the subject as data/manifest.parquet has it")
    return ids


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
    if missing := len(missing_rows(table_of(tracked_by_dvc(), f"the earlier {NAME}"), present)):
        problem = f"{NAME} lacks {missing} line(s) of the version that {DVC_FILE.name} names, as after git pull"
        fix = f"dvc checkout {DVC_FILE.as_posix()}; if they were taken out on purpose: dvc add {NAME}"
        raise ProjectError(problem, fix)


def table_of(content: bytes, name: str) -> "pa.Table":
    """Return the lines of a registry, which may have none."""
    from ..records.consent_table import concat, read_tables

    with suppress(NoRowsError):
        return concat(read_tables(io.BytesIO(content), name))
    return concat([])


def _dvc_entry() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8")))


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
        problem = f"{NAME} is changed, but DVC does not track it yet: {error}"
        raise ProjectError(problem, f"dvc add {NAME}") from error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
