"""The two kinds of jobs: their folders, inputs and results.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html and
build-your-own-processing-container.html
"""

import json
from typing import Any

from . import buckets
from .jobs import Job, text


class Training(Job):
    """A training."""

    noun, path, group = "TrainingJob", "training-job", "/aws/sagemaker/TrainingJobs"

    def image(self) -> str:
        """Return the image that is asked for."""
        return str(self.request["AlgorithmSpecification"]["TrainingImage"])

    def command(self) -> list[str]:
        """Return the command of the container."""
        told = self.request["AlgorithmSpecification"]
        return [*told.get("ContainerEntrypoint", ["train"]), *told.get("ContainerArguments", [])]

    def bring(self) -> None:
        """Make its folders, and bring channels and checkpoints."""
        for name in ("input/config", "model", "output/data"):
            (self.ml / name).mkdir(parents=True)
        for channel in self.request.get("InputDataConfig", []):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            buckets.fetch(self.service.s3, uri, self.ml / "input/data" / channel["ChannelName"])
        machine = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
        machine["current_instance_type"] = self.request["ResourceConfig"]["InstanceType"]
        (self.ml / "input/config/resourceconfig.json").write_text(json.dumps(machine), encoding="utf-8")
        (self.ml / "input/config/hyperparameters.json").write_text("{}", encoding="utf-8")
        if "CheckpointConfig" in self.request:
            self.inside(self.request["CheckpointConfig"]["LocalPath"]).mkdir(parents=True)
            try:
                uri = self.request["CheckpointConfig"]["S3Uri"].rstrip("/") + "/"
                buckets.fetch(self.service.s3, uri, self.inside(self.request["CheckpointConfig"]["LocalPath"]))
            except buckets.Missing:
                pass  # the first start

    def sync(self) -> None:
        """Bring checkpoints to S3."""
        config = self.request.get("CheckpointConfig")
        if config:
            buckets.put_folder(self.service.s3, self.inside(config["LocalPath"]), config["S3Uri"])

    def take(self) -> None:
        """Bring its output and its model to S3, each as one file."""
        place = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        for folder, name in ((self.ml / "output/data", "output.tar.gz"), (self.ml / "model", "model.tar.gz")):
            if any(folder.iterdir()):
                buckets.put_tar(self.service.s3, folder, f"{place}/{name}")

    def failure(self) -> str:
        """Return what it wrote as its reason."""
        return text(self.ml / "output/failure")

    def told(self) -> dict[str, Any]:
        """Return what only trainings tell."""
        seconds = round(self.ended - self.started) if self.started and self.ended else None
        return {
            "SecondaryStatus": self.phase,
            "SecondaryStatusTransitions": self.transitions,
            "TrainingStartTime": self.started or None,
            "TrainingEndTime": self.ended or None,
            "TrainingTimeInSeconds": seconds,
            "BillableTimeInSeconds": seconds,
            "ModelArtifacts": {"S3ModelArtifacts": ""},
        }


class Processing(Job):
    """A processing."""

    noun, path, group = "ProcessingJob", "processing-job", "/aws/sagemaker/ProcessingJobs"

    def image(self) -> str:
        """Return the image that is asked for."""
        return str(self.request["AppSpecification"]["ImageUri"])

    def command(self) -> list[str]:
        """Return the command of the container."""
        told = self.request["AppSpecification"]
        return [*told.get("ContainerEntrypoint", []), *told.get("ContainerArguments", [])]

    def bring(self) -> None:
        """Make its folders, and bring its inputs."""
        for name in ("config", "output", "processing"):
            (self.ml / name).mkdir(parents=True)
        for one in self.request.get("ProcessingInputs", []):
            buckets.fetch(self.service.s3, one["S3Input"]["S3Uri"], self.inside(one["S3Input"]["LocalPath"]))
        for one in self._outputs():
            self.inside(one["LocalPath"]).mkdir(parents=True, exist_ok=True)
        machine = {"current_host": "algo-1", "hosts": ["algo-1"]}
        (self.ml / "config/resourceconfig.json").write_text(json.dumps(machine), encoding="utf-8")

    def _outputs(self) -> list[dict[str, str]]:
        return [one["S3Output"] for one in self.request.get("ProcessingOutputConfig", {}).get("Outputs", [])]

    def sync(self) -> None:
        """Do nothing: it has no checkpoints."""

    def take(self) -> None:
        """Bring its outputs to S3, and read its message."""
        self.message = text(self.ml / "output/message")[:1024]
        for one in self._outputs():
            buckets.put_folder(self.service.s3, self.inside(one["LocalPath"]), one["S3Uri"])

    def failure(self) -> str:
        """Return what it wrote as its reason."""
        return self.message

    def told(self) -> dict[str, Any]:
        """Return what only processings tell."""
        return {
            "ProcessingStartTime": self.started or None,
            "ProcessingEndTime": self.ended or None,
            "ExitMessage": self.message,
        }
