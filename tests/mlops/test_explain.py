"""Errors of other tools, made by these tools, are told in words: each that is known, and no fault of the program."""

import contextlib
import errno
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from mlops import explain as module
from mlops.errors import ProjectError, UnavailableError
from mlops.explain import explain
from mlops.files import read_json
from mlops.known_errors import KNOWN, Known

from .conftest import Run

CLOSED = "http://127.0.0.1:9"  # a port that nobody listens on
SSO = """
[default]
sso_session = work
sso_account_id = 111122223333
sso_role_name = dev
region = us-east-1
[sso-session work]
sso_region = us-east-1
sso_start_url = https://example.awsapps.com/start
"""
used: set[str] = set()  # patterns of the known errors that a test has met


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory on a machine where nothing of AWS is configured."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)

    def recording(row: Known) -> Known:
        def make(problem: str, fix: str) -> ProjectError:
            used.add(row.pattern)
            return row.error(problem, fix)

        return row._replace(error=cast(Any, make))

    monkeypatch.setattr(module, "KNOWN", tuple(map(recording, KNOWN)))
    return tmp_path


def error_of(function: Callable[[], Any]) -> Exception:
    """Return what a function raises."""
    with pytest.raises(Exception) as raised:
        function()
    return raised.value


def meet(error: Exception) -> ProjectError:
    """Return what an error of another tool means."""
    known = explain(error)
    assert known, f"{type(error)} {error}"
    assert len(known.problem.splitlines()) == len(known.fix.splitlines()) == 1
    return known


def keys(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    for name, value in {"ACCESS_KEY_ID": "AKIATEST", "SECRET_ACCESS_KEY": "a-secret", **more}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def ask_sts(**options: Any) -> Any:
    return boto3.Session(region_name="us-east-1").client("sts", **options).get_caller_identity()


@pytest.mark.parametrize(
    ("config", "variables", "problem", "fix"),
    [
        (SSO, {}, "the AWS SSO session has ended", "aws sso login --sso-session work, then the same command"),
        ("", {}, "there are no AWS credentials", "aws configure, or AWS_PROFILE=<a profile of ~/.aws/config>"),
        ("", {"PROFILE": "me"}, "there is no AWS profile me", "aws configure --profile me"),
        ("", {"ACCESS_KEY_ID": "A"}, "of env lack AWS_SECRET_ACCESS_KEY", "set both AWS_ACCESS_KEY_ID and"),
        ("[default", {}, r"AWS's configuration .* can't be read", "correct /"),
        ("[default]\ncredential_process = false\n", {}, "there are no AWS credentials: ", "in ~/.aws/config"),
    ],
    ids=["sso", "none", "profile", "partial", "config", "process"],
)
def test_credentials_that_are_not_there_say_how_to_get_some(
    machine: Path, monkeypatch: pytest.MonkeyPatch, config: str, variables: dict[str, str], problem: str, fix: str
) -> None:
    (machine / "AWS_CONFIG_FILE").write_text(config, encoding="utf-8")
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    known = meet(error_of(ask_sts))
    assert re.search(problem, known.problem) and fix in known.fix


def refusal(code: str, operation: str = "GetObject", status: int = 403, **details: str) -> ClientError:
    """Return the error that botocore makes of AWS's answer."""
    headers = {name: details.pop(name) for name in ["x-amz-bucket-region"] if name in details}
    error = {"Code": code, "Message": "…", **details}
    response: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}
    return ClientError(response, operation)


