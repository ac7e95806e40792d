"""`verify`: each kind of tampering is found at its hop, and what can't be read is never called intact."""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ..conftest import BakedProject
from ..projects import commit, copied, edit, lock, out_md5

TAG = "digit-classifier@v2.0.0"
WITHOUT_TOOLS = """
import sys
sys.modules.update(dict.fromkeys(("dvc", "dvc_data", "dvc_objects", "mlflow", "torch")))
from mlops.cli import main
main(["verify", "2", "--offline", "--json"])
"""

Tamper = Callable[[BakedProject], None]


@pytest.fixture
def project(opted_out: BakedProject, tmp_path: Path) -> BakedProject:
    """A project whose version 2, the champion, replaced version 1."""
    return copied(opted_out, tmp_path / "project")


def verify(project: BakedProject, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the verb; return its exit code and its report."""
    done = project.run(sys.executable, "-m", "mlops", "verify", *(arguments or ("2",)), "--json", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)[0]


def first_wrong(report: dict[str, Any]) -> dict[str, str]:
    hop: dict[str, str] = next(hop for hop in report["hops"] if hop["verdict"] not in ("INTACT", "SKIPPED"))
    return hop


def copies(project: BakedProject, md5: str) -> list[Path]:
    """Return the files of a hash in the cache and in the remote."""
    stores = (project.path / ".dvc/cache", project.path / "dvc-storage")
    return [store / "files/md5" / md5[:2] / md5[2:] for store in stores]


def file_md5(project: BakedProject, folder: str, name: str) -> str:
    """Return the hash of a file in a folder that DVC keeps, as version 2 has it."""
    listing = json.loads(copies(project, out_md5(lock(project, TAG), folder))[0].read_text(encoding="utf-8"))
    return next(str(entry["md5"]) for entry in listing if entry["relpath"].startswith(name))


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def flip_weights(project: BakedProject) -> None:
    flip(copies(project, file_md5(project, "models/model", "model.safetensors"))[1])


def flip_shard(project: BakedProject) -> None:
    flip(copies(project, file_md5(project, "data/dataset", "train/"))[1])


def flip_manifest(project: BakedProject) -> None:
    for path in copies(project, out_md5(lock(project, TAG), "data/manifest.parquet")):
        flip(path)


def inputs_of(project: BakedProject) -> str:
    entries = project.run("git", "log", "--first-parent", "--grep=^train ", "--format=%P", "lineage").stdout.split()
    return entries[1]


def replace_file(project: BakedProject, rev: str, name: str, old: str, new: str) -> None:
    """Put a commit with another content of a file in a commit's place, under its id."""
    project.run("git", "checkout", "--quiet", "--detach", rev)
    edit(project, name, old, new)
    changed = commit(project, "Changed")
    tree = project.run("git", "rev-parse", f"{changed}^{{tree}}").stdout.strip()
    parent = project.run("git", "rev-parse", f"{rev}^").stdout.strip()
    other = project.run("git", "commit-tree", tree, "-p", parent, "-m", "x").stdout.strip()
    project.run("git", "replace", rev, other)
    project.run("git", "checkout", "--quiet", "--force", "main")


def change_params(project: BakedProject) -> None:
    replace_file(project, inputs_of(project), "params.yaml", "max_lr: 0.003", "max_lr: 0.005")


def change_lock(project: BakedProject) -> None:
    md5 = file_md5(project, "models/model", "model.safetensors")
    model = out_md5(lock(project, TAG), "models/model")
    rev = project.run("git", "rev-parse", f"{TAG}^{{commit}}").stdout.strip()
    replace_file(project, rev, "dvc.lock", model, f"{md5}.dir")


def rewrite_commit(project: BakedProject) -> None:
    """Give the version another commit of the same files, in the tag and in each entry of the log."""

    def git(*arguments: str) -> str:
        return project.run("git", *arguments).stdout.strip()

    old = git("rev-parse", f"{TAG}^{{commit}}")
    other = git("commit-tree", f"{old}^{{tree}}", "-p", f"{old}^", "-m", "As it should have been")
    git("tag", "--force", "--annotate", "-m", "x", TAG, other)
    tip = ""
    for entry in git("rev-list", "--first-parent", "--reverse", "lineage").split():
        parents, message = git("show", "-s", "--format=%P", entry), git("show", "-s", "--format=%B", entry)
        named = [parent if parent != old else other for parent in parents.split()[1:]]
        options = [option for parent in filter(None, [tip, *named]) for option in ("-p", parent)]
        tip = git("commit-tree", f"{entry}^{{tree}}", *options, "-m", message)
    git("update-ref", "refs/heads/lineage", tip)


def move_tag(project: BakedProject) -> None:
    project.run("git", "tag", "--force", "--annotate", "-m", "x", TAG, "digit-classifier@v1.0.0^{commit}")


def in_mlflow(statement: str) -> Tamper:
    """Return what changes MLflow's database."""

    def tamper(project: BakedProject) -> None:
        with closing(sqlite3.connect(project.path / "mlflow.db")) as database, database:
            database.execute("PRAGMA recursive_triggers = OFF")
            assert database.execute(statement).rowcount > 0

    return tamper


def swap_artifact(project: BakedProject) -> None:
    first, second = sorted(project.path.glob("mlartifacts/models/*/artifacts/data/model/model.safetensors"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def rewrite_consent(project: BakedProject) -> None:
    edit(project, "data/consent.csv", "form-05,active,2025-01-01", "form-05,active,2024-01-01")
    commit(project, "Nobody will see")


TAMPERINGS: dict[str, tuple[Tamper, str, str]] = {
    "weights": (flip_weights, "weights", "dvc-storage"),
    "shard": (flip_shard, "dataset", "dvc-storage"),
    "manifest": (flip_manifest, "manifest", "has the md5"),
    "params": (change_params, "commit", "content of Git's object"),
    "lock": (change_lock, "results", "content of Git's object"),
    "commit rewritten": (rewrite_commit, "tag and log", "the history was rewritten"),
    "tag moved": (move_tag, "tag and log", "is on another commit than the log says"),
    "MLflow param edited": (
        in_mlflow("UPDATE params SET value = '0.1' WHERE key = 'train.max_lr'"),
        "run",
        "the param train.max_lr of the run in MLflow",
    ),
    "MLflow tag edited": (
        in_mlflow("UPDATE model_version_tags SET value = 'x' WHERE key = 'dataset_md5'"),
        "MLflow's version",
        "the tag dataset_md5",
    ),
    "artifact swapped": (swap_artifact, "weights", "MLflow's copy of the model"),
    "alias moved": (in_mlflow("UPDATE registered_model_aliases SET version = 1"), "alias", "champion in MLflow"),
    "consent history rewritten": (rewrite_consent, "consent", "the history was rewritten"),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_verify_tampered_is_broken_at_its_hop(project: BakedProject, kind: str) -> None:
    tamper, hop, words = TAMPERINGS[kind]
    tamper(project)
    code, report = verify(project, "2", "--deep")
    wrong = first_wrong(report)
    assert (code, report["verdict"]) == (1, "BROKEN")
    assert wrong["name"] == hop
    assert words in wrong["text"]
    assert wrong["fix"]


def test_verify_untouched_is_intact_from_each_name(opted_out: BakedProject) -> None:
    run = json.loads((opted_out.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    for name in ("champion", "models:/digit-classifier/1", TAG, run, inputs_of(opted_out)):
        code, report = verify(opted_out, name, "--deep")
        assert (code, report["verdict"], report["unhashed_files"]) == (0, "INTACT", 0), report


def test_verify_offline_needs_neither_dvc_nor_mlflow(opted_out: BakedProject) -> None:
    done = opted_out.run(sys.executable, "-c", WITHOUT_TOOLS)
    report = json.loads(done.stdout)[0]
    assert (report["verdict"], report["hops"][0]["verdict"]) == ("INTACT", "SKIPPED")


def test_verify_what_cannot_be_read_is_unreachable(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.path / "dvc-storage").rename(project.path / "elsewhere")
    code, report = verify(project)
    wrong = first_wrong(report)
    assert (code, report["verdict"], wrong["name"]) == (3, "UNREACHABLE", "weights")
    assert "is not there" in wrong["text"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (project.path / "elsewhere").rename(project.path / "dvc-storage")
    code, report = verify(project)
    assert (code, first_wrong(report)["name"]) == (3, "alias")


def test_verify_lost_is_broken_and_erased_only_with_a_tombstone(project: BakedProject) -> None:
    md5 = file_md5(project, "data/dataset", "train/")
    refused = project.run("python", "-m", "mlops", "tombstone", md5, "--why", "a withdrawal", check=False)
    assert "the cache still has 1 of these files" in refused.stderr
    for path in copies(project, md5):
        path.unlink()
    code, report = verify(project)
    assert (code, first_wrong(report)["name"], report["verdict"]) == (1, "dataset", "BROKEN")
    assert "files are not in the remote, the first is" in first_wrong(report)["text"]
    project.run("python", "-m", "mlops", "tombstone", md5, "--why", "a withdrawal")
    code, report = verify(project)
    assert (code, report["verdict"]) == (3, "ERASED")
    assert "by Ada Byron <ada@example.org>: a withdrawal" in first_wrong(report)["text"]


def test_verify_a_loss_is_broken_beside_one_that_a_tombstone_explains(project: BakedProject) -> None:
    hashes = sorted({file_md5(project, "data/dataset", split) for split in ("train/", "test/")})
    for path in (path for md5 in hashes for path in copies(project, md5)):
        path.unlink()
    project.run("python", "-m", "mlops", "tombstone", hashes[0], "--why", "a withdrawal")
    code, report = verify(project)
    assert (code, first_wrong(report)["name"], report["verdict"]) == (1, "dataset", "BROKEN")
    assert f"the first is {hashes[1]}" in first_wrong(report)["text"]


def test_verify_a_training_that_the_log_has_no_entry_of_is_broken(project: BakedProject) -> None:
    tip = ""
    for entry in project.run("git", "rev-list", "--first-parent", "--reverse", "lineage").stdout.split():
        message = project.run("git", "show", "-s", "--format=%B", entry).stdout
        parents = project.run("git", "show", "-s", "--format=%P", entry).stdout.split()[1:]
        if not message.startswith("train "):
            options = [option for parent in filter(None, [tip, *parents]) for option in ("-p", parent)]
            tip = project.run("git", "commit-tree", f"{entry}^{{tree}}", *options, "-m", message).stdout.strip()
    project.run("git", "update-ref", "refs/heads/lineage", tip)
    code, report = verify(project)
    assert (code, first_wrong(report)["name"]) == (1, "commit")
    assert "the log has no entry of the training" in first_wrong(report)["text"]
