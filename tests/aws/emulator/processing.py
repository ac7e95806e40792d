"""Processing jobs.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

import json
import signal
from typing import Any

from .errors import JobError, not_emulated
from .history import REASON_CHARACTERS
from .jobs import Job

HOST = "algo-1"


class ProcessingJob(Job):
    """A processing job."""

    noun = "ProcessingJob"
    log_group = "/aws/sagemaker/ProcessingJobs"
    stop_signal = signal.SIGINT  # the guide names SIGINT and SIGKILL
    _exit_message = ""

    @property
    def _inputs(self) -> list[dict[str, Any]]:
        return list(self.request.get("ProcessingInputs", []))

    @property
    def _outputs(self) -> list[dict[str, Any]]:
        return list(self.request.get("ProcessingOutputConfig", {}).get("Outputs", []))

    @property
    def _machines(self) -> dict[str, Any]:
        machines: dict[str, Any] = self.request["ProcessingResources"]["ClusterConfig"]
        return machines

    def check(self) -> None:
        """Refuse what only SageMaker can."""
        if "InstanceType" not in self._machines:
            raise not_emulated("a job without ClusterConfig.InstanceType")
        if self._machines.get("InstanceCount", 1) != 1:
            raise not_emulated("several instances")
        if "ContainerEntrypoint" not in self.request["AppSpecification"]:
            raise not_emulated("a job without ContainerEntrypoint: here is no image that has one")
        for entry in self._inputs:
            source = entry.get("S3Input", {})
            if source.get("S3DataType") != "S3Prefix" or source.get("S3InputMode", "File") != "File":
                raise not_emulated(f"input {entry['InputName']}: anything but files of an S3Prefix")
            self.inside(source["LocalPath"])
        for entry in self._outputs:
            if entry.get("S3Output", {}).get("S3UploadMode") != "EndOfJob":
                raise not_emulated(f"output {entry['OutputName']}: anything but files to S3 at the end of the job")
            self.inside(entry["S3Output"]["LocalPath"])

    def prepare(self) -> None:
        """Fill its `/opt/ml`: inputs, folders of outputs, what describes the job."""
        for entry in self._inputs:
            self._transfer.fetch_input(entry["S3Input"]["S3Uri"], self.inside(entry["S3Input"]["LocalPath"]))
        for entry in self._outputs:
            self.inside(entry["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        (self.ml / "config").mkdir(exist_ok=True)
        resources = {"current_host": HOST, "hosts": [HOST]}
        description = {"ProcessingJobArn": self.arn, **self.request}
        for name, content in {"resourceconfig.json": resources, "processingjobconfig.json": description}.items():
            (self.ml / "config" / name).write_text(json.dumps(content), encoding="utf-8")

    def sync(self) -> None:
        """Do nothing: all is brought at the end."""

    def upload(self, well: bool) -> None:
        """Bring outputs to S3."""
        try:
            self._exit_message = self.wrote("message").decode()[:REASON_CHARACTERS]
        except UnicodeDecodeError as error:
            raise JobError("ClientError: /opt/ml/output/message is not UTF-8") from error
        for output in self._outputs:
            self._transfer.put_folder(self.inside(output["S3Output"]["LocalPath"]), output["S3Output"]["S3Uri"])

    def _described(self) -> dict[str, Any]:
        return {
            "ProcessingStartTime": self.history.started,
            "ProcessingEndTime": self.history.ended,
            "ExitMessage": self._exit_message or None,
        }

    def image_uri(self) -> str:
        """Return the address of its image."""
        return str(self.request["AppSpecification"]["ImageUri"])

    def is_cut_off(self) -> bool:
        """Return whether it is to have no network."""
        return bool(self.request.get("NetworkConfig", {}).get("EnableNetworkIsolation"))

    def command(self) -> list[str]:
        """Return what its container runs."""
        specification = self.request["AppSpecification"]
        return [*specification["ContainerEntrypoint"], *specification.get("ContainerArguments", [])]

    def variables(self) -> dict[str, str]:
        """Return the variables that this kind has more."""
        return {"PROCESSING_JOB_ARN": self.arn}
