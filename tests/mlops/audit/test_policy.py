"""The table of verdicts: each cell, in the code and in the docs; and when a run was trained."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from mlops.audit.catalog_mlflow import Run
from mlops.audit.policy import CELLS, Consent, Exposure, Timing, Verdict, judge, worst
from mlops.records import consent

from ..conftest import SKELETON
from .conftest import HEADER, Project, moment

DOCS = SKELETON / "docs/audits.md"
TABLE = """
none       consent is active  PASS          PASS
none       before             PASS          PASS
none       in flight          PASS          PASS
none       after              PASS          PASS
none       never consented    PASS          PASS
none       in doubt           PASS          PASS
direct     consent is active  PASS          PASS
direct     before             PASS          FAIL
direct     in flight          FAIL          FAIL
direct     after              FAIL          FAIL
direct     never consented    FAIL          FAIL
direct     in doubt           INCONCLUSIVE  INCONCLUSIVE
inherited  consent is active  PASS          PASS
inherited  before             PASS          FAIL
inherited  in flight          FAIL          FAIL
inherited  after              FAIL          FAIL
inherited  never consented    FAIL          FAIL
inherited  in doubt           INCONCLUSIVE  INCONCLUSIVE
unknown    consent is active  PASS          PASS
unknown    before             INCONCLUSIVE  INCONCLUSIVE
unknown    in flight          INCONCLUSIVE  INCONCLUSIVE
unknown    after              INCONCLUSIVE  INCONCLUSIVE
unknown    never consented    INCONCLUSIVE  INCONCLUSIVE
unknown    in doubt           INCONCLUSIVE  INCONCLUSIVE
"""
WANTED = [(line[:11].strip(), line[11:30].strip(), *line[30:].split()) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(("exposure", "timing", "verify", "deployed"), WANTED, ids=lambda text: text)
def test_judge(exposure: str, timing: str, verify: str, deployed: str) -> None:
    assert judge(Exposure(exposure), Timing(timing), served=False) == verify
    assert judge(Exposure(exposure), Timing(timing), served=True) == deployed


TRAINED = {  # against the end of P2's consent
    "before": ("2025-05-01", ""),
    "in flight": ("2025-05-31T23:00", "2025-06-01T02:00"),
    "after": ("2025-07-01", ""),
}
ENDED = ("P2,active,2024-01-01T00:00:00Z", "P2,revoked,2025-06-01T00:00:00Z")
DOUBT = (*ENDED, "P2,active,2025-08-01T00:00:00Z", "P2,revoked,2025-07-01T00:00:00Z")


@pytest.mark.parametrize(("exposure", "timing", "verify", "deployed"), WANTED, ids=lambda text: text)
def test_audit_of_each_cell(project: Project, exposure: str, timing: str, verify: str, deployed: str) -> None:
    lines = {"consent is active": ENDED[:1], "never consented": (), "in doubt": DOUBT}.get(timing, ENDED)
    project.consent("Z,active,2024-01-01T00:00:00Z", *lines)
    start, end = TRAINED.get(timing, ("2025-07-01", ""))
    if exposure == "inherited":
        project.run("parent", start, end, subjects=["P2", "Z"])
    subjects = ["P2", "Z"] if exposure == "direct" else ["Z"]
    parents = {"inherited": ["parent"], "unknown": None}.get(exposure, [])
    project.run("asked", start, end, subjects=subjects, parents=parents)
    project.version("asked", alias="champion")
    for verb, verdict in (("verify", verify), ("deployed", deployed)):
        done = project.audit(verb, "P2", "--json")
        answer = json.loads(done.output)
        assert (answer["verdict"], done.exit_code) == (verdict, Verdict(verdict).exit_code), verb
        listed = {(row["exposure"], row["timing"], row["verdict"]) for row in answer["rows"] if row["title"] == "asked"}
        known = exposure in ("direct", "inherited") and timing != "consent is active"
        assert listed == ({(exposure, timing, verdict)} if known else set())
        assert [row["title"] for row in answer["unknown"]] == (["asked"] if exposure == "unknown" else [])
        settles = [note for note in answer["notes"] if "P2 (line 6)" in note and "consent add <subject>" in note]
        assert len(settles) == (timing == "in doubt")


def test_table_has_every_cell_once() -> None:
    assert len(WANTED) == len({row[:2] for row in WANTED}) == len(CELLS) == len(Exposure) * len(Timing)


def test_docs_have_the_same_table() -> None:
    lines = [line.strip("|").split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    rows = [[cell.strip().replace("`", "") for cell in line] for line in lines if len(line) == 4]
    start = next(number for number, row in enumerate(rows) if row[0] == "exposure")
    cells: dict[tuple[str, str], tuple[str, str]] = {}
    for exposures, timings, *verdicts in rows[start + 2 :]:
        for exposure in exposures.split(" or "):
            named = {
                "any": [*Timing],
                "anything else": [timing for timing in Timing if (exposure, timing) not in cells],
            }
            for timing in named.get(timings) or timings.split(", "):
                cells[exposure, timing] = (verdicts[0].split(",")[0], verdicts[1].split(",")[0])
    assert cells == {(exposure, timing): verdicts for (exposure, timing), verdicts in CELLS.items()}


def test_worst_is_fail_then_inconclusive_then_pass() -> None:
    assert worst(Verdict) is Verdict.FAIL
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([]) is Verdict.PASS
    assert [verdict.exit_code for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)] == [0, 1, 3]


def run(start: str | None, end: str | None) -> Run:
    times = [moment(text) if text else None for text in (start, end)]
    return Run("x", ("x",), "x", "e", times[0], times[1], False, None, None)


@pytest.mark.parametrize(
    ("start", "end", "timing"),
    [
        ("2025-05-31T22:00", "2025-05-31T23:00", Timing.BEFORE),
        ("2025-05-31T22:00", "2025-06-01T00:00", Timing.BEFORE),
        ("2025-05-31T22:00", "2025-06-01T00:01", Timing.IN_FLIGHT),
        ("2025-05-31T22:00", None, Timing.IN_FLIGHT),
        ("2025-06-01T00:00", "2025-06-01T01:00", Timing.AFTER),
        (None, "2025-01-01T00:00", Timing.AFTER),
        (None, None, Timing.AFTER),
    ],
)
def test_timing_of_a_run(start: str | None, end: str | None, timing: Timing) -> None:
    assert Consent("ended", moment("2025-06-01")).timing(run(start, end)) is timing
    assert Consent("active").timing(run(start, end)) is Timing.ACTIVE
    assert Consent("never").timing(run(start, end)) is Timing.NEVER
    assert Consent("ended", None).timing(run(start, end)) is Timing.NEVER, "in doubt, the worse"


CONSENTS: dict[str, tuple[str, Consent]] = {
    "not listed": ("P2,active,", Consent("never")),
    "active": ("P1,active,", Consent("active")),
    "revoked": (
        "P1,active,2025-01-01T00:00:00Z\nP1,revoked,2025-06-01T02:00:00+02:00",
        Consent("ended", moment("2025-06-01")),
    ),
    "revoked twice: the first counts": (
        "P1,active,2025-01-01T00:00:00Z\nP1,revoked,2025-09-01T00:00:00Z\nP1,revoked,2025-06-01T00:00:00Z",
        Consent("ended", moment("2025-06-01")),
    ),
    "revoked, given again, revoked: the last end counts": (
        "P1,active,2025-01-01T00:00:00Z\nP1,revoked,2025-02-01T00:00:00Z\n"
        "P1,active,2025-03-01T00:00:00Z\nP1,revoked,2025-04-01T00:00:00Z",
        Consent("ended", moment("2025-04-01")),
    ),
    "given again": (
        "P1,active,2025-01-01T00:00:00Z\nP1,revoked,2025-02-01T00:00:00Z\nP1,active,2025-03-01T00:00:00Z",
        Consent("active"),
    ),
    "only ever revoked": ("P1,revoked,2025-06-01T00:00:00Z", Consent("never")),
    "revoked nobody knows when": ("P1,active,\nP1,revoked,", Consent("ended", None)),
    "a misspelt status ends it": (
        "P1,active,2025-01-01T00:00:00Z\nP1,revokd,2025-06-01T00:00:00Z",
        Consent("ended", moment("2025-06-01")),
    ),
    "at the same instant": (
        "P1,active,2025-06-01T00:00:00Z\nP1,revoked,2025-06-01T00:00:00Z",
        Consent("ended", moment("2025-06-01")),
    ),
    "a withdrawal that lost in a merge": (
        "P1,revoked,2025-01-10T00:00:00Z\nP1,active,2025-03-10T00:00:00Z\nP1,revoked,2025-02-10T00:00:00Z",
        Consent("in doubt"),
    ),
    "of another case: the earliest denial": (
        "P1,active,2025-06-01T00:00:00Z\np1,revoked,2025-01-01T00:00:00Z",
        Consent("ended", moment("2025-01-01")),
    ),
}


@pytest.mark.parametrize(("lines", "wanted"), CONSENTS.values(), ids=CONSENTS)
def test_consent_of(tmp_path: Path, lines: str, wanted: Consent) -> None:
    path = tmp_path / "consent.csv"
    path.write_text(f"{HEADER}{lines}\n", encoding="utf-8")
    registry = consent.read(path, datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    assert Consent.of("P1", registry) == wanted
    assert Consent.of(" P1\u200b", registry) == wanted
