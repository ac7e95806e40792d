"""Which version was in use at a moment: from the log alone, and with its data and consent from Git and DVC."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from dvc.repo import Repo
from mlops.cli import main
from mlops.errors import ProjectError
from mlops.records.manifest import SCHEMA as MANIFEST_SCHEMA
from mlops.records.manifest import write
from mlops.registry.aliases import CHALLENGER, CHAMPION, AliasChange
from mlops.registry.history import Period, parse_moment, periods
from mlops.tracking import lineage_log

from ..conftest import SKELETON
from ..test_output import assert_fits
from .conftest import MODEL, Git
from .test_alias_log import CHANGE

SCHEMAS = json.loads((SKELETON / "docs/json.schema.json").read_text(encoding="utf-8"))
DATASET_MD5 = f"{'d' * 32}.dir"
SHA256 = "c" * 64
SPLITS = {"P1": "train", "P2": "train", "P3": "test", "P4": "val"}


def moved(day: int, version: int, alias: str = CHAMPION, action: str = "promote") -> AliasChange:
    """Return a change of the model's aliases at 09:00 on a day of January 2026."""
    when = f"2026-01-{day:02}T09:00:00Z"
    return replace(CHANGE, model=MODEL, version=version, alias=alias, action=action, when=when, why=f"day {day}")


def rows(log: list[AliasChange], alias: str = CHAMPION) -> list[tuple[int | None, int | None, int | None]]:
    """Return the periods of an alias: version, first and last day."""
    days = ((p.version, p.since, p.until) for p in periods(log, alias))
    return [(version, since.day if since else None, until.day if until else None) for version, since, until in days]


def test_periods_of_a_champion_that_is_taken_back() -> None:
    log = [moved(2, 1), moved(4, 2), moved(6, 3), moved(8, 2, action="rollback"), moved(9, 1, action="rollback")]
    assert rows(log) == [(None, None, 2), (1, 2, 4), (2, 4, 6), (3, 6, 8), (2, 8, 9), (1, 9, None)]
    last = list(periods(log, CHAMPION))[-1]
    assert last.change == log[-1], "who took it back, not who promoted it first"
    assert list(periods([], CHAMPION)) == [Period()]


def test_periods_of_a_challenger_end_when_it_has_won() -> None:
    log = [moved(2, 1), moved(3, 2, CHALLENGER), moved(5, 2), moved(6, 3, CHALLENGER)]
    assert rows(log, CHALLENGER) == [(None, None, 3), (2, 3, 5), (None, 5, 6), (3, 6, None)]
    assert rows(log) == [(None, None, 2), (1, 2, 5), (2, 5, None)]


def test_periods_of_entries_with_wrong_clocks_are_in_the_order_of_the_log() -> None:
    assert rows([moved(2, 1), moved(8, 2), moved(5, 3)]) == [(None, None, 2), (1, 2, 8), (2, 8, 8), (3, 8, None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T10:00", "2026-01-31T10:00:00+00:00"),
        ("2026-01-31 10:00:07", "2026-01-31T10:00:07+00:00"),
        ("2026-01-31T10:00Z", "2026-01-31T10:00:00+00:00"),
        ("2026-01-31T00:30+01:00", "2026-01-30T23:30:00+00:00"),
    ],
)
def test_moment_is_in_utc(text: str, expected: str) -> None:
    assert parse_moment(text).isoformat() == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00+01:00"])
def test_moment_that_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ProjectError, match="is not a time\nFix: python -m mlops registry --at 2") as refused:
        parse_moment(text)
    parse_moment(refused.value.fix.split()[5])


def test_moment_in_the_future_is_refused() -> None:
    with pytest.raises(ProjectError, match="is in the future, .*\nFix: python -m mlops registry --at 2"):
        parse_moment((datetime.now(UTC) + timedelta(minutes=1)).isoformat())


