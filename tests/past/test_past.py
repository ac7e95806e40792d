"""What the template promises to a project that it made: its past is listed, audited, loaded, restored and followed.

The project of version 0.1 is looked at as a later version finds it. Each way to come by it is a parameter of `lived`.
Versions of the model are restored by their own commit's code, so there the command is always that of version 0.1.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from ..conftest import BakedProject, isolate
from ..projects import commit, out_md5
from ..projects import lock as stages_of
from .project import COMMAND, PACKAGE, REVOKED, unpack, update

VERSIONS = (1, 2, 3)
RESTORED = (1, 3)  # of other code, and of other data
# Where the owner and the template changed the same lines: all that the owner's own metric and network needed.
OWN = ("model/evaluation.py", "model/networks.py", "stages/train.py")
CONFLICTS = [*(f"{PACKAGE}/{name}" for name in OWN), "tests/stages/test_train.py"]
PREDICT = """
import json, sys
from pathlib import Path
import pyarrow.parquet as pq
from digit_classifier.model.predictor import Predictor
assert Path(sys.modules[Predictor.__module__].__file__).is_relative_to(Path.cwd())
images = pq.read_table("data/dataset/test", partitioning=None)["image"].to_pylist()
print(json.dumps([row["label"] for row in Predictor.load(Path("models/model")).predict(images)]))
"""


@dataclass(frozen=True)
class Lived:
    """A project that was lived in.

    Args:
        project: The project.
        command: Starts its command line.
    """

    project: BakedProject
    command: tuple[str, ...]

    def ask(self, *words: str) -> Any:
        """Run a verb of the command line that succeeds, and return what it tells programs."""
        return json.loads(self.project.run(*self.command, *words, "--json").stdout)

    @property
    def database(self) -> str:
        """Return the address of its MLflow."""
        return f"sqlite:///{(self.project.path / 'mlflow.db').as_posix()}"


@dataclass(frozen=True)
class Restored:
    """A version of the model, restored in a clone.

    Args:
        number: Its number.
        row: What `registry list` says of it.
        clone: The clone, at its commit.
    """

    number: int
    row: dict[str, Any]
    clone: BakedProject

    def test_set(self) -> Any:
        """Return the test split of its dataset, as a data frame."""
        return pq.read_table(self.clone.path / "data/dataset/test", partitioning=None).to_pandas()


def as_it_was_left(folder: Path) -> Lived:
    """Return the project as its owner left it, with the code of version 0.1."""
    return Lived(unpack(folder), COMMAND)


def updated(folder: Path) -> Lived:
    """Return the project after an update to the template as it is now: its code is in two packages."""
    project = unpack(folder)
    assert sorted(update(project)) == CONFLICTS
    assert list(project.path.rglob("*.rej")) == []
    return Lived(project, ("python", "-m", "mlops"))


def clone_at(lived: Lived, commit: str, folder: Path) -> BakedProject:
    """Restore a commit of version 0.1 in a fresh clone, as its own documentation does it."""
    clone = BakedProject(folder / lived.project.path.name, lived.project.package)
    lived.project.run("git", "clone", "--quiet", ".", str(clone.path))
    clone.run("git", "checkout", "--quiet", "--detach", commit)
    clone.run(*COMMAND, "setup")
    clone.run("dvc", "pull", "--quiet", "--allow-missing")
    return clone


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(as_it_was_left, marks=pytest.mark.slow, id="as it was left"),
        pytest.param(updated, id="updated"),
    ],
)
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """The project, to look at and not to change."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        yield request.param(tmp_path_factory.mktemp("past"))


@pytest.fixture(scope="module")
def listed(lived: Lived) -> dict[int, dict[str, Any]]:
    """What `registry list` says of each version, by its number."""
    return {row["version"]: row for row in lived.ask("registry", "list")}


