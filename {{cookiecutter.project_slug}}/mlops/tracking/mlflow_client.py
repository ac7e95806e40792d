"""The MLflow that runs are copied to: a server, or an SQLite file in the repository."""

import contextlib
import logging
import os
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import home, job_file, load_platform
from ..errors import ProjectError, UnavailableError
from ..explain import explain
from .git import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"
RETRY = "see that the server is up (platform.yaml:tracking_uri), then run the same command again"
SAME = "then the same command"
SERVER = "platform.yaml:tracking_uri: null, or a server"
TOOLS = {"mlflow", "sqlalchemy", "sqlite3", "boto3", "botocore"}  # those of requests are errors of the system
REPLY = re.compile(r"API request to .*? failed with error code (\d+) != 200\. Response body: '?(.*?)'?$")


class MlflowError(ProjectError):
    """MLflow can't be reached, or refuses."""


class MlflowAwayError(MlflowError):
    """MLflow can't be reached now, or lacks what can be sent again: no reason not to train."""


def is_reachable() -> bool:
    """Return whether this process can reach MLflow: a job can't see the files of the clone that started it."""
    uri = load_platform().tracking_uri
    return job_file() is None or (uri is not None and is_remote(uri))


def is_remote(uri: str) -> bool:
    """Return whether a tracking URI is that of a server, and not of files of one machine."""
    return uri.startswith(("http://", "https://", "arn:", "databricks"))


def tracking_uri() -> str:
    """Return where MLflow is: `platform.yaml:tracking_uri`, or the SQLite file of the repository (absolute).

    It raises ProjectError for a relative path, which means another file inside `dvc exp run --temp`; for a folder of
    files; where versions would go to another MLflow than runs; and in a job for a file of the clone that started it.
    """
    if not is_reachable():
        fix = "platform.yaml:tracking_uri: an MLflow server; or run this stage where you are: RUN_ON=local dvc repro"
        raise ProjectError("a job can't see mlflow.db of the clone that started it", fix)
    uri = load_platform().tracking_uri or f"{SQLITE}{(home() / DATABASE).as_posix()}"
    if uri.startswith("file:"):
        problem = f"the tracking URI {uri!r} is a folder, and MLflow keeps neither runs nor models in folders any more"
        raise ProjectError(problem, _use(SERVER))
    if (registry := os.environ.get("MLFLOW_REGISTRY_URI", uri)) != uri:
        problem = f"MLFLOW_REGISTRY_URI is {registry}: versions would go there, and their runs to {uri}"
        raise ProjectError(without_credentials(problem), "unset MLFLOW_REGISTRY_URI")
    is_sqlite = uri.startswith(SQLITE)
    if is_sqlite and Path(uri.removeprefix(SQLITE)).is_dir():
        raise ProjectError(f"the tracking URI {uri} is a folder", _use(f"platform.yaml:tracking_uri: {uri}/{DATABASE}"))
    if not uri.startswith("arn:") and ("://" not in uri or (is_sqlite and not Path(uri[len(SQLITE) :]).is_absolute())):
        fix = _use("platform.yaml:tracking_uri: null, or an absolute address")
        raise ProjectError(f"the tracking URI {uri!r} is a relative path", fix)
    return uri


def _use(fix: str) -> str:
    """Return a fix that changes the tracking URI, wherever it is set."""
    return fix if not os.environ.get("MLFLOW_TRACKING_URI") else f"unset MLFLOW_TRACKING_URI, or {fix}"


def command(arguments: str) -> str:
    """Return a command of MLflow's own command line, for this MLflow; an address with a password is not shown."""
    uri = tracking_uri()
    is_secret = without_credentials(uri) != uri
    return f"{'' if is_secret else f'MLFLOW_TRACKING_URI={shlex.quote(uri)} '}mlflow {arguments}"


def deleted_error(experiment: str, experiment_id: str) -> "MlflowError":
    """Return the error of an experiment that a person deleted."""
    problem = f"the MLflow experiment {experiment} was deleted at {without_credentials(tracking_uri())}"
    return MlflowError(problem, command(f"experiments restore --experiment-id {experiment_id}"))


