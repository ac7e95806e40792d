"""The branch `lineage`: a log of every training and registration that keeps the commits they name.

Each entry merges the named commit into the branch, so `git log --first-parent lineage` reads as the log, and nothing
that a run names is ever lost to Git's or DVC's clean-up. The branch is never checked out.
"""

from pathlib import Path

from ..config import home
from ..errors import ProjectError
from .git import AUTHOR, GitError, git

BRANCH = "lineage"
REF = f"refs/heads/{BRANCH}"
TRIES = 50  # 8 clones writing at once needed 7


def record(commit: str, message: str) -> None:
    """Merge `commit` into the branch of the repository that the work belongs to.

    Args:
        commit: A commit of this clone.
        message: The log entry; its first line is what `git log --oneline` shows.

    Raises:
        ProjectError: The branch can't be written.
    """
    repository = git("rev-parse", "--show-toplevel", where=home())
    error: GitError | None = None
    for _ in range(TRIES):
        tip = _tip(repository)
        merge = _merge(tip, commit, message)
        try:
            _push(repository, merge, tip)
            return
        except GitError as refused:  # another run was first: merge with what it wrote
            error = refused
    raise ProjectError(
        f"the branch {BRANCH} can't be written: {error}",
        f"see that {BRANCH} is not checked out anywhere and that {repository} is writable",
    )


def record_once(commit: str, message: str) -> None:
    """Do what `record` does, unless the log has that entry: who was killed after it wrote it comes here again."""
    subject = message.partition("\n")[0]
    try:
        options = ("--first-parent", "--format=%B%x00", "--fixed-strings", f"--grep={subject}")
        entries = [entry.strip() for entry in git("log", *options, REF, where=home()).split("\0")]
    except GitError:  # there is no such branch yet
        entries = []
    if message.strip() not in entries:
        record(commit, message)


def push(remote: str = "origin", tags: tuple[str, ...] = ()) -> str:
    """Publish the branch and tags; what another clone published meanwhile stays, and ours comes after it.

    Args:
        remote: Name of a Git remote.
        tags: Patterns of the names of the tags to publish.

    Returns:
        The commit that both now have.

    Raises:
        ProjectError: There is nothing to publish, no such remote, or the remote refuses.
    """
    if remote not in git("remote").split():
        raise ProjectError(f"there is no Git remote {remote!r}", f"git remote add {remote} <address>")
    here = git("rev-parse", "--show-toplevel")
    ours = _tip(here)
    if not ours:
        raise ProjectError(f"there is no branch {BRANCH} yet", "dvc repro: the first training makes it")
    for _ in range(TRIES):
        theirs = _tip(remote)
        joined = _join(ours, theirs)
        try:
            _push(remote, joined, theirs)
        except GitError:
            if _tip(remote) == theirs:  # nobody was first: the remote does not want it
                raise
            continue
        _push(here, joined, ours)
        _push_tags(remote, tags)
        return joined
    raise ProjectError(f"{remote} changed {TRIES} times while publishing", "the same command, again")


def _join(ours: str, theirs: str) -> str:
    """Put our entries that the other side lacks after theirs, so that the log is one line again."""
    tip = theirs or ours
    entries = git("rev-list", "--first-parent", "--reverse", f"{theirs}..{ours}").split() if theirs else []
    if entries and git("merge-base", theirs, ours) == theirs:
        return ours
    for entry in entries:
        commit, date, message = git("show", "-s", "--format=%P%n%cI%n%B", entry).split("\n", 2)
        tip = _merge(tip, commit.split()[1], message, date)
    return tip


def _merge(tip: str, commit: str, message: str, date: str = "") -> str:
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), date) if date else {}
    parents = ("-p", tip or _root(), "-p", commit)
    return git("commit-tree", f"{commit}^{{tree}}", *parents, "-m", message, env={**AUTHOR, **dates})


def _root() -> str:
    """Return where the log begins: an empty commit, the same in every clone, so that logs can be joined."""
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2000-01-01T00:00:00Z")
    return git("commit-tree", git("mktree", stdin=""), "-m", "The log begins", env={**AUTHOR, **dates})


def _tip(repository: str) -> str:
    """Return the branch's commit there, fetched into this clone, or "" when there is no such branch."""
    tip = git("ls-remote", repository, REF).partition("\t")[0]
    if tip:
        git("fetch", "--quiet", "--no-write-fetch-head", "--no-tags", repository, REF)
    return tip


def _push(repository: str, commit: str, expected: str) -> None:
    # The lease is a compare-and-swap: it fails when the branch is no longer what we merged with.
    lease = f"--force-with-lease={REF}:{expected}"
    git("push", "--quiet", "--no-verify", "--no-signed", lease, repository, f"{commit}:{REF}")


def _push_tags(remote: str, patterns: tuple[str, ...]) -> None:
    names = git("tag", "--list", *patterns).split() if patterns else []
    if names:
        git("push", "--quiet", "--no-verify", "--no-signed", remote, *(f"refs/tags/{name}" for name in names))


def tag(name: str, commit: str, message: str) -> None:
    """Give `commit` an annotated tag, here and in the repository that the work belongs to. Idempotent.

    Raises:
        ProjectError: The tag names another commit already.
    """
    repository = git("rev-parse", "--show-toplevel", where=home())
    there = git("ls-remote", repository, f"refs/tags/{name}^{{}}").partition("\t")[0]
    if there == commit:
        return
    if there:
        raise ProjectError(
            f"the tag {name} names commit {there[:10]} already, not {commit[:10]}",
            f"choose another name; or, if that one is given up: git tag -d {name}",
        )
    git("tag", "--force", "--annotate", "--no-sign", "--message", message, name, commit, env=AUTHOR)
    if Path(repository).resolve() != Path(git("rev-parse", "--show-toplevel")).resolve():
        git("push", "--quiet", "--no-verify", repository, f"refs/tags/{name}")
