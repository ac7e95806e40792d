"""MLflow is asked before the work: what can't be used is refused, what is away is not waited for."""

import datetime
import ipaddress
import json
import os
import shlex
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient
from mlops import pipeline, runner
from mlops.errors import ProjectError
from mlops.tracking import mlflow_check, mlflow_client, mlflow_reader
from mlops.tracking.mlflow_check import check_usable
from mlops.tracking.mlflow_client import MlflowAwayError, MlflowError

from ...servers.proxies import Reply, Request, Server

ABSENT = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Could not find experiment with name \'demo\'"}'
PAGE = [("Content-Type", "text/html; charset=utf-8")]


class Answers(Server):
    """A server that answers requests by the end of their path, as MLflow 3 does unless something else is given."""

    def __init__(self, **answers: Reply) -> None:
        self.answers = {
            "get_by_name": Reply(404, [("Content-Type", "application/json")], ABSENT),
            "search": Reply(200, [("Content-Type", "application/json")], b"{}"),
            "version": Reply(200, PAGE, b"3.17.2"),
        } | answers
        super().__init__()

    def handle(self, request: Request) -> Reply | None:
        """Answer a request."""
        path = request.target.partition("?")[0].rpartition("/")[2].replace("-", "_")
        return self.answers.get(path, Reply(404, PAGE, b"<title>404 Not Found</title>"))


def point_to(uri: str) -> None:
    """Write where MLflow is."""
    platform = f"project: demo\ntracking_uri: {uri}\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(platform, encoding="utf-8")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a `platform.yaml`, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "STAGE_JOB", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    point_to("null")


@pytest.fixture
def database(tables: Path) -> Path:
    """MLflow's tables, empty, in the project."""
    path = Path("mlflow.db").resolve()
    path.write_bytes(tables.read_bytes())
    return path


def follow(fix: str) -> None:
    """Run the commands of a fix in a shell, as a person would."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", fix.removesuffix(", then the same command")], check=True, env={**os.environ, "PATH": path}
    )


def test_new_and_empty_databases_are_usable(database: Path) -> None:
    check_usable()
    database.write_bytes(b"")
    check_usable()
    database.unlink()
    check_usable()
    assert not database.exists(), "it is asked, not made"


def test_check_leaves_the_database_as_it_is(database: Path) -> None:
    before = database.read_bytes()
    check_usable()
    assert database.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all" * 100, None], ids=["text", "cut-off"])
def test_damaged_database_is_refused(database: Path, content: bytes | None) -> None:
    database.write_bytes(content or database.read_bytes()[:20000])
    fix = f"mv {database} {database}.damaged && python -m mlops mirror repair"
    with pytest.raises(MlflowError, match="the database is damaged") as refused:
        check_usable()
    assert refused.value.fix == fix
    with pytest.raises(MlflowError, match="the database is damaged"), mlflow_client.translate_errors("-"):
        mlflow_client.client()


@pytest.mark.skipif(sys.platform == "win32", reason="other rights")
def test_read_only_database_is_refused_and_the_fix_makes_it_writable(database: Path) -> None:
    protect, release = (["chattr", "+i"], ["chattr", "-i"]) if os.geteuid() == 0 else (["chmod", "a-w"], ["true"])
    if subprocess.run([*protect, database], capture_output=True).returncode:
        pytest.skip("this file system can't protect a file from root")
    try:
        with pytest.raises(MlflowError, match="the database can't be written") as refused:
            check_usable()
    finally:
        subprocess.run([*release, database], check=True)
    database.chmod(0o444)
    follow(refused.value.fix)
    assert database.stat().st_mode & 0o200
    check_usable()


def test_database_that_another_process_writes_to_is_away(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_check, "TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MlflowAwayError, match="can't be reached: the database is in use by another process"):
            check_usable()


def set_revision(database: Path, revision: str) -> None:
    with closing(sqlite3.connect(database)) as writer, writer:
        writer.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_database_of_a_newer_mlflow_is_refused(database: Path) -> None:
    set_revision(database, "f" * 12)
    with pytest.raises(MlflowError, match=r"a newer MLflow than [\d.]+ made its tables") as refused:
        check_usable()
    assert refused.value.fix.startswith(f"mv {database} {database}.new && python -m mlops mirror repair; or ")


def revisions(database: Path) -> list[str]:
    """Return the revisions of MLflow's tables, the newest first."""
    config = Config()
    config.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store/db_migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{database}")
    return [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]


def test_database_of_an_older_mlflow_is_refused_with_the_command_that_upgrades_it(database: Path) -> None:
    set_revision(database, revisions(database)[1])
    with pytest.raises(MlflowError, match="an older MLflow made its tables") as refused:
        check_usable()
    assert refused.value.fix.startswith(f"cp {database} {database}.old && mlflow db upgrade sqlite:///{database}, then")


