"""What `mlops` calls of this package: a registered model predicts elsewhere, with its own code and no pickle."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlops.registry.versions import MODEL_DATA, log_model

from {{ cookiecutter.package_name }}.images import encode_png
from {{ cookiecutter.package_name }}.model.networks import build
from {{ cookiecutter.package_name }}.model.predictor import ModelConfig, Predictor, save

CONFIG = ModelConfig(arch="small_cnn", classes=("no", "yes"), image_px=8, channels=1, mean=(0.5,), std=(0.25,))
IMAGE = encode_png(np.full((8, 8), 200, dtype="uint8"))
LOAD = """
import base64, json, pathlib, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
image = pathlib.Path(sys.argv[2]).read_bytes()
rows = [model.predict(pandas.DataFrame({"image": [kind]})) for kind in (image, base64.b64encode(image).decode())]
print(json.dumps([row.to_dict("records")[0] for row in rows]))
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[mlflow.MlflowClient]:
    mlflow.set_tracking_uri(f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_log_then_load_in_another_process_predicts_the_same(tmp_path: Path, client: mlflow.MlflowClient) -> None:
    run = client.create_run(client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri()))
    client.set_terminated(run.info.run_id, "FINISHED", end_time=1)
    save(tmp_path / "m", build("small_cnn", 2, None), CONFIG)

    model_id = log_model(run.info.run_id, tmp_path / "m")

    assert client.get_run(run.info.run_id).info.end_time == 1  # a finished run stays as it was
    model = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=str(tmp_path / "got")))
    assert Predictor.load(model / MODEL_DATA).config == CONFIG
    assert not list(model.rglob("*.pkl"))
    (tmp_path / "image.png").write_bytes(IMAGE)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(model), str(tmp_path / "image.png")],
        cwd=tmp_path,  # where this project's package is not
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
    )
    assert loaded.returncode == 0, loaded.stderr
    (expected,) = Predictor.load(tmp_path / "m").predict([IMAGE])
    assert json.loads(loaded.stdout.splitlines()[-1]) == [pytest.approx(expected)] * 2
