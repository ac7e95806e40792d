"""Several processes train as one does, and report once how they ended."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning_fabric import Fabric
from mlops.errors import ProjectError
from mlops.training import processes

from ...conftest import TEMPLATE
from ...projects import check_end
from ..conftest import SKELETON
from .loop import Result, plain, train

needs_posix = pytest.mark.skipif(os.name == "nt", reason="signals")
GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"
COUNT = 3  # for two, the order of a sum would not matter
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What each of several processes computed; one run of all cases."""
    folder = tmp_path_factory.mktemp("results")
    process = popen("results", folder, COUNT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output == "after the processes\n", "nothing else is printed"
    assert not (folder / "elsewhere").exists(), "the first process alone writes states"
    loaded = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(COUNT)]
    return [{name: Result(**run) for name, run in runs.items()} for runs in loaded]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a case; what is left of its processes is killed."""
    started: list[subprocess.Popen[str]] = []

    def call(name: str, count: int | str = 2, **variables: str) -> "subprocess.Popen[str]":
        started.append(popen(name, tmp_path, count, **variables))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def popen(name: str, folder: Path, count: int | str, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "STAGE_MACHINES"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.mlops.training.worker", "stage", name, str(folder), str(count)],
        cwd=TEMPLATE,
        env={**environment, "PYTHONPATH": str(SKELETON), "TRAIN_DEVICE": "cpu", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that were started in the background ignore the signal, and so would their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL) if os.name != "nt" else None,
    )


def pids(folder: Path, count: int = 2) -> list[int]:
    """Wait until the processes run; return their ids by rank."""
    files = [folder / f"{rank}.pid" for rank in range(count)]
    wait_for(lambda: all(file.exists() and file.read_text(encoding="utf-8") for file in files))
    return [int(file.read_text(encoding="utf-8")) for file in files]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def assert_same(result: Result, other: Result) -> None:
    """Compare all bits."""
    assert result.losses == other.losses
    assert all(torch.equal(result.weights[name], weight) for name, weight in other.weights.items())


@pytest.mark.parametrize(("case", "records"), [("left over 2", 34), ("left over 5", 37)])
def test_several_processes_compute_what_one_computes(results: list[dict[str, Result]], case: str, records: int) -> None:
    alone, shared = train(Fabric(accelerator="cpu", devices=1), plain, records), results[0][case]
    assert shared.losses == pytest.approx(alone.losses, rel=1e-5)
    for name, weights in shared.weights.items():
        assert torch.allclose(weights, alone.weights[name], atol=1e-5), name


@pytest.mark.parametrize("case", ["left over 2", "left over 5", "batch norm"])
def test_several_processes_agree(results: list[dict[str, Result]], case: str) -> None:
    first = results[0][case]
    trained = [name for name in first.weights if "running" not in name and "batches" not in name]
    for other in (result[case] for result in results[1:]):
        assert first.losses == other.losses
        assert all(torch.equal(first.weights[name], other.weights[name]) for name in trained)


def test_several_processes_twice_give_the_same_bits(results: list[dict[str, Result]]) -> None:
    for result in results:
        assert_same(result["batch norm"], result["batch norm again"])


def test_several_processes_cut_off_that_resume_end_with_the_same_bits(results: list[dict[str, Result]]) -> None:
    for result in results:
        whole, resumed = result["batch norm"], result["resumed"]
        assert_same(resumed, Result(whole.losses[2:], whole.weights))


def test_run_processes_alone_trains_in_place(start: Start, tmp_path: Path) -> None:
    process = start("record", 1)
    assert pids(tmp_path, 1) == [process.pid]
    (tmp_path / "stop").touch()
    output, _ = process.communicate(timeout=60)
    assert output == "process 0 prints\nprocess 0 warns\nafter the processes\n"


def test_first_process_alone_prints_and_what_follows_is_done_once(start: Start, tmp_path: Path) -> None:
    process = start("record")
    pids(tmp_path)
    (tmp_path / "stop").touch()
    output, _ = process.communicate(timeout=60)
    assert sorted(output.splitlines()) == ["after the processes", "process 0 prints", "process 0 warns"]
    assert process.returncode == 0


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_error_of_a_process_is_printed_once_with_its_fix(start: Start, tmp_path: Path, rank: int) -> None:
    process = start("record")
    pids(tmp_path)
    (tmp_path / f"fail {rank}").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.endswith("Error: this process has enough\nFix: lower its load\n")
    assert output.count("this process has enough") == 1
    assert "Traceback" not in output
    assert (tmp_path / "status").read_text(encoding="utf-8") == "FAILED"


def test_mistake_of_a_process_shows_its_traceback_once(start: Start, tmp_path: Path) -> None:
    process = start("record")
    pids(tmp_path)
    (tmp_path / "fail 1").write_text("mistake", encoding="utf-8")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.count("ZeroDivisionError: division by zero") == 1
    assert "In process 1:" in output
    assert "worker.py" in output


def interrupt(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does


def interrupt_twice(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    interrupt(process, workers)
    interrupt(process, workers)


def terminate(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    process.terminate()


def hang_up(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    process.send_signal(signal.SIGHUP)


def kill_first(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    os.kill(workers[0], signal.SIGKILL)


def kill_second(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    os.kill(workers[1], signal.SIGKILL)


def kill_supervisor(process: "subprocess.Popen[str]", workers: list[int]) -> None:
    process.kill()


@needs_posix
@pytest.mark.parametrize(
    ("end", "code", "line", "status"),
    [
        pytest.param(interrupt, 130, "Interrupted", "KILLED", marks=pytest.mark.slow),
        (interrupt_twice, 130, "Interrupted", "KILLED"),
        pytest.param(terminate, 130, "Interrupted", "KILLED", marks=pytest.mark.slow),
        pytest.param(hang_up, 130, "Interrupted", "KILLED", marks=pytest.mark.slow),
        pytest.param(kill_first, 2, "Error: process 0 (of 0 to 1) was killed", None, marks=pytest.mark.slow),
        (kill_second, 2, "Error: process 1 (of 0 to 1) was killed by SIGKILL", "FAILED"),
        pytest.param(kill_supervisor, -9, "", None, marks=pytest.mark.slow),
    ],
)
def test_ended_training_leaves_no_process_and_one_line(
    start: Start, tmp_path: Path, end: Callable[..., None], code: int, line: str, status: str | None
) -> None:
    process = start("record")
    workers = pids(tmp_path)
    assert process.pid not in workers
    end(process, workers)
    check_end(process, code, line)
    wait_for(lambda: not any(map(runs, workers)))
    assert ((tmp_path / "status").read_text(encoding="utf-8") if (tmp_path / "status").exists() else None) == status


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("end", [interrupt, terminate])
def test_ended_before_the_processes_have_started_leaves_none(
    start: Start, tmp_path: Path, end: Callable[..., None]
) -> None:
    process = start("unstarted")
    workers = pids(tmp_path)
    end(process, workers)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.count("Interrupted") == 1
    assert not any(map(runs, workers))


@pytest.fixture
def pair(start: Start, tmp_path: Path) -> "list[subprocess.Popen[str]]":
    """Two machines with a process each, which train."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    hosts = ["127.0.0.1", "127.0.0.2"]
    pair = [start("record", 2, MASTER_PORT=port, STAGE_MACHINES=machines(host, *reversed(hosts))) for host in hosts]
    pids(tmp_path)
    return pair


