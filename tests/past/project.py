"""A project of version 0.1 with a past: what its owner changed, trained, put in use and took out again.

`make.py` made it and packed it into `v0.1.tar.xz`. What the template promises to such a project, it must go on keeping.
"""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from ..conftest import TEMPLATE, BakedProject, move_artifacts
from ..projects import commit, edit

ARCHIVE = Path(__file__).with_name("v0.1.tar.xz")
TEMPLATE_ARCHIVE = ARCHIVE.with_name("template-v0.1.tar.xz")
TEMPLATE_FILES = ("cookiecutter.json", "hooks", "{{cookiecutter.project_slug}}")
"""What a project is made from."""
MADE_AT = PurePosixPath("/tmp/past/digit-classifier")  # noqa: S108 (where it was made; nothing is read from there)
PACKAGE = "digit_classifier"
COMMAND = ("python", "-m", PACKAGE)
"""Starts the command line of version 0.1."""

REVOKED = "form-03"
"""The subject that withdrew: versions 1 and 2 of the model know it, version 3 was made without it."""


def unpack(folder: Path) -> BakedProject:
    """Unpack the project below `folder`, as if its owner had moved it there; nothing is pulled from its DVC remote.

    Where MLflow and DVC look for files becomes the new folder. What runs recorded of the old one stays, as MLflow's
    copy must agree with the run's own files, which DVC knows by their hash.
    """
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    project = BakedProject(folder.resolve() / MADE_AT.name, PACKAGE)
    config = project.path / ".dvc/config.local"
    text = config.read_text(encoding="utf-8").replace(str(MADE_AT), project.path.as_posix())
    config.write_text(text, encoding="utf-8", newline="\n")
    move_artifacts(project.path / "mlflow.db", MADE_AT, project.path)
    project.run("git", "reset", "--quiet", "--hard")
    return project


def update(project: BakedProject) -> list[str]:
    """Bring the template's changes since version 0.1 into the project with `cruft update`, as its owner would.

    Where both have changed the same lines, the owner takes the template's, and writes their own change anew.

    Returns:
        The files with a conflict.
    """
    remember_template(project)
    project.run("cruft", "update", "--skip-apply-ask")
    conflicts = project.run("git", "diff", "--name-only", "--diff-filter=U").stdout.split()
    project.run("git", "checkout", "--quiet", "--theirs", *conflicts)
    edit(project, "params.yaml", "    macro_f1: 0.1", "    test_macro_f1: 0.1")
    for wide, narrow in (
        ("channels, 16", "channels, 8"),
        ("16, 32", "8, 16"),
        ("32, 64", "16, 24"),
        ("64, 64", "24, 32"),
    ):
        edit(project, f"{PACKAGE}/model/networks.py", f"_conv({wide})", f"_conv({narrow})")
    edit(project, f"{PACKAGE}/model/networks.py", "nn.Linear(64, classes)", "nn.Linear(32, classes)")
    commit(project, "Update from the template")
    return conflicts


def remember_template(project: BakedProject) -> None:
    """Make a repository of the template, as it was and as it is now, and the project one that follows it."""
    template = project.path.parent / "template"
    with tarfile.open(TEMPLATE_ARCHIVE) as archive:
        archive.extractall(template, filter="data")
    repository = BakedProject(template, "")
    repository.run("git", "init", "--quiet", "--initial-branch=main")
    old = commit_template(repository, "Version 0.1")
    for name in TEMPLATE_FILES:
        path = template / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        copy_tracked(name, template)
    commit_template(repository, "Now")
    prompts = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    answers = {
        name: value[0] if isinstance(value, list) else value for name, value in prompts.items() if name[0] != "_"
    }
    named = {"project_slug": MADE_AT.name, "package_name": PACKAGE, "_template": str(template)}
    named["author_name"] = "The Digit Classifier authors"
    state: dict[str, Any] = {"template": str(template), "commit": old, "checkout": None, "directory": None}
    state["context"] = {"cookiecutter": {**{name: answers[name] for name in answers if name[0] != "_"}, **named}}
    (project.path / ".cruft.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    commit(project, "Remember the template")


def commit_template(repository: BakedProject, message: str) -> str:
    """Commit everything in the template's repository, and return the commit."""
    repository.run("git", "add", "--all", "--force")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    repository.run("git", *identity, "commit", "--quiet", "-m", message)
    return repository.run("git", "rev-parse", "HEAD").stdout.strip()


def copy_tracked(name: str, folder: Path) -> None:
    """Copy a file or folder of the template, as it is in the work tree, without what tools leave there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", name],
        cwd=TEMPLATE, check=True, capture_output=True, text=True, encoding="utf-8",
    ).stdout  # fmt: skip
    for path in filter(None, listed.split("\0")):
        if (TEMPLATE / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TEMPLATE / path, folder / path)
