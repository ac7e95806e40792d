"""`make update`: the template's part of a project changes in one commit or not at all, and the owner's never."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from hooks.post_gen_project import RECORD
from update import packages
from update.__main__ import lost_deps, plan
from update.checks import Report, environment, look_at
from update.errors import UpdateError
from update.project import Project
from update.template import Template, open_template

from .conftest import TEMPLATE, BakedProject, isolate
from .past.project import copy_tracked, unpack
from .past.project import update as cruft_update
from .projects import edit

SKELETON = "{{cookiecutter.project_slug}}"
FILES = ("cookiecutter.json", "hooks", "update", SKELETON)
OUTPUTS = {  # of the stages, so that DVC takes all of them to be up to date
    **dict.fromkeys(("data/dataset/x", "reports/samples/x", "models/model/x", "reports/train/x"), "x"),
    **dict.fromkeys(("data/manifest.parquet", "reports/labels.csv", "reports/confusion.csv"), "x"),
    **dict.fromkeys(("reports/per_class.csv", "reports/mistakes.png", "reports/predictions.parquet"), "x"),
    **{f"reports/{name}.json": "{}" for name in ("prepare", "manifest", "metrics", "run", "register")},
}
# Older than what is installed, where these tests run: with the new version's lock, the environment is right.
OLD_PINS = {"tqdm==4.70.1": "tqdm==4.69.0", "scipy==1.17.1": "scipy==1.17.0"}

OWN_PIN = f"duckdb=={metadata.version('duckdb')}"

Update = Callable[..., "subprocess.CompletedProcess[str]"]


def identify(project: BakedProject) -> None:
    project.run("git", "config", "user.name", "Ada Byron")
    project.run("git", "config", "user.email", "ada@example.org")


def commit(project: BakedProject, message: str) -> str:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "-m", message)
    return project.run("git", "rev-parse", "HEAD").stdout.strip()


def replace(root: Path, name: str, *changes: tuple[str, str]) -> None:
    for old, new in changes:
        edit(BakedProject(root, ""), name, old, new)


def bake_from(template: BakedProject, folder: Path, *answers: str) -> BakedProject:
    options = ("--no-input", "--default-config", "--output-dir", str(folder))
    template.run(sys.executable, "-m", "cookiecutter", str(template.path), *options, *answers)
    return BakedProject(folder / "digit-classifier", "digit_classifier")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BakedProject, BakedProject]]:
    """The template in two versions, and a project of the first one, in which its owner has worked."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        folder = tmp_path_factory.mktemp("versions")
        template = BakedProject(folder / "template", "")
        for name in FILES:
            copy_tracked(name, template.path)
        template.run("git", "init", "--quiet", "--initial-branch=main")
        identify(template)
        skeleton = template.path / SKELETON
        replace(skeleton, "requirements.lock", *OLD_PINS.items())
        replace(skeleton, "environment.json", ('"scipy": "1.17.1"', '"scipy": "1.17.0"'))
        (skeleton / "mlops/old.py").write_text('"""Gone in the next version."""\n', encoding="utf-8")
        commit(template, "Old")
        template.run("git", "tag", "v-old")

        project = bake_from(template, folder)
        identify(project)
        for name, text in OUTPUTS.items():
            (project.path / name).parent.mkdir(parents=True, exist_ok=True)
            (project.path / name).write_text(text, encoding="utf-8")
        shutil.rmtree(project.path / "mlops/optout")
        shutil.rmtree(project.path / "mlops/audit")
        edit(project, "pyproject.toml", '    "filelock",\n', '    "duckdb>=1", # ours\n    "filelock",\n')
        edit(project, "requirements.lock", "dvc==", f"{OWN_PIN}\ndvc==")
        edit(project, f"{project.package}/stages/train.py", '"""Stage', '"""Ours: Stage')
        project.run("dvc", "commit", "--quiet", "--force")
        commit(project, "Our work")

        replace(skeleton, "requirements.lock", *((new, old) for old, new in OLD_PINS.items()))
        replace(skeleton, "environment.json", ('"scipy": "1.17.0"', '"scipy": "1.17.1"'))
        replace(skeleton, "mlops/records/ids.py", ('"""What', '"""New: What'))
        replace(skeleton, "dvc.yaml", ("# The pipeline.", "# The new pipeline."))
        (skeleton / "mlops/old.py").unlink()
        (skeleton / "mlops/audit/more.py").write_text('"""New."""\n', encoding="utf-8")
        (skeleton / "mlops/more.py").write_text('"""New."""\n', encoding="utf-8")
        commit(template, "New")
        yield template, project