@pytest.fixture
def registered(head: str, git: Git) -> str:
    """A project with one version that has a dataset of four persons; no MLflow. Return the version's commit."""
    cells = [(s, f"{s}-{n}", "x.parquet", split, "x") for s, split in sorted(SPLITS.items()) for n in (1, 2)]
    import pyarrow as pa

    columns = zip(*cells, strict=True)
    table = pa.table([pa.array(column, pa.string()) for column in columns], schema=MANIFEST_SCHEMA)
    Path("data").mkdir()
    write([table], Path("data/manifest.parquet"))
    Repo.init().close()
    content = Path("data/manifest.parquet").read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    cached = Path(".dvc/cache/files/md5", md5[:2], md5[2:])
    cached.parent.mkdir(parents=True)
    Path("data/manifest.parquet").rename(cached)
    outs = (
        f"{{path: data/dataset, hash: md5, md5: {DATASET_MD5}}}, {{path: data/manifest.parquet, hash: md5, md5: {md5}}}"
    )
    stage = "{cmd: x, outs: [data/dataset, data/manifest.parquet]}"
    counts = [{"split": split, "label": "x", "records": 2} for split in SPLITS.values()]
    files = {
        ".gitignore": "/data/consent.csv\n",
        "dvc.yaml": f"stages: {{manifest: {stage}}}\n",
        "dvc.lock": f"schema: '2.0'\nstages: {{manifest: {{cmd: x, outs: [{outs}]}}}}\n",
        "params.yaml": "data: {consent: required}\n",
        "reports/run.json": '{"run": "abc123"}',
        "reports/prepare.json": json.dumps({"excluded": 7, "consent_sha256": [SHA256]}),
        "reports/manifest.json": json.dumps({"records": 8, "subjects": 4, "counts": counts}),
    }
    for path, text in files.items():
        Path(path).write_text(text, encoding="utf-8")
    git("add", "--force", *files)
    git("commit", "--quiet", "-m", "Results")
    commit = git("rev-parse", "HEAD")
    lineage_log.record(head, f"train gouty-fifo\n\nrun: abc123\nproject: {MODEL}\n")
    lineage_log.record(commit, f"register {MODEL} version 1\n\nrun: abc123\n")
    lineage_log.tag(f"{MODEL}@v1.0.0", commit, f"{MODEL} version 1")
    lineage_log.tag("data/v1.0", head, DATASET_MD5)
    lineage_log.tag("data/v0.9", head, "another")
    lineage_log.record(commit, moved(10, 1).entry())
    write_consent(*(f"{subject},active,2025-01-01T00:00:00Z" for subject in SPLITS))
    return commit


def write_consent(*lines: str) -> None:
    """Write the registry."""
    text = "subject_id,consent_status,effective_at\n" + "".join(f"{line}\n" for line in lines)
    Path("data/consent.csv").write_text(text, encoding="utf-8")


def ask(*options: str) -> Result:
    """Run `registry` with options."""
    return CliRunner().invoke(main, ["registry", *options], catch_exceptions=False)


def document(*options: str, code: int = 0) -> dict[str, Any]:
    """Return what `registry --json` prints."""
    done = ask("--json", *options)
    assert done.exit_code == code, done.output
    content: dict[str, Any] = json.loads(done.stdout)
    jsonschema.Draft202012Validator({**SCHEMAS, "$ref": "#/$defs/registry-at"}).validate(content)
    return content


