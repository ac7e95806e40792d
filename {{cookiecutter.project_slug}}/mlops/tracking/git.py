"""Run Git's plumbing commands: none touches HEAD, the index or the work tree."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import ProjectError

# A fixed author: the id of a commit must depend on its content, not on who ran the stage.
AUTHOR = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "lineage")
AUTHOR |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "lineage@localhost")


class GitError(ProjectError):
    """A git command failed; the problem holds its message."""


def untracked_error(files: Sequence[str]) -> ProjectError:
    """Return the error for a run that depends on files that Git does not track."""
    problem = f"the run would depend on {len(files)} file(s) that Git does not track: {', '.join(files[:5])}"
    fix = f"git add {' '.join(files[:5])}   (data: dvc add; and check that no .gitignore names them)"
    return ProjectError(problem, fix)


def git(*args: str, where: Path = Path(), env: dict[str, str] | None = None, stdin: str | None = None) -> str:
    """Run git in the folder `where`; return its output without the last newline, or raise GitError if it failed."""
    # Git sets these while it runs a hook; they would point the command at the wrong index.
    inherited = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *args],
            env={**inherited, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",  # a file name need not be valid UTF-8
        )
    except FileNotFoundError as error:
        raise ProjectError("git is not installed", "install git: runs are named by Git commits") from error
    if done.returncode:
        raise GitError(f"git {args[0]}: {done.stderr.strip()}", f"correct what git reports: git {' '.join(args)}")
    return done.stdout.removesuffix("\n")


def paths(output: str) -> list[str]:
    """Split the output of a command that ran with `-z`."""
    return [path for path in output.split("\0") if path]


def head() -> str:
    """Return the id of the commit that is checked out; raise ProjectError outside a repository, or without a commit."""
    try:
        return git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError as error:
        if "safe.directory" in error.problem:
            raise
        problem = f"{Path.cwd()} has no Git commit, so a run has nothing to name"
        raise ProjectError(problem, "git init && git add . && git commit -m 'Start'") from error


def try_git(*args: str, where: Path = Path()) -> str | None:
    """Run git; return its output, or None if it failed."""
    try:
        return git(*args, where=where)
    except GitError:
        return None


def exists(commit: str) -> bool:
    """Return whether this clone has a commit."""
    return try_git("cat-file", "-e", f"{commit}^{{commit}}") is not None


def commit_tree(tree: str, parents: Sequence[str], message: str, date: str = "") -> str:
    """Commit a tree and return the commit's id, which depends on the arguments alone; without a date, on the clock."""
    options = [option for parent in parents for option in ("-p", parent)]
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), date) if date else {}
    return git("commit-tree", tree, *options, "-m", message, env={**AUTHOR, **dates})


def remote_url(where: Path) -> str:
    """Return the address of a repository's `origin` without credentials, or "" when it has none."""
    return without_credentials(try_git("remote", "get-url", "origin", where=where) or "")


def without_credentials(url: str) -> str:
    """Remove user names, passwords and tokens from the URLs in a text."""
    return re.sub(r"(?<=://)[^/\s]*@", "", url)
