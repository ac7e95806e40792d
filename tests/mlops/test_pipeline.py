"""Stages as DVC's own loader reads them; what it can't read, and what a stage lacks, is said with the fix."""

import os
import shutil
from pathlib import Path

import pytest
from mlops import pipeline
from mlops.errors import ProjectError

STAGES = """
vars: [{who: ada}]
stages:
  train:
    cmd: python -m mlops stage train
    desc: Of ${who}
    deps: [data]
    params: [train]
    metrics: [reports/run.json: {cache: false}]
    meta: {job: {kind: training, instance_type: "${machine.type}", tags: {who: "${who}"}}}
  count:
    matrix: {size: [small, large], rate: [0.1]}
    cmd: python -m mlops stage count
    deps: [reports/run.json]
    outs: ["${item.size}.txt"]
    meta: {job: {kind: processing, tags: {size: "${item.size}"}}}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository with a pipeline, as the working directory; no stage runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    Path(".dvc").mkdir()
    for name, text in {
        ".dvc/config": "[core]\n    no_scm = true\n",
        "params.yaml": "train: {epochs: 3}\nmachine: {type: ml.c5.large}\n",
        "dvc.yaml": STAGES,
    }.items():
        Path(name).write_text(text, encoding="utf-8")
    return tmp_path


def test_load_stages_settings_of_jobs_have_the_values_of_variables() -> None:
    stages = pipeline.load_stages()
    assert list(stages) == ["train", "count@small-0.1", "count@large-0.1"]
    assert stages["train"].job == {"kind": "training", "instance_type": "ml.c5.large", "tags": {"who": "ada"}}
    assert stages["count@large-0.1"].job == {"kind": "processing", "tags": {"size": "large"}}
    Path("params.yaml").write_text("train: {epochs: 3}\nmachine: {type: ml.c5.xlarge}\n", encoding="utf-8")
    assert (pipeline.load_stage("train").job or {})["instance_type"] == "ml.c5.xlarge"


def test_load_stages_elsewhere_says_where_to_go(project: Path) -> None:
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    with pytest.raises(ProjectError, match=r"dvc.yaml is not in .*elsewhere\nFix: run from the project's root, where"):
        pipeline.load_stages()
    os.chdir(project)
    assert pipeline.load_stages()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stages:\n  a: [\n", "unable to read: 'dvc.yaml', YAML file structure is corrupted"),
        ("stages: {a: {cmd: x, depz: []}}\n", r"'./dvc.yaml' validation failed"),
        ("stages: {a: {cmd: x, outs: [o]}, b: {cmd: x, outs: [o]}}\n", "output 'o' is specified in: - a - b"),
        ("stages: {a: {cmd: x, meta: {job: '${no}'}}}\n", "'stages.a.meta' in 'dvc.yaml': Could not find 'no'"),
    ],
    ids=["yaml", "key", "twice", "variable"],
)
def test_load_stages_that_dvc_can_not_read_name_the_place(text: str, problem: str) -> None:
    Path("dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError, match=rf"DVC can't load the stages: .*{problem}.*\nFix: correct .*: dvc dag$"):
        pipeline.load_stages()
    Path("dvc.yaml").write_text(STAGES, encoding="utf-8")
    assert pipeline.load_stages()


def test_load_stages_in_no_dvc_repository_says_how_it_becomes_one() -> None:
    shutil.move(".dvc", "away")
    with pytest.raises(ProjectError, match=r"has no folder .dvc\nFix: restore it: git checkout -- .dvc"):
        pipeline.load_stages()
    shutil.move("away", ".dvc")  # as Git does
    assert pipeline.load_stages()


def test_load_stages_with_a_damaged_configuration_name_its_files() -> None:
    Path(".dvc/config").write_text("[core\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"\('\[core'\)[\s\S]*Fix: correct .dvc/config"):
        pipeline.load_stages()


def test_load_stages_settings_of_a_job_are_a_mapping() -> None:
    Path("dvc.yaml").write_text("stages: {a: {cmd: x, meta: {job: processing}}}\n", encoding="utf-8")
    fix = r"dvc.yaml:stages.a.meta.job: {kind: processing}"
    with pytest.raises(ProjectError, match=rf"stages.a.meta.job is 'processing', .*\nFix: {fix}"):
        pipeline.load_stages()
    Path("dvc.yaml").write_text("stages: {a: {cmd: x, meta: {job: {kind: processing}}}}\n", encoding="utf-8")
    assert pipeline.load_stage("a").job == {"kind": "processing"}


def test_load_stage_that_is_not_there_is_named_with_those_that_are() -> None:
    problem = r"dvc.yaml has no stage 'count@tiny-0.1'; it has train, count@small-0.1, count@large-0.1"
    with pytest.raises(ProjectError, match=rf"{problem}\nFix: name one of these, or write dvc.yaml:stages.count$"):
        pipeline.load_stage("count@tiny-0.1")


@pytest.mark.parametrize("address", ["{}", "dvc.yaml:{}", "../dvc.yaml:{}", "../../dvc.yaml:{}"])
def test_stage_of_command_is_the_one_that_dvc_started(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", address.format("count@small-0.1"))
    assert pipeline.stage_of_command("count").name == "count@small-0.1"
    monkeypatch.delenv("DVC_STAGE")
    assert pipeline.stage_of_command("train").name == "train"


def test_stage_of_command_of_another_file_is_not_the_one_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "sub/dvc.yaml:train")
    with pytest.raises(ProjectError, match="no stage 'sub/dvc.yaml:train'"):
        pipeline.stage_of_command("train")


def test_running_stage_that_was_started_by_hand_is_to_be_started_by_dvc() -> None:
    with pytest.raises(ProjectError, match=r"DVC runs no stage here, .*\nFix: dvc repro"):
        pipeline.running_stage()


def test_require_dep_that_a_stage_of_a_matrix_lacks_names_the_key_of_dvc_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "count@small-0.1")
    problem = "count@small-0.1 reads data/x, which dvc.yaml does not name"
    with pytest.raises(ProjectError, match=rf"{problem}\nFix: add `- data/x` to dvc.yaml:stages.count.deps"):
        pipeline.require_dep("data/x")
    text = STAGES.replace("deps: [reports/run.json]", "deps: [reports/run.json, data/x]")
    Path("dvc.yaml").write_text(text, encoding="utf-8")
    pipeline.require_dep("data/x")


def test_training_stage_is_known_by_its_report() -> None:
    assert pipeline.training_stage().name == "train"
    Path("dvc.yaml").write_text(STAGES.replace("reports/run.json", "reports/runs.json"), encoding="utf-8")
    fix = r"- reports/run.json: {cache: false} in dvc.yaml:stages.train.metrics, if that one trains, and in no other"
    with pytest.raises(ProjectError, match=rf"0 stages that write reports/run.json\nFix: {fix}"):
        pipeline.training_stage()
