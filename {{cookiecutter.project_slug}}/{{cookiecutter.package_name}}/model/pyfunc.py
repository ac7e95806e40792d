"""The model as MLflow keeps it: weights as data, the code that reads them beside it, no pickle.

MLflow imports `_load_pyfunc` from the code that was logged. That code stands under a name made of its own digest
(imports in it are relative), so that a model always runs the code that it was logged with: in a process that knows
nothing of this project, inside the project years later, and beside another version of itself.
"""

import base64
import hashlib
import io
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .predictor import MODEL_DATA, Predictor

if TYPE_CHECKING:
    import pandas
    from mlflow.models.model import ModelInfo

CARRIED = ("__init__.py", "errors.py", "files.py", "images.py", "model")
REQUIREMENTS = ("mlflow", "numpy", "pillow", "pydantic", "safetensors", "torch", "torchvision", "tqdm")


def log(run_id: str, directory: Path) -> "ModelInfo":
    """Log a model directory to an existing MLflow run, with the tracking URI that is set.

    Returns:
        What MLflow says of it: `model_uri`, `model_id`.

    Raises:
        ProjectError: The model directory is incomplete or damaged.
    """
    import mlflow
    import pandas
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    px = Predictor.load(directory).card.image_px  # a damaged model is not passed on
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)  # mlflow.start_run would give a finished run a new status and end
    model = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    example = pandas.DataFrame({"image": [_black(px)]})
    outputs = Schema([ColSpec("string", "label"), ColSpec("double", "score")])
    with tempfile.TemporaryDirectory() as folder:
        code = _carry_code(Path(folder))
        data = shutil.copytree(directory, Path(folder, MODEL_DATA))  # whole, also where DVC put links
        info: ModelInfo = Model.log(
            None,
            mlflow.pyfunc,
            run_id=run_id,
            model_id=model.model_id,
            loader_module=f"{code.name}.model.pyfunc",
            data_path=str(data),
            code_paths=[str(code)],
            input_example=example,  # MLflow tries it: the code that goes with the model has run once
            signature=ModelSignature(Schema([ColSpec("binary", "image")]), outputs),
            pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS],
        )
    return info


class ImageModel:
    """What MLflow calls: a column `image` of encoded images (or their base64) in, `label` and `score` out."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, data: "pandas.DataFrame") -> "pandas.DataFrame":
        """Predict one row for each row of `data`."""
        import pandas

        images = [base64.b64decode(image) if isinstance(image, str) else image for image in data["image"]]
        return pandas.DataFrame(self.predictor.predict(images), columns=["label", "score"], index=data.index)


def _load_pyfunc(data_path: str) -> ImageModel:
    return ImageModel(Predictor.load(Path(data_path)))


def _black(image_px: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (image_px, image_px)).save(file, "PNG")
    return file.getvalue()


def _carry_code(folder: Path) -> Path:
    """Copy what `Predictor` needs of this package below `folder`, and return the copy."""
    package = Path(__file__).parent.parent
    copy = folder / "code"
    copy.mkdir()
    for name in CARRIED:
        if (package / name).is_dir():
            shutil.copytree(package / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(package / name, copy / name)
    digest = hashlib.sha256()
    for path in sorted(copy.rglob("*.py")):
        digest.update(f"{path.relative_to(copy).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return copy.rename(folder / f"model_code_{digest.hexdigest()[:12]}")
