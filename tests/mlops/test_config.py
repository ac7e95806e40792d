"""Configuration files say what is wrong with them, and what to write instead."""

import io
import re
import subprocess
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_model_name
from mlops import config
from mlops.config import home, load_params, load_platform
from mlops.errors import ProjectError
from ruamel.yaml import YAML
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


@pytest.mark.parametrize(
    ("content", "problem", "fix"),
    [
        (
            b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> x\n",
            "two versions .* at line 1: <<<<<<< HEAD",
            "checkout --ours",
        ),
        (b"split:\n\ta: 1\n", "platform.yaml line 2 is not valid YAML: found character", "restore it: git checkout"),
        (b"a: {}\na: {}\n", 'line 2 is not valid YAML: found duplicate key "a"$', "correct that, or restore it"),
        ("a: 1\n".encode("utf-16"), "is not in UTF-8: it is in UTF-16", "save it as UTF-8"),
        ("a: 1\n".encode("utf-16-le"), "is not in UTF-8", "save it as UTF-8"),
        ("\ufeff\ufeffa: 1\n".encode(), "several byte order marks", "save it as UTF-8"),
        ("a: é\n".encode("latin-1"), "another encoding", "save it as UTF-8"),
        (b"- a\n", "platform.yaml holds no keys with values", "restore it: git checkout platform.yaml"),
        (b"a: !x 1\n", "line 1 is not valid YAML: could not determine a constructor", "correct that"),
        (b"on: 1\n", r"unknown key: on \(did you mean 'run_on'\?\)", "correct or remove platform.yaml:on"),
        (PLATFORM.replace("demo", "2026-01-01").encode(), 'project is "2026-01-01"', "text stands in quotes"),
        (PLATFORM.replace("false", "'false'").encode(), "is 'false': input should be", "without quotes"),
        ((PLATFORM + "job: 1\n").encode(), "job is 1: it must hold keys with values", "change platform.yaml:job"),
        (None, "platform.yaml is a folder", "mv platform.yaml platform.yaml.old && git checkout platform.yaml"),
    ],
    ids=lambda value: "",
)
def test_damaged_file_is_named_with_its_line_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, problem: str, fix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("platform.yaml").mkdir() if content is None else Path("platform.yaml").write_bytes(content)
    with pytest.raises(ProjectError) as refused:
        load_platform()
    assert re.search(problem, refused.value.problem) and fix in refused.value.fix
    assert len(str(refused.value).splitlines()) == 2


def test_one_byte_order_mark_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("platform.yaml").write_bytes(b"\xef\xbb\xbf" + PLATFORM.encode())
    assert load_platform().project == "demo"
    config.set_values(Path("platform.yaml"), {"region": "us-east-1"}, null="null")
    assert load_platform().region == "us-east-1"


def test_missing_file_in_the_root_is_restored_and_elsewhere_one_goes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=r"params.yaml is not in .*\nFix: run from the project's root"):
        load_params("split", SplitParams)
    Path("dvc.yaml").touch()
    with pytest.raises(ProjectError, match="Fix: restore it: git checkout params.yaml"):
        load_params("split", SplitParams)


def test_settings_of_the_tool_that_are_missing_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("", "tool = 1\n", "[tool.other]\n"):
        Path("pyproject.toml").write_text(text, encoding="utf-8")
        with pytest.raises(
            ProjectError, match=r"no section \[tool.mlops\]\nFix: restore it: git checkout pyproject.toml"
        ):
            config.load_tool_settings()


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
    fix = r"python -m pip install -r requirements.lock .*platform.yaml:allow_other_environment: true"
    with pytest.raises(ProjectError, match=rf"torch .* \(pinned: 0\.[\s\S]*Fix: {fix}"):
        config.check_environment(allow_other=False)
    Path("environment.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ProjectError, match="environment.json holds no keys"):
        config.check_environment(allow_other=False)


def test_set_values_leaves_other_writers_of_yaml_as_they_are(tmp_path: Path) -> None:
    file, stream = tmp_path / "params.yaml", io.StringIO()
    file.write_text("a: 1\nb:\n", encoding="utf-8")
    config.set_values(file, {"a": "2"}, "null")
    assert file.read_text(encoding="utf-8") == "a: '2'\nb: null\n"
    YAML().dump({"b": None}, stream)
    assert stream.getvalue() == "b:\n"
