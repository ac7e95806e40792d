"""The image of jobs: which one it is, and how it is made. Docker and ECR are where AWS would be."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from ..conftest import Bake, BakedProject, new_project
from ..projects import edit
from ..test_bake import SKELETON
from .cloudformation import ACCOUNT, serving

REPOSITORY = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/digit-classifier"
DOCKER = """#!{python}
import json, os, sys, uuid
import boto3

with open({record!r}, "a") as file:
    file.write(json.dumps([*sys.argv[1:], sys.stdin.read(), os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")]) + "\\n")
if sys.argv[1] in {failing!r}:
    sys.exit("no space left on device")
if sys.argv[1] == "push":
    tag = sys.argv[-1].rpartition(":")[2]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    config = {{"digest": "sha256:" + uuid.uuid4().hex * 2}}
    manifest = json.dumps({{"schemaVersion": 2, "mediaType": kind, "config": config}})
    ecr = boto3.client("ecr", region_name="us-east-1")
    ecr.put_image(repositoryName="digit-classifier", imageManifest=manifest, imageTag=tag)
"""


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in an account that `make aws-setup` has not seen."""
    with serving(monkeypatch):
        yield


@pytest.fixture
def repository() -> Any:
    """Have the repository of the stack, and return ECR's client."""
    ecr = boto3.client("ecr", region_name="us-east-1")
    ecr.create_repository(repositoryName="digit-classifier", imageTagMutability="IMMUTABLE")
    return ecr


def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...] = ()) -> Path:
    """Put a Docker on PATH that notes what it is told, and pushes to the account; return its notes."""
    record, folder = tmp_path / "docker.jsonl", tmp_path / "docker"
    folder.mkdir(exist_ok=True)
    program = folder / "docker"
    program.write_text(DOCKER.format(python=sys.executable, record=str(record), failing=failing), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return record


def image(project: BakedProject, *options: str) -> "subprocess.CompletedProcess[str]":
    """Type the verb."""
    return project.run("python", "-m", "mlops", "aws", "image", *options, check=False)


def configured(project: BakedProject) -> str | None:
    """Return the image of `platform.yaml`."""
    content = YAML(typ="safe").load((project.path / "platform.yaml").read_text(encoding="utf-8"))
    uri: str | None = content["job"]["image"]
    return uri


def test_image_is_built_pushed_and_written_with_its_digest_once(
    bake: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Any
) -> None:
    project, record = bake(), docker(tmp_path, monkeypatch)
    done = image(project)
    assert done.returncode == 0, done.stderr
    (detail,) = repository.describe_images(repositoryName="digit-classifier")["imageDetails"]
    assert configured(project) == f"{REPOSITORY}@{detail['imageDigest']}"
    built, login, push = (json.loads(line) for line in record.read_text(encoding="utf-8").splitlines())
    name = f"{REPOSITORY}:{detail['imageTags'][0]}"
    assert built == ["build", "--platform", "linux/amd64", "--tag", name, ".", "", "1"]
    assert login[:5] == ["login", "--username", "AWS", "--password-stdin", REPOSITORY.partition("/")[0]]
    assert login[5] != ""
    assert push == ["push", name, "", "1"]
    assert "exists already" in image(project).stdout
    assert len(record.read_text(encoding="utf-8").splitlines()) == 3, "the same lock is not built again"


def test_image_for_gpus_has_another_name_and_the_torch_of_pypi(
    bake: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Any
) -> None:
    project, record = bake(), docker(tmp_path, monkeypatch)
    image(project)
    before = configured(project)
    image(project, "--gpu")
    assert configured(project) not in (None, before)
    builds = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines() if '"build"' in line]
    assert ["TORCH_INDEX=" in build for build in builds] == [False, True]
    assert [re.search(r":(\w+)-", build[build.index("--tag") + 1])[1] for build in builds] == ["cpu", "gpu"]  # type: ignore[index]


@pytest.mark.parametrize("failing", ["build", "login", "push"])
def test_image_docker_fails_is_told_and_changes_nothing(
    bake: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Any, failing: str
) -> None:
    project = bake()
    docker(tmp_path, monkeypatch, (failing,))
    done = image(project)
    assert done.returncode == 2
    assert f"docker {failing} failed, as it says above\nFix: correct that, then: make image" in done.stderr
    assert configured(project) is None
    docker(tmp_path, monkeypatch)
    assert image(project).returncode == 0, "the same command passes"


def test_image_without_docker_or_what_it_pushed_says_who_can_make_it(
    bake: Bake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Any
) -> None:
    project = bake()
    docker(tmp_path, monkeypatch, ("nothing",))
    program = tmp_path / "docker/docker"
    program.write_text("#!/bin/sh\ncat > /dev/null\n", encoding="utf-8")
    done = image(project)
    assert f"docker pushed {REPOSITORY}:" in done.stderr and "ECR does not have it\nFix: make image" in done.stderr
    program.unlink()
    with monkeypatch.context() as patch:  # what else the verb needs is Python and Git
        for name, path in (("python", sys.executable), ("git", shutil.which("git"))):
            (tmp_path / "docker" / name).write_text(f'#!/bin/sh\nexec "{path}" "$@"\n', encoding="utf-8")
            (tmp_path / "docker" / name).chmod(0o755)
        patch.setenv("PATH", str(tmp_path / "docker"))
        done = image(project)
    assert "docker is not installed here\nFix: install it; or have somebody" in done.stderr
    docker(tmp_path, monkeypatch)
    assert image(project).returncode == 0, "the same command passes"


def test_image_without_repository_says_aws_setup(bake: Bake) -> None:
    done = image(bake())
    assert done.returncode == 2
    assert "ECR has no repository digit-classifier in us-east-1\nFix: make aws-setup" in done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """Have a project that tests only ask."""
    return new_project(tmp_path_factory.mktemp("image"))


def ask(project: BakedProject, code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a project."""
    text = f"from mlops.compute.sagemaker import image\n{code}"
    return project.run("python", "-c", text, check=False)


@pytest.mark.parametrize(
    ("region", "machine", "host", "device"),
    [
        ("us-east-1", "ml.m5.xlarge", "763104351884.dkr.ecr.us-east-1.amazonaws.com", "cpu"),
        ("eu-south-1", "ml.g5.xlarge", "692866216735.dkr.ecr.eu-south-1.amazonaws.com", "gpu"),
        ("cn-north-1", "ml.p4d.24xlarge", "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn", "gpu"),
    ],
)
def test_default_image_is_the_newest_of_the_framework(
    project: BakedProject, region: str, machine: str, host: str, device: str
) -> None:
    uri = ask(project, f"print(image.default_image({region!r}, {machine!r}))").stdout.strip()
    assert uri == f"{host}/pytorch-training:2.10.0-{device}-py313"


def test_default_image_is_that_of_the_pinned_torch_if_there_is_one(bake: Bake) -> None:
    project = bake()
    pins = json.loads((project.path / "environment.json").read_text(encoding="utf-8"))
    (project.path / "environment.json").write_text(json.dumps({**pins, "torch": "2.9.0"}), encoding="utf-8")
    uri = ask(project, "print(image.default_image('us-east-1', 'ml.m5.large'))").stdout.strip()
    assert uri.endswith(":2.9.0-cpu-py312")
    assert ask(project, f"image.check_image({uri!r})").returncode == 0


def test_default_image_unknown_region_is_told(project: BakedProject) -> None:
    refused = ask(project, "image.default_image('xx-north-9', 'ml.m5.large')").stderr
    assert "not known where AWS keeps the framework's images for xx-north-9\nFix: make image (needs Docker)" in refused


def test_check_image_framework_with_another_torch_is_refused_unless_allowed(bake: Bake) -> None:
    project = bake()
    code = "image.check_image(image.default_image('us-east-1', 'ml.m5.xlarge'))"
    refused = ask(project, code)
    assert "image has torch 2.10.0, and environment.json pins 2.14.1" in refused.stderr
    assert "Fix: make image (needs Docker), or platform.yaml:allow_other_environment: true" in refused.stderr
    edit(project, "platform.yaml", "allow_other_environment: false", "allow_other_environment: true")
    assert ask(project, code).returncode == 0


def test_check_image_own_image_is_left_to_the_job(project: BakedProject) -> None:
    assert ask(project, f"image.check_image('{REPOSITORY}@sha256:{'0' * 64}')").returncode == 0


def test_dockerfile_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", str(SKELETON / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def commands(project: BakedProject, folder: Path, **arguments: str) -> list[list[str]]:
    """Run the Dockerfile's RUN line in a folder, where Python only notes what it is told; return that.

    The files that it makes stay there.
    """
    text = (project.path / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (run,) = re.findall(r"^RUN (.+)$", text, re.MULTILINE)
    default = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    for name in ("requirements.lock", "aws/lock-exclude.txt"):
        (folder / Path(name).name).write_bytes((project.path / name).read_bytes())
    noted = f'python() {{ printf "%s\\n" "$*" >> {folder}/noted; }}\n'
    subprocess.run(
        ["sh", "-ec", noted + run], cwd=folder, env={"PATH": "/usr/bin:/bin", **default, **arguments}, check=True
    )
    return [line.split() for line in (folder / "noted").read_text(encoding="utf-8").splitlines()]


def packages(path: Path) -> dict[str, str]:
    """Return the pins of a lock by name."""
    return dict(line.split("==") for line in path.read_text(encoding="utf-8").split())


def test_dockerfile_installs_the_whole_lock_but_the_tools_of_developers(project: BakedProject, tmp_path: Path) -> None:
    torch, rest, check = commands(project, tmp_path)
    assert torch[-4:] == ["--index-url", "https://download.pytorch.org/whl/cpu", "-r", "torch.txt"]
    assert rest[-4:] == ["-r", "torch.txt", "-r", "rest.txt"]
    assert check == ["-m", "pip", "check"]
    lock = packages(project.path / "requirements.lock")
    first, others = packages(tmp_path / "torch.txt"), packages(tmp_path / "rest.txt")
    assert first == {name: lock[name] for name in ("torch", "torchvision")}
    left_out = set(lock) - set(first) - set(others)
    assert left_out == {"hypothesis", "mypy", "mypy-extensions", "pip-tools", "pytest", "ruff"}
    assert {name: lock[name] for name in others} == others


def test_dockerfile_without_index_takes_the_torch_of_pypi(project: BakedProject, tmp_path: Path) -> None:
    torch, *_ = commands(project, tmp_path, TORCH_INDEX="")
    assert torch[-3:] == ["--no-deps", "-r", "torch.txt"]


def test_dockerfile_sees_nothing_of_the_project_but_what_it_copies(project: BakedProject) -> None:
    shown = re.findall(r"^!(.+)$", (project.path / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    (copied,) = re.findall(r"^COPY (.+) \S+$", (project.path / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(copied.split())


def test_fallback_installs_the_lock_without_torch(project: BakedProject, tmp_path: Path) -> None:
    framework = "image.default_image('us-east-1', 'ml.m5.large')"
    line = ask(project, f"print(image.install_command({framework}))").stdout.strip()
    assert ask(project, f"print(image.install_command('{REPOSITORY}:1'))").stdout.strip() == ""
    noted = f'python() {{ printf "%s\\n" "$*" >> {tmp_path}/noted; }}\n'
    script = noted + re.sub(r"/\w+/requirements.txt", f"{tmp_path}/rest.txt", line)
    subprocess.run(["bash", "-ec", script], cwd=project.path, check=True)
    assert (tmp_path / "noted").read_text(encoding="utf-8").split()[-2:] == ["-r", f"{tmp_path}/rest.txt"]
    rest = packages(tmp_path / "rest.txt")
    assert {"torch", "torchvision"} & set(rest) == set()
    assert {"dvc", "dvc-s3", "mlflow", "numpy", "pyarrow", "safetensors"} <= set(rest)
