"""What tests of several folders of `mlops` need: they import it where it lies, in the template.

The team's package, whose folder has a name that cookiecutter renders, is `team` here.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

SKELETON = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"


def _import_team() -> None:
    folder = SKELETON / "{{cookiecutter.package_name}}"
    spec = importlib.util.spec_from_file_location(
        "team", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["team"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["team"])


sys.path.append(str(SKELETON))
_import_team()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{path.as_posix()}").search_experiments()
    return path