@pytest.fixture
def template(versions: tuple[BakedProject, BakedProject]) -> Template:
    """The template at its new version, to look at."""
    return open_template(versions[0].path, str(versions[0].path))


@pytest.fixture
def project(versions: tuple[BakedProject, BakedProject], tmp_path: Path) -> BakedProject:
    """A copy of the project, to change."""
    path = tmp_path / versions[1].path.name
    shutil.copytree(versions[1].path, path)
    return BakedProject(path, versions[1].package)


@pytest.fixture
def update(project: BakedProject) -> Update:
    """Run the command in the project; it leaves stdin empty, so a question is answered by nothing."""

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        command = ("python", "-m", "mlops", "update", *options)
        return subprocess.run(
            command, cwd=project.path, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8"
        )

    return run


def planned(project: BakedProject, template: Template) -> dict[str, bytes | None]:
    ours = Project(project.path)
    return plan(ours, template, ours.origin(template))


def state(project: BakedProject) -> tuple[str, str, dict[str, bytes]]:
    """Return all that an update may change."""
    files = {name: (project.path / name).read_bytes() for name in project.files() if not name.startswith(".dvc/")}
    status = project.run("git", "status", "--porcelain", "-uall").stdout
    return project.run("git", "rev-parse", "HEAD").stdout, status, files


def test_update_is_one_commit_of_the_templates_part_and_says_what_runs_again(
    project: BakedProject, update: Update, template: Template
) -> None:
    edit(project, "params.yaml", "epochs: 15", "epochs: 14")  # not committed, and none of the update's business
    done = update("--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n\n")[2].splitlines() == [
        "These stages will run again:",
        "  prepare      environment.json, mlops/records (ids.py)",
        "  manifest     environment.json, mlops/records (ids.py)",
        "  train        environment.json, mlops/records (ids.py)",
        "  register     environment.json, mlops/records (ids.py)",
    ]
    assert "requirements.lock  scipy 1.17.0 -> 1.17.1, tqdm 4.69.0 -> 4.70.1" in done.stdout
    assert "  dvc.yaml\nTo see these changes, in a clone of the template:" in done.stdout
    assert project.run("git", "log", "--format=%an: %s", "-1").stdout.startswith("Ada Byron: Update the template to 0.")
    changed = project.run("git", "diff", "--name-status", "HEAD~1", "HEAD").stdout.split("\n")[:-1]
    assert {tuple(line.split("\t")) for line in changed} == {
        ("M", RECORD), ("M", "environment.json"), ("M", "requirements.lock"),
        ("D", "mlops/old.py"), ("M", "mlops/records/ids.py"), ("A", "mlops/more.py"),
    }  # fmt: skip
    assert project.run("git", "status", "--porcelain").stdout == " M params.yaml\n"
    assert f"{OWN_PIN}\n" in (project.path / "requirements.lock").read_text(encoding="utf-8"), "the owner's pin"
    assert json.loads((project.path / RECORD).read_text(encoding="utf-8"))["commit"] == template.commit
    assert "Up to date" in update().stdout


def test_update_of_an_edited_mlops_is_refused_with_the_diff(project: BakedProject, update: Update) -> None:
    generated = project.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    edit(project, "mlops/files.py", '"""Write files whole', '"""Our files whole')
    (project.path / "mlops/README.md").unlink()
    (project.path / "mlops/ours.py").write_text("x = 1\n", encoding="utf-8")
    commit(project, "Edit the machinery")
    before = state(project)
    done = update("--yes")
    assert done.returncode == 2
    assert '-"""Write files whole or not at all' in done.stdout
    assert '+"""Our files whole or not at all' in done.stdout
    assert "--- a/mlops/README.md" in done.stdout and "+x = 1" in done.stdout
    assert (
        "mlops/ was edited, and the update would undo it: mlops/README.md, mlops/files.py, mlops/ours.py" in done.stderr
    )
    assert "Fix: make the change in your package, or propose it to " in done.stderr
    assert state(project) == before
    undo = done.stderr.partition("undo it, and commit: ")[2].strip()
    assert undo == f"git checkout {generated[:10]} -- mlops/README.md mlops/files.py; git rm mlops/ours.py"