def test_at_says_what_was_in_use_on_whose_data_under_which_consent(registered: str, head: str) -> None:
    answer = document("--at", "2026-01-20")
    assert answer == {
        "model": MODEL,
        "alias": CHAMPION,
        "at": "2026-01-20T00:00:00Z",
        "version": 1,
        "since": "2026-01-10T09:00:00Z",
        "until": None,
        "action": "promote",
        "who": CHANGE.who,
        "aws": "none",
        "why": "day 10",
        "run": "abc123",
        "read_commit": head,
        "commit": registered,
        "dataset": {
            "md5": DATASET_MD5,
            "labels": ["v1.0"],
            "records": 8,
            "subjects": 4,
            "splits": {name: {"records": 2 * n, "subjects": n} for name, n in (("train", 2), ("test", 1), ("val", 1))},
        },
        "consent": {"rule": "required", "sha256": SHA256, "excluded": 7},
        "withdrawn": 0,
        "unknown": [],
    }
    done = ask("--at", "2026-01-20")
    assert_fits(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == [
        "champion    version 1 of digits at 2026-01-20T00:00:00Z",
        "in use      from 2026-01-10T09:00:00Z to this day",
        "promote     by Ada <ada@example.org>: day 10",
    ]
    assert done.stdout.splitlines()[-1] == "withdrawn   0 of these subjects had withdrawn by then"


def test_at_before_the_first_promotion_says_that_nothing_was_in_use(registered: str) -> None:
    answer = document("--at", "2026-01-10T08:59:59Z")
    assert (answer["version"], answer["until"], answer["dataset"]) == (None, "2026-01-10T09:00:00Z", None)
    assert document("--at", "2026-01-10T09:00:00Z")["version"] == 1, "from the second on that the log names"
    output = ask("--at", "2026-01-01").stdout
    assert output.splitlines() == [
        "champion  no version of digits at 2026-01-01T00:00:00Z",
        "in use    none until 2026-01-10T09:00:00Z",
    ]
    assert document("--at", "2026-01-20", "--alias", "challenger")["version"] is None


def test_at_counts_who_had_withdrawn_by_then(registered: str) -> None:
    granted = [f"{subject},active,2025-01-01T00:00:00Z" for subject in SPLITS]
    lines = ("P1,revoked,2026-01-15T00:00:00Z", "P3,revoked,2026-01-18T00:00:00Z", "P9,revoked,2026-01-11T00:00:00Z")
    write_consent(*granted, *lines, "P1,active,2026-01-25T00:00:00Z")
    days = {day: document("--at", f"2026-01-{day}")["withdrawn"] for day in (14, 15, 17, 20, 26)}
    assert days == {14: 0, 15: 1, 17: 1, 20: 2, 26: 1}, "from the moment of the line on, until a new consent"


def test_at_with_lines_that_do_not_tell_is_inconclusive(registered: str) -> None:
    write_consent("P1,active,2025-01-01T00:00:00Z", "P1,revoked,", "P2,active,", "P3,revoked,2026-01-01T00:00:00Z")
    answer = document("--at", "2026-01-20", code=3)
    assert answer["withdrawn"] == 1
    assert "decides about 2 of the subjects (python -m mlops consent check)" in answer["unknown"][0]
    done = ask("--at", "2026-01-20")
    assert done.exit_code == 3
    assert_fits(done.stdout)


def test_at_without_the_manifest_or_the_registry_says_what_is_unknown(registered: str) -> None:
    Path("data/consent.csv").unlink()
    answer = document("--at", "2026-01-20", code=3)
    assert (answer["withdrawn"], answer["dataset"]["splits"]["train"]) == (None, {"records": 4, "subjects": 2})
    assert "data/consent.csv is not there" in answer["unknown"][0]
    write_consent("P1,active,2025-01-01T00:00:00Z")
    (file,) = (path for path in Path(".dvc/cache/files/md5").rglob("*") if path.is_file())
    file.unlink()
    answer = document("--at", "2026-01-20", code=3)
    assert (answer["version"], answer["withdrawn"]) == (1, None)
    assert answer["dataset"]["splits"]["train"] == {"records": 4, "subjects": None}
    assert answer["unknown"][0].startswith("whether subjects had withdrawn: the files of commit")


def test_at_with_a_registry_that_is_older_than_dvc_says_is_inconclusive(registered: str) -> None:
    Path("data/consent.csv.dvc").write_text(f"outs:\n- md5: {'0' * 32}\n  path: consent.csv\n", encoding="utf-8")
    (reason,) = document("--at", "2026-01-20", code=3)["unknown"]
    assert "data/consent.csv is not the file that DVC tracks (dvc pull data/consent.csv.dvc; or" in reason


def test_at_of_a_version_without_a_manifest_or_records_says_so(registered: str, git: Git) -> None:
    git("rm", "--quiet", "dvc.yaml", "dvc.lock", "reports/prepare.json", "reports/run.json")
    git("commit", "--quiet", "-m", "Lost")
    lineage_log.record(git("rev-parse", "HEAD"), f"register {MODEL} version 2\n\nrun: abc123\n")
    lineage_log.record(registered, moved(12, 2).entry())
    answer = document("--at", "2026-01-20", code=3)
    assert (answer["version"], answer["commit"]) == (2, git("rev-parse", "HEAD")), "the log has it, without a tag"
    assert [reason.partition(":")[0] for reason in answer["unknown"]] == [
        "run",
        "commit that the run read",
        "hash of the dataset",
        "consent",
        "whether subjects had withdrawn",
    ]
    lineage_log.record(registered, moved(13, 9).entry())
    (reason,) = document("--at", "2026-01-20", code=3)["unknown"]
    assert reason.startswith("what made version 9: this clone has no tag of it")


def test_at_of_data_that_need_no_consent_counts_nobody(registered: str, git: Git) -> None:
    text = json.dumps({"excluded": 0, "consent_sha256": ["not_required"]})
    Path("reports/prepare.json").write_text(text, encoding="utf-8")
    git("commit", "--quiet", "-am", "Without consent")
    git("tag", "--force", f"{MODEL}@v1.0.0", "HEAD", "-a", "-m", "x")
    Path("data/consent.csv").unlink()
    answer = document("--at", "2026-01-20")
    assert (answer["consent"]["rule"], answer["withdrawn"]) == ("not_required", None)
    assert "withdrawn" not in ask("--at", "2026-01-20").stdout


def test_at_says_when_the_log_is_behind_or_out_of_order(registered: str, git: Git) -> None:
    lineage_log.record(registered, moved(5, 1, CHALLENGER).entry())
    assert ask("--at", "2026-01-20").stderr == "", "of another alias"
    lineage_log.record(registered, moved(8, 3).entry())
    done = ask("--at", "2026-01-20")
    assert done.stdout.startswith("champion  version 3 of digits")
    assert "dated before the entry that they follow: version 3 at 2026-01-08T09:00:00Z; the order of" in done.stderr
    git("update-ref", "refs/remotes/origin/lineage", "lineage")
    git("update-ref", "refs/heads/lineage", "lineage^")
    done = ask("--at", "2026-01-20")
    assert "version 1 of digits" in done.stdout
    assert done.stderr == (
        "the log of a Git remote has entries that this clone's lacks\nFix: git fetch origin lineage:lineage\n"
    )


def test_at_without_a_log_or_with_a_part_of_it_is_an_error(registered: str, head: str, git: Git) -> None:
    git("branch", "--delete", "--force", "--quiet", "lineage")
    done = ask("--at", "2026-01-20")
    assert (done.exit_code, done.stderr.splitlines()) == (
        2,
        [
            "Error: this clone has no log (the Git branch lineage), which says what was in use",
            "Fix: git fetch origin lineage:lineage; if origin has none: python -m mlops lineage push, in the clone "
            "that promotes",
        ],
    )
    git("tag", "--delete", f"{MODEL}@v1.0.0")
    assert document("--at", "2026-01-20")["version"] is None, "nothing was ever registered"
    Path(".git/shallow").write_text(f"{head}\n", encoding="utf-8")
    assert "Fix: git fetch --unshallow" in ask("--at", "2026-01-20").stderr


def test_registry_without_a_verb_is_its_help_and_options_of_at_go_with_it(head: str) -> None:
    assert ask().output.startswith("Usage:") and "--at TIME" in ask().output
    assert "Missing command, or --at" in ask("--json").output
    assert "options go behind the verb: registry list" in ask("--json", "list").output
