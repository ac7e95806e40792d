"""Which version was in use at a moment, on whose data and under which consent: what the log and Git say of it.

    python -m mlops registry --at 2026-11-03T10:00Z

Nothing is asked of MLflow, which may have lost it or be gone. DVC is asked for one file, the data manifest. What can't
be read is named as `unknown`, and never taken for "none".
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..config import load_platform
from ..errors import ProjectError
from ..pipeline import LOCK, RUN_REPORT
from ..records import consent
from ..records.consent_line import Entry
from ..records.ids import match_key
from ..tracking import dvc_remote, lineage_log
from ..tracking.git import git, try_git
from ..tracking.run_context import DATASET
from .aliases import FETCH_LOG, PUSH_LOG, VERB, AliasChange, alias_changes, alias_holders, own_log, update_log
from .versions import MANIFEST, tagged_versions

REGISTRY = consent.PATH.as_posix()
DVC_FILE = f"{REGISTRY}.dvc"  # exists where DVC tracks the registry


@dataclass(frozen=True)
class Period:
    """A time in which one version, or none, had an alias."""

    version: int | None = None
    since: datetime | None = None  # None before the first entry
    until: datetime | None = None  # None to this day
    change: AliasChange | None = None  # the entry with which it began


def in_use(text: str, alias: str) -> dict[str, Any]:
    """Return what `registry --at --json` says of a moment.

    Raises:
        ProjectError: The moment is no time, or in the future; or this clone lacks the log, or a part of it.
    """
    moment, log = parse_moment(text), alias_changes()
    if not lineage_log.log_refs() and (git("remote") or git("tag", "--list", "*@v*")):
        problem = "this clone has no log (the Git branch lineage), which says what was in use"
        raise ProjectError(problem, f"{FETCH_LOG}; if origin has none: {PUSH_LOG}, in the clone that promotes")
    period = next(each for each in periods(log, alias) if each.until is None or moment < each.until)
    unknown: list[str] = []
    return {
        "model": load_platform().project,
        "alias": alias,
        "at": stamp(moment),
        "version": period.version,
        "since": stamp(period.since),
        "until": stamp(period.until),
        **{name: getattr(period.change, name, None) for name in ("action", "who", "aws", "why")},
        **_origin(period.version, moment, unknown),
        "unknown": unknown,
    }


def parse_moment(text: str) -> datetime:
    """Return a time of the past, in UTC; raise ProjectError if it is none, or in the future.

    It is written in ISO 8601. A date alone is its midnight; what has no zone is UTC.
    """
    now, verb = datetime.now(UTC), f"{VERB} --at"
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        fix = f"{verb} {stamp(now)}   (UTC; or a date; or a time with an offset, such as +01:00)"
        raise ProjectError(f"--at {text!r} is not a time", fix) from error
    if moment > now:
        raise ProjectError(f"--at {stamp(moment)} is in the future, which no log can know", f"{verb} {stamp(now)}")
    return moment


def stamp(moment: datetime | None) -> str | None:
    """Return a time as the log writes it; None for none."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def periods(log: Sequence[AliasChange], alias: str) -> Iterator[Period]:
    """Give the periods of an alias, the oldest first; the last has no end.

    The order is the log's: an entry that is dated before another one that it follows counts from that one's time on.
    """
    now, clock = Period(), datetime.min.replace(tzinfo=UTC)
    for number, change in enumerate(log, 1):
        clock = max(clock, datetime.fromisoformat(change.when))
        version = next(reversed(alias_holders(log[:number])[alias]), None)
        if version != now.version:
            yield Period(now.version, now.since, clock, now.change)
            now = Period(version, clock, None, change)
    yield now


def doubts(alias: str) -> list[str]:
    """Return why the log may not have all that happened, or in the order in which it happened."""
    lines = []
    if lineage_log.is_behind_remote(own_log()):
        lines.append(f"the log of a Git remote has entries that this clone's lacks\nFix: {update_log()}")
    log = [change for change in alias_changes() if change.alias == alias]
    late = [later for earlier, later in pairwise(log) if later.when < earlier.when]
    if late:
        entries = ", ".join(f"version {change.version} at {change.when}" for change in late)
        order = "the order of the log counts, since clocks differ"
        lines.append(f"dated before the entry that they follow: {entries}; {order} (python -m mlops registry log)")
    return lines


def _origin(version: int | None, moment: datetime, unknown: list[str]) -> dict[str, Any]:
    """Return what a version was made from; what can't be read is None, and its reason is added to `unknown`."""
    origin = dict.fromkeys(("run", "read_commit", "commit", "dataset", "consent", "withdrawn"))
    if version is None:
        return origin
    tagged = tagged_versions().get(version)
    entries = lineage_log.log()[::-1]
    registered = (entry.commit for entry in entries if entry.version == version)
    if not (commit := tagged.commit if tagged else next(registered, "")):
        unknown.append(f"what made version {version}: this clone has no tag of it (git fetch --tags origin)")
        return origin
    run = _read(commit, RUN_REPORT).get("run")
    read = next((entry.commit for entry in entries if entry.version is None and entry.run == run), None)
    origin |= {"run": run, "read_commit": read, "commit": commit}
    origin["dataset"] = dataset = _dataset(commit)
    prepared, params = _read(commit, "reports/prepare.json"), _read(commit, "params.yaml")
    (digest,) = prepared.get("consent_sha256") or [None]
    rule = consent.NOT_REQUIRED if digest == consent.NOT_REQUIRED else (params.get("data") or {}).get("consent")
    origin["consent"] = {"rule": rule, "sha256": digest, "excluded": prepared.get("excluded")}
    names = {"run": run, "commit that the run read": read, "hash of the dataset": dataset["md5"], "consent": digest}
    unknown += [f"{name}: not recorded at commit {commit[:10]}" for name, value in names.items() if not value]
    try:
        subjects = _add_subjects(dataset, commit)
        if rule != consent.NOT_REQUIRED:
            origin["withdrawn"], unclear = _withdrawn(subjects, moment)
            if unclear:
                problem = f"no dated line of {REGISTRY} decides about {unclear} of the subjects"
                unknown.append(f"whether more had withdrawn: {problem} (python -m mlops consent check)")
    except ProjectError as error:
        unknown.append(f"whether subjects had withdrawn: {error.problem} ({error.fix})")
    return origin


