"""Whatever fails, MLflow ends with exactly the points of the run's files, and the training does not feel it."""

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ..servers.mlflow import PATIENCE_S, MlflowServer, free_ports, until
from ..servers.proxies import Fault, FaultProxy
from ..servers.stores import SmallDisk
from .conftest import Start
from .trainings import Training, assert_mirrored, assert_unhurt, keep_files, runs_of, until_sent, written

AT_ONCE = 8
FREEZE_STEPS = 6000  # of 10 ms: a minute


NETWORK = (  # each hits one training, all at once
    Fault("lose reply", times=2, path="log-batch"),
    Fault("lose request", times=2),
    Fault("answer", times=2, status=500),
    Fault("answer", times=2, status=429),
)


@pytest.fixture
def proxies(team_server: MlflowServer) -> Iterator[list[FaultProxy]]:
    """A bad network for each of `NETWORK`."""
    between = [FaultProxy(team_server.url) for _ in NETWORK]
    yield between
    for opened in between:
        opened.close()


@pytest.mark.slow
def test_network_faults_in_mid_run_send_each_point_once(
    start: Start, proxies: list[FaultProxy], client: MlflowClient
) -> None:
    trainings = [start(proxy.url) for proxy in proxies]
    for training in trainings:
        until_sent(training, client)
    faults = [proxy.breaks(replace(fault)) for proxy, fault in zip(proxies, NETWORK, strict=True)]
    until(lambda: all(fault.hits == fault.times for fault in faults))
    for training in trainings:
        until_sent(training, client)  # it goes on by itself
    for training, proxy in zip(trainings, proxies, strict=True):
        assert training.end() == 0, training.output()
        assert_mirrored(training, client)
        assert set(proxy.applied.values()) == {1}
        assert_unhurt(training)


def test_server_killed_and_restarted_in_mid_run_gets_everything(
    start: Start, fragile_server: MlflowServer, client: MlflowClient
) -> None:
    training = start(fragile_server.url)
    until_sent(training, client)
    sidecar = training.sidecar()
    fragile_server.kill()
    until(lambda: "Connection refused" in training.mirror_log())
    fragile_server.start()
    until_sent(training, client)
    assert sidecar.is_running()  # it is the one that was connected
    assert training.end() == 0, training.output()
    assert_mirrored(training, client)
    assert_unhurt(training)


@pytest.mark.slow
def test_server_frozen_for_a_minute_gets_everything(
    start: Start, fragile_server: MlflowServer, client: MlflowClient
) -> None:
    training = start(fragile_server.url)
    until_sent(training, client)
    fragile_server.freeze()
    training.has_rows(FREEZE_STEPS)
    fragile_server.resume()
    assert training.end() == 0, training.output()
    assert_mirrored(training, client)
    assert_unhurt(training)


@pytest.mark.slow
def test_server_away_from_the_beginning_gets_everything_by_sync(
    start: Start, client: MlflowClient, team_server: MlflowServer
) -> None:
    training = start(f"http://127.0.0.1:{free_ports(1)[0]}", "--steps", "500")
    assert training.process.wait(PATIENCE_S) == 0, training.output()
    assert "mirror sync" in training.output()
    until(lambda: not training.is_followed())
    done = training.sync(MLFLOW_TRACKING_URI=team_server.url)
    assert done.returncode == 0, done.stderr
    assert_mirrored(training, client)
    assert_unhurt(training)


@pytest.mark.slow
def test_slow_network_gets_everything(start: Start, proxy: FaultProxy, client: MlflowClient) -> None:
    proxy.delay_s = 0.5
    training = start(proxy.url, "--steps", "500")
    assert training.process.wait(PATIENCE_S) == 0, training.output()
    assert_mirrored(training, client)
    assert set(proxy.applied.values()) == {1}
    assert_unhurt(training)


@pytest.fixture
def small_disk_server(tmp_path: Path) -> Iterator[tuple[SmallDisk, MlflowServer]]:
    """A server that keeps its database and its artifacts on a small disk."""
    disk = SmallDisk(tmp_path / "disk")
    started = MlflowServer(disk.folder, within=disk.within)
    yield disk, started
    started.kill()


@pytest.mark.slow
def test_disk_full_at_the_server_gets_everything_when_there_is_space(
    start: Start, small_disk_server: tuple[SmallDisk, MlflowServer]
) -> None:
    disk, server = small_disk_server
    client = MlflowClient(server.url)
    training = start(server.url)
    until_sent(training, client)
    disk.fill(server)
    until(lambda: "too many 50" in training.mirror_log())  # 500 or 503: it can't write
    training.has_rows(100)
    disk.clear(server)
    assert training.end() == 0, training.output()
    assert_mirrored(training, client)
    assert_unhurt(training)


@pytest.mark.slow
def test_sidecar_killed_in_mid_run_is_started_again(start: Start, proxy: FaultProxy, client: MlflowClient) -> None:
    training = start(proxy.url)
    until_sent(training, client)
    training.sidecar().kill()
    until_sent(training, client)
    assert training.end() == 0, training.output()
    assert_mirrored(training, client)
    assert set(proxy.applied.values()) == {1}
    assert_unhurt(training)


@pytest.mark.slow
def test_sidecar_killed_at_the_very_end_is_started_again(start: Start, proxy: FaultProxy, client: MlflowClient) -> None:
    training = start(proxy.url, "--steps", "500")
    until_sent(training, client)
    proxy.breaks(Fault("answer", path="runs/update"))  # the last of all requests
    until(lambda: proxy.requests["/api/2.0/mlflow/runs/update"])
    training.sidecar().kill()
    proxy.heals()
    assert training.process.wait(PATIENCE_S) == 0, training.output()
    assert_mirrored(training, client)
    assert set(proxy.applied.values()) == {1}
    assert_unhurt(training)


