"""A project whose path has any characters, in a shell with any locale: what works elsewhere works there."""

import shutil
from pathlib import Path

import pytest

from ..conftest import BakedProject
from ..projects import clone, commit, edit, executed, lock, out_md5


@pytest.mark.slow
def test_pipeline_in_a_path_that_is_not_ascii(
    reproduced: BakedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    made = BakedProject(tmp_path / "Übung 数据" / reproduced.path.name, reproduced.package)
    shutil.copytree(reproduced.path, made.path, symlinks=True)
    made.run("git", "config", "user.name", "Test")
    made.run("git", "config", "user.email", "test@example.org")
    local = made.path / ".dvc/config.local"
    local.write_bytes(b"")  # what DVC leaves of it when it can't write a path
    (made.path / "Notiz ü.md").write_text("1", encoding="utf-8")
    output = made.run("python", "-m", "mlops", "setup").stdout
    assert f"DVC remote: {made.path / 'dvc-storage'}" in output
    assert "dvc exp run --temp and --queue fail in this clone" in output
    head = commit(made, "First results")

    edit(made, "params.yaml", "epochs: 15", "epochs: 2")
    (made.path / "Notiz ü.md").write_text("2", encoding="utf-8")
    monkeypatch.setenv("RUN_ON", "sandbox")
    assert executed(made.run("dvc", "repro", "train").stdout) == ["train"]
    monkeypatch.delenv("RUN_ON")
    assert "Notiz ü.md" in made.run("python", "-m", "mlops", "optout", "--dry-run", "form-03").stdout
    bare = tmp_path / "étoile.git"
    made.run("git", "init", "--quiet", "--bare", str(bare))
    made.run("git", "remote", "add", "origin", str(bare))
    made.run("python", "-m", "mlops", "lineage", "push")

    restored = clone(made, tmp_path / "Größe" / "klon", head)
    assert out_md5(lock(restored), "models/model") == out_md5(lock(reproduced), "models/model")
    assert restored.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
