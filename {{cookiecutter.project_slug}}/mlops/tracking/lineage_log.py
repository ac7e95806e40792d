"""The branch `lineage`: a log of every training and registration, which keeps the commits that they name.

Each entry merges the named commit into the branch, so `git log --first-parent lineage` reads as the log, and Git's and
DVC's clean-up never deletes what a run names. The branch is never checked out. All commits of this clone are read: of
branches, tags and experiments, also those that were fetched.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import home, load_platform
from ..errors import ProjectError
from ..pipeline import LOCK, RUN_REPORT
from .git import AUTHOR, GitError, commit_tree, git, try_git

BRANCH = "lineage"
REF = f"refs/heads/{BRANCH}"
TRIES = 50  # 8 clones that write at once needed 7
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


def record(commit: str, message: str) -> None:
    """Merge a commit of this clone into the branch, with `message` as the entry; raise ProjectError if Git refuses."""
    repository = git("rev-parse", "--show-toplevel", where=home())
    for _ in range(TRIES):
        tip = _fetch_tip(repository)
        try:
            _push(repository, _merge(tip, commit, message), tip)
            return
        except GitError as error:  # another run was faster: merge with its entry
            refusal = error
    fix = f"check that {BRANCH} is not checked out anywhere and that {repository} is writable"
    raise ProjectError(f"the branch {BRANCH} can't be written: {refusal}", fix)


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
    if remote not in git("remote").split():
        raise ProjectError(f"there is no Git remote {remote!r}", f"git remote add {remote} <address>")
    local = git("rev-parse", "--show-toplevel")
    ours = _fetch_tip(local)
    if not ours:
        raise ProjectError(f"there is no branch {BRANCH} yet", "dvc repro: the first training makes it")
    for _ in range(TRIES):
        theirs = _fetch_tip(remote)
        tip = theirs or ours
        # Our entries that the other branch lacks come after its own, so that the log is one line.
        entries = git("rev-list", "--first-parent", "--reverse", f"{theirs}..{ours}").split() if theirs else []
        if entries and git("merge-base", theirs, ours) == theirs:
            tip, entries = ours, []
        for entry in entries:
            parents, date, message = git("show", "-s", "--format=%P%n%cI%n%B", entry).split("\n", 2)
            tip = _merge(tip, parents.split()[1], message, date)
        try:
            _push(remote, tip, theirs)
        except GitError:
            if _fetch_tip(remote) == theirs:  # no other push was faster: the remote refuses
                raise
            continue
        _push(local, tip, ours)
        _push_tags(remote, tags)
        return tip
    raise ProjectError(f"{remote} changed {TRIES} times while publishing", "run the same command again")


def _push_tags(remote: str, patterns: tuple[str, ...]) -> None:
    lines = git("tag", "--list", *patterns, "--format=%(refname) %(contents:subject)").splitlines() if patterns else []
    messages = dict(line.split(" ", 1) for line in lines)
    by_hash = {ref for ref, md5 in messages.items() if md5.startswith(ref.removeprefix("refs/tags/data/"))}
    published = by_hash and set(git("ls-remote", "--tags", "--refs", remote).split())
    if refs := messages.keys() - (by_hash & published):
        git("push", "--quiet", "--no-verify", "--no-signed", remote, *sorted(refs))


def _merge(tip: str, commit: str, message: str, date: str = "") -> str:
    # The log begins with an empty commit, the same in every clone, so that logs can be joined.
    root = tip or commit_tree(git("mktree", stdin=""), [], "The log begins", "2000-01-01T00:00:00Z")
    return commit_tree(f"{commit}^{{tree}}", [root, commit], message, date)


def _fetch_tip(repository: str) -> str:
    """Fetch the branch of a repository, and return its commit, or "" when there is no such branch."""
    tip = git("ls-remote", repository, REF).partition("\t")[0]
    if tip:
        git("fetch", "--quiet", "--no-write-fetch-head", "--no-tags", repository, REF)
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
    return git("for-each-ref", "--format=%(refname)", REF, f"refs/remotes/*/{BRANCH}").split()


def check_not_shallow() -> None:
    """Raise ShallowCloneError if the history of this clone is cut off: what it lacks would seem never to have been."""
    if git("rev-parse", "--is-shallow-repository", where=home()) == "true":
        raise ShallowCloneError("this clone is shallow: its history is cut off", "git fetch --unshallow")
