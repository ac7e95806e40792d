"""The walkthroughs of a generated project, run as they are written: their commands, in order, give what they show."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from mlflow import MlflowClient

from ..conftest import Bake, BakedProject, isolate, new_project
from ..walkthroughs import walk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bash") is None, reason="the walkthroughs are written for bash"),
]


def test_dataset_walkthrough_as_written_gives_what_it_shows(bake: Bake) -> None:
    walk(bake(), "docs/dataset-walkthrough.md")


def test_lineage_walkthrough_as_written_gives_what_it_shows(bake: Bake) -> None:
    walk(bake(), "docs/lineage-walkthrough.md")


def test_healthcare_walkthrough_as_written_gives_what_it_shows(bake: Bake) -> None:
    walk(bake(dataset="folder"), "docs/healthcare-walkthrough.md")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project after the walkthrough of an opt-out."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        made = new_project(tmp_path_factory.mktemp("walked"))
        walk(made, "docs/records-walkthrough.md")
    return made


def test_records_walkthrough_as_written_gives_what_it_shows(walked: BakedProject) -> None:
    moved = walked.run("git", "log", "--first-parent", "--grep=^move: ", "--format=%s", "lineage").stdout
    assert moved.count("champion to version") == 2, "the report's command moved nothing again"


def test_questions_in_sql_have_the_answers_of_the_audit(walked: BakedProject, tmp_path: Path) -> None:
    """The page for Athena, on its tables, by DuckDB."""
    walked.run("python", "-m", "mlops", "audit", "export", str(tmp_path / "records"))
    page = (walked.path / "docs/records-athena.md").read_text(encoding="utf-8")
    tables, *queries = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    query_of = {query.partition("\n")[0].removeprefix("-- "): query for query in queries}
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    define(database, tables, tmp_path / "records")

    def ask(name: str, subject: str = "form-03") -> list[tuple[Any, ...]]:
        return database.sql(query_of[name].replace("'form-03'", f"'{subject}'")).fetchall()

    name, subjects = walked.path.name, ("form-03", "form-04", "stranger")
    find_report, verify_report = audit(walked, "find", *subjects), audit(walked, "verify", *subjects)
    for subject, answer in zip(subjects, verify_report["subjects"], strict=True):
        rows = [row for row in find_report["rows"] if row["subject"] == subject]
        rows_in_sql = {
            (run, how, f"{model}/{n}{f' @{at}' if at else ''}") for run, _, how, model, n, at in ask("find", subject)
        }
        assert rows_in_sql == {(row["run"], row["exposure"], version) for row in rows for version in row["versions"]}
        assert ask("verify", subject) == [(answer["verdict"], len(rows))]
    assert ask("deployed") == []
    listed = ask("list")
    assert [{"subject": row[0], "exposure": row[1]} for row in listed] == audit(walked, "list", "2")["rows"]
    assert sum(row[2] for row in listed) == 1667
    assert ask("diff") == [("removed", "form-03")]
    # What the walkthrough mended, made to happen again: version 1 in use, and a run whose subjects are unknown.
    database.execute(
        "CREATE TABLE worse AS SELECT model, version, IF(version = 1, 'champion', NULL) AS alias, run FROM versions"
    )
    database.execute("CREATE OR REPLACE VIEW versions AS FROM worse")
    assert ask("deployed") == [("champion", name, 1, "form-03", "FAIL")]
    database.execute("CREATE TABLE unsure AS SELECT * REPLACE (false AS whole) FROM runs")
    database.execute("CREATE OR REPLACE VIEW runs AS FROM unsure")
    assert ("champion", name, 1, None, "INCONCLUSIVE") in ask("deployed")
    assert [row[0] for row in ask("verify", "stranger")] == ["INCONCLUSIVE"]
    # MLflow lost the champion that the log has: that is not "nothing is served".
    client = MlflowClient(f"sqlite:///{(walked.path / 'mlflow.db').as_posix()}")
    client.delete_registered_model_alias(name, "champion")
    walked.run("python", "-m", "mlops", "audit", "export", str(tmp_path / "lost"))
    database = duckdb.connect()
    define(database, tables, tmp_path / "lost")
    assert ask("deployed") == [("champion", name, 2, None, "INCONCLUSIVE")]


def define(database: "duckdb.DuckDBPyConnection", statements: str, folder: Path) -> None:
    """Make of Athena's tables views on the files, and see that these have the columns that the page tells of."""
    kinds = {"string": "VARCHAR", "bigint": "BIGINT", "boolean": "BOOLEAN", "timestamp": "TIMESTAMP"}
    table = r"CREATE EXTERNAL TABLE (\w+) \((.*?)\)\n(?:PARTITIONED BY \((.*?)\)\n)?STORED AS PARQUET LOCATION '(.*?)';"
    tables = re.findall(table, statements, re.DOTALL)
    assert len(tables) == statements.count("CREATE")
    for name, columns, partitions, location in tables:
        files = f"{folder}/{location.removeprefix('s3://my-bucket/records/')}**/*.parquet"
        database.execute(f"CREATE VIEW {name} AS FROM read_parquet('{files}', hive_partitioning = {bool(partitions)})")
        columns_on_page = [column.split() for column in f"{columns},{partitions}".strip(",").split(",")]
        columns_in_file = [(row[0], row[1]) for row in database.sql(f"DESCRIBE {name}").fetchall()]
        assert columns_in_file == [(column, kinds[kind]) for column, kind in columns_on_page]


def audit(project: BakedProject, *question: str) -> dict[str, Any]:
    """Ask the project's own audit."""
    done = project.run("python", "-m", "mlops", "audit", *question, "--json", check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
