"""A project follows its template: `cruft update` brings the template's changes and keeps the owner's."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import TEMPLATE, BakedProject

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")


def git(folder: Path, *command: str) -> None:
    """Run Git in a folder."""
    subprocess.run(["git", *IDENTITY, *command], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, message: str) -> None:
    """Commit everything in a folder."""
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", message)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A repository of this template as it is in the working tree."""
    folder = tmp_path / "template"
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns(".git", ".venv", "demo", "*cache*"))
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "Template")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> BakedProject:
    """A project made with `cruft create`, committed."""
    subprocess.run(
        ["cruft", "create", str(template), "--no-input", "--output-dir", str(tmp_path)], check=True, capture_output=True
    )
    folder = tmp_path / "digit-classifier"
    commit(folder, "Remember the template")
    return BakedProject(folder, "digit_classifier")


def replace(path: Path, old: str, new: str) -> None:
    """Edit a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")


def test_cruft_create_adds_its_file_to_a_committed_project(project: BakedProject) -> None:
    subjects = project.run("git", "log", "--format=%s").stdout.splitlines()
    assert subjects == ["Remember the template", "Generate the project from cookiecutter-dvc-sagemaker"]
    assert project.run("git", "show", "--format=", "--name-only").stdout == ".cruft.json\n"
    project.run("cruft", "check")


def test_cruft_update_applies_the_template_and_keeps_the_owners_stage(template: Path, project: BakedProject) -> None:
    stage = Path("{{cookiecutter.package_name}}", "stages", "prepare.py")
    skeleton = template / "{{cookiecutter.project_slug}}"
    own_stage = project.path / project.package / "stages" / "prepare.py"
    own_stage.write_text(own_stage.read_text(encoding="utf-8") + "\n# mine\n", encoding="utf-8", newline="\n")
    commit(project.path, "Change a stage")
    replace(skeleton / stage, '"""', '"""Of the template: ')
    replace(skeleton / ".gitignore", "# Secrets\n", "# Secrets\n*.pem\n")
    (skeleton / "NEW.md").write_text("{{ cookiecutter.project_name }}\n", encoding="utf-8")
    commit(template, "Improve the template")

    printed = project.run("cruft", "update", "--skip-apply-ask")

    assert "Made digit-classifier" not in printed.stdout, "it is none: cruft compares two copies"
    record = json.loads((project.path / ".template.json").read_text(encoding="utf-8"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=template, check=True, capture_output=True, text=True)
    assert (record["template"], record["commit"]) == (str(template), head.stdout.strip())
    text = own_stage.read_text(encoding="utf-8")
    assert text.startswith('"""Of the template: ')
    assert text.endswith("\n# mine\n")
    assert "*.pem" in (project.path / ".gitignore").read_text(encoding="utf-8")
    assert (project.path / "NEW.md").read_text(encoding="utf-8") == "Digit Classifier\n"
    assert list(project.path.rglob("*.rej")) == []
    assert project.run("git", "log", "--format=%s").stdout.splitlines()[0] == "Change a stage", "history is the owner's"
    project.run("cruft", "check")


def test_cruft_update_leaves_the_salt_of_an_older_project_as_it_is(template: Path, tmp_path: Path) -> None:
    """Only a new project lets the first `prepare` choose: another salt would split the records of an older one anew."""
    own_images = ("--extra-context", '{"dataset": "folder"}')
    command = ["cruft", "create", str(template), "--no-input", *own_images, "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    project = BakedProject(tmp_path / "digit-classifier", "digit_classifier")
    params = project.path / "params.yaml"
    replace(params, "  salt:   # empty", "  salt: '883'   # written by prepare; was empty")
    commit(project.path, "First results")
    replace(template / "{{cookiecutter.project_slug}}/params.yaml", "epochs: {%", "epochs:  {%")
    commit(template, "A change beside it")
    project.run("cruft", "update", "--skip-apply-ask")
    text = params.read_text(encoding="utf-8")
    assert "epochs:  15" in text and "salt: '883'" in text
