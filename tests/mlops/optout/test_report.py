"""The report of an opt-out: found again when it goes on, and a page that shows what it is given and runs nothing."""

from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlops.errors import ProjectError
from mlops.files import write_json
from mlops.optout import steps as report
from mlops.optout.plan import Dataset, Plan
from mlops.registry.versions import REGISTERED

HOSTILE = '<script>alert("x")</script>&amp;=1+1'
WHO = [{"subject": HOSTILE, "line": 7, "ended_at": "2026-01-01T00:00:00.000Z"}]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def full() -> report.OptOutReport:
    made = report.find_or_create(WHO)
    plan = Plan(
        [HOSTILE],
        [Dataset("d" * 32, HOSTILE, "m" * 64, {"train/shard-001.parquet": 3}, ["s3://bucket/files/md5/ab/cd"])],
        [{"run": "r1", "title": HOSTILE, "exposure": "inherited", "deleted": True, "path": []}],
        ["digits/1 @champion"],
        [1],
        {"champion": 1},
        unknown=[HOSTILE],
    )
    made.plan = asdict(plan)
    made.record("revoke", HOSTILE)
    made.version = {"model": "digits", "number": 2, "metrics": {"test_acc": 0.5}, "moves": [HOSTILE]}
    made.answers = {
        "verify": {"verdict": "PASS", "asked_at": "now"},
        "deployed": {"verdict": "PASS", "asked_at": "now"},
    }
    return made


def test_page_shows_all_as_text_and_needs_nothing_else() -> None:
    made = full()
    made.write()
    page = Page(made.page_path.read_text(encoding="utf-8"))
    assert page.text.count(HOSTILE) == 6
    assert "script" not in page.tags
    assert page.addresses == []
    for text in ("PASS Nothing that is in use", "test_acc 0.5000", "s3://bucket/files/md5/ab/cd", "digits/1 @champion"):
        assert text in page.text


def test_page_of_what_could_not_be_looked_up_does_not_say_that_there_is_none() -> None:
    made = full()
    made.plan["datasets"][0]["objects"], made.plan["versions"], made.plan["runs"] = [], [], []
    made.write()
    text = Page(made.page_path.read_text(encoding="utf-8")).text
    assert "this clone does not know the files; dvc pull that version first" in text
    assert text.count("none that could be found") == 2


@pytest.mark.parametrize(
    ("verdicts", "stopped", "end"),
    [
        (("PASS", "PASS"), {}, "PASS"),
        (("PASS", "FAIL"), {}, "FAIL"),
        (("INCONCLUSIVE", "PASS"), {}, "INCONCLUSIVE"),
        (("PASS", "PASS"), {"problem": "it is worse", "fix": "a better one"}, "FAIL"),
        ((), {}, "FAIL"),
    ],
    ids=["done", "in use", "unsure", "stopped", "not asked yet"],
)
def test_page_never_says_more_than_the_audit(verdicts: tuple[str, ...], stopped: dict[str, str], end: str) -> None:
    made = full()
    made.answers = {
        name: {"verdict": verdict, "asked_at": "now"}
        for name, verdict in zip(("verify", "deployed"), verdicts, strict=False)
    }
    made.stopped = stopped
    made.write()
    text = made.page_path.read_text(encoding="utf-8")
    assert f'<div class="end {end}"><b>{end}</b>' in text
    assert all(part in text for part in stopped.values())


def test_report_of_the_same_withdrawal_goes_on_and_keeps_when_a_step_was_done() -> None:
    made = full()
    made.write()
    again = report.find_or_create(list(reversed(WHO)))
    assert again == made
    at = again.done["revoke"]["at"]
    again.record("revoke", "once more")
    assert again.done["revoke"] == {"at": at, "told": [HOSTILE]}
    assert HOSTILE not in made.path.name


@pytest.mark.parametrize(
    "who",
    [[{**WHO[0], "ended_at": "2026-02-01T00:00:00.000Z"}], [*WHO, {**WHO[0], "subject": "another"}]],
    ids=["withdrawn again", "another one too"],
)
def test_report_of_another_withdrawal_is_another(who: list[dict[str, object]]) -> None:
    made = full()
    made.write()
    assert report.find_or_create(who).id != made.id


def test_plan_that_starts_from_what_knows_them_ends_there() -> None:
    plan = Plan(["a"], starts_from="models:/digits/1")
    assert list(plan.text()) == ["no run knows them"]
    assert list(plan.steps())[-1] == "stop: params.yaml:train.init_from is models:/digits/1, which knows them"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            Plan(["P2"], starts_from="models:/digits/1"),
            r"start from models:/digits/1, .*\nFix: params.yaml:train.init_from",
        ),
        (
            Plan(["P2"], numbers=[1]),
            r"version 1, which the pipeline makes today, knows .*\nFix: .*has data/consent.csv",
        ),
    ],
    ids=["start", "version"],
)
def test_version_that_would_know_them_all_the_same_is_refused(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, message: str
) -> None:
    monkeypatch.setattr(report, "Audit", lambda: None)
    monkeypatch.setattr(report, "make_plan", lambda audit, subjects: plan)
    monkeypatch.setattr("mlops.registry.promotion.identity", lambda: ())
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))
    write_json(REGISTERED, {"version": 1})
    made = report.OptOutReport("x", [{"subject": "P2", "line": 2, "ended_at": "2025-06-01T00:00:00.000Z"}])
    with pytest.raises(ProjectError, match=message):
        report._replace_versions(made, False, print)
