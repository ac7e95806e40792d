"""`consent pull` from a real PostgreSQL, as a clinic would have it."""

import contextlib
import sys
from collections.abc import Iterator

import psycopg2
import pytest
from sqlalchemy import make_url

from ..conftest import BakedProject, new_project
from ..servers.stores import PostgreSQL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PostgreSQL is started as Linux does it")

SCHEMA = """
CREATE SCHEMA clinic;
CREATE TABLE clinic.consents (
    subject_id varchar NOT NULL, consent_status varchar NOT NULL, effective_at timestamptz NOT NULL, local timestamp
);
INSERT INTO clinic.consents
SELECT to_char(n, 'FM00000'), 'active', '2025-01-01 01:00:00+01'::timestamptz, '2025-01-01 00:00:00'
FROM generate_series(25000, 1, -1) n;
INSERT INTO clinic.consents VALUES ('00007', 'revoked', '2025-06-01 12:00:00.5+02', '2025-06-01 10:00:00');
"""
CURSOR = "SELECT name AS subject_id, 'active' AS consent_status, now() AS effective_at FROM pg_cursors"


@pytest.fixture(scope="module")
def clinic() -> Iterator[str]:
    """The address of a database with 25,000 consents and one withdrawal."""
    server = PostgreSQL()
    address = server.database("clinic")
    url = make_url(address)
    connection = psycopg2.connect(host=str(url.query["host"]), user=url.username, dbname=url.database)
    with contextlib.closing(connection), connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
    yield address
    server.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> BakedProject:
    """A project for one's own images, which begins without a registry."""
    return new_project(tmp_path_factory.mktemp("clinic"), dataset="folder")


@pytest.fixture(autouse=True)
def no_registry(project: BakedProject) -> None:
    """Take away the registry of the test before."""
    for name in ("data/consent.csv", "data/consent.csv.dvc"):
        (project.path / name).unlink(missing_ok=True)


def pull(project: BakedProject, *arguments: str, check: bool = True) -> str:
    """Run the verb, and return all that it printed."""
    done = project.run("python", "-m", "mlops", "consent", "pull", *arguments, check=check)
    assert done.returncode == (0 if check else 2), done.stderr
    return done.stdout + done.stderr


def test_pull_is_the_same_bytes_each_time_and_leaves_no_secret(
    project: BakedProject, clinic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSENT_URL", clinic.replace("mlflow@", "mlflow:hunter2@"))
    assert "24999 active, 1 revoked" in pull(project, "--table", "clinic.consents")
    lines = (project.path / "data/consent.csv").read_bytes().decode().split("\n")
    assert len(lines) == 25003
    assert lines[1] == "00001,active,2025-01-01T00:00:00Z"
    assert lines[7:9] == ["00007,active,2025-01-01T00:00:00Z", "00007,revoked,2025-06-01T10:00:00.500000Z"]
    query = "SELECT effective_at, consent_status, subject_id FROM clinic.consents WHERE subject_id LIKE '%' ORDER BY 1"
    assert "as before" in pull(project, "--query", query)
    assert "lacks 1 of the 25001 lines" in pull(
        project, "--query", f"{query.partition('ORDER')[0]} AND consent_status <> 'revoked'", check=False
    )
    for path in project.files():
        assert b"hunter2" not in (project.path / path).read_bytes()


def test_pull_streams_from_the_server(project: BakedProject, clinic: str) -> None:
    """The query sees the cursor that it is read through."""
    assert "1 active" in pull(project, clinic, "--query", CURSOR)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT subject_id, consent_status, local AS effective_at FROM clinic.consents", "AT TIME ZONE 'UTC'"),
        ("SELECT subject_id, consent_status FROM clinic.consents", "not once each: effective_at"),
        ("SELECT NULL AS subject_id, 'active' AS consent_status, now() AS effective_at", "subject_id is empty (NULL)"),
        ("SELECT * FROM consents", 'relation "consents" does not exist'),
    ],
    ids=["no zone", "no column", "NULL", "no table"],
)
def test_pull_of_what_is_no_registry_says_what_to_do(
    project: BakedProject, clinic: str, query: str, problem: str
) -> None:
    assert problem in pull(project, clinic, "--query", query, check=False)
    assert not (project.path / "data/consent.csv").exists()


def test_pull_from_a_server_that_is_down_tells_no_password(project: BakedProject, clinic: str) -> None:
    address = clinic.replace("mlflow@", "mlflow:hunter2@").replace("?host=", "?host=/nowhere")
    output = pull(project, address, "--table", "consents", check=False)
    assert "can't be queried" in output
    assert "Fix: see that the server is up" in output
    assert "hunter2" not in output
