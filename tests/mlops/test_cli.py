"""The command line: fast where it only reads files, and only in the code of the working directory."""

import io
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from . import small_datasets
from .conftest import SKELETON

FILES = {
    "params.yaml": "data: {source: digits, consent: required}\n",
    "platform.yaml": "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: true\n",
    "pyproject.toml": '[tool.mlops]\npackage = "team"\nnumeric = []\n',
    "environment.json": "{}\n",
    "dvc.yaml": "stages:\n  prepare:\n    cmd: python -m mlops stage prepare\n",
    "data/consent.csv": "subject_id,consent_status,effective_at\na,active,2025-01-01T00:00:00Z\n",
}
HEAVY = "torch", "mlflow", "torchvision", "sagemaker", "sqlalchemy"
COUNTED = f"""
import atexit, sys
atexit.register(lambda: print("HEAVY:", *sorted(sys.modules.keys() & {set(HEAVY)}), file=sys.stderr))
from mlops.cli import main
main()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the code of this template, of which only a few files matter; Git and DVC know it."""
    folder = tmp_path / "project"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SKELETON / "mlops", folder / "mlops", ignore=ignore)
    shutil.copytree(SKELETON / "{{cookiecutter.package_name}}", folder / "team", ignore=ignore)
    (folder / "data").mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for command in ("git init --quiet", "dvc init --quiet"):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ("--help", "Commands:"),
        ("setup --help", "--help"),
        ("registry list --help", "--json"),
        ("consent status a", "a: active by line 2"),
        ("consent check", "The registry is in order"),
        ("consent history a", "line 2: a active from"),
        ("data export images", "1 images in images"),
        ("data list", "No version of the dataset has a label"),
        ("jobs list", "There are no jobs"),
    ],
)
def test_verb_that_only_reads_files_imports_no_torch_and_no_mlflow(project: Path, arguments: str, output: str) -> None:
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "png")
    small_datasets.write([small_datasets.record("r", "a")], project / "data/dataset", read=lambda _: image.getvalue())
    done = run(project, "-c", COUNTED, *arguments.split())
    assert done.returncode == 0, done.stderr
    assert output in done.stdout
    assert done.stderr.splitlines()[-1].split() == ["HEAVY:"]


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        ("registry list", 0, "1        "),
        ("registry show 1", 0, "version: 1"),
        ("mirror status", 1, "aliases: MLflow lacks what the log tells"),
        ("audit find a", 3, "it does not record which manifest it read"),
        ("audit verify a --json", 0, '"verdict": "PASS"'),
    ],
)
def test_verb_that_only_reads_mlflow_imports_none(
    project: Path, tables: Path, arguments: str, code: int, output: str
) -> None:
    shutil.copy(tables, project / "mlflow.db")
    client = MlflowClient(f"sqlite:///{(project / 'mlflow.db').as_posix()}")
    client.create_run(client.create_experiment("demo"))
    client.create_registered_model("demo")
    client.create_model_version("demo", "s3://nowhere/model")
    done = run(project, "-c", COUNTED, *arguments.split())
    assert (done.returncode, done.stderr.splitlines()[-1].split()) == (code, ["HEAVY:"]), done.stderr
    assert output in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="resource is Unix's")
def test_help_takes_half_a_second_at_most(project: Path) -> None:
    """Of CPU time, which other processes do not change; the best of three, since the first compiles."""

    def cpu_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(project, "-m", "mlops", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(3)) <= 0.5


