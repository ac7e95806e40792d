"""A clone made ready, whatever its path and that of the clone it came from."""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from dvc.config import Config
from mlops.errors import ProjectError
from mlops.setup_clone import set_up

PLATFORM = "project: demo\ntracking_uri: http://127.0.0.1:9\nrun_on: local\nallow_other_environment: false\n"


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "RUN_ON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def fresh(folder: Path) -> Path:
    """A repository as `git clone` leaves it."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("[core]\n    remote = storage\n", encoding="utf-8")
    (folder / "platform.yaml").write_text(PLATFORM, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def url_of(folder: Path) -> str:
    return str(Config(str(folder / ".dvc"))["remote"]["storage"]["url"])


@pytest.mark.parametrize("parent", ["plain", "Übung 数据"])
def test_set_up_twice_sets_the_storage_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    monkeypatch.chdir(fresh(tmp_path / parent / "project"))
    (Path(".dvc") / "config.local").touch()  # what a setup left that DVC could not write
    lines = set_up()
    written = Path(".dvc/config.local").read_bytes()
    assert url_of(Path()) == (Path.cwd() / "dvc-storage").as_posix()
    assert set_up() == lines
    assert Path(".dvc/config.local").read_bytes() == written


def test_set_up_without_a_default_remote_names_the_command_that_gives_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh(tmp_path / "project"))
    remotes = {"storage": "", "team": "['remote \"team\"']\n    url = /data\n"}
    for name, sections in remotes.items():
        Path(".dvc/config").write_text(sections, encoding="utf-8")
        with pytest.raises(ProjectError, match="config names no default remote") as refused:
            set_up()
        command, _, rest = refused.value.fix.partition(", ")
        assert (command, rest) == (f"dvc config core.remote {name}", "then the same command")
        subprocess.run([sys.executable, "-m", *command.split()], check=True)
        assert set_up()


def test_set_up_reports_what_dvc_cannot_do_with_such_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fresh(tmp_path / "project"))
    assert len(set_up()) == 2
    subprocess.run(["git", "config", "user.name", "Jörg"], check=True)
    (note,) = set_up()[2:]
    assert "--temp and --queue fail in this clone: DVC copies the names and addresses in .git/config, and" in note
    monkeypatch.chdir(fresh(tmp_path / "Übung" / "project"))
    assert "DVC copies the project's path, the DVC remote's address, and can write ASCII only" in set_up()[-1]


@pytest.mark.parametrize("as_url", [False, True], ids=["path", "url"])
def test_set_up_of_a_clone_uses_the_storage_of_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_url: bool
) -> None:
    origin = fresh(tmp_path / "Übung 数据" / "project")
    monkeypatch.chdir(origin)
    set_up()
    copy = tmp_path / "Größe" / "klon"
    shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("config.local"))
    monkeypatch.chdir(copy)
    address = f"file://{quote(origin.as_posix())}" if as_url else str(origin)
    subprocess.run(["git", "remote", "add", "origin", address], check=True)
    set_up()
    assert url_of(copy) == (origin / "dvc-storage").as_posix()
