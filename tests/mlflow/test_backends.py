"""Every MLflow that a team may have: a server with and without a login, and SageMaker's by ARN."""

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlops.tracking import mlflow_reader
from mlops.tracking.mlflow_check import check_usable
from mlops.tracking.mlflow_client import MlflowError, translate_errors
from mlops.tracking.mlflow_reader import ClientReader, RestReader

from ..conftest import BakedProject, copied, made_once, new_project
from ..mlops.tracking.test_mlflow_reader import QUESTIONS, fill
from ..servers.mlflow import PATIENCE_S, MlflowServer, until
from ..servers.proxies import FaultProxy
from ..servers.s3 import BUCKET, KEY, SECRET, ObjectStore
from ..servers.sagemaker import SigV4Proxy
from .conftest import Start
from .trainings import assert_mirrored, assert_unhurt, points_of, runs_of, until_sent, written

PASSWORD = "a-password-of-the-tests"  # noqa: S105
TOKEN = "a-token-of-the-tests"  # noqa: S105
APP = "arn:aws:sagemaker:eu-west-1:111122223333:mlflow-app/app-TEST"
TRACKING_SERVER = "arn:aws:sagemaker:eu-west-1:111122223333:mlflow-tracking-server/test"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project with its dataset and manifest, in which nothing was trained, to copy."""

    def make(folder: Path) -> None:
        made = new_project(folder)
        made.run("python", "-m", "mlops", "setup")
        made.run("dvc", "repro", "manifest")

    return made_once(tmp_path_factory, "untrained", make)


@pytest.fixture
def project(prepared: BakedProject, tmp_path: Path) -> BakedProject:
    """A copy of it, with a storage of its own."""
    return copied(prepared, tmp_path)


def _point_to(project: BakedProject, uri: str, name: str = "digit-classifier") -> None:
    """Name an MLflow server in `platform.yaml`, and the experiment and the model there."""
    path = project.path / "platform.yaml"
    text = path.read_text(encoding="utf-8").replace("tracking_uri: null", f"tracking_uri: {uri}")
    path.write_text(text.replace("project: digit-classifier", f"project: {name}"), encoding="utf-8")
    assert uri in path.read_text(encoding="utf-8")


def _assert_whole(project: BakedProject, client: MlflowClient, name: str = "digit-classifier") -> str:
    """Check that MLflow has everything of the run in the project, and its registered version.

    Returns:
        MLflow's id of the run.
    """
    named = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    (run,) = runs_of(client, named, name)
    assert run.info.status == "FINISHED"
    points = written(project.path)
    summary = json.loads((project.path / "reports/train/metrics.json").read_text(encoding="utf-8"))
    curves = {name for name, *_ in points}
    figures = {name: value for name, value in summary.items() if name not in curves | {"step", "train", "val"}}
    of_stages = {"prepare.excluded": 0, "manifest.records": 1797, "manifest.subjects": 14, "register.version": 1}
    assert points_of(client, run, of_stages.keys() | figures.keys()) == points
    assert (of_stages | figures).items() <= run.data.metrics.items()
    assert "test_acc" in figures
    assert run.data.params["train.max_lr"] == "0.003"
    assert run.inputs
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == run.data.params["dataset_md5"]
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.run_id == run.info.run_id
    assert version.tags["dataset_md5"] == run.data.params["dataset_md5"]
    artifacts = set(_artifacts(client, run.info.run_id))
    assert {"data/manifest.parquet", "reports/manifest.json", "lineage.json"} <= artifacts
    assert any(path.endswith("confusion.png") for path in artifacts)
    assert list((project.path / ".dvc/tmp/outbox").glob("*/*")) == []
    return str(run.info.run_id)


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for artifact in client.list_artifacts(run_id, folder):
        if artifact.is_dir:
            yield from _artifacts(client, run_id, artifact.path)
        else:
            yield artifact.path


@pytest.mark.slow
def test_repro_on_a_server_with_postgresql_has_the_whole_run(
    project: BakedProject, team_server: MlflowServer, client: MlflowClient
) -> None:
    _point_to(project, team_server.url, "on-postgresql")
    done = project.run("dvc", "repro")
    _assert_whole(project, client, "on-postgresql")
    assert "WARNING" not in done.stderr


@pytest.fixture(scope="session")
def login_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server that asks for a password."""
    started = MlflowServer(tmp_path_factory.mktemp("login"), password=PASSWORD)
    yield started
    started.kill()


