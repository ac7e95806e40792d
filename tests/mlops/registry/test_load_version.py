"""A registered version by its address: what is wrong with it, and what helps."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlops.errors import ProjectError
from mlops.registry.versions import load_version
from mlops.tracking import lineage_log

from .conftest import MODEL


@pytest.mark.parametrize("uri", [f"models:/{MODEL}@champion", f"models:/{MODEL}", MODEL])
def test_load_version_without_a_number_is_refused(client: MlflowClient, uri: str) -> None:
    with pytest.raises(ProjectError, match="names no exact version\nFix: models:/<name>/<number>"):
        load_version(uri)


def test_load_version_that_mlflow_lacks_says_what_has_it(client: MlflowClient, head: str) -> None:
    with pytest.raises(ProjectError, match=f"has no models:/{MODEL}/9\nFix: models:/<name>/<number>, as `registry"):
        load_version(f"models:/{MODEL}/9")
    lineage_log.tag(f"{MODEL}@v9.0.0", head, "lost by MLflow")
    with pytest.raises(ProjectError, match=f"has no models:/{MODEL}/9\nFix: python -m mlops mirror repair"):
        load_version(f"models:/{MODEL}/9")


def test_load_version_whose_files_are_gone_says_what_makes_them_again(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    client.create_model_version(MODEL, (tmp_path / "empty").as_uri())
    with pytest.raises(ProjectError, match=f"has models:/{MODEL}/4, but its files are gone\nFix: mv .* && .* repair"):
        load_version(f"models:/{MODEL}/4")


def test_load_version_that_no_stage_made_is_refused(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "model/data/model").mkdir(parents=True)
    (tmp_path / "model/data/model/weights").write_text("w", encoding="utf-8")
    client.create_model_version(MODEL, (tmp_path / "model").as_uri())
    with pytest.raises(ProjectError, match="which run made it, .*\nFix: take a version that a `register` stage made"):
        load_version(f"models:/{MODEL}/4")