def test_stage_of_an_installed_copy_is_refused(project: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    (project / "mlops").rename(installed / "mlops")
    done = run(project, "-m", "mlops", "stage", "prepare", PYTHONPATH=str(installed))
    assert done.returncode == 2
    assert f"the code that would run is {installed / 'mlops'}, outside the working directory {project}" in done.stderr
    assert "Fix: uninstall that copy" in done.stderr


def test_stage_of_a_copy_installed_below_the_project_is_refused(project: Path) -> None:
    installed = project / ".venv/site-packages"
    installed.mkdir(parents=True)
    (project / "mlops").rename(installed / "mlops")
    done = run(project, "-m", "mlops", "stage", "prepare", PYTHONPATH=str(installed))
    assert done.returncode == 2
    assert f"the code that would run is {installed / 'mlops'}, outside the working directory" in done.stderr


def test_safe_path_that_hides_the_team_s_package_is_reported(project: Path, tmp_path: Path) -> None:
    small_datasets.write([small_datasets.record("r", "a")], project / "data/dataset")
    shutil.copytree(project / "mlops", tmp_path / "installed/mlops")
    safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(tmp_path / "installed")}
    done = run(project, "-m", "mlops", "data", "export", "images", **safe)
    assert done.returncode == 2
    assert f"Python can't import team.interface, and {project} has it" in done.stderr
    assert "Fix: unset PYTHONSAFEPATH" in done.stderr
    done = run(project, "-m", "mlops", "data", "export", "images", PYTHONSAFEPATH="1", PYTHONPATH=str(project))
    assert "the content of record 'r' is damaged" in done.stderr, "the same code, by another way"


def test_stage_without_main_is_named_and_with_one_it_runs(project: Path) -> None:
    module = project / "team/stages/prepare.py"
    for text, code, output in (
        ("main = None\n".replace("main", "run"), 2, f"{module} has no function main()\nFix: define it there"),
        ("def main() -> None:\n    print('it ran')\n", 0, ""),
    ):
        module.write_text(text, encoding="utf-8")
        done = run(project, "-m", "mlops", "stage", "prepare")
        assert (done.returncode, output in done.stderr, "it ran" in done.stdout) == (code, True, code == 0), done.stderr
    module.unlink()
    done = run(project, "-m", "mlops", "stage", "prepare")
    assert "Fix: write team/stages/prepare.py, or restore it: git checkout team/stages/prepare.py" in done.stderr


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(lambda path: path.unlink(), "No such file"), (lambda path: path.write_text("x"), "Invalid JSON: expected value")],
    ids=["missing", "garbage"],
)
def test_damaged_model_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], reason: str
) -> None:
    from mlops import contract
    from mlops.errors import ProjectError

    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(FILES["pyproject.toml"], encoding="utf-8")
    Path("model.json").touch()
    damage(Path("model.json"))
    with pytest.raises(
        ProjectError, match=f"is damaged: .*{reason}.*\nFix: restore it: dvc pull --force .*; or train"
    ) as e:
        contract.load_model(tmp_path)
    assert len(str(e.value).splitlines()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_output_that_nobody_reads_ends_without_a_word(project: Path) -> None:
    command = f"'{sys.executable}' -m mlops --help | true"
    done = subprocess.run(command, shell=True, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_ended_sso_session_is_told_in_two_lines(project: Path) -> None:
    config = project / "aws-config"
    config.write_text(
        "[default]\nsso_session = work\nsso_account_id = 111122223333\nsso_role_name = dev\nregion = us-east-1\n"
        "[sso-session work]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n"
    )
    with (project / "platform.yaml").open("a") as file:
        file.write("region: us-east-1\n")
    env = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_PROFILE": "default"}
    done = run(project, "-m", "mlops", "jobs", "list", "--all", **env)
    fix = "aws sso login --sso-session work, then the same command"
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["Error: the AWS SSO session has ended", f"Fix: {fix}"]
    arn = "arn:aws:sagemaker:us-east-1:111122223333:mlflow-app/app-X"
    done = run(project, "-m", "mlops", "registry", "list", **env, MLFLOW_TRACKING_URI=arn)
    assert done.stderr.splitlines() == [f"Error: MLflow at {arn}: the AWS SSO session has ended", f"Fix: {fix}"]


def test_team_s_package_that_does_not_exist_is_named(project: Path) -> None:
    small_datasets.write([small_datasets.record("r", "a")], project / "data/dataset")
    (project / "team").rename(project / "other")
    done = run(project, "-m", "mlops", "data", "export", "images")
    assert done.returncode == 2
    assert f"there is no module team.interface in {project}" in done.stderr
    assert "Fix: write team/interface.py" in done.stderr and "pyproject.toml:tool.mlops.package" in done.stderr