def _read(commit: str, path: str) -> dict[str, Any]:
    """Return what a file of JSON or YAML has at a commit; nothing where Git does not have it."""
    from ruamel.yaml import YAML

    return dict(YAML(typ="safe").load(try_git("show", f"{commit}:./{path}") or "") or {})


def _dataset(commit: str) -> dict[str, Any]:
    """Return what Git says of the dataset that a commit pins."""
    stages, report = _read(commit, LOCK).get("stages", {}), _read(commit, "reports/manifest.json")
    outs = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", ())}
    tags = git("for-each-ref", "--format=%(contents:subject) %(refname:strip=3)", "refs/tags/data/").splitlines()
    splits: Counter[str] = Counter()
    for count in report.get("counts", ()):
        splits[count["split"]] += count["records"]
    return {
        "md5": outs.get(DATASET),
        "labels": [label for md5, _, label in (tag.partition(" ") for tag in tags) if md5 == outs.get(DATASET)],
        "records": report.get("records"),
        "subjects": report.get("subjects"),
        "splits": {name: {"records": records, "subjects": None} for name, records in splits.items()},
    }


def _add_subjects(dataset: dict[str, Any], commit: str) -> set[str]:
    """Add to a dataset how many subjects each split has, and return all; raise ProjectError if the manifest is lost."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        dvc_remote.restore(commit, (MANIFEST.as_posix(),), Path(folder))
        if not (file := Path(folder, MANIFEST)).exists():
            problem = f"commit {commit[:10]} has no {MANIFEST.as_posix()}"
            raise ProjectError(problem, f"what it has: git show --stat {commit[:10]}")
        pairs = pq.read_table(file, columns=["split", "subject_id"]).group_by(["split", "subject_id"]).aggregate([])
    for name, subjects in Counter(pairs["split"].to_pylist()).items():
        dataset["splits"].setdefault(name, {"records": None})["subjects"] = subjects
    return set(pairs["subject_id"].to_pylist())


def _withdrawn(subjects: set[str], moment: datetime) -> tuple[int, int]:
    """Return how many had withdrawn at a moment, by the registry as it is now, and of how many it does not tell.

    Its lines are appended, never changed, so those that had taken effect by then say who had withdrawn.
    """
    from ruamel.yaml import YAML

    if Path(DVC_FILE).exists():
        content = consent.PATH.read_bytes() if consent.PATH.exists() else b""
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if YAML(typ="safe").load(Path(DVC_FILE))["outs"][0]["md5"] != md5:
            fix = f"dvc pull {DVC_FILE}; or, if it is right as it is now: dvc add {REGISTRY}"
            raise ProjectError(f"{REGISTRY} is not the file that DVC tracks", fix)
    known = consent.persons(consent.PATH, subjects)
    states = Counter(_state(known.get(match_key(subject), []), moment) for subject in subjects)
    return states["withdrawn"], states["unknown"]


def _state(lines: list[Entry], moment: datetime) -> str:
    """Return what the lines of a person say about a moment: active, withdrawn or unknown."""
    if lines and all(entry.status == "active" for entry in lines):
        return "active"
    past = [entry for entry in lines if entry.since and entry.since <= moment]
    state, decides = consent.decide(past) if past else ("unknown", None)
    if not decides or any(entry.since is None for entry in lines):
        return "unknown"
    return "active" if state == "active" else "withdrawn"


def lines(usage: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what `in_use` returned for people, but for what is unknown: a title and a text, for each line."""
    since, until, dataset, rule = (usage[name] for name in ("since", "until", "dataset", "consent"))
    if usage["version"] is None:
        yield usage["alias"], f"no version of {usage['model']} at {usage['at']}"
        yield "in use", f"none {f'from {since} ' if since else ''}{f'until {until}' if until else 'to this day'}"
        return
    yield usage["alias"], f"version {usage['version']} of {usage['model']} at {usage['at']}"
    yield "in use", f"from {since} {f'until {until}' if until else 'to this day'}"
    aws = "" if usage["aws"] == "none" else f", {usage['aws']}"
    yield usage["action"], f"by {usage['who']}{aws}: {' '.join(usage['why'].split()) or 'without a reason'}"
    yield "run", f"{usage['run']}, which read commit {usage['read_commit']}"
    yield "results", f"commit {usage['commit']}"
    if dataset:
        names = f" ({', '.join(f'data/{label}' for label in dataset['labels'])})" if dataset["labels"] else ""
        yield "dataset", f"{dataset['md5']}{names}: {dataset['records']} records of {dataset['subjects']} subjects"
        for name, split in dataset["splits"].items():
            yield f"  {name}", f"{split['records']} records of {split['subjects'] or '?'} subjects"
    if rule:
        yield "consent", f"{rule['rule']}; {rule['excluded']} records were left out"
        yield "  registry", f"sha256 {rule['sha256']}"
    if usage["withdrawn"] is not None:
        yield "withdrawn", f"{usage['withdrawn']} of these subjects had withdrawn by then"
