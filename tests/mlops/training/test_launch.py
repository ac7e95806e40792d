"""How torchrun is started, and how the end of its processes is reported."""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.training import distributed
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"
Fail = Callable[..., ProcessFailure]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(current_host: str, *hosts: str) -> None:
        monkeypatch.setenv("STAGE_MACHINES", json.dumps({"current_host": current_host, "hosts": hosts}))

    return use


@pytest.fixture
def fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fail]:
    """Give a function that ends a process, in a block of `report_errors`, as torchrun would see it."""
    before = signal.getsignal(signal.SIGINT)

    def end(rank: int, error: BaseException) -> ProcessFailure:
        path = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
        with pytest.raises(SystemExit) as ended, distributed.report_errors():
            raise error
        return failure(rank, int(str(ended.value.code)), path)

    yield end
    signal.signal(signal.SIGINT, before)


def failure(rank: int, exitcode: int, path: Path = Path("none")) -> ProcessFailure:
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file=str(path))


def test_options_on_one_machine_stand_alone(machines: Callable[..., None]) -> None:
    expected = {"--standalone", "--nproc-per-node=4", "--local-ranks-filter=0"}
    assert expected <= set(distributed.options(4))
    machines("algo-1", "algo-1")
    assert expected <= set(distributed.options(4))


@pytest.mark.parametrize(("host", "rank"), [("algo-1", 0), ("algo-2", 1)])
def test_options_on_two_machines_meet_at_the_first(machines: Callable[..., None], host: str, rank: int) -> None:
    machines(host, "algo-2", "algo-1")
    options = distributed.options(4)
    expected = {"--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=2", "--master-addr=algo-1"}
    assert expected | {"--master-port=29500"} <= set(options)
    assert "--standalone" not in options


def test_options_that_machines_cannot_share_name_the_key(machines: Callable[..., None]) -> None:
    machines("algo-1", "algo-1", "algo-2")
    with pytest.raises(ProjectError, match=r"3, which 2 machines.*\nFix: set params\.yaml:train\.processes to a multi"):
        distributed.options(3)


@pytest.mark.parametrize(("processes", "expected"), [(1, False), (2, True)])
def test_should_launch_only_several(monkeypatch: pytest.MonkeyPatch, processes: int, expected: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.should_launch(processes) is expected


def test_should_launch_inside_torchrun_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not distributed.should_launch(2)
    with pytest.raises(ProjectError, match=r"started 2 processes.*processes is 1\nFix: .*dvc repro train"):
        distributed.should_launch(1)


def test_first_failure_project_error_on_all_is_reported_once(fail: Fail) -> None:
    failures = {rank: fail(rank, ProjectError("it diverged", "lower max_lr")) for rank in (1, 0)}
    assert {process.exitcode for process in failures.values()} == {2}
    error = distributed.first_failure(failures, 2)
    assert isinstance(error, ProjectError)
    assert (error.problem, error.fix) == ("it diverged", "lower max_lr")


def test_report_errors_tells_the_loss_of_another_process_from_an_error_of_its_own(fail: Fail) -> None:
    assert fail(0, RuntimeError(GLOO)).exitcode == distributed.PEER_FAILED
    assert fail(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")).exitcode == 1


def test_first_failure_goes_before_what_the_others_lost(fail: Fail) -> None:
    failures = {0: fail(0, RuntimeError(GLOO)), 1: fail(1, ProjectError("no image", "give one"))}
    assert str(distributed.first_failure(failures, 2)) == "no image\nFix: give one"


def test_first_failure_full_disk_stays_one(fail: Fail) -> None:
    error = distributed.first_failure({0: fail(0, OSError(errno.ENOSPC, "No space left on device", "models"))}, 2)
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (errno.ENOSPC, "models")


def test_first_failure_mistake_shows_its_own_traceback(fail: Fail) -> None:
    error = distributed.first_failure({1: fail(1, ZeroDivisionError("division by zero"))}, 2)
    assert "process 1 of 2" in str(error)
    assert "ZeroDivisionError: division by zero" in error.__notes__[0]
    assert Path(__file__).name in error.__notes__[0], "where it was"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_first_failure_killed_process_is_named(fail: Fail) -> None:
    failures = {0: fail(0, RuntimeError(GLOO)), 1: failure(1, -signal.SIGKILL), 2: failure(2, -signal.SIGTERM)}
    text = str(distributed.first_failure(failures, 3))
    assert "process 1 (of 0 to 2) was killed by SIGKILL" in text
    assert "Fix: run again" in text


def test_first_failure_on_another_machine_names_its_log(fail: Fail) -> None:
    assert "see that machine's log" in str(distributed.first_failure({0: fail(0, RuntimeError(GLOO))}, 4))


def test_report_errors_without_torchrun_lets_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    with pytest.raises(ZeroDivisionError), distributed.report_errors():
        raise ZeroDivisionError