@pytest.fixture(scope="module", params=[pytest.param(number, marks=pytest.mark.slow) for number in RESTORED])
def restored(
    request: pytest.FixtureRequest,
    lived: Lived,
    listed: dict[int, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Restored:
    """A version in a fresh clone."""
    row = listed[request.param]
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        return Restored(request.param, row, clone_at(lived, row["commit"], tmp_path_factory.mktemp("restored")))


def test_registry_lists_each_version_with_what_made_it(lived: Lived, listed: dict[int, dict[str, Any]]) -> None:
    assert tuple(sorted(listed)) == VERSIONS
    assert {number: row["aliases"] for number, row in listed.items()} == {1: [], 2: [], 3: ["champion"]}
    assert [listed[number]["data_version"] for number in (1, 2)] == ["v1.0", "v1.0"]
    client, name = MlflowClient(lived.database), lived.project.path.name
    for number, row in listed.items():
        tagged = lived.project.run("git", "rev-parse", f"{name}@v{number}.0.0^{{commit}}").stdout.strip()
        assert row["commit"] == tagged
        assert row["metrics"] == json.loads(lived.project.run("git", "show", f"{tagged}:reports/metrics.json").stdout)
        run = client.get_run(str(client.get_model_version(name, str(number)).run_id))
        assert row["metrics"].items() <= run.data.metrics.items()
        assert row["run"] == run.data.tags["mirror_id"]
    assert [number for number, row in listed.items() if "macro_f1" in row["metrics"]] == [3, 2], "the owner's metric"


def test_registry_shows_who_put_each_version_in_use(lived: Lived) -> None:
    moves = lived.ask("registry", "show", "2")["moves"]
    assert [(move["action"], move["before"], move["version"], move["who"]) for move in moves] == [
        ("promote", 1, 2, "Ada Byron <ada@example.org>"),
        ("promote", 2, 3, "Ada Byron <ada@example.org>"),
    ]


@pytest.mark.parametrize("lived", [pytest.param(updated, id="updated")], indirect=True)
def test_registry_knows_what_was_in_use_and_who_had_withdrawn(lived: Lived) -> None:
    answers = [lived.ask("registry", "--at", f"2026-11-29T06:44:{second}Z") for second in (10, 40, 59)]
    assert [(answer["version"], answer["withdrawn"], answer["unknown"]) for answer in answers] == [
        (1, 0, []),
        (2, 1, []),
        (3, 0, []),
    ]
    assert [(answer["why"], answer["dataset"]["subjects"]) for answer in answers[1:]] == [
        ("a wider layer, more passes", 14),
        ("opt-out 20261129T064425Z-15ca8b", 13),
    ]


def test_mirror_lacks_nothing(lived: Lived) -> None:
    status = lived.ask("mirror", "status")
    assert (status["complete"], status["lacking"]) == (True, [])
    assert (status["runs"], status["versions"]) == (4, 3), "an experiment is among the runs"


def test_audit_of_the_champion_passes_after_the_optout(lived: Lived) -> None:
    answer = lived.ask("audit", "deployed")
    assert (answer["verdict"], answer["notes"], answer["unknown"], answer["rows"]) == ("PASS", [], [], [])
    assert [(row["subject"], row["consent"], row["runs"]) for row in answer["subjects"]] == [(REVOKED, "ended", 3)]


def test_audit_finds_each_run_that_knows_who_withdrew(lived: Lived, listed: dict[int, dict[str, Any]]) -> None:
    answer = lived.ask("audit", "find", REVOKED)
    assert (answer["notes"], answer["unknown"]) == ([], [])
    assert {(row["title"], row["exposure"], *row["versions"]) for row in answer["rows"]} == {
        (listed[1]["run"], "direct", "digit-classifier/1"),
        (listed[2]["run"], "direct", "digit-classifier/2"),
        ("slow", "direct"),
    }


def test_version_is_restored_by_its_own_code(lived: Lived, restored: Restored) -> None:
    clone = restored.clone
    assert json.loads(clone.run("dvc", "status", "--json", "prepare", "manifest", "train").stdout) == {}
    assert clone.run("git", "status", "--porcelain").stdout == ""
    client = MlflowClient(lived.database)
    tags = client.get_model_version(lived.project.path.name, str(restored.number)).tags
    assert out_md5(stages_of(clone), "data/dataset") == tags["dataset_md5"]
    manifest = pq.read_table(clone.path / "data/manifest.parquet").to_pydict()
    assert (REVOKED in manifest["subject_id"]) == (restored.number < 3)
    assert len(restored.test_set()) == manifest["split"].count("test")


def test_version_loads_from_mlflow_and_answers_as_it_did(lived: Lived, restored: Restored) -> None:
    """As its commit's own code does, and as good as was measured when it was trained."""
    records = restored.test_set()
    mlflow.set_tracking_uri(lived.database)
    model = mlflow.pyfunc.load_model(f"models:/{lived.project.path.name}/{restored.number}")
    labels = model.predict(records[["image"]])["label"].tolist()
    assert labels == json.loads(restored.clone.run("python", "-c", PREDICT).stdout)
    accuracy = sum(label == actual for label, actual in zip(labels, records["label"], strict=True)) / len(records)
    assert round(accuracy, 4) == restored.row["metrics"]["test_acc"]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """The updated project, to go on with."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        yield updated(tmp_path_factory.mktemp("followed"))


@pytest.mark.parametrize("lived", [pytest.param(updated, id="updated")], indirect=True)
def test_update_lets_each_old_version_be_verified(lived: Lived) -> None:
    output = lived.project.run("python", "-m", "mlops", "verify", "1", "2", "3", "--offline", "--json").stdout
    assert [report["verdict"] for report in json.loads(output)] == ["INTACT"] * 3


@pytest.mark.parametrize("lived", [pytest.param(updated, id="updated")], indirect=True)
def test_update_keeps_what_the_owner_changed(lived: Lived) -> None:
    path = lived.project.path
    assert "_conv(24, 32)" in (path / PACKAGE / "model/networks.py").read_text(encoding="utf-8"), "the owner's network"
    assert "weakest:" in (path / "dvc.yaml").read_text(encoding="utf-8"), "the owner's stage"
    assert "ask Ada before" in (path / "params.yaml").read_text(encoding="utf-8")
    assert "Ada's. Ask her" in (path / "README.md").read_text(encoding="utf-8")
    assert not (path / PACKAGE / "tracking").exists()


def rows_of(split: Path) -> pa.Table:
    """Return the rows of a split in the order in which they are learned from."""
    return pq.read_table(split, partitioning=None).sort_by("record_id")


@pytest.mark.slow
def test_updated_project_rebuilds_its_versions_by_their_own_code_and_goes_on(followed: Lived, tmp_path: Path) -> None:
    """A wiped MLflow gets all versions again; the next one is trained by the new code and compared with the old."""
    project = followed.project
    old = clone_at(followed, f"{project.path.name}@v3.0.0", tmp_path)
    (project.path / "mlflow.db").unlink()
    shutil.rmtree(project.path / "mlartifacts")
    project.run(*followed.command, "mirror", "repair", check=False)
    status = json.loads(project.run(*followed.command, "mirror", "status", "--json", check=False).stdout)
    assert [row["what"].split()[-1] for row in status["lacking"]] == ["(slow)"], "its results were never pushed"
    project.run("dvc", "pull", "--quiet", "--allow-missing")
    project.run("dvc", "repro")
    commit(project, "Results of the new code")
    for split in ("train", "val", "test"):
        before, after = (rows_of(folder.path / "data/dataset" / split) for folder in (old, project))
        assert before.equals(after), "the same records, though those of each 5 % are stored together now"
    numbers = (*VERSIONS, 4)
    assert tuple(sorted(row["version"] for row in followed.ask("registry", "list"))) == numbers
    project.run("dvc", "exp", "run", "-S", "train.epochs=25")
    commit(project, "A version of more epochs")
    newest = len(numbers) + 1
    done = project.run(*followed.command, "registry", "promote", str(newest), "--by", "test_macro_f1", check=False)
    assert f"version {newest} against the champion, version 3, by test_macro_f1: " in done.stderr
