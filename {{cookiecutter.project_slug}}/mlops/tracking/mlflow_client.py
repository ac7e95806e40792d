"""The MLflow that runs are copied to: a server, or an SQLite file in the repository."""

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import home, job_file, load_platform
from ..errors import ProjectError
from .git import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"
RETRY = "see that the server is up (platform.yaml:tracking_uri), then run the same command again"


class MlflowError(ProjectError):
    """MLflow can't be reached, or refuses."""


def is_reachable() -> bool:
    """Return whether this process can reach MLflow: a job can't see the files of the clone that started it."""
    uri = load_platform().tracking_uri
    return job_file() is None or (uri is not None and is_remote(uri))


def is_remote(uri: str) -> bool:
    """Return whether a tracking URI is that of a server, and not of files of one machine."""
    return uri.startswith(("http://", "https://", "arn:", "databricks"))


def tracking_uri() -> str:
    """Return where MLflow is: `platform.yaml:tracking_uri`, or the SQLite file of the repository (absolute).

    It raises ProjectError for a relative path, which means another file inside `dvc exp run --temp`, and in a job for a
    file of the clone that started it.
    """
    if not is_reachable():
        fix = "platform.yaml:tracking_uri: an MLflow server; or run this stage where you are: RUN_ON=local dvc repro"
        raise ProjectError("a job can't see mlflow.db of the clone that started it", fix)
    uri = load_platform().tracking_uri
    if not uri:
        return f"{SQLITE}{(home() / DATABASE).as_posix()}"
    is_sqlite = uri.startswith(SQLITE)
    if not uri.startswith("arn:") and ("://" not in uri or (is_sqlite and not Path(uri[len(SQLITE) :]).is_absolute())):
        fix = "platform.yaml:tracking_uri: null, or an absolute address"
        raise ProjectError(f"the tracking URI {uri!r} is a relative path", fix)
    return uri


def client() -> "MlflowClient":
    """Connect to MLflow. A new SQLite file gets its tables under a lock: two processes at once would corrupt it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    uri = tracking_uri()
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it logs each table
    if not uri.startswith("arn:"):
        # The plugin sagemaker-mlflow adds a header to each request, lacks the ARN for it, and MLflow logs that.
        logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    if not uri.startswith(SQLITE):
        return mlflow.MlflowClient(uri)
    from filelock import FileLock

    with FileLock(f"{uri.removeprefix(SQLITE)}.lock"):
        connected = mlflow.MlflowClient(uri)
        connected.search_experiments(max_results=1)
    return connected


@contextlib.contextmanager
def translate_errors(fix: str) -> Iterator[None]:
    """Turn the errors of the block, when MLflow can't be reached or refuses, into a MlflowError with that fix."""
    # No retries inside MLflow: a request whose reply was lost would be done twice. Nor its minutes of waiting.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:
        from boto3.exceptions import Boto3Error  # only now: boto3 takes 0.15 s
        from botocore.exceptions import BotoCoreError, ClientError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        expected = (MlflowException, OSError, sqlite3.Error, SQLAlchemyError, Boto3Error, BotoCoreError, ClientError)
        if not isinstance(error, expected):
            raise
        uri, problem = tracking_uri(), str(error)
        if re.search(r"\b40[13]\b|UNAUTHENTICATED|PERMISSION_DENIED|SignatureDoesNotMatch", problem):
            login = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, then"
            if uri.startswith("arn:"):
                login = "aws sts get-caller-identity shows your AWS identity; with the right credentials"
            fix = f"{login}: {fix}"
        raise MlflowError(without_credentials(f"MLflow at {uri} failed: {problem}"), fix) from error


def pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Yield the results of all pages of a search of MLflow's; `search` takes `page_token` and returns a page."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        if not (token := page.token):
            return


def experiment_id(connected: "MlflowClient", name: str) -> str:
    """Return the id of an MLflow experiment, which is created where it does not exist."""
    from mlflow.exceptions import MlflowException

    if experiment := connected.get_experiment_by_name(name):
        return str(experiment.experiment_id)
    # MLflow's own default is ./mlruns: inside a throw-away experiment folder it would be deleted.
    local = tracking_uri().startswith(SQLITE)
    try:
        return str(connected.create_experiment(name, Path(home(), ARTIFACTS).as_uri() if local else None))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(connected, name)  # another run has just created it
