"""Start, find, follow and stop jobs on SageMaker.

SageMaker has the jobs; this machine has a folder for each, with its description, its request and its output. Any clone
can fetch all of that from SageMaker and S3.
"""

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...config import home, load_platform
from ...errors import ProjectError
from ...files import read_json, sha256, write_json
from ...tracking import uploader
from .. import transfer
from ..backend import CODE, DESCRIPTION, Backend, JobRow, State
from ..spec import JobSpec, job_prefix
from ..worker import RESULT
from . import client
from .entrypoint import RUN
from .follow import failure, follow, read_log
from .image import image_of
from .machines import mismatches
from .request import create_request, jobs_uri, results_uri, role_arn

log = logging.getLogger(__name__)

REQUEST, OUT = "request.json", "out"


class SageMaker(Backend):
    """Jobs on Amazon SageMaker."""

    NAME = "sagemaker"

    def folder(self) -> Path:
        return home() / ".dvc" / "tmp" / "jobs" / "sagemaker"  # the real repository's, also in a throw-away experiment

    def check(self) -> None:
        jobs_uri()
        role_arn()

    def names(self, prefix: str = "", everyones: bool = False) -> list[str]:
        local = super().names(prefix)
        account = client.names(prefix or f"{job_prefix()}-") if everyones else []
        return [*(name for name in account if name not in local), *local]

    def has_job(self, name: str) -> bool:
        # The account may have it, of another clone; without a region, there is none.
        return self.is_described(name) or bool(load_platform().region)

    def describe(self, name: str) -> dict[str, Any]:
        if not self.is_described(name):  # another clone started it
            self._cache_description(self._started(name))
        return super().describe(name)

    def state(self, name: str) -> State:
        job = self._find(name) if self.is_described(name) else self._started(name)
        return job.state if job else State.PREPARED

    def row(self, name: str) -> JobRow:
        if not (job := self._find(name)):
            return JobRow(State.PREPARED)
        reason = job.reason if job.state in (State.FAILED, State.STOPPED) else ""
        return JobRow(job.state, reason, job.billable_s, job.machines)

    def log_of(self, name: str) -> str:
        return "".join(f"{line}\n" for line in read_log(self._started(name)))

    def plan(self, folder: Path, name: str, description: dict[str, Any]) -> str:
        self._write_job(folder, name, description)
        return (folder / REQUEST).read_text(encoding="utf-8")

    def prepare(self, name: str, description: dict[str, Any]) -> None:
        folder = self.folder() / name
        shutil.rmtree(folder, ignore_errors=True)  # of a launcher that was killed before it started the job
        folder.mkdir(parents=True)
        inputs = self._write_job(folder, name, description)
        key = description["spec"]["kms_key"]
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        for file, uri in ((CODE, inputs["code"]), (DESCRIPTION, inputs["job"])):
            bucket, prefix = client.split_uri(uri)
            # An object that exists is left: its name is made of its content, or used once.
            target = {"Bucket": bucket, "Key": f"{prefix}{file}", "IfNoneMatch": "*", **encryption}
            with (folder / file).open("rb") as body:
                client.call("s3", "put_object", "(PreconditionFailed|ConditionalRequestConflict):", **target, Body=body)

    def _write_job(self, folder: Path, name: str, description: dict[str, Any]) -> dict[str, str]:
        """Write code, description and request of a job into a folder; return the S3 folders of the first two."""
        spec = JobSpec(**description["spec"])
        for problem, fix in mismatches(description["stage"], spec):
            log.warning("%s. To change that: %s", problem, fix)
        transfer.pack(description["origin"]["commit"], folder / CODE)
        described = {**description, "image": image_of(spec)}
        write_json(folder / DESCRIPTION, described)
        # Names made of contents: the code of one commit is stored once, and nothing overwrites a description.
        inputs = {
            "code": f"{jobs_uri()}/code/{sha256(folder / CODE)}/",
            "job": f"{jobs_uri()}/jobs/{name}/{sha256(folder / DESCRIPTION)[:16]}/",
        }
        write_json(folder / REQUEST, create_request(described, inputs))
        return inputs

    def start(self, name: str) -> None:
        kind = self.describe(name)["spec"]["kind"]
        is_first = client.create(kind, read_json(self.folder() / name / REQUEST))
        if not is_first and (job := client.describe(name, kind)):  # another clone started it: that one is followed
            self._cache_description(job)

    def follow(self, name: str) -> None:
        job, is_interrupted = follow(self._started(name))
        out = client.retry_forever(partial(self.out_dir, name))
        if (out / RUN).exists():  # MLflow does not have all of it yet
            transfer.unpack(out / RUN, uploader.folder() / self.context_of(name).run)
            (out / RUN).unlink()
        if is_interrupted:
            raise KeyboardInterrupt
        if job.state is not State.COMPLETED:
            raise failure(job, out)

    def out_dir(self, name: str) -> Path:
        out = self.folder() / name / OUT
        packed = out / "output.tar.gz"  # a training's output folder comes as one file
        with FileLock(self.folder() / f"{name}.out.lock"):  # another launcher may follow the same job
            if not (out / RESULT).exists():
                client.download(f"{results_uri(self.describe(name)['spec']['kind'], name)}/", out)
            if packed.exists():
                transfer.unpack(packed, out)
                packed.unlink()
        return out

    def stop(self, name: str) -> None:
        client.stop(self._started(name))

    def needs(self, specs: dict[str, JobSpec]) -> list[str]:
        platform, url = load_platform(), transfer.public_remote()["url"]
        jobs = {f"{spec.kind} on {spec.instance_type} (up to {spec.instance_count})" for spec in specs.values()}
        images = sorted({spec.image or "the framework's, since no image is set" for spec in specs.values()})
        data = url if url.startswith(transfer.S3) else f"the DVC remote is {url}; see docs/data.md, Keep the data in S3"
        mlflow = platform.tracking_uri or "none, so runs reach MLflow when a job has ended"
        region = platform.region or "a region: platform.yaml:region is not set"
        return [
            f"quota in {region} for {', '.join(sorted(jobs))}",
            f"a role: {platform.role_arn or 'platform.yaml:role_arn is not set'}",
            f"data in S3: {data}",
            f"an image: {', '.join(images)}",
            f"an MLflow that jobs can reach: {mlflow}",
        ]

    def _find(self, name: str) -> client.Job | None:
        kind = self.describe(name)["spec"]["kind"] if self.is_described(name) else None
        return client.describe(name, kind)

    def _started(self, name: str) -> client.Job:
        if not (job := self._find(name)):
            problem = f"SageMaker has no job {name!r} in {load_platform().region}"
            raise ProjectError(problem, "python -m mlops jobs list --all shows those there are")
        return job

    def _cache_description(self, job: client.Job) -> None:
        """Fetch the description with which a job was started."""
        if job.kind == "training":
            channels = job.details["InputDataConfig"]
            uris = {entry["ChannelName"]: entry["DataSource"]["S3DataSource"]["S3Uri"] for entry in channels}
        else:
            uris = {entry["InputName"]: entry["S3Input"]["S3Uri"] for entry in job.details["ProcessingInputs"]}
        if not client.download(uris.get("job", ""), self.folder() / job.name):
            raise ProjectError(
                f"S3 lacks the description of job {job.name}", "JOB_FRESH=1 dvc repro, which starts a new job"
            )
