"""What a training reads can be had by others, from its commit and a remote; or it is refused, with a fix that helps."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.errors import ProjectError
from mlops.tracking import dvc_remote, inputs
from mlops.tracking.dvc_remote import ArtifactMissingError
from mlops.tracking.run_context import snapshot

from .conftest import Run, commit_all

DEP = "deps: [step.py, data/dataset, code]"


def read_also(path: str) -> None:
    """Let the stage `train` read one more path."""
    edit("dvc.yaml", DEP, DEP.replace("]", f", {path!r}]"))


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text(encoding="utf-8")
    assert old in text
    Path(name).write_text(text.replace(old, new), encoding="utf-8")


def elsewhere(stage: str = "train") -> list[dict[str, str]]:
    with Repo() as repo:
        return inputs.elsewhere([repo.stage.load_one(name=stage)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file outside the repository."""
    path = tmp_path / "nfs" / "words.txt"
    path.parent.mkdir()
    path.write_text("eins zwei\n", encoding="utf-8")
    return path


@pytest.fixture
def registry(tmp_path: Path, repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another repository, which has `words.txt` in a DVC remote of its own."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        run("git", "init", "--quiet", "--initial-branch=main")
        run("dvc", "init", "--quiet")
        run("dvc", "remote", "add", "--quiet", "-d", "storage", str(tmp_path / "registry-storage"))
        Path("words.txt").write_text("one two\n", encoding="utf-8")
        Path("folder").mkdir()
        Path("folder/words.txt").write_text("three four\n", encoding="utf-8")
        run("dvc", "add", "--quiet", "words.txt", "folder")
        run("dvc", "push", "--quiet")
        commit_all(run)
    yield folder


def colleague(tmp_path: Path, run: Run, commit: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clone the repository at a commit, in another home with the same DVC remote, and pull; be there."""
    folder = tmp_path / "colleague"
    run("git", "clone", "--quiet", "--no-checkout", ".", str(folder))
    run("git", "push", "--quiet", str(folder), f"{commit}:refs/heads/restored")
    config = Path(".dvc/config.local").read_text(encoding="utf-8")
    monkeypatch.chdir(folder)
    run("git", "checkout", "--quiet", commit)
    Path(".dvc/config.local").write_text(config, encoding="utf-8")
    run("dvc", "pull", "--quiet", "--allow-missing")
    return folder


def test_data_outside_the_repository_are_refused_and_the_fix_brings_them_in(
    repository: Path, data: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_also(data.as_posix())
    with pytest.raises(ProjectError, match=rf"outside the Git repository[\s\S]*dvc import-url {data.as_posix()} "):
        snapshot("train")
    Path("data/raw").mkdir()
    run("dvc", "import-url", "--quiet", data.as_posix(), "data/raw/words.txt")
    edit("dvc.yaml", data.as_posix(), "data/raw/words.txt")
    run("git", "add", "data/raw/words.txt.dvc", "data/raw/.gitignore")
    commit = snapshot("train")
    assert elsewhere() == []
    dvc_remote.push_inputs("train")
    data.unlink()
    assert (colleague(tmp_path, run, commit, monkeypatch) / "data/raw/words.txt").read_text() == "eins zwei\n"


@pytest.mark.parametrize("address", ["https://example.org/words.txt", "s3://bucket/words.txt"])
def test_dep_at_an_address_is_refused_before_it_is_read(repository: Path, run: Run, address: str) -> None:
    read_also(address)
    with pytest.raises(ProjectError, match=rf"train reads {address}[\s\S]*dvc import-url {address} data/raw, and"):
        snapshot("train")


def test_import_of_an_address_without_its_content_is_refused(
    repository: Path, data: Path, run: Run, tmp_path: Path
) -> None:
    run("dvc", "import-url", "--quiet", "--no-download", data.as_posix(), "words.txt")
    read_also("words.txt")
    commit_all(run)
    with pytest.raises(ProjectError, match=r"words\.txt was imported without its content[\s\S]*dvc update words\.txt"):
        snapshot("train")
    run("dvc", "update", "--quiet", "words.txt.dvc")
    run("git", "add", "words.txt.dvc")
    snapshot("train")


@pytest.mark.parametrize("name", ["words.txt", "folder"])
def test_import_from_a_registry_is_named_and_a_clone_has_it(
    repository: Path, registry: Path, run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("dvc", "import", "--quiet", str(registry), name)
    read_also(name)
    commit_all(run)
    commit = snapshot("train")
    (named,) = elsewhere()
    assert (named["path"], named["url"], len(named["rev"])) == (name, str(registry), 40)
    dvc_remote.push_inputs("train")
    restored = colleague(tmp_path, run, commit, monkeypatch) / name
    assert (restored / "words.txt" if restored.is_dir() else restored).read_text() in ("one two\n", "three four\n")


def test_import_from_a_registry_is_brought_along_for_a_job(repository: Path, registry: Path, run: Run) -> None:
    run("dvc", "import", "--quiet", str(registry), "folder")
    read_also("folder")
    shutil.rmtree(".dvc/cache")
    run("dvc", "repro", "--quiet", "--force", "prepare")
    dvc_remote.push_inputs("train", for_job=True)  # fetches it first
    shutil.rmtree(".dvc/cache")
    shutil.rmtree(registry)
    with Repo() as repo:
        dvc_remote.fetch(repo, [out for out in repo.index.outs if str(out) == "folder"])


def test_registry_of_this_machine_is_refused_where_data_go_to_a_bucket(
    repository: Path, registry: Path, run: Run
) -> None:
    run("dvc", "import", "--quiet", str(registry), "words.txt")
    read_also("words.txt")
    run("dvc", "remote", "modify", "--local", "storage", "url", "s3://bucket/data")
    commit_all(run)
    problem = rf"words\.txt is from {registry}, on this machine, and the DVC remote s3://bucket/data is not"
    with pytest.raises(ProjectError, match=rf"{problem}[\s\S]*dvc import <an address that others reach>"):
        snapshot("train")


def test_input_that_is_never_pushed_is_refused(repository: Path, run: Run) -> None:
    unpushed = "outs: [data/dataset: {push: false}]"
    edit("dvc.yaml", "outs: [data/dataset]", unpushed)
    with pytest.raises(ProjectError, match=r"data/dataset is an input that is never pushed[\s\S]*from dvc\.yaml"):
        snapshot("train")
    with Repo() as repo:  # what nobody reads may stay here
        assert inputs.elsewhere([repo.stage.load_one(name="prepare")]) == []
    edit("dvc.yaml", unpushed, "outs: [data/dataset]")
    snapshot("train")


def test_input_with_a_remote_of_its_own_is_named_and_a_clone_has_it(
    repository: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("dvc", "remote", "add", "--local", "--quiet", "other", str(tmp_path / "other"))
    edit("dvc.yaml", "outs: [data/dataset]", "outs: [data/dataset: {remote: other}]")
    with pytest.raises(ProjectError, match=r"the DVC remote other, which[\s\S]*dvc remote add --project other "):
        snapshot("train")
    run("dvc", "remote", "add", "--project", "--quiet", "other", str(tmp_path / "other"))
    commit_all(run)
    commit = snapshot("train")
    assert elsewhere()[0] | {"rev": ""} == {"path": "data/dataset", "url": str(tmp_path / "other"), "rev": ""}
    dvc_remote.push_inputs("train")
    dvc_remote.push_inputs("train", for_job=True)
    assert len([path for path in (tmp_path / "storage").rglob("*") if path.is_file()]) == 1
    assert (colleague(tmp_path, run, commit, monkeypatch) / "data/dataset").read_text() == "x: 0.1\n"


def test_push_of_what_is_lost_is_refused_and_the_fix_stores_it(repository: Path, run: Run, tmp_path: Path) -> None:
    shutil.rmtree(".dvc/cache")
    with pytest.raises(ArtifactMissingError, match=r"dataset is incomplete[\s\S]*dvc commit --force prepare; else"):
        dvc_remote.push_inputs("train")
    run("dvc", "commit", "--force", "prepare")
    dvc_remote.push_inputs("train")
    shutil.rmtree(".dvc/cache")
    dvc_remote.push_inputs("train")  # the remote has it
    shutil.rmtree(tmp_path / "storage")
    Path("data/dataset").unlink()
    with pytest.raises(ArtifactMissingError, match=r"else make it again: dvc repro --force prepare"):
        dvc_remote.push_inputs("train")
    run("dvc", "repro", "--force", "prepare")
    dvc_remote.push_inputs("train")
