"""The branch `lineage`: a log of every training and registration, which keeps the commits that they name.

Each entry merges the named commit into the branch, so `git log --first-parent lineage` reads as the log, and Git's and
DVC's clean-up never deletes what a run names. The branch is never checked out. All commits of this clone are read: of
branches, tags and experiments, also those that were fetched.
"""

import contextlib
import re
import shlex
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from ..config import home, load_platform
from ..errors import ProjectError
from ..pipeline import LOCK, RUN_REPORT
from .git import AUTHOR, GitError, check_writable, commit_tree, exists, git, try_git, unattended

BRANCH = "lineage"
REF = f"refs/heads/{BRANCH}"
PUBLISHED = f"refs/remotes/origin/{BRANCH}"  # as it was fetched, or pushed
ANY_PUBLISHED = f"refs/remotes/*/{BRANCH}"
TRIES = 50  # 8 clones that write at once needed 7
FETCH_S = 10.0  # so long a fetch may take that is not asked for
LOCK_S = 60.0  # so long `push` waits for another one in this clone
TRAINED = re.compile(r"train (?P<name>.+)")
REGISTERED = re.compile(r"register (?P<model>.+) version (?P<number>\d+)")
RUN_OF_COMMIT = re.compile(r'^at ([0-9a-f]+)\n\s*\{[^{}<]*?"run":\s*"([^"]+)"', re.MULTILINE)  # for `runs`


class ShallowCloneError(ProjectError):
    """This clone is shallow, so its history may lack entries."""


@dataclass(frozen=True)
class KnownRun:
    """A training that this clone knows of."""

    run: str  # its id
    name: str  # of the experiment, or the id again
    commits: tuple[str, ...] = ()  # with its results, the newest first; none when they were not committed, or it failed


@dataclass(frozen=True)
class Entry:
    """One training or registration in the log."""

    run: str
    commit: str  # what the training read, or the registered version
    name: str  # of the experiment, or "" for a registration
    version: int | None  # number of the registered version, or None for a training


def check_refs() -> None:
    """Raise ProjectError where a ref, or a lack of rights, keeps Git from writing the log or the tags of datasets."""
    check_writable(home())
    refs = git("for-each-ref", "--format=%(refname) %(worktreepath)", REF, "refs/tags/data", where=home())
    for name, _, worktree in (line.partition(" ") for line in refs.splitlines()):
        if name == REF and worktree:
            problem = f"the branch {BRANCH} is checked out in {worktree}, so no entry can be added to it"
            raise ProjectError(problem, f"git -C {shlex.quote(worktree)} switch --detach   (or to another branch)")
        if name == REF and not _is_log(REF, home()):
            problem = f"the branch {BRANCH} is not the log of trainings, which needs that name"
            raise ProjectError(problem, f"git branch -m {BRANCH} <name>")
        if name.startswith(f"{REF}/"):
            other = name.removeprefix("refs/heads/")
            problem = f"there is a branch {other}, so Git can't have the branch {BRANCH}, which keeps the log"
            raise ProjectError(problem, f"git branch -m {other} {other.replace('/', '-')}")
        if name == "refs/tags/data":
            fix = "git tag data-old data && git tag -d data"
            raise ProjectError("there is a tag data, so Git can't have the tags of datasets, data/<label>", fix)


def record(commit: str, message: str) -> None:
    """Merge a commit of this clone into the branch, with `message` as the entry; raise ProjectError if Git refuses."""
    check_refs()
    repository = git("rev-parse", "--show-toplevel", where=home())
    for _ in range(TRIES):
        tip = start = _fetch_tip(repository)
        if not tip:  # the first entry of this clone comes after those of the others
            fetch()
            start = _fetch_tip(repository, PUBLISHED)
        try:
            _push(repository, _merge(start, commit, message), tip)
            return
        except GitError as error:  # another run was faster: merge with its entry
            refusal = error
    raise ProjectError(f"the branch {BRANCH} can't be written: {refusal.problem}", refusal.fix)


def fetch() -> None:
    """Fetch the log of the Git remote `origin`, where there is one that answers soon."""
    options = ("--quiet", "--no-write-fetch-head", "--no-tags")
    if "origin" in git("remote", where=home()).split():
        with contextlib.suppress(GitError, subprocess.TimeoutExpired):
            git("fetch", *options, "origin", f"+{REF}:{PUBLISHED}", where=home(), env=unattended(), timeout_s=FETCH_S)


def fetch_commit(commit: str) -> bool:
    """Return whether this clone has a commit, or the logs of the parent repository and of `origin` give it."""
    if not exists(commit):
        repository = git("rev-parse", "--show-toplevel", where=home())
        _fetch_tip(repository)
        if not exists(commit):
            fetch()
            _fetch_tip(repository, PUBLISHED)
    return exists(commit)


