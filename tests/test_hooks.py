"""Bad answers are refused, each with its rule and an example; whatever Git is like, the project is made."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment

from hooks.post_gen_project import without_credentials

from .conftest import TEMPLATE, Bake, BakedProject
from .past.project import TEMPLATE_FILES, commit_template, copy_tracked

PROMPTS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
BAD_ANSWERS = {
    # project_slug: one name that is good as a folder, a Git tag, an MLflow model and a SageMaker job
    "slug-spaces": ("project_slug", "my project", "for example 'digit-classifier'"),
    "slug-uppercase": ("project_slug", "Digits", "must be lowercase letters"),
    "slug-underscore": ("project_slug", "my_project", "single hyphens"),
    "slug-trailing-dot": ("project_slug", "digits.", "for example 'digit-classifier'"),
    "slug-trailing-hyphen": ("project_slug", "digits-", "for example 'digit-classifier'"),
    "slug-leading-digit": ("project_slug", "3d", "begin with a letter"),
    "slug-too-long": ("project_slug", "d" * 33, "at most 32 characters"),
    "slug-unicode": ("project_slug", "ziffern-größe", "must be lowercase letters"),
    "slug-windows-device": ("project_slug", "con", "device's name on Windows"),
    "slug-yaml-null": ("project_slug", "null", "for example 'null-model'"),
    "slug-windows-port": ("project_slug", "lpt1", "for example 'lpt1-model'"),
    # package_name: what `python -m` finds, hiding nothing
    "package-hyphen": ("package_name", "digit-classifier", "for example 'digit_classifier'"),
    "package-empty": ("package_name", "", "for example 'digit_classifier'"),
    "package-uppercase": ("package_name", "Digits", "must be lowercase letters"),
    "package-dunder": ("package_name", "__main__", "single underscores"),
    "package-path": ("package_name", "../evil", "must be lowercase letters"),
    "package-code": ("package_name", "x'); print('run", "must be lowercase letters"),
    "package-keyword": ("package_name", "lambda", "for example 'lambda_model'"),
    "package-soft-keyword": ("package_name", "match", "word of the Python language"),
    "package-stdlib": ("package_name", "json", "hide Python's own module json"),
    "package-test": ("package_name", "test", "already taken by a folder"),
    "package-dependency": ("package_name", "mlflow", "hide the package mlflow"),
    "package-import-name": ("package_name", "sklearn", "for example 'my_sklearn'"),
    "package-folder": ("package_name", "tests", "already taken by a folder"),
    "package-data": ("package_name", "data", "for example 'data_model'"),
    "package-device": ("package_name", "aux", "already taken"),
    # free text
    "name-blank": ("project_name", "  ", "must not be empty"),
    "author-empty": ("author_name", "", "must not be empty"),
    "description-two-lines": ("description", "one\ntwo", "must be one line"),
    "description-control": ("description", "bell \x07", "printable"),
    # AWS
    "region-name": ("aws_region", "Frankfurt", "for example 'eu-central-1'"),
    "region-empty": ("aws_region", "", "for example 'eu-central-1'"),
    "bucket-url": ("s3_bucket", "s3://my-team-ml/data", "without s3://"),
    "bucket-uppercase": ("s3_bucket", "My-Bucket", "for example 'my-team-ml'"),
    "bucket-short": ("s3_bucket", "ab", "3 to 63"),
    "bucket-address": ("s3_bucket", "192.168.0.1", "bare name of a bucket"),
    "bucket-two-dots": ("s3_bucket", "my..bucket", "single dots"),
    "bucket-kept": ("s3_bucket", "xn--bucket", "AWS keeps for itself"),
    "role-name": ("sagemaker_role_arn", "SageMakerJobs", "arn:aws:iam::123456789012:role/SageMakerJobs"),
    "role-user": ("sagemaker_role_arn", "arn:aws:iam::123456789012:user/me", "ARN of an IAM role"),
    "role-account": ("sagemaker_role_arn", "arn:aws:iam::1234:role/jobs", "ARN of an IAM role"),
    "tracking-path": ("mlflow_tracking_uri", "./mlruns", "for example 'https://mlflow.example.com'"),
    "tracking-no-host": ("mlflow_tracking_uri", "https://", "must be a URL"),
    "tracking-port": ("mlflow_tracking_uri", "http://localhost:port", "must be a URL"),
    "tracking-bracket": ("mlflow_tracking_uri", "http://[::1", "must be a URL"),
    "tracking-space": ("mlflow_tracking_uri", "http://mlflow host", "must be a URL"),
    "tracking-password": ("mlflow_tracking_uri", "https://me:secret@mlflow.example.com", "MLFLOW_TRACKING_PASSWORD"),
    "tracking-other-arn": (
        "mlflow_tracking_uri",
        "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/x",
        "mlflow-app/app-ABC123",
    ),
}
GOOD_ANSWERS = {
    "slug": ("project_slug", "a1-b2"),
    "bucket": ("s3_bucket", "my-team.ml"),
    "region-gov": ("aws_region", "us-gov-west-1"),
    "region-sovereign": ("aws_region", "eusc-de-east-1"),
    "role-path": ("sagemaker_role_arn", "arn:aws-cn:iam::123456789012:role/service-role/Jobs_1@x"),
    "tracking-local": ("mlflow_tracking_uri", "http://localhost:5000"),
    "tracking-ipv6": ("mlflow_tracking_uri", "http://[::1]:5000/path"),
    "tracking-app": ("mlflow_tracking_uri", "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-4XZ7QWERTY"),
    "tracking-server": ("mlflow_tracking_uri", "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/main"),
}


def generate(folder: Path, **answers: str) -> "subprocess.CompletedProcess[str]":
    """Run cookiecutter as a person does, with its output caught."""
    given = [f"{key}={value}" for key, value in answers.items()]
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--default-config", *given]
    return subprocess.run([*command, "-o", str(folder)], capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="module")
def problems() -> Callable[..., list[str]]:
    """Give a function that says what the hook finds in answers, where the others are good."""
    answers = {key: "" for key in PROMPTS if not key.startswith("_")}
    answers |= {"project_name": "Digits", "project_slug": "good", "package_name": "good_model", "author_name": "Ada"}
    answers |= {"description": "Digits.", "aws_region": "eu-central-1"}
    environment = Environment(autoescape=False)  # noqa: S701 (it renders Python, not a web page)
    text = (TEMPLATE / "hooks/pre_gen_project.py").read_text(encoding="utf-8")
    hook: dict[str, Any] = {}
    exec(environment.from_string(text).render(cookiecutter=answers), hook)  # noqa: S102 (the template's own)
    return lambda **changed: list(hook["problems"](answers | changed))


@pytest.mark.parametrize(("key", "answer", "message"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_pre_gen_bad_answer_has_its_rule_and_example(
    problems: Callable[..., list[str]], key: str, answer: str, message: str
) -> None:
    (problem,) = problems(**{key: answer})
    assert problem.startswith(f"{key} {answer!r}: ")
    assert message in problem


@pytest.mark.parametrize(("key", "answer"), GOOD_ANSWERS.values(), ids=GOOD_ANSWERS)
def test_pre_gen_good_answer_has_no_problem(problems: Callable[..., list[str]], key: str, answer: str) -> None:
    assert problems(**{key: answer}) == []


def test_pre_gen_bad_answers_are_all_named_and_nothing_is_made(tmp_path: Path) -> None:
    done = generate(tmp_path, package_name="json", s3_bucket="A", aws_region="nowhere", description="one\ntwo \x07")
    assert done.returncode != 0
    for text in ("package_name 'json': would hide", "s3_bucket 'A': ", "aws_region 'nowhere': ", "description 'one\\n"):
        assert text in done.stderr
    assert "author_name" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "slug", "package"),
    [
        ("Digit Classifier", "digit-classifier", "digit_classifier"),
        ("  O'Connor & Søns: Scans!  ", "o-connor-sons-scans", "o_connor_sons_scans"),
        ("3D Scans", "project-3d-scans", "project_3d_scans"),
        ("A name that goes on for longer than anyone would", "a-name-that-goes-on-for", "a_name_that_goes_on_for"),
    ],
)
def test_names_derived_from_the_project_name_are_valid(bake: Bake, name: str, slug: str, package: str) -> None:
    project = bake(project_name=name)
    assert (project.path.name, project.package) == (slug, package)


def commits(project: BakedProject) -> list[str]:
    """Return the subjects of all commits on the current branch."""
    return project.run("git", "log", "--format=%s").stdout.splitlines()


def test_post_gen_without_identity_leaves_one_commit_and_a_clean_tree(bake: Bake) -> None:
    project = bake()
    assert commits(project) == ["Generate the project from cookiecutter-dvc-sagemaker"]
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert project.run("git", "branch", "--show-current").stdout == "main\n"
    assert set(project.run("git", "ls-files").stdout.splitlines()) == project.files()
    assert project.run("git", "config", "--local", "user.name", check=False).stdout == "", "no stand-in is left behind"


def test_post_gen_uses_the_identity_that_is_configured(bake: Bake) -> None:
    subprocess.run(["git", "config", "--global", "user.name", "Zoë"], check=True)
    project = bake()
    assert project.run("git", "log", "--format=%an <%ae>").stdout == "Zoë <cookiecutter@localhost>\n"


def test_post_gen_leaves_out_hooks_signing_and_ignores_of_the_user(bake: Bake, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-commit", "prepare-commit-msg", "post-commit"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{tmp_path.as_posix()}/ran'\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "ignores").write_text("*.lock\ndata\n")
    for key, value in {
        "core.hooksPath": hooks,
        "core.excludesFile": tmp_path / "ignores",
        "commit.gpgSign": "true",
        "gpg.program": "no-such-program",
        "init.defaultBranch": "trunk",
    }.items():
        subprocess.run(["git", "config", "--global", key, str(value)], check=True)
    project = bake()
    assert not (tmp_path / "ran").exists()
    assert set(project.run("git", "ls-files").stdout.splitlines()) == project.files()
    assert project.run("git", "branch", "--show-current").stdout == "main\n"


def test_post_gen_inside_a_repository_makes_none_and_prints_the_commands_that_commit_it(tmp_path: Path) -> None:
    for key in ("name", "email"):
        subprocess.run(["git", "config", "--global", f"user.{key}", "ada@example.org"], check=True)
    outer = BakedProject(tmp_path, "")
    outer.run("git", "init", "-q")
    printed = [line.strip() for line in generate(tmp_path).stdout.split("Next:")[1].splitlines() if line.strip()]
    assert not (tmp_path / "digit-classifier" / ".git").exists()
    assert outer.run("git", "status", "--porcelain").stdout == "?? digit-classifier/\n"
    assert printed[-1] == "make repro"
    subprocess.run(" && ".join(printed[:-1]), shell=True, cwd=tmp_path, check=True)  # noqa: S602 (what a user types)
    assert outer.run("git", "status", "--porcelain").stdout == ""


def test_post_gen_inside_a_repository_that_ignores_it_makes_its_own(bake: Bake, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("/demo/\n")
    (tmp_path / "demo").mkdir()
    assert len(commits(bake(tmp_path / "demo"))) == 1


def test_post_gen_called_by_a_git_hook_leaves_the_outer_repository_alone(
    bake: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = tmp_path / "outer"
    subprocess.run(["git", "init", "-q", str(outer)], check=True)
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as hook:
        hook.setenv("GIT_DIR", str(outer / ".git"))
        hook.setenv("GIT_WORK_TREE", str(outer))
        project = bake(tmp_path / "elsewhere")
    assert len(commits(project)) == 1
    log = subprocess.run(["git", "log"], cwd=outer, capture_output=True)
    assert log.returncode != 0, "the outer repository still has no commit"


@pytest.mark.skipif(os.name == "nt", reason="needs a PATH of symbolic links")
def test_post_gen_without_git_makes_the_project_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(str(shutil.which("sh")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    done = generate(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Git was not found" in done.stdout
    assert not (tmp_path / "out" / "digit-classifier" / ".git").exists()


def test_post_gen_git_that_fails_is_reported_and_the_project_stays(tmp_path: Path) -> None:
    (Path.home() / ".gitconfig").write_text("[user\n")
    done = generate(tmp_path)
    assert done.returncode == 0
    assert "failed: " in done.stderr
    assert "git init -b main" in done.stdout
    assert (tmp_path / "digit-classifier" / "Makefile").is_file()


def test_post_gen_prints_the_next_two_commands(tmp_path: Path) -> None:
    lines = generate(tmp_path).stdout.splitlines()
    assert [line.strip() for line in lines if line.strip()][-2:] == ["cd digit-classifier", "make repro"]


def recorded(project: Path) -> dict[str, Any]:
    """Return what the project knows of its template."""
    content: dict[str, Any] = json.loads((project / ".template.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of this template."""
    folder = tmp_path / "a" / "template"
    for name in TEMPLATE_FILES:
        copy_tracked(name, folder)
    in_git(folder, "init", "--quiet")
    commit_template(BakedProject(folder, ""), "Template")
    return folder