@pytest.mark.parametrize(
    ("error", "problem", "fix"),
    [
        (refusal("UnauthorizedException", "GetRoleCredentials", 401), "SSO session has ended", "aws sso login, then"),
        (refusal("ForbiddenException", "GetRoleCredentials"), "does not let you take the role", "aws configure sso"),
        (refusal("ExpiredToken"), "credentials have expired", "log in again (aws sso login), then the same command"),
        (refusal("ExpiredTokenException", "ListJobs", 400), "credentials have expired", "log in again"),
        (refusal("RequestTimeTooSkewed"), "this machine's clock is wrong", "set-ntp true"),
        (refusal("InvalidAccessKeyId"), "AWS does not know the access key", "aws configure, or AWS_PROFILE"),
        (refusal("SignatureDoesNotMatch"), "the secret access key is not that of the access key", "aws configure"),
        (
            refusal("PermanentRedirect", status=301, BucketName="b", **{"x-amz-bucket-region": "eu-west-1"}),
            "the bucket b is in another region than .dvc/config or platform.yaml says: eu-west-1",
            "dvc remote modify --local storage region eu-west-1",
        ),
        (
            refusal("AuthorizationHeaderMalformed", Message="the region 'x' is wrong; expecting 'eu-west-1'"),
            "says: eu-west-1",
            "dvc remote modify --local storage region eu-west-1",
        ),
        (refusal("NoSuchBucket", status=404, BucketName="b"), "there is no bucket b", "aws s3 mb s3://b"),
        (refusal("404", "HeadBucket", 404), "there is no bucket", "aws s3 mb"),
        (refusal("NoSuchKey", status=404), "S3 lacks an object", "dvc push"),
        (refusal("AccessDenied"), "AWS refuses GetObject: …", "aws sts get-caller-identity tells who you are"),
        (refusal("403", "HeadObject"), "AWS refuses HeadObject", "ask who administers the account"),
        (refusal("400", "HeadObject", 400), "the credentials have expired, or", "that you have to log in again"),
        (refusal("ResourceInUse", "Create", 400), "AWS refuses Create: ResourceInUse: …", "correct that"),
    ],
    ids=lambda value: value.response["Error"]["Code"] if isinstance(value, ClientError) else "",
)
def test_refusal_of_aws_is_told_by_its_code(error: ClientError, problem: str, fix: str) -> None:
    known = meet(error)
    assert problem in known.problem and fix in known.fix
    assert not isinstance(known, UnavailableError)


def test_refusal_of_s3_comes_through_s3fs_and_dvc() -> None:
    from dvc.exceptions import DvcException
    from s3fs.errors import translate_boto_error  # type: ignore[import-untyped]

    def pull(cause: Exception) -> None:
        raise DvcException("failed to pull") from cause

    for code, problem in (("AccessDenied", "AWS refuses GetObject"), ("NoSuchBucket", "there is no bucket")):
        assert problem in meet(error_of(lambda code=code: pull(translate_boto_error(refusal(code))))).problem  # type: ignore[misc]


def test_other_errors_of_tools_are_told_in_their_words(machine: Path) -> None:
    from botocore.exceptions import InvalidConfigError, LoginRefreshRequired
    from dvc_data.hashfile.cache import DiskError
    from dvc_objects.fs.errors import RemoteMissingDepsError
    from sqlalchemy.exc import OperationalError

    for error, words, fix in (
        (LoginRefreshRequired(), "the AWS login has ended", "aws login, then the same command"),
        (InvalidConfigError(error_msg="no source_profile"), "no AWS credentials: no source", "correct the profile"),
        (RemoteMissingDepsError(cast(Any, None), "gs", "gs://x", ["gcsfs"]), "lacks what the DVC remote needs", "pip"),
        (DiskError("/x/links", "links"), "Could not open disk 'links' in /x/links", "rm -r .dvc/tmp/*_cache"),
        (OperationalError("SELECT", {}, Exception("server closed")), "the database of MLflow fails", "tracking_uri"),
    ):
        known = meet(error)
        assert words in known.problem and fix in known.fix


@pytest.mark.parametrize("code", ["SlowDown", "ThrottlingException", "503", "InternalFailure"])
def test_aws_that_is_too_busy_may_be_asked_again(code: str) -> None:
    assert isinstance(meet(refusal(code, status=503)), UnavailableError)


