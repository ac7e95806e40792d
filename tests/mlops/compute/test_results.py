"""What a job made, after it was taken over: the work tree is checked once more."""

from pathlib import Path

import pytest
from mlops.compute import fingerprint, results
from mlops.errors import ProjectError
from mlops.files import write_json
from ruamel.yaml import YAML

from ..conftest import Run


@pytest.fixture
def out(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a job of `make` handed back; its results are in the work tree already."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {make: {cmd: echo > made.txt, outs: [made.txt]}}\n", encoding="utf-8")
    for command in ("git init -q", "dvc init -q", "dvc repro -q"):
        run(*command.split())
    entry = YAML(typ="safe").load(Path("dvc.lock"))["stages"]["make"]
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "result.json", {"entry": fingerprint.plain(entry)})
    results.check("make", tmp_path / "out")
    return tmp_path / "out"


def test_check_of_an_output_that_was_deleted_meanwhile_names_it(out: Path, run: Run) -> None:
    Path("made.txt").unlink()
    problem = "made.txt, which the job of make made, was deleted while its results were taken over"
    with pytest.raises(ProjectError, match=rf"{problem}\nFix: dvc repro make: the job is not run again"):
        results.check("make", out)
    run("dvc", "checkout", "-q")  # as taking over does
    results.check("make", out)


def test_check_of_an_output_that_something_else_wrote_names_the_stage(out: Path) -> None:
    made = Path("made.txt").read_bytes()
    Path("made.txt").unlink()  # it may be a link into the cache
    Path("made.txt").write_text("another", encoding="utf-8")
    fix = "see that nothing else writes its outputs, then dvc repro make"
    with pytest.raises(ProjectError, match=rf"is not what the job of make made\nFix: {fix}"):
        results.check("make", out)
    Path("made.txt").write_bytes(made)
    results.check("make", out)


def test_apply_results_without_an_output_that_was_added_meanwhile_names_it(out: Path) -> None:
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    Path("dvc.yaml").write_text(text.replace("[made.txt]", "[made.txt, more.txt]"), encoding="utf-8")
    fix = "let the stage make it, or take it from dvc.yaml; then dvc repro make"
    with pytest.raises(ProjectError, match=f"made no more.txt, which dvc.yaml:stages.make names\nFix: {fix}"):
        results.apply_results("make", out)
    Path("dvc.yaml").write_text(text, encoding="utf-8")
    results.check("make", out)


def test_check_of_a_stage_that_was_removed_meanwhile_names_it(out: Path) -> None:
    Path("dvc.yaml").write_text("stages: {other: {cmd: echo}}\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"dvc.yaml has no stage 'make'; it has other\nFix: .*stages.make"):
        results.check("make", out)
