"""The registry from a database: the same rows give the same bytes, and nobody is lost in silence."""

import sqlite3
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlops.consent.pull import pull
from mlops.errors import ProjectError
from mlops.records import consent

ROWS: list[tuple[object, object, object]] = [
    ("form-01", "active", "2025-01-01T01:00:00+01:00"),
    ("form-02", "revoked", "2025-06-01T00:00:00Z"),
    ("form-02", "active", "2025-01-01T00:00:00Z"),
    ("form-00", "active", "2025-01-01T00:00:00Z"),
]


@pytest.fixture
def address(registry: Path, tmp_path: Path) -> str:
    """A database that says what the registry says."""
    write(tmp_path / "clinic.db", ROWS)
    return f"sqlite:///{tmp_path / 'clinic.db'}"


def write(path: Path, rows: list[tuple[object, object, object]]) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE IF EXISTS consents")
        database.execute("CREATE TABLE consents (subject_id, consent_status, effective_at)")
        database.executemany("INSERT INTO consents VALUES (?, ?, ?)", rows)
    database.close()


def from_table(address: str, present: bool = False, anyway: bool = False) -> str:
    return pull(address, "", "consents", present, anyway)


def test_pull_writes_sorted_utc_lines_and_again_nothing(registry: Path, address: str) -> None:
    assert from_table(address).startswith("data/consent.csv: 2 active, 1 revoked; sha256 ")
    text = (
        "subject_id,consent_status,effective_at\n"
        "form-00,active,2025-01-01T00:00:00Z\n"
        "form-01,active,2025-01-01T00:00:00Z\n"
        "form-02,active,2025-01-01T00:00:00Z\n"
        "form-02,revoked,2025-06-01T00:00:00Z\n"
    )
    assert registry.read_bytes() == text.encode()
    assert from_table(address).endswith("as before")


def test_pull_makes_the_first_registry(registry: Path, address: str) -> None:
    registry.unlink()
    Repo.init(no_scm=True).close()
    query = "SELECT effective_at, 'a:b' AS more, subject_id, consent_status FROM consents WHERE subject_id LIKE '%01'"
    first, *more = pull(address, query, "", False, False).splitlines()
    assert first.startswith("data/consent.csv: 1 active; sha256 ") and "tracked by DVC from now on" in more[0]
    assert consent.read(registry).active == {"form-01"}


def test_pull_that_loses_a_line_is_refused_unless_meant(registry: Path, address: str, tmp_path: Path) -> None:
    before = registry.read_bytes()
    write(tmp_path / "clinic.db", [ROWS[0], ROWS[2], ROWS[3]])  # the withdrawal is gone
    with pytest.raises(ProjectError, match=r"lacks 1 of the 4 lines .* line 5 \(form-02 revoked\)(?s:.*)--replace"):
        from_table(address)
    assert registry.read_bytes() == before
    from_table(address, anyway=True)
    assert consent.read(registry).allows("form-02")


def test_pull_of_the_present_state_keeps_the_history(registry: Path, address: str, tmp_path: Path) -> None:
    write(tmp_path / "clinic.db", [ROWS[0], ROWS[1], ("form-00", "revoked", "2026-01-01T00:00:00Z")])
    from_table(address, present=True)
    lines = consent.entries(registry.read_bytes(), "it")
    assert [(line.subject_id, line.status) for line in lines] == [
        ("form-00", "active"),
        ("form-00", "revoked"),
        ("form-01", "active"),
        ("form-02", "active"),
        ("form-02", "revoked"),
    ]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (ROWS[:2], "lacks 1 of the 3 subjects .* form-00\nFix: see that the query leaves nobody out; .* --replace"),
        (ROWS, "several rows of form-02\nFix: one row a person, or leave --present out"),
        (
            [ROWS[0], ROWS[2], ROWS[3]],
            "form-02 is active in the database, and would be revoked .*\nFix: see that effective_at is when the state",
        ),
    ],
    ids=["a person is gone", "history", "withdrawal is gone"],
)
def test_pull_of_a_present_state_that_is_none_is_refused(
    registry: Path, address: str, tmp_path: Path, rows: list[tuple[object, object, object]], problem: str
) -> None:
    write(tmp_path / "clinic.db", rows)
    with pytest.raises(ProjectError, match=problem):
        from_table(address, present=True)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ((None, "active", "2025-01-01T00:00:00Z"), r"row 5 of the result: subject_id is empty \(NULL\)"),
        ((" ", "active", "2025-01-01T00:00:00Z"), "line 5 names no subject"),
        ((1.5, "active", "2025-01-01T00:00:00Z"), r"of the type float(?s:.*)CAST"),
        (("a", None, "2025-01-01T00:00:00Z"), r"consent_status is empty(?s:.*)CASE WHEN"),
        (("a", "active", None), r"effective_at is empty(?s:.*)WHERE"),
        (("a", "active", "2025-01-01 00:00:00"), "lacks its time zone\nFix: in UTC, write 2025-01-01T00:00:00Z"),
        (("a", "active", "soon"), "is not a time\nFix: write it like"),
        (("a", "active", "2999-01-01T00:00:00Z"), "in the future"),
    ],
    ids=["no subject", "blank subject", "number", "no status", "no time", "no zone", "words", "future"],
)
def test_pull_of_a_bad_row_is_refused_with_its_number(
    registry: Path, address: str, tmp_path: Path, row: tuple[object, object, object], problem: str
) -> None:
    before = registry.read_bytes()
    write(tmp_path / "clinic.db", [*ROWS, row])
    with pytest.raises(ProjectError, match=problem):
        from_table(address)
    assert registry.read_bytes() == before


