"""What tests do in a generated project, and what they look at there."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from . import conftest
from .conftest import BakedProject

MARKED = "stages/train.py"
"""The file of the package that `mark` edits."""
IN_ONE_PROCESS = """
import json, sys
from click.testing import CliRunner
from mlops.cli import main
for command in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    print(json.dumps([done.exit_code, done.stdout, done.stderr]))
"""


def commit(project: BakedProject, message: str) -> str:
    """Commit everything in a project, and return the commit."""
    project.run("git", "add", ".")
    project.run("git", "commit", "--quiet", "-m", message)
    return project.run("git", "rev-parse", "HEAD").stdout.strip()


def clone(project: BakedProject, folder: Path, rev: str) -> BakedProject:
    """Do what a colleague would: clone, check out, set up, pull."""
    project.run("git", "clone", "--quiet", str(project.path), str(folder))
    copied = BakedProject(folder, project.package)
    copied.run("git", "checkout", "--quiet", "--detach", rev)
    copied.run("python", "-m", "mlops", "setup")
    copied.run("dvc", "pull", "--quiet", "--allow-missing")
    return copied


def copied(project: BakedProject, folder: Path) -> BakedProject:
    """Copy a project, with a Git identity."""
    made = conftest.copied(project, folder)
    made.run("git", "config", "user.name", "Ada Byron")
    made.run("git", "config", "user.email", "ada@example.org")
    return made


def edit(project: BakedProject, name: str, old: str, new: str) -> None:
    """Replace text in a file of the project; it must be there."""
    path = project.path / name
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{name} has no {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8", newline="\n")


def read(project: BakedProject, name: str) -> Any:
    """Read a JSON file of the project."""
    return json.loads((project.path / name).read_text(encoding="utf-8"))


def mark(project: BakedProject, number: int) -> None:
    """Make the code write `number` into the metrics."""
    name = f"{project.package}/{MARKED}"
    before = (project.path / name).read_text(encoding="utf-8")
    line = next(line for line in before.splitlines() if "write_reports(classes" in line)
    start = line.partition(", records, ")[0]
    edit(project, name, line, f'{start}, records, lambda *split: {{**measure(*split), "marker": {number}}}))')


def verbs(project: BakedProject, *commands: str) -> list[tuple[int, str]]:
    """Run commands of the project's `mlops` in one process, since each would import MLflow.

    Returns:
        The exit code of each, and what it printed.
    """
    words = json.dumps([shlex.split(command) for command in commands])
    done = project.run("python", "-c", IN_ONE_PROCESS, words)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[") and line.endswith("]")]
    assert len(results) == len(commands), done.stdout
    return [(code, out or err) for code, out, err in results]


def lock(project: BakedProject, rev: str = "") -> dict[str, Any]:
    """Return the stages of `dvc.lock`, of the work tree or of a commit."""
    if rev:
        text = project.run("git", "show", f"{rev}:dvc.lock").stdout
    else:
        text = (project.path / "dvc.lock").read_text(encoding="utf-8")
    stages: dict[str, Any] = YAML(typ="safe").load(text)["stages"]
    return stages


def out_md5(stages: dict[str, Any], path: str) -> str:
    """Return the hash of an output in the stages of a lock file."""
    return next(str(out["md5"]) for stage in stages.values() for out in stage["outs"] if out["path"] == path)


def runs(project: BakedProject) -> dict[str, Run]:
    """Return MLflow's runs of the project by the id that DVC shows."""
    client = MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    experiment = client.get_experiment_by_name(project.path.name)
    assert experiment is not None
    return {run.data.tags["mirror_id"]: run for run in client.search_runs([experiment.experiment_id])}


def versions(project: BakedProject) -> dict[int, dict[str, str]]:
    """Return the tags of the registered versions by number."""
    client = MlflowClient(f"sqlite:///{(project.path / 'mlflow.db').as_posix()}")
    tags = {int(version.version): version.tags for version in client.search_model_versions()}
    return dict(sorted(tags.items()))


def objects(project: BakedProject) -> set[str]:
    """Return the names of the objects in the project's DVC remote."""
    storage = project.path / "dvc-storage"
    return {path.relative_to(storage).as_posix() for path in storage.rglob("*") if path.is_file()}


def executed(output: str) -> list[str]:
    """Return the stages that `dvc repro` ran, from what it printed."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def experiments(project: BakedProject) -> dict[str, dict[str, Any]]:
    """Return what `dvc exp show` knows of each experiment of HEAD, by its name."""
    shown = json.loads(project.run("dvc", "exp", "show", "--json").stdout)
    by_name = {}
    for baseline in shown:
        for experiment in baseline.get("experiments") or []:
            last = experiment["revs"][0]
            by_name[last["name"]] = last
    return by_name


def metric(experiment: dict[str, Any], name: str) -> Any:
    """Return one metric of an experiment, whichever file it is in."""
    for file in experiment["data"]["metrics"].values():
        if name in file["data"]:
            return file["data"][name]
    raise KeyError(name)


def wait_for_queue(project: BakedProject) -> None:
    """Wait until the queue is empty: `dvc queue logs --follow` ends with its task."""
    while True:
        busy = [row.split() for row in project.run("dvc", "queue", "status").stdout.splitlines()]
        names = [row[0] for row in busy if {"Queued", "Running"} & set(row)]
        if not names:
            return
        project.run("dvc", "queue", "logs", "--follow", names[0], check=False)


def check_end(process: "subprocess.Popen[str]", code: int, line: str) -> None:
    """See that a process ends with an exit code, and says why in one line that has `line`; "" if it can't say."""
    output, _ = process.communicate(timeout=60)  # until the last one has closed it
    assert process.returncode == code
    lines = [text for text in output.splitlines() if text.startswith(("Error", "Interrupted"))]
    assert len(lines) == (1 if line else 0)
    assert line in output
    assert "Traceback" not in output
