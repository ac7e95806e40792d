"""Configuration files say what is wrong with them, and what to write instead."""

import subprocess
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_model_name
from mlops import config
from mlops.config import home, load_params, load_platform
from mlops.errors import ProjectError
from team.stages.prepare import SplitParams

PLATFORM = "project: demo\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("split: {salt: '7', val: 0.2, tset: 0.2}", r"split\.tset \(did you mean 'test'\?\)"),
        ("split: {salt: '7', val: 0.2}", "lacks the key split.test"),
        ("split: {salt: '7', val: 1.5, test: 0.2}", r"split\.val is 1\.5: input should be less than 1"),
        ("split: {salt: '7', val: many, test: 0.2}", r"split\.val is 'many': input should be a valid number"),
        ("splits: {}", r"no section 'split' \(did you mean 'splits'\?\)"),
        ("split: [", "not valid YAML"),
        ("", "holds no keys"),
    ],
    ids=["unknown", "missing", "range", "type", "section", "yaml", "empty"],
)
def test_load_params_refuses_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError, match=problem):
        load_params("split", SplitParams)


def test_load_params_elsewhere_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match="project's root"):
        load_params("split", SplitParams)


def test_load_platform_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("platform.yaml").write_text(PLATFORM, encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert load_platform().tracking_uri == "http://localhost:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert load_platform().tracking_uri is None


@pytest.mark.parametrize("name", ["demo", "My_Project", "v2.1-größe", "p" * 100])
def test_project_of_a_name_for_mlflow_and_git_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("platform.yaml").write_text(PLATFORM.replace("demo", name), encoding="utf-8")
    assert load_platform().project == name
    _validate_model_name(name)
    subprocess.run(["git", "check-ref-format", f"refs/tags/{name}@v1.0.0"], check=True)


@pytest.mark.parametrize("name", ["a/b", "a:b", "a b", "a@b", "a..b", ".a", "-a", "", "a'b", "a\\n", "~a", "p" * 101])
def test_project_of_a_name_that_register_or_git_would_refuse_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("platform.yaml").write_text(PLATFORM.replace("demo", f'"{name}"'), encoding="utf-8")
    problem = r"^platform\.yaml:project is .*it must be letters, digits.*\nFix: change platform\.yaml:project$"
    with pytest.raises(ProjectError, match=problem):
        load_platform()


def test_home_in_a_throw_away_experiment_is_the_real_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "one"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(copy)
    assert home() == tmp_path.resolve()
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path.resolve()


def test_environment_other_version_is_refused_and_a_local_build_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tool = '[tool.mlops]\npackage = "team"\nnumeric = ["numpy", "torch"]\n'
    Path("pyproject.toml").write_text(tool, encoding="utf-8")
    config.write_pins()
    config.check_environment(allow_other=False)
    text = Path("environment.json").read_text(encoding="utf-8")
    Path("environment.json").write_text(text.replace('"torch": "', '"torch": "0.'), encoding="utf-8")
    config.check_environment(allow_other=True)
    with pytest.raises(ProjectError, match=r"torch .* \(pinned: 0\."):
        config.check_environment(allow_other=False)