@pytest.mark.slow
def test_basic_auth_wrong_password_is_refused_and_the_right_one_completes(
    start: Start, login_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    wrong = {**right, "MLFLOW_TRACKING_PASSWORD": "a guess"}
    for name, value in right.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(login_server.url)
    training = start(login_server.url, **right)
    until_sent(training, client)
    training.kill_all()
    refused = training.sync(**wrong)
    assert refused.returncode == 2
    assert "not authenticated" in refused.stderr
    assert re.search("Fix: .*MLFLOW_TRACKING_PASSWORD", refused.stderr)
    done = training.sync()
    assert done.returncode == 0, done.stderr
    assert_mirrored(training, client, "FAILED")
    assert_unhurt(training)


@pytest.mark.slow
def test_token_wrong_one_is_refused_and_the_right_one_completes(
    start: Start, team_server: MlflowServer, client: MlflowClient
) -> None:
    door = FaultProxy(team_server.url, token=TOKEN)
    training = start(door.url, MLFLOW_TRACKING_TOKEN=TOKEN)
    until_sent(training, client)
    training.kill_all()
    refused = training.sync(MLFLOW_TRACKING_TOKEN="a guess")  # noqa: S106
    assert refused.returncode == 2
    assert "a bearer token is missing, or wrong" in refused.stderr
    assert re.search("Fix: .*MLFLOW_TRACKING_TOKEN", refused.stderr)
    done = training.sync()
    assert done.returncode == 0, done.stderr
    assert_mirrored(training, client, "FAILED")
    door.close()


@pytest.mark.slow
def test_plain_http_with_the_plugin_installed_warns_of_nothing(
    start: Start, team_server: MlflowServer, client: MlflowClient
) -> None:
    assert importlib.util.find_spec("sagemaker_mlflow")
    training = start(team_server.url)
    until_sent(training, client)
    assert training.mirror_log() == ""
    training.kill_all()
    done = training.sync()
    assert done.returncode == 0
    assert "request_header" not in done.stderr
    assert "WARNING" not in done.stderr


def test_reader_of_a_server_answers_as_mlflow_s_client(
    client: MlflowClient, team_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client)
    monkeypatch.setattr(mlflow_reader, "PAGE", 2)
    door = FaultProxy(team_server.url, token=TOKEN)
    monkeypatch.chdir(tmp_path)
    platform = f"project: demo\ntracking_uri: {door.url}\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(platform, encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a guess")
    reader, other = mlflow_reader.connect(), ClientReader(client)
    assert isinstance(reader, RestReader)
    refused = pytest.raises(MlflowError, match=r"401 .*a bearer token is missing, or wrong(?s:.*)MLFLOW_TRACKING_TOKEN")
    with refused, translate_errors("-"):
        reader.experiments()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    reader = RestReader(door.url)
    for name, question in QUESTIONS.items():
        assert question(reader) == question(other), name
    (demo,) = (experiment.id for experiment in reader.experiments() if experiment.name == "demo")
    assert [run.name for run in reader.runs([demo], "tags.mirror_id = 'run3'")] == ["näme-3"]
    for number in (1, 4, 5):  # of those that nobody deleted, one has ended
        query = "attributes.start_time > 0"
        answers = [each.have_ended(demo, query, number) for each in (reader, other)]
        assert answers == [number == 1] * 2
    door.close()
    with pytest.raises(MlflowError, match="no server answers at"), translate_errors("-"):
        RestReader(door.url).experiments()


