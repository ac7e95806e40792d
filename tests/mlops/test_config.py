"""Configuration files say what is wrong with them, and what to write instead."""

from pathlib import Path

import pytest
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
