"""The stage `prepare`: what reaches the dataset, and that nothing does when something is wrong."""

import json
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlops import ProjectError
from ruamel.yaml import YAML

from {{ cookiecutter.package_name }}.stages import prepare

from ..conftest import png

CONSENT = "subject_id,consent_status,effective_at\n" + "".join(f"form-{n:02},active,\n" for n in range(14))
PARAMS = {
    "data": {"source": "digits", "fraction": 1.0, "shards": 8, "consent": "required"},
    "split": {"salt": "7", "val": 0.2, "test": 0.2},
}


@pytest.fixture(autouse=True)
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
    YAML().dump(content, Path("params.yaml"))


def digests() -> dict[str, str]:
    return {path.as_posix(): sha256(path.read_bytes()).hexdigest() for path in Path("data/dataset").rglob("*.parquet")}


def excluded() -> int:
    return int(json.loads(Path("reports/prepare.json").read_text(encoding="utf-8"))["excluded"])


def test_main_digits_gives_the_known_splits_whatever_the_salt_is_written_as(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare.main()
    assert "1797 records (train 1023, val 384, test 390), 0 left out" in capsys.readouterr().out
    counts = {split: pq.read_table(Path("data/dataset", split)).num_rows for split in ("train", "val", "test")}
    assert counts == {"train": 1023, "val": 384, "test": 390}
    assert excluded() == 0
    before = digests()
    change(split_salt=7)
    prepare.main()
    assert digests() == before


def test_main_revoked_form_changes_one_file_and_is_counted() -> None:
    prepare.main()
    before = digests()
    with Path("data/consent.csv").open("a", encoding="utf-8") as file:
        file.write("form-03,revoked,2030-01-01T00:00:00Z\n")
    prepare.main()
    assert len(digests().items() - before.items()) <= 1
    assert "form-03" not in pq.read_table(Path("data/dataset/train"))["subject_id"].to_pylist()
    assert excluded() == 130


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"split_val": 0.6, "split_test": 0.4}, "val and test together must be less than 1"),
        ({"split_val": 0.0}, r"params.yaml:split.val"),
        ({"data_fraction": 0.0}, r"params.yaml:data.fraction"),
        ({"data_shards": 0}, r"params.yaml:data.shards"),
        ({"data_source": "imagenet"}, "the sources cifar10, digits, folder"),
        ({"split_val": 0.01, "split_test": 0.01}, "no record falls into test with salt '7', val 0.01"),
        ({"data_source": "folder"}, r"data/raw is not there"),
    ],
    ids=["sum", "no val", "fraction", "shards", "source", "empty split", "no images"],
)
def test_main_bad_input_is_refused_and_nothing_is_written(project: Path, keys: dict[str, object], problem: str) -> None:
    change(**keys)
    with pytest.raises(ProjectError, match=problem):
        prepare.main()
    assert sorted(path.name for path in project.iterdir()) == ["data", "params.yaml"]
    assert [path.name for path in Path("data").iterdir()] == ["consent.csv"]


def test_main_malformed_consent_keeps_the_older_dataset() -> None:
    prepare.main()
    before = digests()
    Path("data/consent.csv").write_text(CONSENT + "form-03,revoked\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"data/consent.csv line 16 has 2 cells"):
        prepare.main()
    assert digests() == before


def test_main_folder_never_opens_images_without_consent() -> None:
    # Their files may have been erased, as they should be.
    Path("data/raw").mkdir()
    lines = ["record_id,subject_id,label,path", "scan-99,gone,cat,erased.png"]
    for number in range(14):
        Path(f"data/raw/{number}.png").write_bytes(png())
        lines.append(f"scan-{number},form-{number:02},cat,{number}.png")
    Path("data/raw/records.csv").write_text("\n".join(lines), encoding="utf-8")
    change(data_source="folder")
    prepare.main()
    assert pq.read_table(Path("data/dataset/val"))["record_id"].to_pylist() == ["scan-1", "scan-10", "scan-5"]
    assert excluded() == 1
