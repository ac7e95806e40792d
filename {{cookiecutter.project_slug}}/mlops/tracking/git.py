"""Run Git's plumbing commands: none touches HEAD, the index or the work tree."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import ProjectError

# A fixed author: the id of a commit must depend on its content, not on who ran the stage.
AUTHOR = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "lineage")
AUTHOR |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "lineage@localhost")

# What Git says, what it means, and what helps; the first that fits counts.
EXPLANATIONS = (
    (
        r"dubious ownership in repository at '(.+?)(?:/\.git)?'",
        "the repository {0} belongs to another user of this machine, so Git refuses it",
        "git config --global --add safe.directory {0} && git config --global --add safe.directory {0}/.git",
    ),
    (
        r"\[rejected\] +(\S+) -> \S+ \(already exists\)",
        "{remote} has the tag {0} on another commit",
        "git fetch --force {remote} tag {0}   (takes theirs; to keep yours as well, before that: git tag <name> {0})",
    ),
    (
        r"'refs/heads/(\S+?)' exists; cannot create",
        "{remote} has a branch {0}, in the way of the one that is to be pushed",
        "git fetch {remote} && git push {remote} {remote}/{0}:refs/heads/<name> :refs/heads/{0} "
        "&& git fetch --prune {remote}",
    ),
    (
        r"Unable to create '(.+\.lock)': File exists",
        "another git command is at work, or was killed: there is {0}",
        "the same command, when that has ended; if none is at work: rm {0}",
    ),
    (
        r"! \[(?:remote )?rejected\] .* -> (\S+) \((.+)\)",
        "{remote} refuses {0}: {1} ({first})",
        "allow pushes of {0} there (rights to write, rules for protected branches, hooks), then the same command",
    ),
    (
        r"not a git repository",
        "{where} is in no Git repository",
        "git init && git add . && git commit -m 'Start'; or go to the project's folder",
    ),
    (
        r"object file .* is empty|is corrupt|bad object|missing (?:blob|tree|commit)|unable to read",
        "the repository around {where} is damaged: {first}",
        "git fsck says what is lacking; a new clone has it: git clone <address of git remote -v> <folder>",
    ),
    (r"No space left on device|Disk quota exceeded", "the disk is full", "free some space, such as with: dvc gc -w"),
    (
        r"unable to access '|Could not resolve|does not appear to be a git repository|[Rr]epository .*not found|could "
        r"not read (?:Username|Password)|Permission denied \(|transport '\w+' not allowed|Could not read from remote",
        "the Git remote {remote} can't be reached: {first}",
        "correct its address (git remote -v) or what it needs to let you in, until this works: git ls-remote {remote}",
    ),
    (
        r"insufficient permission|Permission denied|Read-only file system",
        "Git can't write in {where}",
        "see who may: ls -ld {where}/.git; or work in a clone of your own: git clone {where} <folder>",
    ),
)


class GitError(ProjectError):
    """A git command failed; the problem holds its message."""


def untracked_error(files: Sequence[str]) -> ProjectError:
    """Return the error for a run that depends on files that Git does not track."""
    problem = f"the run would depend on {len(files)} file(s) that Git does not track: {', '.join(files[:5])}"
    force = "--force " if try_git("check-ignore", "--no-index", *files) else ""  # a .gitignore names one
    return ProjectError(problem, f"git add {force}{shlex.join(files[:20])}   (data: dvc add)")


def git(
    *args: str,
    where: Path = Path(),
    env: dict[str, str] | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run git in the folder `where`; return its output without the last newline, or raise GitError if it failed.

    With `timeout_s`, it raises subprocess.TimeoutExpired after so many seconds.
    """
    # Git sets these while it runs a hook; they would point the command at the wrong index.
    inherited = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *args],
            env={**inherited, "LC_ALL": "C", **(env or {})},  # EXPLANATIONS are in English
            input=stdin,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",  # a file name need not be valid UTF-8
        )
    except FileNotFoundError as error:
        raise ProjectError("git is not installed", "install git: runs are named by Git commits") from error
    if done.returncode:
        raise _error(args, where, without_credentials(done.stderr))
    return done.stdout.removesuffix("\n")


def _error(args: Sequence[str], where: Path, message: str) -> GitError:
    lines = [re.sub(r"^((fatal|error|remote): *)*", "", line).strip() for line in message.splitlines()]
    values = {
        "first": next(filter(None, lines), ""),
        "remote": next((arg for arg in args[1:] if not arg.startswith("-")), ""),  # of ls-remote, fetch, push
        "where": os.path.abspath(where),
    }
    for pattern, problem, fix in EXPLANATIONS:
        if match := re.search(pattern, message):
            return GitError(*(text.format(*match.groups(), **values).replace("/./", "/") for text in (problem, fix)))
    return GitError(
        f"git {args[0]}: {'; '.join(filter(None, lines))}",
        f"this says it again: git {without_credentials(shlex.join(args))}",
    )


def paths(output: str) -> list[str]:
    """Split the output of a command that ran with `-z`."""
    return [path for path in output.split("\0") if path]


def head() -> str:
    """Return the id of the commit that is checked out; raise ProjectError outside a repository, or without a commit."""
    try:
        return git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError as error:
        if "safe.directory" in error.fix:
            raise
        problem = f"{Path.cwd()} has no Git commit, so a run has nothing to name"
        raise ProjectError(problem, "git init && git add . && git commit -m 'Start'") from error


def try_git(*args: str, where: Path = Path()) -> str | None:
    """Run git; return its output, or None if it failed."""
    try:
        return git(*args, where=where)
    except GitError:
        return None


def check_writable(where: Path) -> None:
    """Raise GitError, as a command would, where this process can't write to the repository around a folder."""
    if not os.access(where / git("rev-parse", "--git-path", "objects", where=where), os.W_OK):
        raise _error(["commit"], where, "insufficient permission")


def unattended() -> dict[str, str]:
    """Return the variables with which Git and SSH ask nobody for a password, and don't wait for long."""
    env = {"GIT_TERMINAL_PROMPT": "0", "GCM_INTERACTIVE": "never"}
    if not ({"GIT_SSH", "GIT_SSH_COMMAND"} & os.environ.keys() or try_git("config", "core.sshCommand")):
        env["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes -o ConnectTimeout=10"
    return env


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