def test_pull_takes_whole_numbers_as_ids_as_they_are(registry: Path, address: str, tmp_path: Path) -> None:
    write(tmp_path / "clinic.db", [(7, "active", "2025-01-01T00:00:00Z"), ("008", "revoked", "2025-01-01T00:00:00Z")])
    from_table(address, anyway=True)
    content = consent.read(registry)
    assert (content.allows("7"), content.allows("008")) == (True, False)


def test_pull_of_ids_that_look_alike_says_so_and_denies_both(registry: Path, address: str, tmp_path: Path) -> None:
    write(tmp_path / "clinic.db", [(7, "active", "2025-01-01T00:00:00Z"), ("007", "revoked", "2025-01-01T00:00:00Z")])
    assert "1 may be one person under several ids" in from_table(address, anyway=True)
    assert [entry.subject_id for entry in consent.entries(registry.read_bytes(), "it")] == ["007", "7"]
    assert consent.read(registry).active == frozenset()


def test_pull_does_not_hide_a_withdrawal_that_lost_in_a_merge(registry: Path, address: str, tmp_path: Path) -> None:
    withdrawn = ("form-01", "revoked", "2025-02-10T00:00:00Z")
    merged = [("form-01", "revoked", "2025-01-10T00:00:00Z"), ("form-01", "active", "2025-03-10T00:00:00Z"), withdrawn]
    registry.write_text(registry.read_text() + "".join(f"{','.join(row)}\n" for row in merged))
    write(tmp_path / "clinic.db", [*ROWS, *merged])
    with pytest.raises(ProjectError, match="form-01 is in doubt: line 8 (?s:.*)add their present word to the database"):
        from_table(address)
    write(tmp_path / "clinic.db", [("form-01", *merged[1][1:]), ROWS[1], ROWS[3]])
    with pytest.raises(ProjectError, match="form-01 is active in the database, and would be in doubt"):
        from_table(address, present=True)
    write(tmp_path / "clinic.db", [*ROWS, *merged, ("form-01", "active", "2025-04-10T00:00:00Z")])
    from_table(address)
    assert consent.read(registry).allows("form-01")


@pytest.mark.parametrize(
    ("address", "query", "problem"),
    [
        ("nonsense", "SELECT 1", "no URL of SQLAlchemy\nFix: write it like postgresql"),
        (
            "oracle+nothing://u:s3cret@h/d",
            "SELECT 1",
            "no driver for oracle.nothing\nFix: .*pip install psycopg2-binary",
        ),
        (
            "sqlite:////nowhere/at/all.db",
            "SELECT 1",
            "can't be queried: unable to open(?s:.*)see that the server is up",
        ),
        ("sqlite://", "SELEC 1", "can't be queried: .*syntax"),
        ("sqlite://", "SELECT 1 AS subject_id", "not once each: consent_status, effective_at\nFix: --query 'SELECT"),
        (
            "sqlite://",
            "SELECT 1 AS subject_id, 2 AS consent_status, 3 AS effective_at WHERE 0",
            "holds no rows(?s:.*)see the query",
        ),
    ],
    ids=["address", "driver", "unreachable", "syntax", "columns", "empty"],
)
def test_pull_that_can_t_be_queried_says_what_to_do(registry: Path, address: str, query: str, problem: str) -> None:
    before = registry.read_bytes()
    with pytest.raises(ProjectError, match=problem) as error:
        pull(address, query, "", False, True)
    assert "s3cret" not in str(error.value)
    assert registry.read_bytes() == before