def keeps(commit: str) -> bool:
    """Return whether a log in this clone, its own or a fetched one, keeps a commit."""
    return bool(try_git("for-each-ref", "--count=1", "--contains", commit, REF, ANY_PUBLISHED, where=home()))


def unpublished() -> list[tuple[str, str]]:
    """Return the entries that no log of a Git remote has, as far as this clone knows, the newest first.

    Each is the commit that it keeps, and its first line, such as `train gouty-fifo`.
    """
    entries = try_git("log", "--first-parent", "--format=%P %s", REF, "--not", f"--glob={ANY_PUBLISHED}", where=home())
    parts = [line.split(" ", 2) for line in (entries or "").splitlines()]  # at first, there is no such branch
    return [(commit, subject) for before, commit, subject in parts if before]


def record_once(commit: str, message: str) -> None:
    """Record an entry unless the log has it: a process that was killed after it wrote the entry calls this again."""
    options = ("--first-parent", "--format=%B%x00", "--fixed-strings", f"--grep={message.splitlines()[0]}")
    entries = try_git("log", *options, REF, where=home()) or ""  # at first, there is no such branch
    if message.strip() not in map(str.strip, entries.split("\0")):
        record(commit, message)


def push(remote: str = "origin", tags: tuple[str, ...] = ()) -> str:
    """Publish the branch, and the tags whose names match a pattern; return the commit that both sides now have.

    Entries that another clone published stay, and ours come after them. So do its tags of datasets that are named by
    the hash: ours may be on another commit, but of the same dataset. It raises ProjectError if there is nothing to
    publish, no such Git remote, or the remote refuses.
    """
    check_refs()
    if remote not in git("remote").split():
        raise ProjectError(f"there is no Git remote {remote!r}", f"git remote add {remote} <address>")
    lock = home() / ".dvc" / "tmp" / "publish.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, LOCK_S):
            return _push_log(remote, tags)
    except Timeout as error:
        problem = f"another process of this clone has been publishing for more than {LOCK_S:.0f} s"
        raise ProjectError(problem, "the same command, when that has ended") from error


def _push_log(remote: str, tags: tuple[str, ...]) -> str:
    local = git("rev-parse", "--show-toplevel")
    for _ in range(TRIES):
        ours, theirs = _fetch_tip(local), _fetch_tip(remote)
        if not (ours or theirs):
            fix = "dvc repro, when something is to be run; what another clone has trained is published there"
            raise ProjectError("there is nothing to publish: this clone has trained nothing yet", fix)
        if theirs and not _is_log(theirs):
            other = f"{remote}/{BRANCH}:refs/heads/<name>"
            raise ProjectError(
                f"the branch {BRANCH} of {remote} is not the log of trainings, which needs that name",
                f"git fetch {remote} && git push {remote} {other} :{REF}",
            )
        tip = _join(ours, theirs)
        try:
            _push(local, tip, ours)
            _push(remote, tip, theirs)
        except GitError as error:
            is_busy = error.problem.endswith(".lock")  # another push is at it
            if is_busy or _fetch_tip(local) not in (ours, tip) or _fetch_tip(remote) != theirs:
                continue  # a training, or another push, was faster
            raise
        # Git does it for branches that this clone fetches, but a shallow one fetches a single branch.
        git("update-ref", f"refs/remotes/{remote}/{BRANCH}", tip)
        _push_tags(remote, tags)
        return tip
    raise ProjectError(f"{remote} changed {TRIES} times while publishing", "run the same command again")


def _join(ours: str, theirs: str) -> str:
    """Return a commit with the entries of two logs: those that theirs lacks come after its own, so it is one line."""
    if not ours:
        return theirs
    if not theirs or try_git("merge-base", "--is-ancestor", theirs, ours) is not None:
        return ours
    tip = theirs
    for entry in git("rev-list", "--first-parent", "--reverse", f"{theirs}..{ours}").split():
        parents, date, message = git("show", "-s", "--format=%P%n%cI%n%B", entry).split("\n", 2)
        tip = _merge(tip, parents.split()[1], message, date)
    return tip


def _push_tags(remote: str, patterns: tuple[str, ...]) -> None:
    lines = git("tag", "--list", *patterns, "--format=%(refname) %(contents:subject)").splitlines() if patterns else []
    messages = dict(line.split(" ", 1) for line in lines)
    by_hash = {ref for ref, md5 in messages.items() if md5.startswith(ref.removeprefix("refs/tags/data/"))}
    published = by_hash and set(git("ls-remote", "--tags", "--refs", remote).split())
    if refs := messages.keys() - (by_hash & published):
        git("push", "--quiet", "--no-verify", "--no-signed", remote, *sorted(refs))


def _merge(tip: str, commit: str, message: str, date: str = "") -> str:
    return commit_tree(f"{commit}^{{tree}}", [tip or _root(), commit], message, date)