def test_request_that_aws_would_refuse_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch)
    s3 = boto3.client("s3", region_name="us-east-1")
    known = meet(error_of(lambda: s3.list_objects_v2(Bucket="my bucket")))
    assert known.problem == "'my bucket' can't be the name of a bucket"
    assert "dvc remote modify --local storage url" in known.fix
    known = meet(error_of(lambda: s3.list_objects_v2(Bucket="b12", MaxKeys="many")))
    assert "AWS would refuse the request" in known.problem and "platform.yaml" in known.fix


def test_region_that_is_not_set_or_not_there_is_told() -> None:
    assert "platform.yaml:region" in meet(error_of(lambda: boto3.Session().client("ecr"))).fix
    known = meet(error_of(lambda: boto3.Session().client("ecr", region_name="no region")))
    assert "AWS has no region no region" in known.problem and "platform.yaml:region" in known.fix


def test_aws_that_can_t_be_reached_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch, MAX_ATTEMPTS="1")
    known = meet(error_of(lambda: ask_sts(endpoint_url=CLOSED)))
    assert isinstance(known, UnavailableError) and f"AWS can't be reached: {'Could not connect'}" in known.problem
    monkeypatch.setenv("HTTPS_PROXY", CLOSED)
    known = meet(error_of(ask_sts))
    assert isinstance(known, UnavailableError) and "the proxy" in known.problem and "HTTPS_PROXY" in known.fix


@pytest.fixture
def secure_server(machine: Path) -> Iterator[str]:
    """The address of a server whose certificate nobody knows."""
    import ssl

    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "1"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_certificate_that_is_unknown_names_the_variable_that_helps(
    secure_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(monkeypatch, MAX_ATTEMPTS="1")
    known = meet(error_of(lambda: ask_sts(endpoint_url=secure_server)))
    assert secure_server in known.problem and "AWS_CA_BUNDLE" in known.fix
    monkeypatch.setenv("AWS_CA_BUNDLE", "cert.pem")
    assert "certificate" not in meet(error_of(lambda: ask_sts(endpoint_url=secure_server))).problem

    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    known = meet(error_of(lambda: requests.get(secure_server, timeout=20)))
    assert secure_server.removeprefix("https://") in known.problem and "REQUESTS_CA_BUNDLE" in known.fix
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "cert.pem")
    assert requests.get(secure_server, timeout=20).status_code == 501, "the fix helps"


def test_server_that_can_t_be_reached_is_named() -> None:
    known = meet(error_of(lambda: requests.get(f"{CLOSED}/x", timeout=20)))
    assert isinstance(known, UnavailableError) and known.problem == "no server answers at 127.0.0.1:9"
    assert "platform.yaml:tracking_uri" in known.fix
    assert meet(error_of(lambda: socket.create_connection(("127.0.0.1", 9), timeout=20)))

    known = meet(error_of(lambda: requests.get("http://nowhere.invalid/x", timeout=20)))
    assert isinstance(known, UnavailableError) and "name can't be resolved: nowhere.invalid" in known.problem

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        known = meet(error_of(lambda: requests.get(url, timeout=0.2)))
    assert isinstance(known, UnavailableError) and "does not answer" in known.problem
    assert "the server" in meet(requests.exceptions.TooManyRedirects("30")).problem


@pytest.mark.parametrize(
    ("status", "problem", "fix"),
    [(401, "MLflow does not know you", "MLFLOW_TRACKING_TOKEN"), (403, "MLflow refuses: ", "ask who administers")],
)
def test_refusal_of_mlflow_is_told(status: int, problem: str, fix: str) -> None:
    from mlflow.exceptions import MlflowException, RestException

    text = f"API request to endpoint /api/2.0/mlflow/runs failed with error code {status} != 200. Response body: ''"
    known = meet(MlflowException(text))
    assert problem in known.problem and fix in known.fix
    rest_exception: Any = RestException
    known = meet(rest_exception({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}))
    assert known.problem == "MLflow refuses: INVALID_PARAMETER_VALUE: no"