def test_check_of_a_server_refuses_a_deleted_experiment_until_it_is_restored(
    client: MlflowClient, team_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    platform = f"project: checked\ntracking_uri: {team_server.url}\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(platform, encoding="utf-8")
    check_usable()
    experiment = client.create_experiment("checked")
    check_usable()
    client.delete_experiment(experiment)
    fix = f"MLFLOW_TRACKING_URI={team_server.url} mlflow experiments restore --experiment-id {experiment}"
    with pytest.raises(MlflowError, match=f"the MLflow experiment checked was deleted.*\nFix: {fix}$"):
        check_usable()
    client.restore_experiment(experiment)
    check_usable()


@pytest.mark.slow
def test_check_of_a_server_with_basic_auth(
    login_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    platform = f"project: checked\ntracking_uri: {login_server.url}\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(platform, encoding="utf-8")
    login = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    for password in ("", "a guess"):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        with pytest.raises(MlflowError, match=f"does not know you: HTTP 401 Unauthorized\nFix: {login}"):
            check_usable()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    check_usable()
    address = login_server.url.replace("://", f"://admin:{PASSWORD}@")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    check_usable()


@pytest.mark.slow
def test_reader_of_a_server_with_basic_auth(login_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert RestReader(login_server.url).experiments()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guess")
    with pytest.raises(OSError, match="401"):
        RestReader(login_server.url).experiments()


@pytest.fixture(scope="session")
def sagemaker_server(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[MlflowServer]:
    """What is behind SageMaker's door: a server whose clients write artifacts to S3 themselves."""
    started = MlflowServer(tmp_path_factory.mktemp("sagemaker"), artifact_root=f"s3://{BUCKET}/artifacts")
    yield started
    started.kill()


Door = Callable[[str], SigV4Proxy]


@pytest.fixture
def door(sagemaker_server: MlflowServer, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """Give a function that makes the server answer to an ARN, for who has AWS credentials."""
    opened: list[SigV4Proxy] = []

    def open_one(arn: str) -> SigV4Proxy:
        opened.append(SigV4Proxy(sagemaker_server.url, arn, {KEY: SECRET}.get))
        monkeypatch.setenv("SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", opened[-1].url)
        for name, value in object_store.environment().items():
            monkeypatch.setenv(name, value)
        return opened[-1]

    yield open_one
    for proxy in opened:
        proxy.close()


@pytest.mark.slow
@pytest.mark.parametrize("arn", [APP, TRACKING_SERVER], ids=["mlflow-app", "mlflow-tracking-server"])
def test_repro_on_sagemaker_by_arn_has_the_whole_run(
    project: BakedProject, sagemaker_server: MlflowServer, object_store: ObjectStore, door: Door, arn: str
) -> None:
    opened = door(arn)
    name = arn.split(":")[5].partition("/")[0]
    _point_to(project, arn, name)
    done = project.run("dvc", "repro")
    client = MlflowClient(sagemaker_server.url)
    run_id = _assert_whole(project, client, name)
    assert "WARNING" not in done.stderr
    assert opened.passed > 20
    assert opened.refused == 0
    keys = list(object_store.names())
    assert any(run_id in key and key.endswith("confusion.png") for key in keys)
    (version,) = client.search_model_versions(f"name = '{name}'")
    model = str(version.source).removeprefix("models:/")
    assert any(model in key and key.endswith("model.safetensors") for key in keys)


def test_arn_of_sagemaker_gets_every_point_and_file_by_signed_requests(
    start: Start, sagemaker_server: MlflowServer, object_store: ObjectStore, door: Door
) -> None:
    opened, client = door(APP), MlflowClient(sagemaker_server.url)
    training = start(APP, **object_store.environment())
    until_sent(training, client)
    assert training.end() == 0, training.output()
    run = assert_mirrored(training, client)
    assert opened.passed > 0
    assert opened.refused == 0
    assert any(run.info.run_id in key and key.endswith("sample.png") for key in object_store.names())


@pytest.mark.slow
def test_arn_wrong_secret_keeps_the_run_and_the_right_one_completes_it(
    start: Start, sagemaker_server: MlflowServer, object_store: ObjectStore, door: Door
) -> None:
    opened = door(APP)
    client = MlflowClient(sagemaker_server.url)
    wrong = dict(object_store.environment("a guess"))
    training = start(APP, "--steps", "500", **wrong)
    assert training.process.wait(PATIENCE_S) == 0, training.output()
    assert "mirror sync" in training.output()
    until(lambda: not training.is_followed())
    assert opened.passed == 0
    refused = training.sync()
    assert refused.returncode == 2
    assert "does not match the signature you provided" in refused.stderr
    assert "Fix: aws sts get-caller-identity" in refused.stderr
    done = training.sync(**object_store.environment())
    assert done.returncode == 0, done.stderr
    run = assert_mirrored(training, client)
    assert any(run.info.run_id in key and key.endswith("sample.png") for key in object_store.names())
    assert_unhurt(training)


@pytest.mark.parametrize("arn", [APP, TRACKING_SERVER], ids=["mlflow-app", "mlflow-tracking-server"])
def test_check_of_sagemaker_by_arn_asks_with_signed_requests(
    door: Door, arn: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = door(arn)
    monkeypatch.chdir(tmp_path)
    platform = f"project: checked\ntracking_uri: {arn}\nrun_on: local\nallow_other_environment: false\n"
    Path("platform.yaml").write_text(platform, encoding="utf-8")
    check_usable()
    assert (opened.passed, opened.refused) == (2, 0)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a guess")
    with pytest.raises(MlflowError, match=r"does not know you(?s:.*)Fix: aws sts get-caller-identity"):
        check_usable()
