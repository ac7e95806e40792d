"""Update the template's part of the project: the new version's own updater does it, so it knows what is new."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .errors import ProjectError
from .files import read_json
from .tracking.git import GitError, git, try_git

RECORD = Path(".template.json")


def update(to: str, template: str, options: Sequence[str]) -> int:
    """Clone the template at a version, and run its updater on the working directory.

    Args:
        to: A tag, branch or commit; "" means the default branch.
        template: Another address of the template than the recorded one, or "".
        options: The updater's options.

    Returns:
        Its exit status: 0 when the project is up to date.

    Raises:
        ProjectError: The template can't be reached, or has no such version.
    """
    if not RECORD.exists():
        problem = f"{RECORD} is not in {Path.cwd()}"
        raise ProjectError(problem, f"run from the project's root, or restore it: git checkout {RECORD}")
    address = str(Path(template).resolve()) if Path(template or "-").is_dir() else template
    address = address or read_json(RECORD).get("template")
    if not address:
        raise ProjectError(f"{RECORD} does not know the template's address", "python -m mlops update --template <URL>")
    with tempfile.TemporaryDirectory(prefix="template-") as folder:
        clone = Path(folder, "template")
        try:
            git("clone", "--quiet", "--", address, str(clone))
        except GitError as error:
            problem = f"the template can't be had from {address}: {error.problem}"
            fix = f"until it works: git ls-remote {address}; another address: python -m mlops update --template <URL>"
            raise ProjectError(problem, fix) from error
        if to:
            names = (f"refs/tags/{to}", f"refs/remotes/origin/{to}", to)
            commits = (try_git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", where=clone) for name in names)
            commit = next(filter(None, commits), None)
            if not commit:
                tags = ", ".join(git("tag", "--sort=-version:refname", where=clone).split()[:5]) or "none yet"
                fix = f"python -m mlops update --to <a tag ({tags}), a branch or a commit>"
                raise ProjectError(f"the template has no version {to!r}", fix)
            git("checkout", "--quiet", "--detach", commit, where=clone)
        if not (clone / "update/__main__.py").exists():
            problem = f"version {to or 'of the default branch'} of the template has no updater: it is an old one"
            raise ProjectError(problem, "python -m mlops update --to <a later version>")
        env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        command = [sys.executable, "-m", "update", str(Path.cwd()), "--template", address, *options]
        return subprocess.run(command, cwd=clone, env=env).returncode
