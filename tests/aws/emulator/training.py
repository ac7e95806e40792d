"""Training jobs.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html
"""

import json
import math
import signal
import time
from typing import Any

from .errors import not_emulated
from .jobs import Job
from .run import Outcome

SPOT_PRICE = 0.3  # of the full one; AWS's savings are 1 - BillableTimeInSeconds / TrainingTimeInSeconds
FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "code")
HOST = "algo-1"
GROUP = "homogeneousCluster"


class TrainingJob(Job):
    """A training job."""

    noun = "TrainingJob"
    log_group = "/aws/sagemaker/TrainingJobs"
    stop_signal = signal.SIGTERM
    _model_uri = ""

    @property
    def _machines(self) -> dict[str, Any]:
        machines: dict[str, Any] = self.request["ResourceConfig"]
        return machines

    @property
    def _is_spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))

    def check(self) -> None:
        """Refuse what only SageMaker can."""
        if "TrainingImage" not in self.request.get("AlgorithmSpecification", {}):
            raise not_emulated("a training without AlgorithmSpecification.TrainingImage")
        if "InstanceType" not in self.request.get("ResourceConfig", {}):
            raise not_emulated("a training without ResourceConfig.InstanceType")
        if self._machines.get("InstanceCount") != 1:
            raise not_emulated("several instances")
        if "ContainerEntrypoint" not in self.request["AlgorithmSpecification"]:
            raise not_emulated("a training without ContainerEntrypoint: here is no image that has one")
        for channel in self.request.get("InputDataConfig", []):
            if channel["DataSource"].get("S3DataSource", {}).get("S3DataType") != "S3Prefix":
                raise not_emulated(f"channel {channel['ChannelName']}: another source than an S3Prefix")
            mode = channel.get("InputMode", self.request["AlgorithmSpecification"]["TrainingInputMode"])
            if mode != "File" or channel.get("CompressionType", "None") != "None":
                raise not_emulated(f"channel {channel['ChannelName']}: another mode than File, or compression")

    def prepare(self) -> None:
        """Fill its `/opt/ml`: folders, what describes the job, channels, checkpoints."""
        for folder in FOLDERS:
            (self.ml / folder).mkdir(parents=True, exist_ok=True)
        for channel in self.request.get("InputDataConfig", []):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._transfer.fetch_input(uri, self.ml / "input/data" / channel["ChannelName"])
        for name, content in self._configuration().items():
            (self.ml / "input/config" / name).write_text(json.dumps(content), encoding="utf-8")
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints:
            self._transfer.fetch(f"{checkpoints['S3Uri'].rstrip('/')}/", self._checkpoints(checkpoints))

    def _configuration(self) -> dict[str, Any]:
        channels = self.request.get("InputDataConfig", [])
        how = {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
        kind = self._machines["InstanceType"]
        return {
            "hyperparameters.json": self.request.get("HyperParameters", {}),
            "inputdataconfig.json": {channel["ChannelName"]: how for channel in channels},
            "resourceconfig.json": {
                "current_host": HOST,
                "hosts": [HOST],
                "network_interface_name": "lo",
                "current_instance_type": kind,
                "current_group_name": GROUP,
                "instance_groups": [{"instance_group_name": GROUP, "instance_type": kind, "hosts": [HOST]}],
            },
        }

    def _checkpoints(self, config: dict[str, str]) -> Any:
        return self.inside(config.get("LocalPath", "/opt/ml/checkpoints"))

    def sync(self) -> None:
        """Bring checkpoints to S3."""
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints:
            self._transfer.put_folder(self._checkpoints(checkpoints), checkpoints["S3Uri"])

    def upload(self, well: bool) -> None:
        """Bring `output/data` to S3, and the model unless the job failed."""
        uri = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        self._transfer.put_packed(self.ml / "output/data", f"{uri}/output.tar.gz")
        if well and self._transfer.put_packed(self.ml / "model", f"{uri}/model.tar.gz"):
            self._model_uri = f"{uri}/model.tar.gz"

    def reason(self) -> str:
        """Return what it wrote of why it failed."""
        return self.wrote("failure").decode(errors="replace").strip()

    def _described(self) -> dict[str, Any]:
        used = math.ceil(self.history.used_s)
        return {
            "SecondaryStatus": self.history.secondary,
            "SecondaryStatusTransitions": [dict(transition) for transition in self.history.transitions],
            "TrainingStartTime": self.history.started,
            "TrainingEndTime": self.history.ended,
            "TrainingTimeInSeconds": used if self.history.started else None,
            "BillableTimeInSeconds": math.ceil(used * SPOT_PRICE if self._is_spot else used) if self.is_over else None,
            "ModelArtifacts": {"S3ModelArtifacts": self._model_uri} if self._model_uri else None,
            "WarmPoolStatus": {"Status": self._warm_pool()} if self._keep_alive_s else None,
        }

    @property
    def _keep_alive_s(self) -> int:
        return int(self._machines.get("KeepAlivePeriodInSeconds", 0))

    def _warm_pool(self) -> str:
        if not self.history.ended:
            return "InUse"
        return "Available" if time.time() < self.history.ended + self._keep_alive_s else "Terminated"

    def image_uri(self) -> str:
        """Return the address of its image."""
        return str(self.request["AlgorithmSpecification"]["TrainingImage"])

    def is_cut_off(self) -> bool:
        """Return whether it is to have no network."""
        return bool(self.request.get("EnableNetworkIsolation"))

    def command(self) -> list[str]:
        """Return what its container runs."""
        specification = self.request["AlgorithmSpecification"]
        return [*specification["ContainerEntrypoint"], *specification.get("ContainerArguments", [])]

    def variables(self) -> dict[str, str]:
        """Return the variables that this kind has more."""
        return {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.arn}

    def _patience_ends(self) -> float:
        longest = self.request.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds") if self._is_spot else None
        return self.history.created + longest if longest else math.inf

    def _stopped_as(self, outcome: Outcome) -> str:
        if outcome != "timeout":
            return "Stopped"
        return "MaxRuntimeExceeded" if self.history.used_s > self._longest_s() else "MaxWaitTimeExceeded"