def test_mlflow_passes_on_what_aws_and_networks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    known = meet(error_of(lambda: MlflowClient(CLOSED).search_experiments()))
    assert known.problem == "no server answers at 127.0.0.1:9"
    known = meet(
        MlflowException("API request to https://x failed: Error loading SSO Token: Token for w does not exist")
    )
    assert known.fix == "aws sso login --sso-session w, then the same command"


def test_database_says_what_is_wrong_with_it(machine: Path) -> None:
    from sqlalchemy import create_engine, text

    def write() -> None:
        with create_engine("sqlite:///mlflow.db", connect_args={"timeout": 0.1}).begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS t (x)"))
            connection.execute(text("INSERT INTO t VALUES (1)"))

    write()
    with contextlib.closing(sqlite3.connect("mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        known = meet(error_of(write))
    assert isinstance(known, UnavailableError) and "in use by another process" in known.problem
    read_only = create_engine("sqlite:///file:mlflow.db?mode=ro&uri=true")
    known = meet(error_of(lambda: read_only.connect().execute(text("INSERT INTO t VALUES (1)"))))
    assert "can't be written" in known.problem and "chmod u+rw mlflow.db" in known.fix
    known = meet(error_of(lambda: read_only.connect().execute(text("SELECT * FROM missing"))))
    assert "no such table" in known.problem
    Path("mlflow.db").write_bytes(b"no database" * 100)
    known = meet(error_of(write))
    assert "the database is damaged" in known.problem and "mirror repair" in known.fix


def test_machine_that_is_full_or_refuses_is_told(machine: Path) -> None:
    for number, words in ((errno.ENOSPC, "disk is full"), (errno.EMFILE, "files are open"), (errno.EROFS, "read-only")):
        assert words in meet(OSError(number, os.strerror(number), "a/b")).problem
    known = meet(PermissionError(errno.EACCES, "Permission denied", "a/b"))
    assert known.problem == "the system refuses access: a/b" and "chmod u+rw a/b" in known.fix


def test_damaged_json_is_named(machine: Path) -> None:
    for content in (b"<<<<<<< HEAD\n{}", '{"a": 1}'.encode("utf-16")):
        Path("environment.json").write_bytes(content)
        known = meet(error_of(lambda: read_json(Path("environment.json"))))
        assert known.problem.startswith("environment.json can't be read: ")
        assert (
            known.fix == "correct environment.json, or restore it: git checkout environment.json; then the same command"
        )


def test_json_that_is_missing_is_named(machine: Path) -> None:
    known = meet(error_of(lambda: read_json(Path("reports/metrics.json"))))
    assert (known.problem, known.fix.partition(",")[0]) == ("reports/metrics.json is missing", "dvc repro")


def test_git_that_refuses_dvc_is_told(machine: Path) -> None:
    from scmrepo.exceptions import SCMError
    from scmrepo.git import Git

    known = meet(error_of(lambda: Git(str(machine))))
    assert known.problem == f"{machine} is in no Git repository" and "project's root" in known.fix
    known = meet(error_of(lambda: Git.clone(f"{CLOSED}/x", str(machine / "x"))))
    assert "the Git repository can't be had" in known.problem and "git fetch" in known.fix
    known = meet(SCMError("detected dubious ownership in repository at '/a b'"))
    assert known.fix == "git config --global --add safe.directory /a b, then the same command"


@pytest.fixture
def repo(run: Run, machine: Path) -> Path:
    """A DVC repository, with a file that DVC tracks and a remote that can't be reached."""
    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    Path("a.txt").write_text("a", encoding="utf-8")
    run("dvc", "add", "--quiet", "a.txt")
    return machine


def test_dvc_says_what_is_wrong(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    def of_repo(name: str, **options: Any) -> ProjectError:
        def call() -> None:
            with Repo(".") as opened:
                getattr(opened, name)(**options)

        return meet(error_of(call))

    assert "dvc remote add -d" in of_repo("push").fix
    Path(".dvc/config").write_text("[core]\n  remote = storage\n['remote \"storage\"']\n  url = s3://b12/c\n")
    assert "there are no AWS credentials" in of_repo("push").problem
    Path("a.txt").unlink()
    subprocess.run(["rm", "-r", ".dvc/cache"], check=True)
    known = of_repo("checkout")
    assert "data of this commit are not in this clone" in known.problem and known.fix.startswith("dvc pull")
    Path("dvc.yaml").write_text("stages:\n  a:\n    cmd: echo ${x}\n")
    known = of_repo("reproduce")
    assert "DVC refuses dvc.yaml" in known.problem and known.fix.startswith("correct dvc.yaml")
    for text in ("<<<<<<< HEAD\nstages: {}\n", "stages: [1]\n"):
        Path("dvc.yaml").write_text(text)
        known = of_repo("reproduce")
        assert "dvc.yaml can't be read" in known.problem and "git checkout" in known.fix
    Path("dvc.yaml").unlink()
    Path(".dvc/config").write_text("[core]\n  remot = storage\n")
    known = of_repo("push")
    assert "can't read its configuration" in known.problem and "correct .dvc/config" in known.fix
    Path(".dvc/config").write_text("[core]\n")
    monkeypatch.chdir("/")
    known = of_repo("push")
    assert known.problem == "/ is in no DVC repository" and "project's root" in known.fix
    from dvc.exceptions import DvcException

    assert meet(DvcException("no")).problem == "DVC can't do that: no"


def test_dvc_that_is_busy_names_who(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    code = "from dvc.repo import Repo\nwith Repo('.').lock: print('locked', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "locked\n"
    with Repo(".") as opened:
        known = meet(error_of(lambda: opened.add("b.txt")))
    assert known.problem == "another DVC command works in this repository" and "wait for it to end" in known.fix
    holder.communicate("\n")
    lock = {"write": {str(repo / "b.txt"): {"pid": os.getppid(), "cmd": "dvc repro"}}, "read": {}}
    Path("b.txt").write_text("b", encoding="utf-8")
    Path(".dvc/tmp/rwlock").write_text(json.dumps(lock), encoding="utf-8")
    with Repo(".") as opened:
        known = meet(error_of(lambda: opened.add("b.txt")))
        assert "dvc repro" in known.problem and f"kill {os.getppid()}" in known.fix
        Path(".dvc/tmp/rwlock").write_text("{", encoding="utf-8")
        known = meet(error_of(lambda: opened.add("b.txt")))
        assert "rwlock is damaged" in known.problem and "rm .dvc/tmp/rwlock" in known.fix
        Path(".dvc/tmp/rwlock").unlink()
        opened.add("b.txt")


def test_dvc_s_number_of_files_is_told_by_the_last_one_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.exceptions import UploadError

    assert meet(UploadError(3)).problem == "DVC can't do that: 3 files failed to upload"
    monkeypatch.setattr(module._last_failure, "error", refusal("AccessDenied", "PutObject"))
    assert "AWS refuses PutObject" in meet(UploadError(3)).problem


def test_fault_of_the_program_keeps_its_traceback() -> None:
    def fail_again() -> None:
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "a")
        except OSError:
            raise KeyError("a")  # noqa: B904 (as a fault would)

    faults = [KeyError("x"), ValueError("SlowDown"), TypeError(), FileNotFoundError(2, "No such file"), IndexError()]
    assert [fault for fault in (*faults, error_of(fail_again)) if explain(fault)] == []
    json_error = error_of(lambda: json.loads("{"))
    assert explain(json_error) is None, "whose file it is, is not known"


def test_error_for_people_is_returned_as_it_is() -> None:
    error = ProjectError("a", "b")
    assert explain(error) is error


def test_message_has_no_credentials_and_one_line() -> None:
    known = explain(requests.exceptions.ChunkedEncodingError("https://me:secret@host/a\n failed"))
    assert known and known.problem == "the server at host fails: https://host/a failed"


def test_each_known_error_was_met() -> None:
    """After all tests above; alone, it says nothing."""
    if len(used) > 20:
        assert [row.problem for row in KNOWN if row.pattern not in used] == []
