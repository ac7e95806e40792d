"""MLflow's pages in a browser, on the trainings of this project: `python -m mlops ui`."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from pathlib import Path

from ..config import load_platform, read_params
from ..errors import ProjectError
from ..files import read_json
from ..pipeline import METRICS_REPORT
from . import mlflow_client
from .git import without_credentials

HOST = "127.0.0.1"
METRICS = Path(METRICS_REPORT)
VIEW = "mlflow.sharedViewState.trainings"  # the tag of an experiment that holds a view of its runs
# MLflow and its server print pages of no use here; the jobs that it would start serve features of no use here.
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "PYTHONWARNINGS": "ignore",
}


def serve(port: int, browser: bool) -> int:
    """Serve the pages of the local store until Ctrl-C, or show those of the server; return the exit code.

    Args:
        port: Of this machine, for the local store.
        browser: Whether to open the page too, where there is a screen.

    Raises:
        ProjectError: The port is taken, or MLflow can't be reached.
    """
    uri = mlflow_client.tracking_uri()
    is_local = uri.startswith(mlflow_client.SQLITE)
    page = f"/#/experiments{_trainings(is_local)}"
    if not is_local:
        is_web = uri.startswith(("http://", "https://"))
        address = without_credentials(uri).rstrip("/") + (page if is_web else "")
        print(f"MLflow runs at {address}")
        if is_web and browser:
            _open(address)
        return 0
    try:
        socket.create_server((HOST, port)).close()
    except (OSError, OverflowError) as error:
        with socket.create_server((HOST, 0)) as free:
            other = free.getsockname()[1]
        fix = f"if that is this page already, use it; else another port: python -m mlops ui --port {other}"
        raise ProjectError(f"port {port} can't be used: {error}", fix) from error
    address = f"http://{HOST}:{port}{page}"
    print(f"MLflow starts, in some seconds, at {address}  (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning --lifespan off"]  # one starts sooner
    with subprocess.Popen(command, env={**os.environ, **QUIET}, stdout=subprocess.DEVNULL) as process:
        if browser:
            threading.Thread(target=_open_when_up, args=(address, port, process), daemon=True).start()
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal sends it to the server too
            process.wait()
            return 0


def _trainings(is_local: bool) -> str:
    """Return the part of the address that leads to the project's runs; "" before the first one.

    Of itself, MLflow shows its pages for language models, and runs without metrics and params. Which of these to show
    is stored in the experiment, on this machine only: on a server, looking must not change anything.
    """
    with mlflow_client.translate_errors("see that the server is up (platform.yaml:tracking_uri)"):
        client = mlflow_client.client()
        experiment = client.get_experiment_by_name(load_platform().project)
        if experiment is None:
            return ""
        page = f"/{experiment.experiment_id}/runs?workflowType=machine_learning"
        if not is_local:
            return page
        metrics = [f"metrics.`{name}`" for name in (read_json(METRICS) if METRICS.exists() else ())]
        params = [f"params.`train.{name}`" for name in read_params().get("train", {})]
        view = json.dumps({"selectedColumns": [*metrics, "attributes.`Models`", *params]})
        if experiment.tags.get(VIEW) != view:
            client.set_experiment_tag(experiment.experiment_id, VIEW, view)
    return f"{page}&viewStateShareKey={VIEW.rpartition('.')[2]}"


def _open_when_up(address: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return _open(address)


def _open(address: str) -> None:
    """Open an address where there is a screen: a browser of the terminal could not show these pages."""
    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