def in_git(folder: Path, *command: str) -> str:
    """Run Git in a folder, and return what it printed."""
    return BakedProject(folder, "").run("git", *command).stdout.strip()


def bake_by(address: str, start: Path, folder: Path) -> Path:
    """Generate a project from an address, as typed in the folder `start`, into another."""
    command = [sys.executable, "-m", "cookiecutter", address, "--no-input", "--default-config", "-o", str(folder)]
    subprocess.run(command, cwd=start, env={**os.environ, "PWD": str(start)}, check=True, capture_output=True)
    return folder / "digit-classifier"


@pytest.mark.parametrize("typed", ["./template", "../a/template", "."], ids=["below", "relative", "here"])
def test_record_has_the_whole_path_of_the_template_and_its_commit(repository: Path, tmp_path: Path, typed: str) -> None:
    start = repository if typed == "." else repository.parent
    record = recorded(bake_by(typed, start, tmp_path / "out"))
    assert (record["template"], record["commit"]) == (repository.as_posix(), in_git(repository, "rev-parse", "HEAD"))
    assert record["version"] == json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))["_version"]
    assert record["answers"] == {"compute": "sagemaker", "serving": "yes", "lineage": "records"}
    assert {name.partition("/")[0] for name in record["files"]} == {"mlops"}


def test_record_of_a_cloned_template_has_its_address(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "template.git"
    in_git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    assert recorded(bake_by(bare.as_uri(), tmp_path, tmp_path / "out"))["template"] == bare.as_uri()


def test_record_of_a_changed_template_names_no_commit(repository: Path, tmp_path: Path) -> None:
    (repository / "{{cookiecutter.project_slug}}" / "mlops" / "more.py").touch()
    record = recorded(bake_by(str(repository), tmp_path, tmp_path / "out"))
    assert (record["commit"], "mlops/more.py" in record["files"]) == (None, True)


@pytest.mark.parametrize(
    ("address", "recorded_address"),
    [
        ("https://ada:secret@example.org/t.git", "https://example.org/t.git"),
        ("https://token@example.org/t.git", "https://example.org/t.git"),
        ("https://example.org/a@b.git", "https://example.org/a@b.git"),
        ("git@example.org:a/t.git", "git@example.org:a/t.git"),
    ],
)
def test_record_holds_no_credentials(address: str, recorded_address: str) -> None:
    assert without_credentials(address) == recorded_address
