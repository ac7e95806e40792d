"""DVC's configuration files: what is written there is what DVC reads, whatever the path."""

import locale
from pathlib import Path

import pytest
from dvc.config import Config
from mlops.errors import ProjectError
from mlops.tracking import dvc_config

REMOTE = 'remote "storage"'


def url_of(folder: Path) -> str:
    return str(Config(str(folder / ".dvc"))["remote"]["storage"]["url"])


@pytest.mark.parametrize(
    ("project", "storage", "ascii"),
    [
        ("project", "storage", True),
        ("Übung 数据/project", "Übung 数据/project/dvc-storage", True),
        ("Übung 数据/klon ü", "Übung 数据/project/dvc-storage", True),
        ("Größe/klon", "Übung 数据/project, 'new' #2/dvc-storage", False),
    ],
    ids=["ascii", "inside", "beside", "elsewhere"],
)
def test_write_then_dvc_reads_the_folder(tmp_path: Path, project: str, storage: str, ascii: bool) -> None:
    folder, url = tmp_path / project, (tmp_path / storage).as_posix()
    file = folder / ".dvc" / "config.local"
    file.parent.mkdir(parents=True)
    dvc_config.write(file, {REMOTE: {"url": dvc_config.as_value(url, file)}})
    assert file.read_bytes().isascii() == ascii
    assert url_of(folder) == url


def test_write_keeps_what_the_file_holds_and_who_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / ".dvc" / "config.local"
    file.parent.mkdir()
    file.write_text("# mine\n[core]\n    analytics = false\n", encoding="utf-8")
    file.chmod(0o600)
    before = file.stat().st_mode
    dvc_config.write(file, {REMOTE: {"url": "s3://bucket/project"}})
    assert file.read_text(encoding="utf-8").startswith("# mine\n[core]\n    analytics = false\n")
    assert url_of(tmp_path) == "s3://bucket/project"
    assert file.stat().st_mode == before


def test_write_what_dvc_could_not_read_is_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".dvc" / "config.local"
    file.parent.mkdir()
    file.write_bytes(b"[core]\n")
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: "cp1252")
    with pytest.raises(ProjectError, match="in the encoding cp1252.*\nFix: set PYTHONUTF8=1 .* or move the project"):
        dvc_config.write(file, {REMOTE: {"url": "/data/数据"}})
    assert [path.read_bytes() for path in file.parent.iterdir()] == [b"[core]\n"]
