"""What a job in the sandbox does not get: secrets, and files that nobody declared."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import BakedProject
from ..servers.s3 import BUCKET, KEY, SECRET, ObjectStore
from .laptops import Laptop, as_jobs, contents, job_dir

PLANTED = "planted-secret"
LOOK_AROUND = """
    import sys

    import psutil

    own = [os.environ[name] for name in ("HOME", "TMPDIR", "DVC_SITE_CACHE_DIR")]
    seen = [json.dumps(dict(os.environ)).encode()]
    for process in psutil.Process().parents() if {isolated} else []:
        with contextlib.suppress(psutil.Error, OSError):
            seen.append(json.dumps(process.environ()).encode())
    for path in (path for place in (".", *own, *{places}) for path in Path(place).rglob("*") if path.is_file()):
        if path.is_relative_to(sys.prefix):
            continue  # the environment of packages, which every job has, is below TMPDIR where the tests run there
        with contextlib.suppress(OSError):
            seen.append(os.fsencode(path) + path.read_bytes())
    (dataset / "seen").write_bytes(b"\\n".join(seen))
    print("looked at", len(seen), "things")
"""


def test_secrets_reach_neither_the_job_nor_the_remote(
    laptop: Laptop, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = laptop.project
    isolated = _can_isolate(project)  # else a job can see what its user can
    laptop.let_prepare(LOOK_AROUND.format(isolated=isolated, places=[str(project.path), os.environ["HOME"]] * isolated))
    _plant(project, monkeypatch)
    output = as_jobs(project, "prepare")
    assert "looked at" in output
    (seen,) = (project.path / "data/dataset").iterdir()
    assert b"STAGE_JOB" in seen.read_bytes(), "it did not see its own environment"
    assert b"prepare.py" in seen.read_bytes(), "it did not see its own folder"
    files = {**contents(job_dir(project, "prepare")), **_code(project), **_objects(laptop, object_store)}
    assert len(files) > 10
    for secret in (PLANTED, SECRET):
        assert [name for name, content in files.items() if secret.encode() in content] == []
        assert secret not in output


def _plant(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put secrets where people have them; those by which the store lets somebody in are in DVC's configuration."""
    home = Path(os.environ["HOME"])
    (project.path / ".git/info/exclude").write_text("token.json\n", encoding="utf-8")
    for path in (".env", "id_rsa", "token.json", home / ".netrc"):
        (project.path / path).write_text(f"secret={PLANTED}-of-{path}\n", encoding="utf-8")
    for option, value in (("access_key_id", KEY), ("secret_access_key", SECRET)):
        project.run("dvc", "remote", "modify", "--local", "storage", option, value)
    project.run("git", "remote", "add", "origin", f"https://me:{PLANTED}-of-git@example.org/project.git")
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, f"{PLANTED}-of-{name}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PLANTED}-of-mlflow@127.0.0.1:9")


def _code(project: BakedProject) -> dict[str, bytes]:
    """Return the files of the code that a job was sent."""
    with tarfile.open(job_dir(project, "prepare") / "code.tar.gz") as packed:
        files = {member.name: packed.extractfile(member) for member in packed}
        return {f"code.tar.gz:{name}": file.read() for name, file in files.items() if file}


def _objects(laptop: Laptop, store: ObjectStore) -> dict[str, bytes]:
    """Return the objects of a remote, and their names as content."""
    names = [name for name in store.names() if name.startswith(laptop.prefix)]
    got = {name: store.client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}
    return {name: name.encode() + bytes(content) for name, content in got.items()}


def _in_environment(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are there already."""


def _in_profile(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ["HOME"], ".aws")
    folder.mkdir()
    _write_credentials(folder / "credentials")
    monkeypatch.setenv("AWS_PROFILE", "team")


def _in_file_of_remote(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project.path.parent / "credentials"
    _write_credentials(path)
    for option, value in (("credentialpath", str(path)), ("profile", "team")):
        project.run("dvc", "remote", "modify", "--local", "storage", option, value)


def _in_local_configuration(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for option, value in (("access_key_id", KEY), ("secret_access_key", SECRET)):
        project.run("dvc", "remote", "modify", "--local", "storage", option, value)


def _write_credentials(path: Path) -> None:
    lines = ("[team]", f"aws_access_key_id = {KEY}", f"aws_secret_access_key = {SECRET}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "give",
    [_in_environment, _in_profile, _in_file_of_remote, _in_local_configuration],
    ids=["environment", "profile", "file-of-remote", "config-local"],
)
def test_job_with_credentials_from_one_place_reaches_the_remote(
    laptop: Laptop, give: Callable[[BakedProject, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop.let_prepare('(dataset / "made").write_text("by the job")')
    if give is not _in_environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
    give(laptop.project, monkeypatch)
    as_jobs(laptop.project, "prepare")
    assert (laptop.project.path / "data/dataset/made").read_text(encoding="utf-8") == "by the job"


def test_job_without_credentials_anywhere_says_how_to_get_some(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    output = as_jobs(laptop.project, "prepare", check=False)
    assert "there are no AWS credentials for the job" in output
    assert "Fix: aws configure" in output


def test_job_whose_stage_reads_an_undeclared_dep_says_which(laptop: Laptop) -> None:
    project = laptop.project
    (project.path / "data/extra.csv").write_text("1\n", encoding="utf-8")
    project.run("dvc", "add", "--quiet", "data/extra.csv")
    laptop.let_prepare('(dataset / "made").write_bytes(Path("data", "extra.csv").read_bytes())')
    laptop.prepare_here()
    output = as_jobs(project, "prepare", check=False)
    assert "No such file or directory: 'data/extra.csv'" in output
    _assert_failed(output, project)


def test_job_whose_package_has_an_untracked_file_is_not_started(laptop: Laptop) -> None:
    project, name = laptop.project, f"{laptop.project.package}/helper.py"
    laptop.let_prepare('from .. import helper\n(dataset / "made").write_text(helper.TEXT)')
    (project.path / name).write_text('TEXT = ""\n', encoding="utf-8")
    laptop.prepare_here()
    output = as_jobs(project, "prepare", check=False)
    assert f"the run would depend on 1 file(s) that Git does not track: {name}" in output
    assert f"Fix: git add {name}" in output
    assert not list((project.path / ".dvc/tmp/jobs").glob("*/job.json"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["project", "home"])
def test_job_whose_stage_reads_an_absolute_path_says_which(laptop: Laptop, place: str) -> None:
    project = laptop.project
    if not _can_isolate(project):
        pytest.skip("this system forbids user namespaces")
    path = {"project": project.path / "data", "home": Path(os.environ["HOME"])}[place] / "extra.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    # In C++: no hook of Python's sees it.
    laptop.let_prepare(f"""
        from pyarrow import csv

        (dataset / "made").write_text(str(csv.read_csv({str(path)!r}).num_rows))
    """)
    laptop.prepare_here()
    output = as_jobs(project, "prepare", check=False)
    assert f"No such file or directory: '{path}'" in output or f"Failed to open local file '{path}'" in output
    _assert_failed(output, project)


def _can_isolate(project: BakedProject) -> bool:
    """Return whether this system lets the sandbox hide files."""
    code = "from mlops.compute.sandbox.supervisor import can_isolate; print(can_isolate())"
    return project.run("python", "-c", code).stdout.strip() == "True"


def _assert_failed(output: str, project: BakedProject) -> None:
    assert "the stage prepare failed" in output
    assert "Fix: correct that, then the same command: it starts a new job" in output
    assert not (project.path / "dvc.lock").exists()
