"""The stage `prepare`: what reaches the dataset, and that nothing does when something is wrong."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from mlops import ProjectError, read_split
from PIL import Image
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.stages import prepare

CONSENT = "subject_id,consent_status,effective_at\n" + "".join(f"form-{n:02},active,\n" for n in range(14))
PARAMS = {
    "data": {"source": "digits", "fraction": 1.0, "shards": 8, "consent": "required"},
    "split": {"salt": "7", "val": 0.2, "test": 0.2},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the default parameters; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("data").mkdir()
    Path("data/consent.csv").write_text(CONSENT, encoding="utf-8")
    change()
    return tmp_path


def change(**keys: object) -> None:
    """Write params.yaml with other values for some keys: `change(data_shards=4)`."""
    content = {name: dict(section) for name, section in PARAMS.items()}
    for key, value in keys.items():
        section, name = key.split("_", 1)
        content[section][name] = value
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(content, file)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests() -> dict[str, str]:
    return {file.as_posix(): digest(file) for file in Path("data/dataset").rglob("*.parquet")}


def test_main_digits_gives_the_known_splits(project: Path) -> None:
    prepare.main()
    counts = {split: read_split(Path("data/dataset", split)).num_rows for split in ("train", "val", "test")}
    assert counts == {"train": 1023, "val": 384, "test": 390}
    report = json.loads(Path("reports/prepare.json").read_text())
    sha256 = digest(Path("data/consent.csv"))
    assert report == {"excluded": 0, "consent": sha256[:7], "consent_sha256": [sha256]}


def test_main_revoked_form_changes_one_file_and_is_counted(project: Path) -> None:
    prepare.main()
    before = digests()
    with Path("data/consent.csv").open("a", encoding="utf-8") as file:
        file.write("form-03,revoked,2030-01-01T00:00:00Z\n")
    prepare.main()
    assert len(digests().items() - before.items()) <= 1
    assert "form-03" not in read_split(Path("data/dataset/train"))["subject_id"].to_pylist()
    assert json.loads(Path("reports/prepare.json").read_text())["excluded"] == 130


def test_main_withdrawal_that_lost_in_a_merge_is_left_out_and_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONSENT.replace("form-03,active,\n", "form-03,revoked,2025-02-10T00:00:00Z\n")
    lines = "form-03,revoked,2025-01-10T00:00:00Z\nform-03,active,2025-03-10T00:00:00Z\n"
    Path("data/consent.csv").write_text(text + lines, encoding="utf-8")
    prepare.main()
    assert json.loads(Path("reports/prepare.json").read_text())["excluded"] == 130
    printed = capsys.readouterr().out
    assert "Left out, in doubt: 1 subject(s) whose withdrawal lost in a merge: form-03 (line 5). Settle each" in printed
    assert "consent revoke <subject>; or, if they do consent, consent add <subject>" in printed


def test_main_consent_line_without_effect_changes_no_data(project: Path) -> None:
    prepare.main()
    before = digests()
    with Path("data/consent.csv").open("a", encoding="utf-8") as file:
        file.write("somebody,revoked,\n")
    prepare.main()
    assert digests() == before


def test_main_consent_not_required_is_recorded(project: Path) -> None:
    Path("data/consent.csv").unlink()
    change(data_consent="not_required")
    prepare.main()
    report = json.loads(Path("reports/prepare.json").read_text())
    assert report == {"excluded": 0, "consent": "not_required", "consent_sha256": ["not_required"]}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"split_val": 0.6, "split_test": 0.4}, "val and test together must be less than 1"),
        ({"split_val": 0.0}, r"params.yaml:split.val"),
        ({"data_fraction": 0.0}, r"params.yaml:data.fraction"),
        ({"data_shards": 0}, r"params.yaml:data.shards"),
        ({"data_source": "imagenet"}, "the sources cifar10, digits, folder"),
        ({"data_shard": 4}, "did you mean 'shards'"),
        ({"split_val": 0.01, "split_test": 0.01}, "no record falls into test with salt '7', val 0.01"),
        ({"data_source": "folder"}, r"data/raw/records.csv is not there"),
    ],
    ids=["sum", "no val", "fraction", "shards", "source", "key", "empty split", "no table"],
)
def test_main_bad_input_is_refused_and_nothing_is_written(project: Path, keys: dict[str, object], problem: str) -> None:
    change(**keys)
    with pytest.raises(ProjectError, match=problem):
        prepare.main()
    assert sorted(path.name for path in project.iterdir()) == ["data", "params.yaml"]
    assert [path.name for path in Path("data").iterdir()] == ["consent.csv"]


def test_main_malformed_consent_keeps_the_older_dataset(project: Path) -> None:
    prepare.main()
    before = digests()
    Path("data/consent.csv").write_text(CONSENT + "form-03,revoked\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"data/consent.csv line 16 has 2 cells"):
        prepare.main()
    assert digests() == before


def test_main_salt_as_number_is_the_same_as_text(project: Path) -> None:
    prepare.main()
    before = digests()
    change(split_salt=7)
    prepare.main()
    assert digests() == before


def test_main_folder_never_opens_images_without_consent(project: Path) -> None:
    # Their files may have been erased, as they should be.
    Path("data/raw").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "png")
    lines = ["record_id,subject_id,label,path"]
    for number in range(14):
        Path(f"data/raw/{number}.png").write_bytes(file.getvalue())
        lines.append(f"scan-{number},form-{number:02},cat,{number}.png")
    lines.append("scan-99,gone,cat,erased.png")
    Path("data/raw/records.csv").write_text("\n".join(lines), encoding="utf-8")
    change(data_source="folder")
    prepare.main()
    assert read_split(Path("data/dataset/val"))["record_id"].to_pylist() == ["scan-1", "scan-10", "scan-5"]
    assert json.loads(Path("reports/prepare.json").read_text())["excluded"] == 1


@pytest.mark.parametrize(
    ("deps", "missing"),
    [("[data/consent.csv]", "data/raw"), ("[data/raw]", "data/consent.csv")],
    ids=["raw", "consent"],
)
def test_main_input_that_dvc_does_not_watch_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, deps: str, missing: str
) -> None:
    from dvc.repo import Repo

    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text(f"stages:\n  prepare:\n    cmd: echo\n    deps: {deps}\n", encoding="utf-8")
    Path("data/raw").mkdir()
    Path("data/raw/records.csv").write_text("record_id,subject_id,label,path\nr,form-01,cat,r.png\n", encoding="utf-8")
    monkeypatch.setenv("DVC_STAGE", "prepare")
    change(data_source="folder")
    with pytest.raises(ProjectError, match=f"add `- {missing}`"):
        prepare.main()