@needs_posix
@pytest.mark.slow
def test_two_machines_that_one_fails_on_each_say_where(pair: "list[subprocess.Popen[str]]", tmp_path: Path) -> None:
    (tmp_path / "fail 1").touch()  # the process of the second machine
    outputs = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [2, 2]
    assert "see the log of the other machine" in outputs[0]
    assert "Error: this process has enough" in outputs[1]
    assert (tmp_path / "status").read_text(encoding="utf-8") == "FAILED"


@needs_posix
@pytest.mark.slow
def test_two_machines_that_are_stopped_record_it_as_one(pair: "list[subprocess.Popen[str]]", tmp_path: Path) -> None:
    for process in reversed(pair):
        process.terminate()
    outputs = [process.communicate(timeout=60)[0] for process in pair]
    assert [process.returncode for process in pair] == [130, 130]
    assert all("Interrupted" in output for output in outputs)
    assert (tmp_path / "status").read_text(encoding="utf-8") == "KILLED"


def test_run_processes_without_deterministic_implementation_names_the_parameter(start: Start) -> None:
    output, _ = start("nondeterministic", 1).communicate(timeout=60)
    assert "Error: put_ does not have a deterministic implementation" in output
    assert output.endswith("set params.yaml:train.deterministic: false\n")


def test_translate_errors_of_a_full_gpu_names_the_parameters() -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB"
    refused = pytest.raises(ProjectError, match=r"ran out: CUDA out of memory\nFix: lower .*batch_size.*accumulate")
    with refused, processes.translate_errors():
        raise torch.OutOfMemoryError(text)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")],
    ids=["python", "torch"],
)
def test_translate_errors_of_full_memory_names_what_takes_it(error: Exception) -> None:
    refused = pytest.raises(ProjectError, match=r"^the machine's memory ran out\nFix: .*batch_size.*TRAIN_WORKERS=0")
    with refused, processes.translate_errors():
        raise error


