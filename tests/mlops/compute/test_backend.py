"""Backends: which a project has, which are refused, and a new one through the whole protocol."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mlops.compute import backend
from mlops.errors import ProjectError
from mlops.files import read_json
from ruamel.yaml import YAML

from ...conftest import BakedProject
from ...projects import commit, edit, executed
from ...servers.mlflow import until
from ..conftest import SKELETON

FILES = {
    "pyproject.toml": """
        [tool.mlops]
        package = "small"
        numeric = []

        [tool.mlops.backends]
        toy = "toy:Toy"
    """,
    "platform.yaml": "{project: small, tracking_uri: null, run_on: local, allow_other_environment: false}\n",
    "params.yaml": "double: {wait_for: README.md, text: two}\n",
    "environment.json": "{}\n",
    "README.md": "A small project\n",
    ".gitignore": "__pycache__/\n/doubled.txt\n/toy-storage/\n",
    "small/__init__.py": "",
    "small/stages/__init__.py": "",
    "small/stages/double.py": """
        import time
        from pathlib import Path

        from mlops import ProjectError, StrictModel, params, write_report


        class Double(StrictModel):
            wait_for: str
            text: str


        def main() -> None:
            own = params("double", Double)
            if own.text == "bad":
                raise ProjectError("the text is bad", "params.yaml:double.text: a good one")
            print("doubling", flush=True)
            while not Path(own.wait_for).exists():
                time.sleep(0.1)
            text = Path("data.txt").read_text(encoding="utf-8")
            Path("doubled.txt").write_text(own.text + text + text, encoding="utf-8", newline="\\n")
            write_report(Path("double.json"), {"characters": 2 * len(text)})
    """,
    "dvc.yaml": """
        stages:
          double:
            cmd: python -m mlops stage double
            meta:
              job: {kind: processing}
            deps: [data.txt, small, environment.json]
            params: [double]
            outs: [doubled.txt]
            metrics:
              - double.json: {cache: false}
    """,
}
FOREACH = """
    vars:
      - who: ada
      - machines: {a_1: {type: ml.c5.large}, b.c: {type: ml.c5.xlarge}}
    stages:
      double:
        foreach: ${machines}
        do:
          cmd: python -m mlops stage double
          desc: Of ${key}
          meta:
            job: {kind: processing, instance_type: "${item.type}", tags: {who: "${who}", text: "${double.text}"}}
          deps: [data.txt, small, environment.json]
          params: [double]
          outs: ["doubled-${key}.txt"]