def _is_log(tip: str, where: Path = Path()) -> bool:
    author = git("show", "-s", "--format=%ae", tip, where=where)  # a person may have merged two logs
    return author == AUTHOR["GIT_AUTHOR_EMAIL"] or try_git("merge-base", tip, _root(), where=where) is not None


def _root() -> str:
    """Return the empty commit with which the log begins: the same in every clone, so that logs can be joined."""
    return commit_tree(git("mktree", stdin=""), [], "The log begins", "2000-01-01T00:00:00Z")


def _fetch_tip(repository: str, ref: str = REF) -> str:
    """Fetch the log of a repository, and return its commit, or "" when there is none."""
    tip = git("ls-remote", repository, ref).partition("\t")[0]
    if tip:
        git("fetch", "--quiet", "--no-write-fetch-head", "--no-tags", repository, ref)
    return tip


def _push(repository: str, commit: str, expected: str) -> None:
    # The lease is a compare-and-swap: it fails when the branch is no longer the one that was merged.
    lease = f"--force-with-lease={REF}:{expected}"
    git("push", "--quiet", "--no-verify", "--no-signed", lease, repository, f"{commit}:{REF}")


def tag(name: str, commit: str, message: str, date: str = "") -> None:
    """Give a commit an annotated tag, of now or a date; raise ProjectError if the tag names another commit already."""
    repository = git("rev-parse", "--show-toplevel", where=home())
    tagged = git("ls-remote", repository, f"refs/tags/{name}^{{}}").partition("\t")[0]
    if tagged == commit:
        return
    if tagged:
        problem = f"the tag {name} names commit {tagged[:10]} already, not {commit[:10]}"
        raise ProjectError(problem, f"choose another name; or, if that one is given up: git tag -d {name}")
    dated = AUTHOR | ({"GIT_COMMITTER_DATE": date} if date else {})
    git("tag", "--force", "--annotate", "--no-sign", "--message", message, name, commit, env=dated)
    if Path(repository).resolve() != Path(git("rev-parse", "--show-toplevel")).resolve():  # an experiment's copy
        git("push", "--quiet", "--no-verify", repository, f"refs/tags/{name}")


def runs() -> dict[str, KnownRun]:
    """Return the runs of this project that the log or a commit names, by id; the oldest of the log first."""
    by_id = {entry.run: KnownRun(entry.run, entry.name) for entry in reversed(log()) if entry.version is None}
    # The commits that name a run, the newest first, without those that changed none of its results.
    commits = git("log", "--all", "--full-history", "--format=%H", "--", RUN_REPORT, LOCK).split()
    queries = "".join(f"{commit}:./{RUN_REPORT} {commit}\n" for commit in commits)
    for commit, run in RUN_OF_COMMIT.findall(git("cat-file", "--batch=at %(rest)", stdin=queries)):
        past = by_id.get(run, KnownRun(run, run))
        by_id[run] = replace(past, commits=(*past.commits, commit))
    return by_id


def log() -> list[Entry]:
    """Return this project's entries, ours and those fetched, the newest first; raise ShallowCloneError if some lack."""
    check_not_shallow()
    if not (refs := log_refs()):
        return []
    commits = git("log", "--first-parent", "-z", "--grep=^run: ", "--format=%P%n%B", *refs)
    project = load_platform().project  # one repository may hold several
    entries: dict[Entry, None] = {}  # an ordered set: two logs may share entries
    for text in filter(None, commits.split("\0")):
        parents, subject, *body = text.split("\n")
        fields, commit = dict(line.split(": ", 1) for line in body if ": " in line), parents.split()[-1]
        trained, registered = TRAINED.fullmatch(subject), REGISTERED.fullmatch(subject)
        if trained and fields.get("project", project) == project:
            entries[Entry(fields["run"], commit, trained["name"], None)] = None
        elif registered and registered["model"] == project:
            entries[Entry(fields["run"], commit, "", int(registered["number"]))] = None
    return list(entries)


def is_behind_remote(log_ref: str = REF) -> bool:
    """Return whether another log has entries that this clone's own, or `log_ref`, lacks."""
    refs = log_refs()
    ours, others = [f"^{ref}" for ref in refs if ref == log_ref], [ref for ref in refs if ref != log_ref]
    return bool(others and git("rev-list", "--first-parent", "--max-count=1", *others, *ours))


def log_refs() -> list[str]:
    """Return the refs of the logs: this clone's own, and those of Git remotes."""
    refs = git("for-each-ref", "--format=%(refname)", REF, ANY_PUBLISHED).split()
    return [ref for ref in refs if ref.endswith(f"/{BRANCH}")]  # not those of a branch `lineage/…`


def check_not_shallow() -> None:
    """Raise ShallowCloneError if the history of this clone is cut off: what it lacks would seem never to have been."""
    if git("rev-parse", "--is-shallow-repository", where=home()) == "true":
        raise ShallowCloneError("this clone is shallow: its history is cut off", "git fetch --unshallow")
