"""Log a model directory to MLflow: weights as data, the code that reads them beside it, no pickle.

MLflow imports `_load_pyfunc` from the code that was logged. That code stands under a name made of its own digest
(imports in it are relative), so that a model always runs the code that it was logged with: in a process that has
nothing of this project, inside the project years later, and beside another version of itself.
"""

import hashlib
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..contract import interface, load_model, package_name, predict_frame

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

MODEL_DATA = "data/model"  # where the model directory is inside an MLflow model


def log_model(run_id: str, directory: Path) -> "ModelInfo":
    """Log a model directory to an existing MLflow run, with the tracking URI that is set.

    Returns:
        What MLflow says of it: `model_uri`, `model_id`.

    Raises:
        ProjectError: The model directory is incomplete or damaged.
    """
    import mlflow
    import pandas
    from mlflow.models import Model, infer_signature

    model = load_model(directory)  # a damaged model is not passed on
    example = interface().example(model)
    frame = pandas.DataFrame({"image": [example]})
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)  # mlflow.start_run would give a finished run a new status and end
    logged = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    with tempfile.TemporaryDirectory() as folder:
        code = _copy_code(Path(folder))
        data = shutil.copytree(directory, Path(folder, MODEL_DATA))  # whole, also where DVC put links
        info: ModelInfo = Model.log(
            None,
            mlflow.pyfunc,
            run_id=run_id,
            model_id=logged.model_id,
            loader_module=f"{code.name}.interface",
            data_path=str(data),
            code_paths=[str(code)],
            input_example=frame,  # MLflow tries it: the code that goes with the model has run once
            signature=infer_signature(frame, predict_frame(model, [example])),
            pip_requirements=[f"{name}=={_public_version(name)}" for name in interface().REQUIREMENTS],
        )
    return info


def _public_version(name: str) -> str:
    return metadata.version(name).partition("+")[0]


def _copy_code(folder: Path) -> Path:
    """Copy what travels with a model of the team's package below `folder`, and return the copy."""
    package, copy = Path(package_name()), folder / "code"
    copy.mkdir()
    for name in interface().TRAVELS:
        if (package / name).is_dir():
            shutil.copytree(package / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(package / name, copy / name)
    digest = hashlib.sha256()
    for path in sorted(copy.rglob("*.py")):
        digest.update(f"{path.relative_to(copy).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return copy.rename(folder / f"model_code_{digest.hexdigest()[:12]}")
