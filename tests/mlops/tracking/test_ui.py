"""MLflow's pages: where they open, and how they end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlops.errors import ProjectError
from mlops.tracking import mlflow_client, ui

BAD = 99999


def test_trainings_are_the_page_with_metrics_and_params(client: MlflowClient) -> None:
    assert ui._trainings(is_local=True) == "", "nothing was trained yet"
    experiment = mlflow_client.experiment_id(client, "demo")
    Path("reports/metrics.json").write_text('{"test_acc": 0.9}', encoding="utf-8")
    Path("params.yaml").write_text("train: {max_lr: 0.1}\ndata: {x: 1}\n", encoding="utf-8")
    page = f"/{experiment}/runs?workflowType=machine_learning"
    assert ui._trainings(is_local=False) == page
    assert ui.VIEW not in client.get_experiment(experiment).tags, "looking at a server changes nothing"
    assert ui._trainings(is_local=True) == f"{page}&viewStateShareKey=trainings"
    columns = json.loads(client.get_experiment(experiment).tags[ui.VIEW])["selectedColumns"]
    assert columns == ["metrics.`test_acc`", "attributes.`Models`", "params.`train.max_lr`"]


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "no-port"])
def test_serve_port_that_cannot_be_used_is_refused(client: MlflowClient, is_taken: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1] if is_taken else BAD
        with pytest.raises(ProjectError, match=f"port {port} can't be used") as error:
            ui.serve(port, browser=False)
        match = re.search(r"python -m mlops ui --port (\d+)$", error.value.fix)
        assert match
        socket.create_server((ui.HOST, int(match[1]))).close()


@pytest.mark.slow
def test_serve_prints_the_address_alone_and_ends_with_ctrl_c(client: MlflowClient) -> None:
    mlflow_client.experiment_id(client, "demo")
    Path("params.yaml").write_text("train: {max_lr: 0.1}\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlops", "ui", "--port", str(port), "--no-browser"]
    with (
        Path("out").open("wb") as out,
        Path("errors").open("wb") as errors,
        subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True) as process,
    ):
        until_up(port, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(30) == 0
    printed = Path("out").read_text(encoding="utf-8").splitlines()
    assert len(printed) == 1
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning" in printed[0]
    lines = Path("errors").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "Security middleware enabled" not in line] == []


def until_up(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < end
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
