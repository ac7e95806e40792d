"""Ask MLflow, before the work, whether it can take a run and register a version.

An MLflow that is away stops no training: what the run writes is sent later. One that answers and can't be used would
show that only in `register`, when the epochs are spent. MLflow's package, which takes long to import, is not needed.
"""

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import home, load_platform
from . import mlflow_client, mlflow_reader
from .git import try_git, without_credentials
from .mlflow_client import SAME, SQLITE, MlflowAwayError, MlflowError
from .mlflow_reader import API, ClientReader, RestReader, SqliteReader, StoredExperiment

if TYPE_CHECKING:
    from requests import Response

TIMEOUT_S = 5
WANTED = "3.0"  # the first with logged models, which registered versions are made of
LATER = f"see that the server is up (platform.yaml:tracking_uri), {SAME}"
DATABASES = ("postgresql", "mysql", "mssql")
BUSY = (408, 429)  # and from 500 on: what is behind the address is away


def check_usable() -> None:
    """Check that MLflow can take this project's runs and versions.

    The databases of `DATABASES` are not asked: MLflow would try one that is away for minutes.

    Raises:
        MlflowAwayError: It does not answer, or lacks what Git knows and `mirror repair` sends: no reason not to train.
        ProjectError: It can't be used: it is no MLflow, or too old, can't be written, refuses the login, or a person
            deleted the project's experiment.
    """
    uri, project = mlflow_client.tracking_uri(), load_platform().project
    shown = without_credentials(uri)
    with mlflow_client.translate_errors(LATER):
        if uri.startswith(SQLITE):
            experiment = _ask_database(Path(uri.removeprefix(SQLITE)), project)
        elif mlflow_client.is_remote(uri) and not isinstance(reader := mlflow_reader.connect(), SqliteReader):
            experiment = _ask_server(reader, shown, project)
        else:
            if not uri.startswith(DATABASES):
                mlflow_client.client()
            return
    if experiment and experiment.deleted:
        raise mlflow_client.deleted_error(project, experiment.id)
    tags = (try_git("tag", "--list", f"*{project}@v*", where=home()) or "").split()
    if tags and not experiment:
        problem = f"MLflow at {shown} has no experiment {project}, though Git knows {', '.join(tags[:5])}"
        raise MlflowAwayError(problem, "python -m mlops mirror repair")


def _ask_database(path: Path, project: str) -> StoredExperiment | None:
    """Return the project's experiment in an SQLite file; an error of SQLite or MLflow says why it can't be written."""
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(path, TIMEOUT_S, isolation_level=None)) as database:
        (number,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"PRAGMA user_version = {number}")  # a write that changes nothing, and is taken back
        database.execute("ROLLBACK")
    if SqliteReader(path).schema() != mlflow_reader.SCHEMA:
        mlflow_client.client()  # makes the tables, or refuses those of another MLflow
    return next((each for each in SqliteReader(path).experiments() if each.name == project), None)


def _ask_server(reader: RestReader | ClientReader, shown: str, project: str) -> StoredExperiment | None:
    """Return the project's experiment; raise MlflowError if there is no MLflow with logged models at the address."""
    response, experiment = (
        _ask(reader, shown, "GET", f"{API}experiments/get-by-name", {"experiment_name": project}),
        None,
    )
    if response.status_code != 404 or not _is_about_a_name(response):
        if "json" not in response.headers.get("Content-Type", "") and response.status_code in (200, 404):
            fix = "platform.yaml:tracking_uri: the address of MLflow's pages in a browser, without what is after #"
            raise MlflowError(f"what answers at {shown} is no MLflow", fix)
        fields = mlflow_reader.content_of(response)["experiment"]
        experiment = StoredExperiment(fields["experiment_id"], project, fields["lifecycle_stage"] == "deleted")
    fields = {"experiment_ids": [experiment.id if experiment else "0"], "max_results": 1}
    response = _ask(reader, shown, "POST", f"{API}logged-models/search", fields)
    if response.status_code == 404 and not _is_about_a_name(response):
        version = _ask(reader, shown, "GET", "/version", {}).text.strip()
        version = version if re.fullmatch(r"\d[\w.]*", version) else "too old"
        fix = f"on the server: pip install 'mlflow>={WANTED}', mlflow db upgrade <its database>, and start it again"
        raise MlflowError(f"MLflow at {shown} is {version}, and registering a model takes {WANTED} or later", fix)
    mlflow_reader.content_of(response)
    return experiment


def _ask(reader: RestReader | ClientReader, shown: str, method: str, path: str, fields: dict[str, Any]) -> "Response":
    """Return what a server answers; raise MlflowAwayError if it does not, for whatever reason."""
    try:
        with mlflow_client.translate_errors(LATER):
            response = reader.request(method, path, fields, TIMEOUT_S)
    except MlflowError as error:
        raise MlflowAwayError(error.problem, error.fix) from error
    if response.status_code in BUSY or response.status_code >= 500:
        raise MlflowAwayError(f"MLflow at {shown} answers {response.status_code} {response.reason}", LATER)
    return response


def _is_about_a_name(response: "Response") -> bool:
    """Return whether a server says that something has no such name, and not that it has no such page."""
    return "RESOURCE_DOES_NOT_EXIST" in response.text
