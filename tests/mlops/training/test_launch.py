"""How torchrun is started, and how the end of its processes is told."""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlops.errors import ProjectError
from mlops.training import launch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"
Tell = Callable[..., ProcessFailure]


@pytest.fixture
def machines(tmp_path: Path) -> Callable[..., Path]:
    def make(here: str, *hosts: str) -> Path:
        path = tmp_path / "resourceconfig.json"
        path.write_text(json.dumps({"current_host": here, "hosts": hosts}), encoding="utf-8")
        return path

    return make


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tell]:
    """Give a function that ends a process, in a block of `telling`, as torchrun would see it."""
    before = signal.getsignal(signal.SIGINT)

    def end(rank: int, error: BaseException) -> ProcessFailure:
        path = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
        with pytest.raises(SystemExit) as ended, launch.report_errors():
            raise error
        return failure(rank, int(str(ended.value.code)), path)

    yield end
    signal.signal(signal.SIGINT, before)


def failure(rank: int, exitcode: int, path: Path = Path("none")) -> ProcessFailure:
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file=str(path))


def test_options_on_one_machine_stand_alone(tmp_path: Path, machines: Callable[..., Path]) -> None:
    for resources in (tmp_path / "none", machines("algo-1", "algo-1")):
        found = launch.options(4, resources)
        assert {"--standalone", "--nproc-per-node=4", "--local-ranks-filter=0"} <= set(found)


@pytest.mark.parametrize(("here", "rank"), [("algo-1", 0), ("algo-2", 1)])
def test_options_on_two_machines_meet_at_the_first(machines: Callable[..., Path], here: str, rank: int) -> None:
    found = launch.options(4, machines(here, "algo-2", "algo-1"))
    expected = {"--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=2", "--master-addr=algo-1"}
    assert expected | {"--master-port=29500"} <= set(found)
    assert "--standalone" not in found


def test_options_that_machines_cannot_share_name_the_key(machines: Callable[..., Path]) -> None:
    with pytest.raises(ProjectError, match=r"3, which 2 machines.*\nFix: set params\.yaml:train\.processes to a multi"):
        launch.options(3, machines("algo-1", "algo-1", "algo-2"))


@pytest.mark.parametrize(("processes", "expected"), [(1, False), (2, True)])
def test_is_to_start_only_several(monkeypatch: pytest.MonkeyPatch, processes: int, expected: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert launch.should_launch(processes) is expected


def test_is_to_start_inside_torchrun_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch.should_launch(2)
    with pytest.raises(ProjectError, match=r"started 2 processes.*processes is 1\nFix: .*dvc repro train"):
        launch.should_launch(1)


def test_cause_project_error_on_all_is_told_once(tell: Tell) -> None:
    failures = {rank: tell(rank, ProjectError("it diverged", "lower max_lr")) for rank in (1, 0)}
    assert {one.exitcode for one in failures.values()} == {2}
    told = launch.first_failure(failures, 2)
    assert isinstance(told, ProjectError)
    assert (told.problem, told.fix) == ("it diverged", "lower max_lr")


def test_cause_on_one_goes_before_what_the_others_lost(tell: Tell) -> None:
    failures = {0: tell(0, RuntimeError(GLOO)), 1: tell(1, ProjectError("no image", "give one"))}
    assert str(launch.first_failure(failures, 2)) == "no image\nFix: give one"


def test_cause_full_disk_stays_one(tell: Tell) -> None:
    told = launch.first_failure({0: tell(0, OSError(errno.ENOSPC, "No space left on device", "models"))}, 2)
    assert isinstance(told, OSError)
    assert (told.errno, told.filename) == (errno.ENOSPC, "models")


def test_cause_mistake_shows_its_own_traceback(tell: Tell) -> None:
    told = launch.first_failure({1: tell(1, ZeroDivisionError("division by zero"))}, 2)
    assert "process 1 of 2" in str(told)
    assert "ZeroDivisionError: division by zero" in told.__notes__[0]
    assert Path(__file__).name in told.__notes__[0], "where it was"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_cause_killed_one_is_named(tell: Tell) -> None:
    failures = {0: tell(0, RuntimeError(GLOO)), 1: failure(1, -signal.SIGKILL), 2: failure(2, -signal.SIGTERM)}
    told = str(launch.first_failure(failures, 3))
    assert "process 1 (of 0 to 2) was killed by SIGKILL" in told
    assert "Fix: run again" in told


def test_cause_on_another_machine_names_its_log(tell: Tell) -> None:
    assert "see that machine's log" in str(launch.first_failure({0: tell(0, RuntimeError(GLOO))}, 4))


def test_telling_without_torchrun_lets_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    with pytest.raises(ZeroDivisionError), launch.report_errors():
        raise ZeroDivisionError
