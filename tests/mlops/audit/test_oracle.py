"""Verdicts on random histories, against a few lines that look at everything again for each question."""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops.audit.audit import Audit
from mlops.audit.catalog_mlflow import Catalog, Run, Version
from mlops.audit.index import Index
from mlops.records.ids import match_key

from .conftest import HEADER, moment, write_manifest

SUBJECTS = ["P1", "p1", "P10", "Q", "00123", "123", 'it\'s, "x"']
START = moment("2025-01-01")


@dataclass
class Past:
    """A history."""

    manifests: list[set[str]]
    lost: set[int]
    runs: list[dict[str, Any]]
    versions: list[list[int]]  # the runs that made each; a number too high is a run that is gone
    served: set[int]
    consents: dict[str, list[tuple[str, int]]]


SUBSETS = st.sets(st.sampled_from(SUBJECTS))


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    manifests = draw(st.lists(SUBSETS, min_size=1, max_size=6))
    count = draw(st.integers(1, 7))
    runs = []
    for number in range(count):
        ancestors = st.lists(st.integers(0, max(0, number - 1)), max_size=2) if number else st.just([])
        odd = st.one_of(
            ancestors, ancestors, ancestors, ancestors, st.none(), st.lists(st.integers(0, count), max_size=2)
        )
        start = draw(st.integers(0, 20))
        runs.append(
            {
                "manifest": draw(st.one_of(*[st.integers(0, len(manifests) - 1)] * 6, st.none())),
                "parents": draw(odd),
                "start": start,
                "end": draw(st.one_of(st.none(), st.integers(start, 21))),
                "deleted": draw(st.booleans()),
            }
        )
    entry = st.tuples(st.sampled_from(["active", "active", "revoked"]), st.integers(0, 20))
    return Past(
        manifests,
        draw(st.sets(st.integers(0, 5), max_size=1)),
        runs,
        draw(st.lists(st.lists(st.integers(0, count), max_size=2), max_size=3)),
        draw(st.sets(st.integers(0, 2))),
        draw(st.dictionaries(st.sampled_from(SUBJECTS), st.lists(entry, min_size=1, max_size=4), max_size=5)),
    )


def day(number: int) -> Any:
    return START + timedelta(days=number)


class Oracle:
    """Looks at everything for each question."""

    def __init__(self, past: Past, digests: list[str]) -> None:
        lost = {digests[number] for number in past.lost if number < len(digests)}
        self.past = past
        self.readable = [
            None if digest in lost else subjects for digest, subjects in zip(digests, past.manifests, strict=True)
        ]

    def above(self, run: int) -> set[int]:
        ancestors: set[int] = set()
        todo = [run]
        while todo:
            for parent in self.past.runs[todo.pop()]["parents"] or []:
                if parent < len(self.past.runs) and parent not in ancestors:
                    ancestors.add(parent)
                    todo.append(parent)
        return ancestors

    def reads(self, run: int) -> set[str] | None:
        manifest = self.past.runs[run]["manifest"]
        return None if manifest is None else self.readable[manifest]

    def exposure(self, run: int, subject: str) -> str:
        above = self.above(run)
        if subject in (self.reads(run) or ()):
            return "direct"
        if any(subject in (self.reads(node) or ()) for node in above):
            return "inherited"
        for node in {run, *above}:
            parents, reads = self.past.runs[node]["parents"], self.reads(node)
            if reads is None or parents is None or max(parents, default=0) >= len(self.past.runs):
                return "unknown"
            if node in self.above(node) or any(match_key(other) == match_key(subject) for other in reads):
                return "unknown"
        return "none"

    def consent(self, subject: str) -> tuple[str, Any]:
        group = [
            (day, s, other)
            for other in SUBJECTS
            if match_key(other) == match_key(subject)
            for s, day in self.past.consents.get(other, [])
        ]
        if subject not in self.past.consents:
            return "never", None
        grants = [when for when, status, _ in group if status == "active"]
        denials = [when for when, status, _ in group if status != "active"]
        if not denials:
            return "active", None
        if not grants:
            return "never", None
        alone = len({other for *_, other in group}) == 1
        if alone and max(grants) > max(denials):
            return "in doubt" if lost_in_a_merge([(s == "active", day) for day, s, _ in group]) else "active", None
        later = [when for when in denials if when >= max(grants)]
        return "ended", day(min(later or denials))

    def timing(self, run: int, subject: str) -> str:
        status, ended = self.consent(subject)
        if status != "ended":
            return {"active": "consent is active", "never": "never consented"}.get(status, status)
        start, end = self.past.runs[run]["start"], self.past.runs[run]["end"]
        if day(start) >= ended:
            return "after"
        return "in flight" if end is None or day(end) > ended else "before"

    def verdict(self, run: int, subject: str, served: bool) -> str:
        return self.cell(self.exposure(run, subject), self.timing(run, subject), served)

    def cell(self, exposure: str, timing: str, served: bool) -> str:
        if exposure == "none" or timing == "consent is active":
            return "PASS"
        if exposure == "unknown" or timing == "in doubt":
            return "INCONCLUSIVE"
        return "PASS" if timing == "before" and not served else "FAIL"

    def deployed(self, subject: str) -> list[str]:
        verdicts = []
        for number, made in enumerate(self.past.versions):
            if number in self.past.served:
                verdicts += [self.verdict(run, subject, True) for run in made if run < len(self.past.runs)]
                if not made or max(made) >= len(self.past.runs):
                    verdicts.append(self.cell("unknown", self.timing(0, subject), True))
        return verdicts