def test_deleted_experiment_is_refused_and_the_fix_restores_it(database: Path) -> None:
    client = MlflowClient(f"sqlite:///{database}")
    client.delete_experiment(client.create_experiment("demo"))
    with pytest.raises(MlflowError, match="the MLflow experiment demo was deleted at sqlite:") as refused:
        check_usable()
    assert refused.value.fix == f"MLFLOW_TRACKING_URI=sqlite:///{database} mlflow experiments restore --experiment-id 1"
    with pytest.raises(MlflowError, match="the MLflow experiment demo was deleted at sqlite:"):
        mlflow_client.experiment_id(client, "demo")
    follow(refused.value.fix)
    check_usable()
    assert mlflow_client.experiment_id(client, "demo") == "1"


def test_missing_database_of_known_versions_is_repaired(run: object, database: Path) -> None:
    commands = ("init --quiet", "commit --quiet --allow-empty -m Start", "tag demo@v1.0.0")
    for command in commands:
        subprocess.run(["git", *shlex.split(command)], check=True)
    database.unlink()
    with pytest.raises(MlflowAwayError, match=r"has no experiment demo, though Git knows demo@v1\.0\.0") as missing:
        check_usable()
    assert missing.value.fix == "python -m mlops mirror repair"


@pytest.mark.parametrize(
    ("uri", "problem", "fix"),
    [
        (
            "file:///tmp/mlruns",
            "is a folder, and MLflow keeps neither",
            "platform.yaml:tracking_uri: null, or a server",
        ),
        ("mlruns", "is a relative path", "platform.yaml:tracking_uri: null, or an absolute address"),
        ("sqlite:///mlflow.db", "is a relative path", "platform.yaml:tracking_uri: null, or an absolute address"),
    ],
    ids=["folder", "path", "sqlite"],
)
def test_address_that_mlflow_can_not_use_is_refused(
    monkeypatch: pytest.MonkeyPatch, uri: str, problem: str, fix: str
) -> None:
    point_to(uri)
    with pytest.raises(ProjectError, match=problem) as refused:
        check_usable()
    assert refused.value.fix == fix
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ProjectError, match=problem) as refused:
        check_usable()
    assert refused.value.fix == f"unset MLFLOW_TRACKING_URI, or {fix}"


def test_address_of_a_kind_that_mlflow_does_not_know_is_refused() -> None:
    point_to("foo://bar")
    with pytest.raises(
        MlflowError, match=r"MLflow at foo://bar has no such kind of address\nFix: platform\.yaml:track"
    ):
        check_usable()


def test_sqlite_address_of_a_folder_is_refused(tmp_path: Path) -> None:
    point_to(f"sqlite:///{tmp_path}")
    with pytest.raises(ProjectError, match=r"is a folder\nFix: platform.yaml:tracking_uri: sqlite:///.*/mlflow\.db$"):
        check_usable()


