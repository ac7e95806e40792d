"""What travels to a job and back: the code as an archive, where the DVC remote is, a run for MLflow. No credentials."""

import contextlib
import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..explain import explain
from ..files import atomic_write
from ..tracking import checkout, dvc_remote, uploader
from ..tracking.git import without_credentials

S3 = "s3://"
PUBLIC = """
    region endpointurl use_ssl ssl_verify read_timeout connect_timeout max_concurrent_requests listobjects acl
    allow_anonymous_login sse sse_kms_key_id
"""


def pack(commit: str, path: Path) -> None:
    """Write the project's files at a commit as a .tar.gz: the same bytes for the same commit."""

    def anonymize(member: tarfile.TarInfo) -> tarfile.TarInfo:  # without what differs between users and times
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_write(path) as new,
        new.open("wb") as target,
        gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as files,
    ):
        # Not `git archive`: it leaves out submodules, and files with the attribute export-ignore.
        code = checkout.write(commit, Path(scratch))
        for file in sorted(code.rglob("*")):
            files.add(file, file.relative_to(code).as_posix(), recursive=False, filter=anonymize)


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a tar below `folder`; raise tarfile.TarError if it is damaged, or a file would lie outside."""
    with tarfile.open(path) as packed:
        # Python has the filter since 3.11.4; before, nothing is lost: the tar is our own.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)  # noqa: S202 (filtered)


def remote_options() -> dict[str, Any]:
    """Return options, secrets too, and `name` of the default DVC remote; raise ProjectError if jobs can't use it."""
    from dvc.repo import Repo

    with Repo(os.getcwd()) as repo:
        url, name = dvc_remote.url(repo), repo.config["core"]["remote"]
        if "://" in url and not url.startswith(S3):
            problem = f"a job can't use the DVC remote {without_credentials(url)}: only S3 and folders"
            fix = f"{dvc_remote.use_url('s3://<bucket>/<folder>')}; or run the stage here: RUN_ON=local"
            raise ProjectError(problem, fix)
        return {**repo.config["remote"][name], "url": url, "name": name}


def public_remote() -> dict[str, str]:
    """Return the options of the DVC remote that a job gets, as text; raise ProjectError if a secret is in one."""
    options = remote_options()
    public = {key: str(options[key]) for key in ("name", "url", *PUBLIC.split()) if key in options}
    for key, value in public.items():
        if without_credentials(value) != value:
            problem = f"the DVC remote's {key} has credentials in it, which are not passed to a job"
            fix = f"dvc remote modify {public['name']} {key} {without_credentials(value)} (--local, where that has it)"
            raise ProjectError(problem, fix)
    return public


def queue_run(run: str, work: Path) -> None:
    """Put the run of an ended job, which worked in the folder `work`, into this clone's outbox if MLflow lacks some."""
    waiting = work / ".dvc" / "tmp" / "outbox" / run
    if waiting.exists():
        uploader.stage_files(run, work)
        shutil.rmtree(waiting, ignore_errors=True)


@contextlib.contextmanager
def explain_errors(problem: str, fix: str) -> Iterator[None]:
    """Turn an error of DVC or a remote, each kind of which raises its own, into a ProjectError that names the cause."""
    try:
        yield
    except Exception as error:
        known = explain(error)
        cause = known.problem if known else error.__cause__ or error
        raise ProjectError(f"{problem}: {cause}", f"{known.fix}; {fix}" if known else fix) from error