def test_run_processes_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(ProjectError, match=r"torchrun.*\nFix: .*dvc repro train"):
        processes.run_processes(lambda fabric: None, 2, 1)


def machines(current_host: str, *hosts: str, interface: str = "") -> str:
    return json.dumps({"current_host": current_host, "hosts": hosts, "network_interface": interface})


def test_count_processes_auto_is_one_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAIN_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes.count_processes("auto") == 4
    monkeypatch.setenv("TRAIN_DEVICE", "cpu")
    assert processes.count_processes("auto") == 1


def test_count_processes_that_machines_cannot_share_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGE_MACHINES", machines("algo-1", "algo-1", "algo-2"))
    assert processes.count_processes(4) == 2
    with pytest.raises(ProjectError, match=r"3, which 2 machines.*\nFix: set params\.yaml:train\.processes to auto"):
        processes.count_processes(3)


def test_rendezvous_on_one_machine_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("{}", machines("algo-1", "algo-1", interface="eth0")):
        monkeypatch.setenv("STAGE_MACHINES", value)
        variables = processes.rendezvous()
        assert (variables["NODE_RANK"], variables["MASTER_ADDR"]) == ("0", "127.0.0.1")


@pytest.mark.parametrize(("host", "rank"), [("algo-1", "0"), ("algo-2", "1")])
def test_rendezvous_on_two_machines_is_at_the_first(monkeypatch: pytest.MonkeyPatch, host: str, rank: str) -> None:
    monkeypatch.setenv("STAGE_MACHINES", machines(host, "algo-2", "algo-1", interface="eth0"))
    monkeypatch.delenv("MASTER_PORT", raising=False)
    assert processes.rendezvous() == {
        "NODE_RANK": rank,
        "MASTER_ADDR": "algo-1",
        "MASTER_PORT": "29500",
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_SOCKET_IFNAME": "eth0",
    }


@pytest.fixture
def fail(tmp_path: Path) -> Callable[[int, Exception], int]:
    """Give a function that lets a process of a rank report an error, and returns its exit code."""
    return lambda rank, error: processes._report(error, tmp_path / f"{rank}.json")


def first_error(folder: Path, codes: list[int | None], first_rank: int = 0) -> Any:
    for rank in range(len(codes)):
        (folder / f"{rank}.log").touch()
    return processes.first_error(codes, folder, first_rank)


def test_first_error_goes_before_what_the_others_lost(fail: Callable[[int, Exception], int], tmp_path: Path) -> None:
    codes: list[int | None] = [fail(0, RuntimeError(GLOO)), fail(1, ProjectError("no image", "give one"))]
    assert codes == [processes.PEER_FAILED, 2]
    assert str(first_error(tmp_path, codes)) == "no image\nFix: give one"


def test_first_error_of_a_full_disk_stays_one(fail: Callable[[int, Exception], int], tmp_path: Path) -> None:
    codes: list[int | None] = [fail(0, OSError(errno.ENOSPC, "No space left on device", "models"))]
    error = first_error(tmp_path, codes)
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (errno.ENOSPC, "models")


def test_first_error_of_a_killed_process_has_its_last_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1.log").write_text("illegal memory access\n", encoding="utf-8")
    error = first_error(tmp_path, [None, -signal.SIGABRT], first_rank=2)
    assert "process 3 (of 2 to 3) was killed by SIGABRT" in str(error)
    assert "Fix: run again" in str(error)
    assert "illegal memory access" in capsys.readouterr().err


def test_first_error_on_another_machine_names_its_log(fail: Callable[[int, Exception], int], tmp_path: Path) -> None:
    assert "see the log of the other machine" in str(first_error(tmp_path, [fail(0, RuntimeError(GLOO))]))