@pytest.mark.slow
def test_trainer_killed_has_every_written_row_and_failed(start: Start, proxy: FaultProxy, client: MlflowClient) -> None:
    training = start(proxy.url)
    until_sent(training, client)
    training.process.kill()
    training.process.wait()
    assert_mirrored(training, client, "FAILED")
    assert set(proxy.applied.values()) == {1}
    assert_unhurt(training)


@pytest.mark.slow
@pytest.mark.parametrize("cleared", [False, True], ids=["as-it-was", "next-training-began"])
def test_trainer_and_sidecar_killed_sync_sends_what_lacks(
    start: Start, proxy: FaultProxy, client: MlflowClient, tmp_path: Path, cleared: bool
) -> None:
    training = start(proxy.url)
    until_sent(training, client)
    training.kill_all()
    assert sum(written(training.project.path).values()) > sum(proxy.applied.values())
    files = keep_files(training, tmp_path / "kept")
    if cleared:  # as DVC does before it runs the stage again
        shutil.rmtree(training.project.path / "reports" / "train")
    done = training.sync()
    assert done.returncode == 0, done.stderr
    assert_mirrored(training, client, "FAILED", files)
    assert set(proxy.applied.values()) == {1}
    assert_unhurt(training)


@pytest.mark.slow
def test_everything_killed_at_the_very_beginning_sync_sends_all(
    start: Start, client: MlflowClient, team_server: MlflowServer
) -> None:
    training = _killed_before_anything_was_sent(start)
    done = training.sync(MLFLOW_TRACKING_URI=team_server.url)
    assert done.returncode == 0, done.stderr
    assert_mirrored(training, client, "FAILED")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["runs/create", "log-batch", "runs/update"])
def test_sync_lost_reply_leaves_everything_once(
    start: Start, proxy: FaultProxy, client: MlflowClient, path: str
) -> None:
    training = _killed_before_anything_was_sent(start)
    lost = proxy.breaks(Fault("lose reply", times=1, path=path))
    done = training.sync(MLFLOW_TRACKING_URI=proxy.url)
    assert lost.hits == 1
    if done.returncode:
        assert "mirror sync" in done.stderr
        done = training.sync(MLFLOW_TRACKING_URI=proxy.url)
    assert done.returncode == 0, done.stderr
    assert_mirrored(training, client, "FAILED")
    assert set(proxy.applied.values()) == {1}


def _killed_before_anything_was_sent(start: Start) -> Training:
    training = start(f"http://127.0.0.1:{free_ports(1)[0]}", "--step-s", "0.001")
    training.has_rows(50)
    training.kill_all()
    return training


@pytest.mark.slow
@pytest.mark.parametrize("store", ["server", "sqlite"])
def test_trainings_at_once_have_everything(start: Start, team_server: MlflowServer, tmp_path: Path, store: str) -> None:
    uri = team_server.url if store == "server" else f"sqlite:///{tmp_path / 'new.db'}"
    go = tmp_path / "go"
    trainings = [start(uri, "--steps", "500", "--after", str(go)) for _ in range(AT_ONCE)]
    until(lambda: all(_is_ready(training) for training in trainings))
    go.touch()
    assert [training.process.wait(PATIENCE_S) for training in trainings] == [0] * AT_ONCE
    client = MlflowClient(uri)
    for training in trainings:
        assert_mirrored(training, client)
        assert_unhurt(training)


def _is_ready(training: Training) -> bool:
    assert training.process.poll() is None, training.output()
    return (training.project.path / f"{training.run}.ready").exists()


@pytest.mark.slow
def test_clock_jumping_back_changes_nothing(start: Start, proxy: FaultProxy, client: MlflowClient) -> None:
    training = start(proxy.url, "--back-at", "150", "--steps", "500")
    assert training.process.wait(PATIENCE_S) == 0, training.output()
    run = assert_mirrored(training, client)
    times = [point.timestamp for point in client.get_metric_history(run.info.run_id, "train/0")]
    assert max(times) - min(times) > 3_500_000  # milliseconds
    assert set(proxy.applied.values()) == {1}
    assert_unhurt(training)


@pytest.mark.slow
def test_run_deleted_in_mid_run_is_reported_and_stays_deleted(
    start: Start, proxy: FaultProxy, client: MlflowClient
) -> None:
    training = start(proxy.url)
    until_sent(training, client)
    (run,) = runs_of(client, training.run)
    client.delete_run(run.info.run_id)
    until(lambda: "was deleted in MLflow" in training.mirror_log())
    assert training.end() == 0, training.output()
    until(lambda: not training.is_followed())
    done = training.sync()
    assert "was deleted in MLflow" in done.stderr
    assert "rm -r" in done.stderr
    (still,) = runs_of(client, training.run)
    assert still.info.lifecycle_stage == "deleted"
    assert_unhurt(training)


@pytest.mark.slow
def test_training_interrupted_is_killed_in_mlflow(start: Start, proxy: FaultProxy, client: MlflowClient) -> None:
    training = start(proxy.url)
    until_sent(training, client)
    training.process.send_signal(signal.SIGINT)
    assert training.process.wait(PATIENCE_S) != 0
    assert_mirrored(training, client, "KILLED")
    assert_unhurt(training)
