"""What this clone brings: how jobs are asked for, its commit, its MLflow."""

import functools
import ipaddress
import os
import socket
from urllib.parse import urlsplit

from ....config import load_platform
from ....errors import ProjectError
from ....tracking import mlflow_client
from ....tracking.git import git, head, without_credentials
from ....tracking.snapshot import snapshot
from ... import fingerprint
from ...spec import JobSpec, job_stages, needs_mlflow, spec_of
from .result import Findings, mend, ok, unasked


@functools.cache
def specs() -> dict[str, JobSpec]:
    """Return how the job of each stage that has one is asked for.

    Raises:
        ProjectError: See `spec_of`.
    """
    return {stage: spec_of(stage) for stage in job_stages()}


def jobs() -> Findings:
    """See that the jobs are asked for as they can be."""
    stages = job_stages()
    if not stages:
        yield mend("no stage has a meta.job", "dvc.yaml:stages.train.meta.job: {kind: training}")
    for stage in stages:
        try:
            spec = spec_of(stage)
        except ProjectError as error:
            yield mend(error.problem, error.fix)
        else:
            yield ok(f"{stage}: {spec.kind} on {spec.instance_count} x {spec.instance_type}{' spot' * spec.spot}")


def commit() -> Findings:
    """See that Git has all that the stages need."""
    from dvc.repo import Repo

    parent, stages = head(), job_stages()
    snapshot(stages[-1])
    with Repo(os.getcwd()) as repo:
        for stage in stages:
            fingerprint.check_in_project(repo, repo.stage.load_one(name=stage))
    changes = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
    more = f", and {changes} change(s) of the work tree, which go along" if changes else ""
    yield ok(f"{parent[:10]}{more}")


def tracking() -> Findings:
    """See that MLflow answers, and whether jobs can reach it."""
    platform = load_platform()
    uri = platform.tracking_uri
    if not uri or not mlflow_client.is_remote(uri):
        yield ok("a file of this machine: runs are in MLflow when their job has ended")
        return
    with mlflow_client.translate_errors("start it, or platform.yaml:tracking_uri: another"):
        mlflow_client.client().search_experiments(max_results=1)
    if uri.startswith("http"):
        yield from reach(uri)
    else:
        far = "arn:" in uri and uri.split(":")[3] != platform.region
        yield ok(f"{uri} answers{f', in another region than the jobs, {platform.region}' if far else ''}")


def reach(uri: str) -> Findings:
    """See whether the address of a server means it in a job too."""
    shown, host = without_credentials(uri), urlsplit(uri).hostname or ""
    try:
        kind = kind_of([str(found[4][0]) for found in socket.getaddrinfo(host, None)])
    except OSError as error:  # a proxy may know more names than this machine
        yield unasked(
            f"{shown} answers here, but this machine knows no address of it: {error}", "see that jobs reach it"
        )
        return
    if kind == "public" or (kind == "private" and all(spec.subnets for spec in specs().values())):
        yield ok(f"{shown} answers here; its address is {kind}")
        return
    cut_off = f"{shown} answers here, but its address is {kind}: SageMaker's jobs can't reach it"
    if [stage for stage in specs() if needs_mlflow(stage)]:
        yield mend(cut_off, "platform.yaml:tracking_uri: an address for jobs too; or platform.yaml:job.subnets")
    else:
        yield ok(f"{cut_off}. Runs are in MLflow when their job has ended")


def kind_of(addresses: list[str]) -> str:
    """Return how far a server's addresses are known: "public", "private" or "this machine's own"."""
    found = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    if any(one.is_loopback for one in found):
        return "this machine's own"
    return "private" if any(one.is_private for one in found) else "public"
