"""Finish the generated project: drop what was not chosen, make the first commit, say what to type next.

Needs no network and installs nothing. `update/` imports it, to know what a project of this version has.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

RECORD = ".template.json"  # where the project came from: `python -m mlops update` reads it

# What is there for one answer only: (prompt, answer, paths). With another answer the paths are dropped.
ONLY_FOR = (
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
            *("mlops/audit", "mlops/optout", "docs/healthcare-images.py", "docs/healthcare-walkthrough.md"),
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
    # Answers are data: `tojson` leaves no quote, newline or non-ASCII character that could end this literal.
    answers = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip
    drop_unchosen(answers)
    template, commit = origin(answers)
    files = {path.as_posix(): path.read_bytes() for path in Path("mlops").rglob("*") if path.is_file()}
    Path(RECORD).write_bytes(record(template, answers, answers["_version"], commit, files))
    if rendered_for_comparison(answers):
        return
    if answers["dataset"] == "folder":
        let_prepare_choose_salt()
    note, *commands = make_first_commit()
    listed = (f"cd {answers['project_slug']}", *commands, *first_steps(answers))
    steps = "".join(f"  {command}\n" for command in listed)
    print(f"\nMade {answers['project_slug']}/. {note}\nNext:\n\n{steps}")


def first_steps(answers: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the commands, and comments, that lead from a new project to its first model."""
    if answers["dataset"] != "folder":
        return ("make repro",)
    consent = (
        "# Record who consents: python -m mlops consent add SUBJECT …",
        "# If the images are of no persons: params.yaml:data.consent: not_required",
    )
    return (
        "make setup",
        ".venv\\Scripts\\activate" if os.name == "nt" else "source .venv/bin/activate",
        "# Put your images into data/raw, in a folder for each label. Other layouts: docs/data.md",
        "dvc add data/raw",
        *(consent if answers["lineage"] == "records" else ()),
        'git add . && git commit -m "Our images"',
        "make repro",
    )


def unchosen(answers: Mapping[str, Any]) -> list[str]:
    """Return the files and folders that belong to other answers."""
    return [path for prompt, answer, paths in ONLY_FOR if answers[prompt] != answer for path in paths]


def drop_unchosen(answers: Mapping[str, Any]) -> None:
    """Delete what belongs to other answers, and what Python and its tools left in the template's folder."""
    caches = [path for name in CACHES for path in Path().rglob(name)]
    for path in (*map(Path, unchosen(answers)), *caches):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def record(
    template: str | None, answers: Mapping[str, Any], version: str, commit: str | None, files: Mapping[str, bytes]
) -> bytes:
    """Return the content of `.template.json`.

    Args:
        template: The template's address, without credentials; None when it is not known.
        answers: All of them; those that decide which files there are get into it.
        version: `_version` of the template's `cookiecutter.json`.
        commit: The template's commit; None when it is not known, or the template had uncommitted changes.
        files: The files of `mlops/`, by their paths from the project's root.
    """
    content = {
        "template": template,
        "answers": {prompt: answers[prompt] for prompt, _, _ in ONLY_FOR},
        "version": version,
        "commit": commit,
        "files": {path: digest(files[path]) for path in sorted(files)},
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def digest(content: bytes) -> str:
    """Return the SHA-256 of a text file, the same for both kinds of line ends."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def origin(answers: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the template's address, without credentials, and its commit; None for what is not known."""
    address = str(answers["_template"])
    if "_repo_dir" not in answers:  # cruft: it clones, so nothing is uncommitted
        return without_credentials(address), answers.get("_commit")
    folders = (os.environ.get("PWD", ""), answers["_output_dir"], *Path(answers["_output_dir"]).parents)
    copies = (Path(folder, answers["_repo_dir"]).resolve() for folder in folders)
    copy = next((copy for copy in copies if (copy / "hooks/post_gen_project.py").is_file()), None)
    if copy is None:  # a relative path, from a folder that nothing tells
        return None, None
    is_local = address == answers["_repo_dir"]
    address = copy.as_posix() if is_local else address
    in_copy = partial(git, "-C", str(copy))
    if shutil.which("git") is None or in_copy("rev-parse", "--show-prefix").stdout != "\n":  # no repository of its own
        return without_credentials(address), None
    if not is_local:  # cloned, by an address that may have been short, such as `gh:owner/name`
        address = in_copy("remote", "get-url", "origin").stdout.strip() or address
    used = ("cookiecutter.json", "hooks", "{% raw %}{{cookiecutter.project_slug}}{% endraw %}")
    is_changed = in_copy("status", "--porcelain", "--", *used).stdout
    commit = "" if is_changed else in_copy("rev-parse", "--verify", "HEAD").stdout.strip()
    return without_credentials(address), commit or None


def without_credentials(url: str) -> str:
    """Remove the user's name, password or token from a URL over HTTP; SSH needs its user, and tells no secret."""
    return re.sub(r"^(https?://)[^/]*@", r"\1", url)


def rendered_for_comparison(answers: Mapping[str, Any]) -> bool:
    """Return whether this is one of the copies that `cruft update` and `cruft diff` compare, in a temporary folder."""
    folder = Path.cwd().parent
    is_temporary = folder.parent == Path(tempfile.gettempdir()).resolve() and re.fullmatch(r"tmp\w{8}", folder.name)
    return "_repo_dir" not in answers and bool(is_temporary)


def let_prepare_choose_salt() -> None:
    """Empty `split.salt`, in a new project only: an update must not split the records of an older one anew."""
    path = Path("params.yaml")
    known = "  salt: '7'   # another text is another split\n"
    empty = "  salt:   # empty: the first prepare writes the one that spreads your labels best\n"
    path.write_bytes(path.read_bytes().replace(known.encode(), empty.encode()))


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


if __name__ == "__main__":
    main()
