"""The same inputs are the same job; nothing else is part of them. One that is missing is named."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlops.compute import fingerprint
from mlops.errors import ProjectError

from ..conftest import Run

ENTRY: dict[str, Any] = {
    "cmd": "python -m demo stage train",
    "deps": [
        {"path": "data/dataset", "hash": "md5", "md5": "aa.dir", "size": 10, "nfiles": 2},
        {"path": "train.py", "hash": "md5", "md5": "bb", "size": 3},
    ],
    "params": {"params.yaml": {"train": {"lr": 0.1}}},
    "outs": [{"path": "models/model", "hash": "md5", "md5": "cc.dir", "size": 7, "nfiles": 2}],
}


def changed(**parts: Any) -> fingerprint.Inputs:
    """Return the inputs of an entry with other parts."""
    return fingerprint.from_entry({**ENTRY, **parts})


def test_of_entry_leaves_out_what_the_stage_makes() -> None:
    assert changed() == changed(outs=[{"path": "models/model", "md5": "another"}])
    assert changed()["outs"] == ["models/model"]


def test_digest_tells_inputs_and_image_apart() -> None:
    dep = {"path": "train.py", "hash": "md5", "md5": "dd", "size": 3}
    others = [
        changed(cmd="python -m demo stage other"),
        changed(deps=[ENTRY["deps"][0], dep]),
        changed(params={"params.yaml": {"train": {"lr": 0.2}}}),
        changed(outs=[]),
    ]
    digests = [fingerprint.digest(inputs, "") for inputs in (changed(), *others)] + [
        fingerprint.digest(changed(), "an-image")
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 12 for digest in digests)


def test_digest_is_not_of_sizes_which_dvc_may_not_know() -> None:
    without = [{key: dep[key] for key in dep if key not in ("size", "nfiles")} for dep in ENTRY["deps"]]
    assert fingerprint.digest(changed(deps=without)) == fingerprint.digest(changed())


def test_differences_names_what_a_person_can_look_at() -> None:
    dep = {"path": "train.py", "hash": "md5", "md5": "dd", "size": 3}
    other = changed(cmd="other", deps=[dep], params={"params.yaml": {"train": {"lr": 0.2}, "data": 1}})
    assert fingerprint.differences(changed(), other) == [
        "cmd",
        "data/dataset",
        "train.py",
        "params.yaml:data",
        "params.yaml:train",
    ]
    assert fingerprint.differences(changed(), changed()) == []


@pytest.fixture
def pipeline(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which `use` reads what `make` made, what DVC and what Git keeps, and a parameter."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "dvc.yaml": "stages:\n"
        "  make: {cmd: echo made > made.txt, outs: [made.txt]}\n"
        "  use: {cmd: 'true', deps: [made.txt, raw, code.py], params: [use.rate], outs: [used.txt]}\n",
        "params.yaml": "use: {rate: 1}\n",
        "code.py": "",
        "raw/image": "pixels",
        ".gitattributes": "code.py export-ignore\n",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    for command in ("git init -q", "dvc init -q", "dvc remote add -q -d storage store", "dvc add -q raw"):
        run(*command.split())
    for command in ("dvc repro -q make", "dvc push -q", "git add .", "git commit -q -m Test"):
        run(*command.split())
    return tmp_path


def inputs() -> fingerprint.Inputs:
    """Return the inputs of the second stage."""
    with fingerprint.open_stage("use") as stage:
        return fingerprint.from_work_tree(stage)


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("code.py", "git checkout -- code.py; or correct dvc.yaml:stages.use.deps"),
        ("raw", "dvc pull raw"),
        ("made.txt", "dvc pull made.txt, or dvc repro make"),
    ],
    ids=["git", "dvc-file", "stage"],
)
def test_from_work_tree_without_a_dep_names_it_and_its_fix_restores_it(
    pipeline: Path, run: Run, path: str, fix: str
) -> None:
    before = inputs()
    shutil.rmtree(".dvc/cache")
    (shutil.rmtree if (pipeline / path).is_dir() else Path.unlink)(pipeline / path)
    with pytest.raises(ProjectError, match=f"use reads {path}, which is not there\nFix: {fix}$"):
        inputs()
    run(*fix.partition(", or")[0].partition(";")[0].split())
    assert inputs() == before


@pytest.mark.usefixtures("pipeline")
def test_from_work_tree_without_a_param_names_the_stage_that_has_it() -> None:
    Path("params.yaml").write_text("use: {rates: 1}\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"use can't be read: .*'use.rate'.*\nFix: correct dvc.yaml:stages.use"):
        inputs()