def client() -> "MlflowClient":
    """Connect to MLflow. A new SQLite file gets its tables under a lock: two processes at once would corrupt it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.pop("MLFLOW_ACTIVE_MODEL_ID", None)  # the points of a run would be those of that model too
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

    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")  # a file that can't be used: MLflow would try for two minutes
        connected = mlflow.MlflowClient(uri)
        connected.search_experiments(max_results=1)
    return connected


@contextlib.contextmanager
def translate_errors(fix: str) -> Iterator[None]:
    """Turn the errors of the block, when MLflow can't be reached or refuses, into a MlflowError in words.

    `fix` is what helps when MLflow is away; other errors have their own.
    """
    # No retries inside MLflow: a request whose reply was lost would be done twice. Nor its minutes of waiting.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:
        known, uri = _explain(error, tracking_uri()), without_credentials(tracking_uri())
        is_of_mlflow = bool(TOOLS & {kind.__module__.partition(".")[0] for kind in type(error).__mro__})
        if not (known or is_of_mlflow or isinstance(error, OSError)):
            raise  # of the run's files, say
        known = known or explain(error)
        if known is None:
            raise MlflowError(
                without_credentials(f"MLflow at {uri} failed: {error}"), f"correct that, {SAME}"
            ) from error
        if isinstance(known, UnavailableError):
            raise MlflowAwayError(f"MLflow at {uri} can't be reached: {known.problem}", fix) from error
        problem = REPLY.sub(r"\1 \2", f"MLflow at {uri}: {known.problem}".replace(": MLflow ", " ", 1))
        raise MlflowError(problem, known.fix) from error


def _explain(error: Exception, uri: str) -> ProjectError | None:
    """Return what an error means where MLflow's message, or its address, tells more than `explain` knows."""
    text, file = str(error), Path(uri.removeprefix(SQLITE))
    path, folder = shlex.quote(file.as_posix()), shlex.quote(file.parent.as_posix())
    if revision := re.search(r"found version (\w+), but expected", text):
        return _of_schema(revision[1], uri, path)
    ours = (
        (
            "CERTIFICATE_VERIFY_FAILED",
            "this machine does not trust its certificate",
            f"export MLFLOW_TRACKING_SERVER_CERT_PATH=<the file with your organization's certificate>, {SAME}",
        ),
        (
            "unsupported URI",
            "MLflow has no such kind of address",
            f"{SERVER}; unset MLFLOW_TRACKING_URI",
        ),
        (
            r"^(?!sqlite|http).*\nNo module named '(?P<package>\w+)'",
            "its address needs a package: {text}",
            f"python -m pip install {{package}}, {SAME}",
        ),
        (
            r"(?s)^arn:.*\n.*(\b40[13]\b|PERMISSION_DENIED|UNAUTHENTICATED)",
            "MLflow does not know you: {text}",
            f"aws sts get-caller-identity shows your AWS identity; with the right credentials, {SAME}",
        ),
        (
            r"^sqlite:.*\n.*(readonly|unable to open)",
            "the database can't be written",
            f"chmod u+rw {path} && chmod u+rwx {folder}, {SAME}",
        ),
        (
            r"^sqlite:.*\n.*(malformed|not a database)",
            "the database is damaged",
            f"mv {path} {path}.damaged && python -m mlops mirror repair",
        ),
    )
    for pattern, problem, fix in ours:
        if match := re.search(pattern, f"{uri}\n{text}"):
            package = match.groupdict().get("package", "")
            return ProjectError(problem.replace("{text}", text), fix.replace("{package}", package))
    return None


def _of_schema(revision: str, uri: str, path: str) -> ProjectError:
    """Return the error of a database whose tables another MLflow made."""
    import mlflow

    if list(Path(str(mlflow.__file__)).parent.glob(f"store/db_migrations/versions/{revision}_*.py")):
        fix = f"cp {path} {path}.old && mlflow db upgrade {shlex.quote(uri)}, {SAME}"
        return ProjectError("an older MLflow made its tables", fix)
    fix = f"mv {path} {path}.new && python -m mlops mirror repair; or python -m pip install --upgrade mlflow, {SAME}"
    return ProjectError(f"a newer MLflow than {metadata.version('mlflow')} made its tables", fix)


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
        if experiment.lifecycle_stage == "deleted":
            raise deleted_error(name, experiment.experiment_id)
        return str(experiment.experiment_id)
    # MLflow's own default is ./mlruns: inside a throw-away experiment folder it would be deleted.
    local = tracking_uri().startswith(SQLITE)
    try:
        return str(connected.create_experiment(name, Path(home(), ARTIFACTS).as_uri() if local else None))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(connected, name)  # another run has just created it
