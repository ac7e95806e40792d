"""What MLflow lacks of the runs that this clone knows: those in the outbox, in the work tree, and in Git's history.

Of an SQLite file, all runs are read. A server answers a search with all params, tags and metrics of each run: 10,000
runs are 58 MB. So the ids of runs that were seen complete are cached, in a file that can be deleted at any time, and
the server is asked to count those: it sends one run for a thousand. Only the others are read.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from ..config import home, load_platform
from ..files import read_json, write_json
from . import lineage_log, uploader
from .git import git, head
from .lineage_log import KnownRun
from .mlflow_client import command, deleted_error, tracking_uri
from .mlflow_reader import Reader, SqliteReader, StoredRun
from .mlflow_sync import ENDED, MIRROR_ID
from .run_files import LINEAGE, read_facts

STATUS = "python -m mlops mirror status"
SYNC = "python -m mlops mirror sync"
REPAIR = "python -m mlops mirror repair"
GIVE_UP = "python -m mlops mirror give-up"
GIVEN_UP = "given-up"  # the field of the log's entries that do it
STAGE_METRICS = "metrics of stages after the training"
IDS_PER_QUERY = 1000  # MLflow's parser takes no more than a few thousand
MAX_SINGLE_QUERIES = 300  # runs that are searched one by one; for more, reading all there are is quicker


@dataclass(frozen=True)
class Missing:
    """Something that MLflow lacks."""

    what: str  # `run 3f2a… (gouty-fifo)`, `version 2`, `alias champion`
    # What helps. `training`: nothing, it will come. `deleted`, `given up`: nothing, a person decided so.
    state: Literal["training", "deleted", "given up", "sync", "repair", "fetch", "impossible"]
    lacks: str  # the missing part
    remedy: str  # a command; or why nothing helps

    @property
    def counts(self) -> bool:
        """Whether MLflow has less than it should."""
        return self.state not in ("training", "deleted", "given up")


@dataclass(frozen=True)
class MlflowRunState:
    """A run in MLflow."""

    run_id: str  # MLflow's id
    complete: bool  # whether its end arrived, which is sent last
    deleted: bool  # whether a person deleted it


def known() -> dict[str, KnownRun]:
    """Return the runs that this clone knows of, by id, the oldest first."""
    logged, current = lineage_log.runs(), [read_facts()["run"]] if LINEAGE.exists() else []
    return logged | {run: KnownRun(run, run) for run in (*uploader.waiting(), *current) if run not in logged}


def missing(reader: Reader, runs: dict[str, KnownRun]) -> dict[str, Missing]:
    """Return what MLflow lacks of runs, by their ids, in their order; raises what `fetch_states` does."""
    states, reasons = fetch_states(reader, runs), given_up()
    parts = {run: _missing_part(past, states.get(run)) for run, past in runs.items()}
    for run, part in parts.items():
        if part and run in reasons and part.state in ("impossible", "repair"):  # else its files have turned up
            parts[run] = replace(part, state="given up", remedy=reasons[run])
    return {run: part for run, part in parts.items() if part}


def give_up(run: KnownRun, who: str, why: str) -> None:
    """Record in the log, for every clone, that nobody expects a run in MLflow any more."""
    project, when = load_platform().project, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = json.dumps({"run": run.run, "project": project, "who": who, "when": when, "why": why})
    commits = {entry.run: entry.commit for entry in lineage_log.log() if entry.version is None}
    commit = commits.get(run.run) or next(iter(run.commits), "") or head()
    lineage_log.record(commit, f"give up run {run.name}\n\n{GIVEN_UP}: {entry}\n")


def given_up() -> dict[str, str]:
    """Return why runs were given up, by whom and when, by their ids; the logs of Git remotes count too."""
    if not (refs := lineage_log.log_refs()):
        return {}
    text = git("log", "--first-parent", "--reverse", f"--grep=^{GIVEN_UP}: ", "--format=%B", *refs)
    entries = [json.loads(line.partition(": ")[2]) for line in text.splitlines() if line.startswith(f"{GIVEN_UP}: ")]
    return {
        entry["run"]: f"given up on {entry['when'][:10]} by {entry['who']}: {entry['why']}"
        for entry in entries
        if entry["project"] == load_platform().project
    }


def _missing_part(past: KnownRun, state: MlflowRunState | None) -> Missing | None:
    what = f"run {past.run}" if past.name == past.run else f"run {past.run} ({past.name})"
    lacks, entry = "its end" if state else "everything", uploader.folder() / past.run
    fix = f"{GIVE_UP} {past.run} --why '…'"
    if state and state.deleted:
        restore = f"deleted by a person; to have it back: {command(f'runs restore --run-id {state.run_id}')}"
        return Missing(what, "deleted", "everything", restore)
    if (entry / LINEAGE).exists():
        path = entry / "mirror.log"
        messages = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
        note = f" (its mirror.log ends with: {messages.splitlines()[-1].strip()})" if messages else ""
        if uploader.is_training(past.run):
            return Missing(what, "training", lacks, f"nothing to do: it is training{note}")
        return Missing(what, "sync", lacks, f"{SYNC}{note}")
    if state and state.complete:
        if past.run in uploader.waiting_stage_metrics():
            return Missing(what, "sync", STAGE_METRICS, SYNC)
        return None
    if LINEAGE.exists() and read_facts()["run"] == past.run:
        return Missing(what, "sync", lacks, SYNC)
    if past.commits:
        return Missing(what, "repair", lacks, REPAIR)
    if state:
        elsewhere = f"its files are not in this clone; where it was trained: {SYNC}; if they are lost: {fix}"
        return Missing(what, "impossible", lacks, elsewhere)
    reason = "not repairable: no results in this clone's history; if the training failed, they are lost: " + fix
    if past.name != past.run:
        reason += (
            f"; if another clone has them: there dvc exp push origin {past.name}, here dvc exp pull origin {past.name}"
        )
    return Missing(what, "impossible", lacks, reason)


def fetch_states(reader: Reader, runs: Iterable[str]) -> dict[str, MlflowRunState]:
    """Return the states of those of `runs` that MLflow has; raise ProjectError if its experiment was deleted."""
    project = load_platform().project
    experiment = next((each for each in reader.experiments() if each.name == project), None)
    if experiment is None:
        return {}
    if experiment.deleted:
        raise deleted_error(experiment.name, experiment.id)
    wanted = set(runs)
    if isinstance(reader, SqliteReader):
        return {run: state for run, state in _states(reader.runs([experiment.id])).items() if run in wanted}
    # A digest: the address may hold a password.
    server = hashlib.sha256(f"{tracking_uri()} {experiment.id}".encode()).hexdigest()[:12]
    path = home() / ".dvc" / "tmp" / "mirrored" / f"{server}.json"
    cached: dict[str, str] = read_json(path) if path.exists() else {}
    states: dict[str, MlflowRunState] = {}
    seen = sorted(wanted & cached.keys())
    for start in range(0, len(seen), IDS_PER_QUERY):
        ids = {run: cached[run] for run in seen[start : start + IDS_PER_QUERY]}
        query = f"attributes.run_id IN ({','.join(repr(run_id) for run_id in ids.values())})"
        if reader.have_ended(experiment.id, query, len(ids)):
            states |= {run: MlflowRunState(run_id, complete=True, deleted=False) for run, run_id in ids.items()}
        else:
            by_id = _states(reader.runs([experiment.id], query))
            states |= {run: state for run, state in by_id.items() if run in ids and not state.deleted}
    rest = wanted - states.keys()
    for query in [""] if len(rest) > MAX_SINGLE_QUERIES else [f"tags.{MIRROR_ID} = '{run}'" for run in rest]:
        states |= {run: state for run, state in _states(reader.runs([experiment.id], query)).items() if run in rest}
    write_json(path, {run: state.run_id for run, state in states.items() if state.complete and not state.deleted})
    return states


def _states(runs: Iterable[StoredRun]) -> dict[str, MlflowRunState]:
    """Return the states of runs; of two with one id, the one that was not deleted counts."""
    in_order = sorted(runs, key=lambda run: not run.deleted)  # the last one counts
    return {run.facts.get(MIRROR_ID, ""): MlflowRunState(run.id, run.status in ENDED, run.deleted) for run in in_order}