def lost_in_a_merge(lines: list[tuple[bool, int]]) -> bool:
    """Say of one person's lines, whose latest is a grant, whether a withdrawal was some writer's last word."""
    for place, (grant, day) in enumerate(lines):
        before, after = lines[:place], lines[place + 1 :]
        last_word = after[0][1] < day if after else any(other > day for _, other in before)
        if grant or not last_word:
            continue
        for number in range(place + 1, len(lines)):
            latest = max(range(number), key=lambda n: (lines[n][1], n))
            if lines[number][1] >= lines[latest][1] and (not lines[number][0] or lines[latest][0]):
                break
        else:
            return True
    return False


def worst(verdicts: list[str]) -> str:
    return next((verdict for verdict in ("FAIL", "INCONCLUSIVE") if verdict in verdicts), "PASS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without MLflow."""
    made = tmp_path_factory.mktemp("oracle")
    (made / "data").mkdir()
    (made / "platform.yaml").write_text(
        "project: m\ntracking_uri: null\nrun_on: local\nallow_other_environment: false\n", encoding="utf-8"
    )
    (made / "params.yaml").write_text("data: {consent: required}\n", encoding="utf-8")
    return made


@settings(max_examples=60, deadline=None)
@given(past=pasts())
def test_verdicts_are_those_of_the_oracle(folder: Path, past: Past) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as scratch:
        monkeypatch.chdir(folder)
        lines = [
            f'"{subject.replace(chr(34), chr(34) * 2)}",{status},{day(when).isoformat()}'
            for subject, entries in past.consents.items()
            for status, when in entries
        ]
        Path("data/consent.csv").write_text("\n".join([HEADER + "Z,active,", *lines, ""]), encoding="utf-8")
        files = {}
        digests = []
        for number, subjects in enumerate(past.manifests):
            path = Path(scratch, f"{number}.parquet")
            digests.append(write_manifest(subjects, path))
            files[digests[-1]] = path
        for number in past.lost:
            if number < len(digests):
                files[digests[number]].write_bytes(b"lost")
        runs = [
            Run(
                str(number),
                (str(number),),
                "",
                "",
                day(facts["start"]),
                None if facts["end"] is None else day(facts["end"]),
                facts["deleted"],
                None if facts["manifest"] is None else digests[facts["manifest"]],
                None if facts["parents"] is None else tuple(map(str, facts["parents"])),
            )
            for number, facts in enumerate(past.runs)
        ]
        versions = [
            Version("m", number + 1, ("live",) * (number in past.served), tuple(map(str, made)))
            for number, made in enumerate(past.versions)
        ]
        catalog = Catalog(runs, versions, lambda sha256: [lambda folder: files[sha256]])
        audit, oracle = Audit(catalog, Index(Path(scratch, "index.db"))), Oracle(past, digests)
        plain = [subject.strip().replace("\n", "") for subject in SUBJECTS]
        for subject in SUBJECTS[:-1]:
            wanted = {str(run): oracle.exposure(run, subject) for run in range(len(runs))}
            where = audit.index.memberships([subject])[subject]
            exposures = audit.graph.exposures(where)
            assert {run: str(exposures.get(run, "none")) for run in wanted} == wanted, subject
            for run, exposure in exposures.items():
                assert audit.graph.path(run, where)[0] == f"run {run}", exposure
            report = audit.verify([subject])
            assert report.verdict == worst([oracle.verdict(run, subject, False) for run in range(len(runs))]), subject
            assert audit.deployed([subject]).verdict == worst(oracle.deployed(subject)), subject
        assert audit.verify(SUBJECTS).verdict == worst([audit.verify([subject]).verdict or "" for subject in plain])
        audit.index.close()
