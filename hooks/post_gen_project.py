"""Finish the generated project: drop what was not chosen, make the first commit, say what to type next.

Needs no network and installs nothing.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Answers are data: `tojson` leaves no quote, newline or non-ASCII character that could end this literal.
ANSWERS = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip

# What is there for one answer only: (prompt, answer, paths). With another answer the paths are dropped.
ONLY_FOR = (
    ("dataset", "digits", ("data/consent.csv",)),  # whose subjects they are: other images have other subjects
    (
        "compute",
        "sagemaker",
        (
            *("mlops/compute", "aws", "Dockerfile", ".dockerignore"),
            *(f"docs/{page}.md" for page in ("backends", "jobs", "sagemaker", "sagemaker-walkthrough")),
        ),
    ),
    ("serving", "yes", ("mlops/serving",)),
    (
        "lineage",
        "records",
        (
            *("mlops/audit", "mlops/optout"),
            *(f"docs/{page}.md" for page in ("audits", "records-athena", "records-walkthrough")),
        ),
    ),
)
COMMIT = ("git add --all .", "git commit -m First")
CACHES = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")

# Git in this folder and no other, although a Git hook or alias may have started us; nobody's hooks, keys or ignores.
LOCATED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
PLAIN = ("core.hooksPath=.git/no-hooks", "commit.gpgSign=false", "core.excludesFile=", "core.safecrlf=false")


def main() -> None:
    """Finish the project in the working directory."""
    drop_unchosen()
    note, *commands = make_first_commit()
    steps = "".join(f"  {command}\n" for command in (f"cd {ANSWERS['project_slug']}", *commands, "make repro"))
    print(f"\nMade {ANSWERS['project_slug']}/. {note}\nNext:\n\n{steps}")


def drop_unchosen() -> None:
    """Delete what belongs to other answers, and what Python and its tools left in the template's folder."""
    unchosen = [Path(path) for prompt, answer, paths in ONLY_FOR if ANSWERS[prompt] != answer for path in paths]
    caches = [path for name in CACHES for path in Path().rglob(name)]
    for path in (*unchosen, *caches):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def make_first_commit() -> tuple[str, ...]:
    """Make the folder a Git repository with one commit on `main`, where that is possible.

    Returns:
        What was done, or why not, as one line; then the commands that are left to type in the folder.
    """
    if shutil.which("git") is None:
        return ("Git was not found: install it first.", "git init -b main", *COMMIT)
    if git("rev-parse", "--is-inside-work-tree").stdout.strip() == "true" and git("check-ignore", "-q", ".").returncode:
        outer = git("rev-parse", "--show-toplevel").stdout.strip()
        return (
            f"It lies inside the Git repository {outer}, so it was given none of its own: commit it there.",
            *COMMIT,
        )
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "--message=Generate the project from cookiecutter-dvc-sagemaker"),
    ):
        done = git(*command)
        if done.returncode:
            print(f"git {command[0]} failed: {done.stderr.strip()}", file=sys.stderr)
            return ("Its first commit is yours to make.", "git init -b main", *COMMIT)
    return ("It is a Git repository with one commit.",)


def git(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one Git command here, with a stand-in for each half of the identity that nobody configured."""
    environment = {name: value for name, value in os.environ.items() if name not in LOCATED}
    settings = list(PLAIN)
    for key, stand_in in (("user.name", "cookiecutter"), ("user.email", "cookiecutter@localhost")):
        if subprocess.run(["git", "config", key], env=environment, capture_output=True).returncode:
            settings.append(f"{key}={stand_in}")
    options = [part for setting in settings for part in ("-c", setting)]
    return subprocess.run(
        ["git", *options, *command], env=environment, capture_output=True, text=True, encoding="utf-8"
    )


main()
