"""`make aws-sandbox`: what it prints is right, and Ctrl-C leaves nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from ..conftest import TEMPLATE
from ..servers.mlflow import PATIENCE_S, until


@pytest.mark.slow
def test_sandbox_tells_how_to_find_it_and_ctrl_c_ends_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    printed = tmp_path / "told"
    with printed.open("wb") as file:
        command = [sys.executable, "-m", "tests.aws"]
        sandbox = subprocess.Popen(command, cwd=TEMPLATE, stdout=file, stderr=file, start_new_session=True)
    try:
        until(lambda: sandbox.poll() is not None or "RUN_ON=sagemaker dvc repro" in printed.read_text())
        text = printed.read_text(encoding="utf-8")
        assert sandbox.poll() is None, text
        for name, value in re.findall(r"export (\S+?)=(\S+)", text):
            monkeypatch.setenv(name, value)
        (bucket,) = set(re.findall(r"s3://(\w+)/my-project", text))
        boto3.client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
        sagemaker = boto3.client("sagemaker")
        (app,) = re.findall(r"tracking_uri: (\S+)", text)
        assert sagemaker.describe_mlflow_app(Arn=app)["Status"] == "Created"
        assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    finally:
        os.killpg(sandbox.pid, signal.SIGINT)  # as a terminal does
    assert sandbox.wait(PATIENCE_S) == 0, printed.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [printed]