"""
FOR_EACH = """
    import os
    from pathlib import Path


    def main() -> None:
        assert "STAGE_JOB" in os.environ
        Path(f"doubled-{os.environ['DVC_STAGE'].removeprefix('double@')}.txt").write_text("", encoding="utf-8")
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakedProject:
    """A project with one stage, data that DVC keeps, and the toy backend; jobs run on that."""
    project = BakedProject(tmp_path / "small", "small")
    shutil.copytree(SKELETON / "mlops", project.path / "mlops", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("toy.py"), project.path)
    for name, text in FILES.items():
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        (project.path / name).write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    (project.path / "data.txt").write_text("data\n", encoding="utf-8")
    project.run("git", "init", "--quiet")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        project.run("git", "config", key, value)
    project.run("dvc", "init", "--quiet")
    project.run("dvc", "remote", "add", "--default", "storage", str(project.path / "toy-storage"))
    project.run("dvc", "add", "--quiet", "data.txt")
    commit(project, "A small project")
    monkeypatch.setenv("RUN_ON", "toy")
    return project


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_toy_backend_runs_a_stage_through_the_whole_protocol(small: BakedProject) -> None:
    output = small.run("dvc", "repro").stdout
    assert executed(output) == ["double"]
    assert "doubling" in output
    assert (small.path / "doubled.txt").read_text(encoding="utf-8") == "twodata\ndata\n"
    assert read_json(small.path / "double.json") == {"characters": 10}
    [name] = names(small)
    entry = read_json(small.path / f".dvc/tmp/toy/{name}/out/result.json")["entry"]
    assert YAML(typ="safe").load((small.path / "dvc.lock").read_text(encoding="utf-8"))["stages"] == {"double": entry}
    assert "has done it already" in small.run("dvc", "repro", "--force").stderr
    assert names(small) == [name]
    [row] = json.loads(jobs(small, "list", "--json"))
    assert (row["backend"], row["name"], row["state"]) == ("toy", name, "Completed")
    assert jobs(small, "list").split()[:2] == ["Completed", name]
    assert "doubling" in jobs(small, "logs", name)
    assert "doubling" in jobs(small, "attach", name)
    assert jobs(small, "clean") == "0 MB are free again\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_toy_backend_failed_and_stopped_jobs_leave_dvc_lock_and_name_the_reason(small: BakedProject) -> None:
    edit(small, "params.yaml", "text: two", "text: bad")
    refused = small.run("dvc", "repro", check=False)
    assert re.search(
        r"job small-double-\w{12}-1 failed: the stage double failed; what it printed is above", refused.stderr
    )
    assert "Fix: correct that, then the same command: it starts a new job" in refused.stderr
    assert "Error: the text is bad" in refused.stdout
    edit(small, "params.yaml", "{wait_for: README.md, text: bad}", "{wait_for: never, text: two}")
    launcher = subprocess.Popen(["dvc", "repro"], cwd=small.path, stderr=subprocess.PIPE, text=True)
    try:
        log = until(lambda: next((small.path / ".dvc/tmp/toy").glob(f"{running(small)}/log"), None))
        until(lambda: "doubling" in log.read_text(encoding="utf-8"))
        jobs(small, "stop", log.parent.name)
        _, error = launcher.communicate(timeout=30)
    finally:
        launcher.kill()
    assert launcher.returncode > 0
    assert f"job {log.parent.name} failed: the stage double failed" in error
    assert not (small.path / "dvc.lock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_foreach_stages_run_as_jobs_with_settings_from_vars(small: BakedProject) -> None:
    for name, text in (("dvc.yaml", FOREACH), ("small/stages/double.py", FOR_EACH)):
        (small.path / name).write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    edit(small, ".gitignore", "/doubled.txt", "/doubled-*.txt")
    commit(small, "One for each")
    (small.path / "docs").mkdir()
    # In a subfolder, DVC names the stages `../dvc.yaml:double@a_1`.
    subprocess.run(["dvc", "repro", "--quiet", "--all-pipelines"], cwd=small.path / "docs", check=True)
    stems = [re.sub(r"-\w{6}-\w{12}-1$", "", name) for name in names(small)]
    assert stems == ["small-double-a-1", "small-double-b-c"]
    described = [read_json(small.path / f".dvc/tmp/toy/{name}/job.json") for name in names(small)]
    assert [job["stage"] for job in described] == ["double@a_1", "double@b.c"]
    assert [job["spec"]["instance_type"] for job in described] == ["ml.c5.large", "ml.c5.xlarge"]
    assert [job["spec"]["tags"] for job in described] == [{"text": "two", "who": "ada"}] * 2
    assert sorted(path.name for path in small.path.glob("doubled-*")) == ["doubled-a_1.txt", "doubled-b.c.txt"]
    assert executed(small.run("dvc", "repro").stdout) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_stage_removed_while_its_job_runs_is_named_and_its_results_wait(small: BakedProject, tmp_path: Path) -> None:
    edit(small, "params.yaml", "wait_for: README.md", f"wait_for: {tmp_path / 'go'}")
    with subprocess.Popen(["dvc", "repro"], cwd=small.path, stderr=subprocess.PIPE, text=True) as launcher:
        log = until(lambda: next((small.path / ".dvc/tmp/toy").glob(f"{running(small)}/log"), None))
        until(lambda: "doubling" in log.read_text(encoding="utf-8"))
        edit(small, "dvc.yaml", "  double:\n", "  triple:\n")
        (tmp_path / "go").touch()
        _, error = launcher.communicate(timeout=60)
    assert "Error: dvc.yaml has no stage 'double'; it has triple" in error
    assert "Fix: name one of these, or write dvc.yaml:stages.double" in error
    assert "Traceback" not in error
    assert not (small.path / "dvc.lock").exists()
    assert jobs(small, "list").startswith("Completed ")
    edit(small, "dvc.yaml", "  triple:\n", "  double:\n")  # as the fix has it
    assert "has done it already" in small.run("dvc", "repro").stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_always_changed_stage_is_a_new_job_each_time(small: BakedProject) -> None:
    edit(small, "dvc.yaml", "    meta:", "    always_changed: true\n    meta:")
    small.run("dvc", "repro")
    assert "starting anew" in small.run("dvc", "repro").stderr
    assert [name[-2:] for name in names(small)] == ["-1", "-2"]


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_stage_with_a_wdir_runs_as_a_job(small: BakedProject) -> None:
    edit(small, "dvc.yaml", "cmd: python", "wdir: small\n    cmd: cd .. && python")
    edit(small, "dvc.yaml", "[data.txt, small, environment.json]", "[../data.txt, stages, ../environment.json]")
    edit(small, "dvc.yaml", "params: [double]", "params: [../params.yaml: [double]]")
    edit(small, "dvc.yaml", "[doubled.txt]", "[../doubled.txt]")
    edit(small, "dvc.yaml", "- double.json", "- ../double.json")
    small.run("dvc", "repro")
    assert read_json(small.path / "double.json") == {"characters": 10}
    assert len(names(small)) == 1
    assert executed(small.run("dvc", "repro").stdout) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_output_that_a_stage_goes_on_from_is_not_for_a_job(small: BakedProject) -> None:
    edit(small, "dvc.yaml", "outs: [doubled.txt]", "outs: [doubled.txt: {persist: true}]")
    refused = small.run("dvc", "repro", check=False)
    assert "double goes on from its last doubled.txt (persist: true), which a job lacks" in refused.stderr
    assert "Fix: take `persist` from dvc.yaml:stages.double, or meta.job, to run it here" in refused.stderr
    assert names(small) == []
    edit(small, "dvc.yaml", "    meta:\n      job: {kind: processing}\n", "")
    small.run("dvc", "repro")


@pytest.mark.skipif(sys.platform != "linux", reason="the toy is for Linux")
def test_toy_backend_makes_no_requests_so_a_dry_run_is_refused(small: BakedProject) -> None:
    refused = small.run("python", "-m", "mlops", "jobs", "dry-run", "double", "--backend", "toy", check=False)
    assert refused.returncode == 2
    assert "backend toy has no dry run" in refused.stderr
    assert "Fix: python -m mlops jobs dry-run double --backend sagemaker" in refused.stderr


def jobs(project: BakedProject, *arguments: str) -> str:
    """Run a verb of `jobs`, and return what it printed."""
    return project.run("python", "-m", "mlops", "jobs", *arguments).stdout


def names(project: BakedProject) -> list[str]:
    """Return the names of the toy's jobs."""
    return sorted(path.parent.name for path in (project.path / ".dvc/tmp/toy").glob("*/job.json"))


def running(project: BakedProject) -> str:
    """Return the name of the job that has not ended, or something that is no name."""
    ended = {path.parent.name for path in (project.path / ".dvc/tmp/toy").glob("*/exit_code")}
    return next((name for name in names(project) if name not in ended), "none")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a project's configuration, where modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RUN_ON", raising=False)
    for name in ("pyproject.toml", "platform.yaml"):
        Path(name).write_text(textwrap.dedent(FILES[name]), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("toy.py"), tmp_path)
    return tmp_path


def declare(target: str, name: str = "toy") -> None:
    """Register another backend in place of the toy."""
    text = textwrap.dedent(FILES["pyproject.toml"]).replace('toy = "toy:Toy"', f'{name} = "{target}"')
    Path("pyproject.toml").write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("settings")
def test_backends_are_those_of_the_folders_and_of_pyproject() -> None:
    known = backend.backends()
    assert list(known) == ["sagemaker", "sandbox", "toy"]
    assert all(issubclass(cls, backend.Backend) and name == cls.NAME for name, cls in known.items())


CLASSES = """
from mlops.compute.backend import Backend
from toy import Toy

class Half(Backend):
    NAME = "toy"
    def folder(self): ...
    def check(self): ...

class Other: ...

class Nameless(Toy):
    NAME = "another"
"""


@pytest.mark.parametrize(
    ("target", "name", "error"),
    [
        ("classes:Half", "toy", r"'toy' is classes:Half, which lacks the method\(s\) follow, log_of, out_dir, "),
        ("classes:Other", "toy", "'toy' is classes:Other, which is no subclass of mlops.compute.backend:Backend"),
        ("classes:Absent", "toy", "'toy' is classes:Absent, which is no subclass"),
        ("classes:Nameless", "toy", "'toy' is classes:Nameless, which lacks NAME = 'toy'"),
        ("absent:Toy", "toy", "'toy' is absent:Toy, which can't be imported: No module named 'absent'"),
        ("toy:Toy", "sandbox", "tool.mlops.backends has sandbox, which mlops has already"),
        ("toy:Toy", "local", "tool.mlops.backends has local, which mlops has already"),
    ],
    ids=["lacks-methods", "no-backend", "no-class", "other-name", "no-module", "a-folder", "local"],
)
def test_backends_a_class_that_can_not_work_is_refused_by_name(
    settings: Path, target: str, name: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings / "classes.py").write_text(CLASSES, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "classes", raising=False)
    declare(target, name)
    with pytest.raises(ProjectError, match=error) as refused:
        backend.backends()
    correct = "correct it, or pyproject.toml:tool.mlops.backends.toy; mlops/compute/backend.py has the interface"
    assert refused.value.fix == (correct if name == "toy" else "choose another name there")
    declare("toy:Toy")  # as the fix has it
    assert "toy" in backend.backends()


def test_backends_the_sketch_in_the_docs_is_a_whole_one(settings: Path) -> None:
    page = (SKELETON / "docs" / "backends.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (settings / "slurm.py").write_text(code, encoding="utf-8")
    declare("slurm:Slurm", "slurm")
    assert backend.backends()["slurm"].NAME == "slurm"


@pytest.mark.usefixtures("settings")
def test_current_backend_is_the_one_that_run_on_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_ON", "toy")
    assert type(backend.current_backend()).__name__ == "Toy"
    monkeypatch.setenv("RUN_ON", "moon")
    with pytest.raises(ProjectError, match=r"no backend 'moon'[\s\S]*local \| sagemaker \| sandbox \| toy"):
        backend.current_backend()


def test_backend_of_is_the_one_that_has_the_job(settings: Path) -> None:
    for path in (".dvc/tmp/jobs/small-double-1-1/job.json", ".dvc/tmp/toy/small-double-2-1/job.json"):
        (settings / path).parent.mkdir(parents=True)
        (settings / path).write_text("{}", encoding="utf-8")
    assert backend.backend_of("small-double-1-1").NAME == "sandbox"
    assert backend.backend_of("small-double-2-1").NAME == "toy"
    with pytest.raises(ProjectError, match=r"there is no job 'small-double-3-1'\nFix: python -m mlops jobs list"):
        backend.backend_of("small-double-3-1")