def test_registry_elsewhere_is_refused_and_the_same_place_is_not(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{database}")
    check_usable()
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://me:secret@models.example.com")
    problem = r"MLFLOW_REGISTRY_URI is http://models\.example\.com: versions would go there"
    with pytest.raises(ProjectError, match=rf"{problem}.*\nFix: unset MLFLOW_REGISTRY_URI$"):
        check_usable()


def test_active_model_of_other_work_gets_no_points(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", "m-1")
    mlflow_client.client()
    assert "MLFLOW_ACTIVE_MODEL_ID" not in os.environ


def check_server(**answers: Reply) -> None:
    """Ask a server with other answers than MLflow 3's."""
    server = Answers(**answers)
    try:
        point_to(server.url)
        check_usable()
    finally:
        server.close()


def test_server_without_the_experiment_is_usable() -> None:
    check_server()


def test_server_of_mlflow_2_is_refused_with_both_versions() -> None:
    page = Reply(404, PAGE, b"<!doctype html>\n<title>404 Not Found</title>")
    problem = r"MLflow at http://127\.0\.0\.1:\d+ is 2\.22\.1, and registering a model takes 3\.0 or later"
    with pytest.raises(MlflowError, match=rf"{problem}\nFix: on the server: pip install 'mlflow>=3\.0'"):
        check_server(search=page, version=Reply(200, PAGE, b"2.22.1"))
    with pytest.raises(MlflowError, match="is too old, and registering"):
        check_server(search=page, version=page)


@pytest.mark.parametrize("status", [200, 404])
def test_server_of_other_pages_is_refused(status: int) -> None:
    page = Reply(status, PAGE, b"<title>Welcome</title>")
    with pytest.raises(MlflowError, match=r"is no MLflow\nFix: platform\.yaml:tracking_uri: "):
        check_server(get_by_name=page, search=page)


def test_server_with_a_deleted_experiment_is_refused() -> None:
    fields = {"experiment_id": "7", "name": "demo", "lifecycle_stage": "deleted"}
    body = json.dumps({"experiment": fields}).encode()
    problem = r"was deleted at http.*\nFix: MLFLOW_TRACKING_URI=http\S+ mlflow experiments restore --experiment-id 7$"
    with pytest.raises(MlflowError, match=problem):
        check_server(get_by_name=Reply(200, [("Content-Type", "application/json")], body))


@pytest.mark.parametrize(
    ("status", "fix"),
    [(401, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"), (403, "ask who administers MLflow")],
)
def test_server_that_refuses_the_login_is_refused(status: int, fix: str) -> None:
    body = Reply(status, [("Content-Type", "text/plain")], b"You are not authenticated.")
    with pytest.raises(MlflowError, match=rf"{status} \w+: You are not authenticated\.\nFix: {fix}") as refused:
        check_server(get_by_name=body)
    assert not isinstance(refused.value, MlflowAwayError)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_that_is_busy_is_away(status: int) -> None:
    with pytest.raises(MlflowAwayError, match=f"answers {status} .*\nFix: see that the server is up"):
        check_server(get_by_name=Reply(status, PAGE, b"<title>Sorry</title>"))


def test_server_that_is_away_or_frozen_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_check, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # takes connections, and answers nothing
        address = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        point_to(address)
        with pytest.raises(MlflowAwayError, match="can't be reached: the server at .* does not answer"):
            check_usable()
    with pytest.raises(MlflowAwayError, match="can't be reached: no server answers at 127"):
        check_usable()
    point_to("http://me:secret@nowhere.invalid")
    with pytest.raises(
        MlflowAwayError, match=r"MLflow at http://nowhere\.invalid can't be reached: the server's name can't"
    ):
        check_usable()


@pytest.fixture
def private_ca(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Give the address of a server with a certificate that nobody knows, and the file with that."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "us")])
    now, address = datetime.datetime.now(datetime.UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.command == "GET" else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(ABSENT if self.command == "GET" else b"{}")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}", path
    server.shutdown()
    server.server_close()


def test_server_with_a_private_ca_is_away_until_the_fix_names_it(
    private_ca: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, path = private_ca
    point_to(url)
    with pytest.raises(
        MlflowAwayError, match=r"127\.0\.0\.1:\d+: this machine does not trust its certificate\nFix"
    ) as away:
        check_usable()
    setting = away.value.fix.split()[1].partition("=")[0]
    assert setting == "MLFLOW_TRACKING_SERVER_CERT_PATH"
    with pytest.raises(MlflowError, match="does not trust its certificate"), mlflow_client.translate_errors("-"):
        mlflow_client.client().search_experiments(max_results=1)  # MLflow's own chain of errors says the same
    monkeypatch.setenv(setting, str(path))
    check_usable()


PIPELINE = """\
stages:
  prepare: {cmd: "true", outs: [data]}
  train: {cmd: "true", deps: [data], outs: [reports/run.json: {cache: false}]}
  register: {cmd: "true", deps: [reports/run.json], outs: [reports/register.json: {cache: false}]}
"""


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline, whose packages are in the working directory."""
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    Path("dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    monkeypatch.setattr(runner, "__file__", str(Path("mlops/runner.py").resolve()))
    assert list(pipeline.load_stages()) == ["prepare", "train", "register"]


@pytest.mark.parametrize("stage", ["train", "register"])
@pytest.mark.parametrize("run_on", ["local", "sandbox"])
def test_stage_that_needs_mlflow_is_refused_before_it_runs(
    stages: None, database: Path, monkeypatch: pytest.MonkeyPatch, stage: str, run_on: str
) -> None:
    monkeypatch.setenv("RUN_ON", run_on)
    database.write_bytes(b"no database" * 100)
    with pytest.raises(MlflowError, match="the database is damaged"):
        runner.run_stage(stage)


def test_stage_that_needs_no_mlflow_or_is_a_job_does_not_ask(
    stages: None, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write_bytes(b"no database" * 100)
    runner._check_mlflow(pipeline.load_stage("prepare"))
    monkeypatch.setenv("STAGE_JOB", "job.json")
    runner._check_mlflow(pipeline.load_stage("train"))


def test_mlflow_that_is_away_stops_no_training(stages: None, caplog: pytest.LogCaptureFixture) -> None:
    point_to("http://127.0.0.1:1")
    runner._check_mlflow(pipeline.load_stage("train"))
    (record,) = caplog.records
    message = record.getMessage()
    assert "can't be reached: no server answers at 127.0.0.1:1. The training goes on without it." in message
    assert message.endswith("see that the server is up (platform.yaml:tracking_uri), then python -m mlops mirror sync")
    runner._check_mlflow(pipeline.load_stage("register"))  # asks itself, and waits longer
    assert len(caplog.records) == 1


def test_asking_imports_no_mlflow(database: Path) -> None:
    server = Answers()
    code = "import sys, mlops.tracking.mlflow_check as check; check.check_usable(); print('mlflow' in sys.modules)"
    for uri in (f"sqlite:///{database}", server.url):
        env = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(Path(mlflow_reader.__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
    server.close()
