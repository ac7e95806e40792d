"""The branch `lineage`: a log of every training and registration that keeps the commits they name.

Each entry merges the named commit into the branch, so `git log --first-parent lineage` reads as the log, and nothing
that a run names is ever lost to Git's or DVC's clean-up. The branch is never checked out.
"""

from pathlib import Path

from ..errors import ProjectError
from ..settings import home
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


def push(remote: str = "origin", tags: str = "*") -> str:
    """Publish the branch and the tags of the registered versions; join what another clone published meanwhile.

    Args:
        remote: Name of a Git remote.
        tags: Pattern of the tags' names.

    Returns:
        The commit that both now have.

    Raises:
        ProjectError: There is nothing to publish, or the remote refuses.
    """
    here = git("rev-parse", "--show-toplevel")
    try:
        ours = _tip(here)
        if not ours:
            raise ProjectError(f"there is no branch {BRANCH} yet", "dvc repro: the first training makes it")
        for _ in range(TRIES):
            theirs = _tip(remote)
            joined = _join(ours, theirs)
            try:
                _push(remote, joined, theirs)
            except GitError:
                if _tip(remote) == theirs:
                    raise
                continue
            _push(here, joined, ours)
            _push_tags(remote, tags)
            return joined
    except GitError as error:
        raise ProjectError(f"{remote} does not take the branch {BRANCH}: {error}", f"git push {remote}") from error
    raise ProjectError(f"{remote} changed {TRIES} times while publishing", "lineage push, again")


def _join(ours: str, theirs: str) -> str:
    if not theirs or _holds(ours, theirs):
        return ours
    if _holds(theirs, ours):
        return theirs
    return _merge(ours, theirs, "Join what two clones recorded")


def _holds(commit: str, other: str) -> bool:
    try:
        git("merge-base", "--is-ancestor", other, commit)
    except GitError:
        return False
    return True


def _merge(tip: str, commit: str, message: str) -> str:
    parents = [tip, commit] if tip else [commit]
    flags = [part for parent in parents for part in ("-p", parent)]
    return git("commit-tree", f"{commit}^{{tree}}", *flags, "-m", message, env=AUTHOR)


def _tip(repository: str) -> str:
    """Return the branch's commit there, fetched into this clone, or "" when there is no such branch."""
    tip = git("ls-remote", repository, REF).partition("\t")[0]
    if tip:
        git("fetch", "--quiet", "--no-write-fetch-head", "--no-tags", repository, REF)
    return tip


def _push(repository: str, commit: str, expected: str) -> None:
    # The lease is a compare-and-swap: it fails when the branch is no longer what we merged with.
    git("push", "--quiet", "--no-verify", f"--force-with-lease={REF}:{expected}", repository, f"{commit}:{REF}")


def _push_tags(remote: str, pattern: str) -> None:
    names = git("tag", "--list", pattern).split()
    if names:
        git("push", "--quiet", "--no-verify", remote, *(f"refs/tags/{name}" for name in names))


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
            f"if MLflow's registry was started anew: git tag -d {name}",
        )
    git("tag", "--force", "--annotate", "--no-sign", "--message", message, name, commit, env=AUTHOR)
    if Path(repository).resolve() != Path(git("rev-parse", "--show-toplevel")).resolve():
        git("push", "--quiet", "--no-verify", repository, f"refs/tags/{name}")
