"""What MLflow calls of a registered model. It travels with the model, beside the team's `interface`."""

import base64
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


class ContentModel:
    """Takes a column `image` of contents, or of their base64; returns a row of predictions for each."""

    def __init__(self, interface: Any, model: Any) -> None:
        self.interface, self.model = interface, model

    def predict(self, data: "pandas.DataFrame") -> "pandas.DataFrame":
        """Predict one row for each row of `data`."""
        import pandas

        contents = [base64.b64decode(content) if isinstance(content, str) else content for content in data["image"]]
        return pandas.DataFrame(self.interface.predict(self.model, contents), index=data.index)


def _load_pyfunc(data_path: str) -> ContentModel:
    interface = importlib.import_module(".interface", __package__)
    return ContentModel(interface, interface.load(Path(data_path)))