def test_edit_is_shown_from_the_projects_own_history_when_the_template_forgot_the_version(
    project: BakedProject, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((project.path / RECORD).read_text(encoding="utf-8"))
    (project.path / RECORD).write_text(json.dumps({**record, "commit": "1" * 40}), encoding="utf-8")
    edit(project, "mlops/files.py", '"""Write files whole', '"""Our files whole')
    commit(project, "Edit the machinery")
    with pytest.raises(UpdateError, match=r"mlops/ was edited.*: mlops/files\.py$"):
        planned(project, template)
    assert '-"""Write files whole or not at all' in capsys.readouterr().out


def test_edit_that_the_new_version_has_too_is_no_edit(project: BakedProject, template: Template) -> None:
    edit(project, "mlops/records/ids.py", '"""What', '"""New: What')
    (project.path / "mlops/old.py").unlink()
    (project.path / "mlops/more.py").write_text('"""New."""\n', encoding="utf-8")
    commit(project, "What the template took over")
    assert [path for path in planned(project, template) if path.startswith("mlops/")] == []


def test_line_ends_of_windows_are_no_edit(project: BakedProject, template: Template) -> None:
    (project.path / ".gitattributes").unlink()
    commit(project, "No rule for line ends")
    path = project.path / "mlops/files.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    commit(project, "From another editor")
    assert b"\r\n" in Project(project.path).files["mlops/files.py"]
    planned(project, template)


def test_uncommitted_change_of_what_is_written_is_refused(project: BakedProject, update: Update) -> None:
    edit(project, "requirements.lock", "tqdm==4.69.0", "tqdm==4.68.0")
    (project.path / "mlops/ours.py").touch()
    done = update("--yes")
    assert done.returncode == 2
    assert "2 file(s) that an update writes have changes that are not committed: " in done.stderr
    undo = done.stderr.partition("undo them: ")[2].strip().split("; ")
    assert undo == [
        "git restore --source=HEAD --staged --worktree -- requirements.lock",
        "git clean -f -- mlops/ours.py",
    ]
    for command in undo:
        project.run(*command.split())
    Project(project.path).check_clean()


def test_running_stage_is_waited_for(project: BakedProject) -> None:
    lock = project.path / ".dvc/tmp/rwlock"
    for pid, running in ((os.getpid(), True), (2**22 + 1, False)):  # the second is above Linux's largest
        lock.write_text(json.dumps({"/x": {"write": {"pid": pid, "cmd": "dvc repro"}}}), encoding="utf-8")
        if running:
            with pytest.raises(UpdateError, match="DVC runs a stage in this project: dvc repro"):
                Project(project.path).check_idle()
        else:
            Project(project.path).check_idle()


def test_unknown_version_names_those_there_are(update: Update) -> None:
    done = update("--to", "v9.9.9")
    assert (done.returncode, "has no version 'v9.9.9'" in done.stderr) == (2, True)
    assert "Fix: python -m mlops update --to <a tag (v-old), a branch or a commit>" in done.stderr


def test_unreachable_template_names_its_address(update: Update, tmp_path: Path) -> None:
    done = update("--template", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert f"the template can't be had from {tmp_path}/nowhere: " in done.stderr
    fix = f"Fix: until it works: git ls-remote {tmp_path}/nowhere; another address: python -m mlops update --template"
    assert fix in done.stderr


def test_record_that_is_missing_or_damaged_is_restored(project: BakedProject, update: Update) -> None:
    path = project.path / RECORD
    content = json.loads(path.read_text(encoding="utf-8"))
    for text, problem, fix in (
        (None, f"{RECORD} is not in ", f"restore it: git checkout {RECORD}"),
        ("<<<<<<< HEAD\n", f"{RECORD} can't be read", f"restore it: git checkout {RECORD}"),
        (json.dumps({**content, "template": ""}), "does not know the template's address", "update --template <URL>"),
    ):
        path.unlink() if text is None else path.write_text(text, encoding="utf-8")
        done = update("--to", "v9.9.9")
        assert (done.returncode, problem in done.stderr, fix in done.stderr) == (2, True, True), done.stderr
        project.run("git", "checkout", "--quiet", RECORD)
    assert "has no version 'v9.9.9'" in update("--to", "v9.9.9").stderr


def test_version_from_before_the_updater_is_refused(project: BakedProject, update: Update, tmp_path: Path) -> None:
    old = BakedProject(tmp_path / "old", "")
    old.path.mkdir()
    old.run("git", "init", "--quiet")
    identify(old)
    (old.path / "README.md").touch()
    commit(old, "Before")
    done = update("--template", str(old.path))
    assert "has no updater" in done.stderr and "Fix: python -m mlops update --to <a later version>" in done.stderr


def test_older_version_is_refused(project: BakedProject, template: Template, update: Update) -> None:
    record = json.loads((project.path / RECORD).read_text(encoding="utf-8"))
    (project.path / RECORD).write_text(json.dumps({**record, "commit": template.commit}), encoding="utf-8")
    commit(project, "As if it were updated")
    done = update("--to", "v-old")
    assert done.returncode == 2
    assert "already, which is later than" in done.stderr


WRITE = """
import sys
from pathlib import Path
from update.__main__ import plan
from update.project import Project
from update.template import open_template
project, template = Project(Path(sys.argv[1])), open_template(Path(sys.argv[2]), "")
changes = plan(project, template, project.origin(template))
with project.scratch() as scratch:
    scratch.write(changes)
    project.take(scratch.commit(changes, "Update"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands before git")
def test_update_that_is_killed_before_it_is_taken_over_changes_nothing_and_can_be_repeated(
    project: BakedProject, template: Template, tmp_path: Path
) -> None:
    before = state(project)
    script = tmp_path / "bin/git"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n[ "$1" = merge ] && kill -9 $PPID && exit\nexec {shutil.which("git")} "$@"\n')
    script.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(TEMPLATE)}
    for path, code in ((f"{script.parent}{os.pathsep}{env['PATH']}", -signal.SIGKILL), (env["PATH"], 0)):
        command = [sys.executable, "-c", WRITE, str(project.path), str(template.root)]
        assert subprocess.run(command, env={**env, "PATH": path}).returncode == code
        assert (state(project) == before) == bool(code)
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert (project.path / "mlops/more.py").is_file()


def test_commit_that_was_made_meanwhile_stops_the_update(project: BakedProject, template: Template) -> None:
    ours = Project(project.path)
    with ours.scratch() as scratch:
        scratch.write(planned(project, template))
        made = scratch.commit(planned(project, template), "Update")
    edit(project, "params.yaml", "epochs: 15", "epochs: 14")
    commit(project, "Meanwhile")
    before = state(project)
    with pytest.raises(UpdateError, match="the update was not taken over"):
        ours.take(made)
    assert state(project) == before


def test_update_of_a_project_inside_a_larger_repository(project: BakedProject, template: Template) -> None:
    outer = BakedProject(project.path.parent, "")
    (project.path / ".git").rename(outer.path / ".git")
    commit(outer, "Into a folder")
    ours = Project(project.path)
    changes = plan(ours, template, ours.origin(template))
    with ours.scratch() as scratch:
        assert (scratch.root / "dvc.yaml").is_file()
        scratch.write(changes)
        ours.take(scratch.commit(changes, "Update"))
    assert outer.run("git", "status", "--porcelain").stdout == ""
    assert (project.path / "mlops/more.py").is_file()
    assert set(outer.run("git", "diff", "--name-only", "HEAD~1").stdout.split()) == {
        f"digit-classifier/{name}" for name in changes
    }


def test_project_without_a_record_is_recognised_by_its_files(project: BakedProject, template: Template) -> None:
    expected = planned(project, template)
    (project.path / RECORD).unlink()
    commit(project, "As earlier versions made it")
    origin = Project(project.path).origin(template)
    assert origin.commit == template_commit(template, "v-old")
    assert origin.answers == {"compute": "sagemaker", "serving": "yes", "lineage": "dataset"}
    changes = planned(project, template)
    assert changes.keys() == expected.keys(), "audit/ and optout/ stay deleted"
    edit(project, "mlops/files.py", '"""Write files whole', '"""Our files whole')
    commit(project, "Edit the machinery")
    with pytest.raises(UpdateError, match=r"mlops/ was edited.*: mlops/files\.py$"):
        planned(project, template)


def template_commit(template: Template, rev: str) -> str:
    return BakedProject(template.root, "").run("git", "rev-parse", rev).stdout.strip()


def test_what_was_not_chosen_stays_away(template: Template, versions: tuple[BakedProject, ...], tmp_path: Path) -> None:
    project = bake_from(versions[0], tmp_path, "compute=local", "lineage=dataset")
    record = json.loads((project.path / RECORD).read_text(encoding="utf-8"))
    old = template_commit(template, "v-old")
    (project.path / RECORD).write_text(json.dumps({**record, "commit": old}), encoding="utf-8")
    identify(project)
    commit(project, "As if it were of the old version")
    changes = planned(project, template)
    assert [path for path in changes if path.startswith("mlops/")] == []
    assert not [path for path in json.loads(changes[RECORD] or b"")["files"] if path.startswith("mlops/audit/")]


def test_dep_that_the_new_version_does_not_have_is_a_problem() -> None:
    upstream: dict[str, list[str]] = {"train": []}
    before = Report([], {"train": {"data/dataset": "deleted"}}, upstream)
    after = Report([], {"train": {"data/dataset": "deleted", "mlops/training": "deleted"}}, upstream)
    assert lost_deps(before, after) == [
        "dvc.yaml:stages.train.deps names mlops/training, which the new version does not have"
    ]


@pytest.mark.parametrize("text", ["{", '{"commit": null}'], ids=["broken", "incomplete"])
def test_record_that_is_not_as_it_was_written_is_refused(project: BakedProject, template: Template, text: str) -> None:
    (project.path / RECORD).write_text(text, encoding="utf-8")
    commit(project, "Edit the record")
    with pytest.raises(UpdateError, match=r"template\.json is not as it was written"):
        planned(project, template)


def test_project_of_version_0_1_is_told_how_to_come_here(template: Template, tmp_path: Path) -> None:
    old = Project(unpack(tmp_path).path)
    with pytest.raises(UpdateError, match=r"made by version 0\.1, with all its code in one package") as error:
        old.origin(template)
    assert "cruft update brings it to two packages" in error.value.fix


@pytest.mark.slow
def test_project_of_version_0_1_is_followed_by_update_once_cruft_brought_it_here(tmp_path: Path) -> None:
    project = unpack(tmp_path)
    cruft_update(project)
    record = json.loads((project.path / RECORD).read_text(encoding="utf-8"))
    template = BakedProject(project.path.parent / "template", "")
    assert record["template"] == str(template.path)
    assert record["commit"] == template.run("git", "rev-parse", "HEAD").stdout.strip()
    copy_tracked("update", template.path)
    replace(template.path / SKELETON, "mlops/records/ids.py", ('"""What', '"""New: What'))
    template.run("git", "config", "user.name", "Test")
    template.run("git", "config", "user.email", "test@example.org")
    commit(template, "Newer")
    done = project.run("python", "-m", "mlops", "update", "--yes")
    assert "mlops/             1 file(s)" in done.stdout
    assert "Out of date without the update too: prepare, manifest, train, register\n" in done.stdout
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert "_conv(24, 32)" in (project.path / "digit_classifier/model/networks.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_the_new_version_breaks_in_the_team_s_package_is_told_before_it_is_written(project: BakedProject) -> None:
    """A name of the front door that is gone, a function that the interface lacks, a pin that is too old."""
    edit(project, "mlops/__init__.py", '    "run_processes": "training.processes:run_processes",\n', "")
    edit(project, f"{project.package}/interface.py", "def predict(", "def predicts(")
    shutil.rmtree(project.path / ".git")
    report = look_at(project.path, Path(sys.executable), {"dvc": "3.67.1", "tqdm": "1.0"})
    assert [line.partition(":")[0] for line in report.problems] == [
        *("requirements.lock", "digit_classifier/interface.py has no predict, which mlops asks for"),
        "digit_classifier/stages/train.py",
    ]
    assert "dvc 3.67.1 needs tqdm<5,>=4" in report.problems[0]
    assert "cannot import name 'run_processes'" in report.problems[2]


@pytest.mark.slow
def test_lock_that_is_not_installed_is_installed_to_try_it(tmp_path: Path) -> None:
    python = environment(b"six==1.16.0\n", {"six": "1.16.0"}, True, tmp_path / "environment")
    program = "import importlib.metadata as m, sys; print(m.version('six'), sys.prefix)"
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.16.0", str(tmp_path / "environment/venv")]
    conflict = b"python-dateutil==2.9.0\nsix==1.4\n"
    with pytest.raises(UpdateError, match="conflicting dependencies"):
        environment(conflict, {"six": "1.4"}, True, tmp_path / "other")


PYPROJECT = """[project]
dependencies = [
{}
]
requires-python = ">=3.11"

[project.optional-dependencies]
dev = ["mypy"]

[tool.mlops]
numeric = ["numpy"]
"""


def files(dependencies: dict[str, str], pins: str) -> dict[str, bytes]:
    lines = "\n".join(f'    "{name}{spec}",' for name, spec in dependencies.items())
    lock = "".join(f"{pin}\n" for pin in pins.split())
    numpy = next((pin.partition("==")[2] for pin in pins.split() if pin.startswith("numpy=")), "0")
    return {
        "pyproject.toml": PYPROJECT.format(lines).encode(),
        "requirements.lock": lock.encode(),
        "environment.json": json.dumps({"numpy": numpy}).encode(),
    }


OLD = files({"dvc": "", "numpy": ">=1"}, "dvc==3.0 idna==1.0 numpy==1.0")
MERGES = {
    "nothing of the owner's: the template's": (
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.0 idna==1.0 numpy==1.0"),
        files({"dvc": ">=3.1", "lxml": "", "numpy": ">=1"}, "dvc==3.1 lxml==5.0 numpy==2.0"),
        files({"dvc": ">=3.1", "lxml": "", "numpy": ">=1"}, "dvc==3.1 lxml==5.0 numpy==2.0"),
    ),
    "the owner's package stays, between the template's": (
        files({"dvc": "", "einops": "", "numpy": ">=1"}, "dvc==3.0 einops==0.8 idna==1.0 numpy==1.0"),
        files({"dvc": "", "lxml": "", "numpy": ">=1"}, "dvc==3.1 idna==1.0 lxml==5.0 numpy==2.0"),
        files(
            {"dvc": "", "einops": "", "lxml": "", "numpy": ">=1"},
            "dvc==3.1 einops==0.8 idna==1.0 lxml==5.0 numpy==2.0",
        ),
    ),
    "a pin that the owner moved further stays": (
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.5 idna==1.0 numpy==1.0"),
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.1 idna==1.0 numpy==2.0"),
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.5 idna==1.0 numpy==2.0"),
    ),
    "the owner's bound holds": (
        files({"dvc": "", "numpy": ">=1,<2"}, "dvc==3.0 idna==1.0 numpy==1.5"),
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.1 idna==1.0 numpy==2.0"),
        files({"dvc": "", "numpy": ">=1,<2"}, "dvc==3.1 idna==1.0 numpy==1.5"),
    ),
    "a package that the template drops goes": (
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.0 idna==1.0 numpy==1.0"),
        files({"numpy": ">=1"}, "numpy==1.0"),
        files({"numpy": ">=1"}, "numpy==1.0"),
    ),
    "a package that the owner removed stays away": (
        files({"numpy": ">=1"}, "numpy==1.0"),
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.0 idna==1.0 numpy==2.0"),
        files({"numpy": ">=1"}, "numpy==2.0"),
    ),
    "a pin from an address stays": (
        files({"dvc": "", "numpy": ">=1"}, "dvc@git+https://example.org/dvc idna==1.0 numpy==1.0"),
        files({"dvc": "", "numpy": ">=1"}, "dvc==3.1 idna==1.0 numpy==1.0"),
        files({"dvc": "", "numpy": ">=1"}, "dvc@git+https://example.org/dvc idna==1.0 numpy==1.0"),
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "merged"), MERGES.values(), ids=MERGES)
def test_packages_are_merged_one_by_one(
    ours: dict[str, bytes], theirs: dict[str, bytes], merged: dict[str, bytes]
) -> None:
    result = packages.merge(OLD, ours, theirs)
    assert result["pyproject.toml"].decode() == merged["pyproject.toml"].decode()
    assert result["requirements.lock"].decode() == merged["requirements.lock"].decode()
    assert json.loads(result["environment.json"]) == json.loads(merged["environment.json"])


def test_packages_without_a_known_old_version_are_the_templates_and_the_owner_s_own() -> None:
    ours = files({"dvc": "", "einops": "", "numpy": ">=1"}, "dvc==3.0 einops==0.8 numpy==1.0")
    theirs = files({"dvc": "", "lxml": "", "numpy": ">=2"}, "dvc==3.1 idna==1.0 lxml==5.0 numpy==2.0")
    result = packages.merge(None, ours, theirs)
    assert result["requirements.lock"] == b"dvc==3.1\neinops==0.8\nidna==1.0\nlxml==5.0\nnumpy==2.0\n"


def test_packages_that_can_t_suit_both_are_named() -> None:
    ours = files({"dvc": "", "numpy": "<2"}, "dvc==3.0 idna==1.0 numpy==1.0")
    theirs = files({"dvc": "", "numpy": ">=2"}, "dvc==3.0 idna==1.0 numpy==2.0")
    with pytest.raises(
        UpdateError, match="no pin of numpy suits both you and the template: numpy<2 and numpy>=2"
    ) as error:
        packages.merge(OLD, ours, theirs)
    assert "then: make lock" in error.value.fix


@pytest.mark.slow
def test_cruft_and_update_do_not_get_in_each_other_s_way(
    versions: tuple[BakedProject, BakedProject], tmp_path: Path
) -> None:
    """Cruft brings all of a version; then update brings its part of the next, and cruft the rest."""
    source = BakedProject(tmp_path / "template", "")
    versions[0].run("git", "clone", "--quiet", ".", str(source.path))
    identify(source)
    create = ("cruft", "create", str(source.path), "--checkout", "v-old", "--no-input", "--output-dir", str(tmp_path))
    source.run(*create)
    project = BakedProject(tmp_path / "digit-classifier", "digit_classifier")
    identify(project)
    edit(project, "pyproject.toml", '    "filelock",\n', '    "duckdb>=1",\n    "filelock",\n')
    commit(project, "Ours")

    printed = project.run("cruft", "update", "--skip-apply-ask")
    assert "Made digit-classifier" not in printed.stdout + printed.stderr
    assert json.loads((project.path / RECORD).read_text(encoding="utf-8"))["commit"] == template_commit_of(source)
    assert (project.path / "mlops/more.py").is_file() and not (project.path / "mlops/old.py").exists()
    commit(project, "By cruft")
    assert "Up to date" in project.run("python", "-m", "mlops", "update").stdout

    for before, after in (("New", "Newer"), ("Newer", "Newest")):
        replace(source.path / SKELETON, "mlops/records/ids.py", (f'"""{before}:', f'"""{after}:'))
        replace(source.path / SKELETON, "dvc.yaml", (f"# The {before.lower()} ", f"# The {after.lower()} "))
        commit(source, after)
        if after == "Newer":
            before_it = state(project)
            command = ("python", "-m", "mlops", "update")
            answered = subprocess.run(command, cwd=project.path, input="n\n", capture_output=True, text=True)
            assert "Write it, as one commit? [y/N]: Nothing was changed.\n" in answered.stdout
            assert state(project) == before_it
            project.run("python", "-m", "mlops", "update", "--yes")
    project.run("cruft", "update", "--skip-apply-ask")
    assert project.run("git", "diff", "--name-only", "--diff-filter=U").stdout == ""
    assert list(project.path.rglob("*.rej")) == []
    assert "# The newest pipeline" in (project.path / "dvc.yaml").read_text(encoding="utf-8")
    assert '"""Newer:' in (project.path / "mlops/records/ids.py").read_text(encoding="utf-8"), "update's, from now on"
    commit(project, "By cruft again")
    project.run("python", "-m", "mlops", "update", "--yes")
    assert '"""Newest: ' in (project.path / "mlops/records/ids.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_version_that_does_not_work_in_the_project_is_refused_unless_the_owner_says_anyway(
    project: BakedProject, update: Update
) -> None:
    edit(project, f"{project.package}/interface.py", "def predict(", "def predicts(")
    commit(project, "Ours")
    before = state(project)
    done = update("--yes")
    assert done.returncode == 2
    assert "digit_classifier/interface.py has no predict, which mlops asks for" in done.stderr
    assert state(project) == before
    assert update("--yes", "--anyway").returncode == 0
    assert (project.path / "mlops/more.py").is_file()


def template_commit_of(source: BakedProject) -> str:
    return source.run("git", "rev-parse", "HEAD").stdout.strip()
