"""What two trainings made, where they begin to differ, and what differs first of what they were made from."""

import csv
import io
import json
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import ProjectError
from ..tracking.git import try_git
from ..tracking.run_files import CURVES, RUN_DIR, WEIGHTS
from . import commits
from .commits import Pinned
from .names import MODEL
from .objects import Objects

CAUSES = ("data", "code", "params", "packages", "CPU or GPU", "threads", "processes")
MACHINE = CAUSES[3:]  # which of them make another machine class
DEVICE = ("device", "device_name", "cpu_capability", "capability", "driver", "precision")
PACKAGES = "environment.json"
PREDICTIONS = "reports/predictions.parquet"
OWN_CAUSE = ("threads", "processes")  # params that are causes of their own
SHOWN = 5


@dataclass(frozen=True)
class Record:
    """What is known of one training.

    Args:
        facts: What it recorded.
        lock: The stages of `dvc.lock` with its results.
        training: The name of the stage that trained.
        tracked: Which deps of the stage DVC has; the others are in Git.
        files: The files of the model, and the predictions, each with its hash.
        metrics: Of the weights, by name.
        weights: A hash of the weights after each epoch; of older runs, the training loss.
        pins: `environment.json`.
        listings: The files of each folder that DVC has among the deps, each with its hash; not those that are lost.
        records: How many the data manifest counts, by split.
    """

    facts: dict[str, Any]
    lock: dict[str, Any]
    training: str
    tracked: frozenset[str]
    files: dict[str, str]
    metrics: dict[str, float]
    weights: list[str]
    pins: dict[str, str]
    listings: dict[str, dict[str, str]] = field(default_factory=dict)
    records: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, pinned: Pinned, objects: Objects) -> "Record":
        """Read the record of the run whose results a commit pins; errors are those of `commits.facts`."""
        facts = commits.facts(pinned, objects)
        made = {out["path"]: name for name, stage in pinned.lock.items() for out in stage.get("outs", ())}
        training = made.get(MODEL, "train")
        deps = {dep["path"]: str(dep.get("md5", "")) for dep in pinned.lock[training].get("deps", ())}
        lists = commits.blobs((pinned.commit, f"{path}.dvc") for path in deps)
        tracked = frozenset(path for path in deps if path in made or (pinned.commit, f"{path}.dvc") in lists)
        hashes = commits.run_file(pinned, objects, WEIGHTS.relative_to(RUN_DIR))
        curve = hashes or commits.run_file(pinned, objects, CURVES / "train/loss.tsv")
        rows = list(csv.reader(io.StringIO(curve.decode()), delimiter="\t"))[1:]
        pins = commits.blobs([(pinned.commit, PACKAGES)]).get((pinned.commit, PACKAGES), b"{}")
        files = objects.listing(pinned.out(MODEL))
        if md5 := pinned.out(PREDICTIONS):
            files = files | {PREDICTIONS: md5}
        listings = {}
        for path in tracked:
            with suppress(ProjectError):  # they are lost: what differs is known from their hashes
                listings[path] = objects.listing(deps[path])
        records: Counter[str] = Counter()
        for count in pinned.report("manifest").get("counts", ()):
            records[count["split"]] += count["records"]
        metrics = {name: value for name, value in pinned.report("metrics").items() if isinstance(value, int | float)}
        weights = [row[-1] for row in rows if row]
        return cls(facts, pinned.lock, training, tracked, files, metrics, weights, json.loads(pins), listings, records)

    @property
    def deps(self) -> dict[str, str]:
        """Return the hash of each dep of the training."""
        return {dep["path"]: str(dep.get("md5", "")) for dep in self.lock[self.training].get("deps", ())}

    @property
    def params(self) -> dict[str, Any]:
        """Return the params of the training, by names such as `train.max_lr`."""
        sections = self.lock[self.training].get("params", {}).get("params.yaml") or {}
        return {
            f"{section}.{name}": value
            for section, values in sections.items()
            for name, value in (values.items() if isinstance(values, dict) else [("", values)])
        }


@dataclass(frozen=True)
class Cause:
    """Something that two trainings were not alike in.

    Args:
        kind: One of `CAUSES`.
        text: What it was, and what it is.
    """

    kind: str
    text: str


def first_epoch(first: Record, second: Record) -> int | None:
    """Return after which epoch, from 1, the weights of two trainings differ; None if they don't, or it is unknown."""
    for number, (before, after) in enumerate(zip(first.weights, second.weights, strict=False), 1):
        if before != after:
            return number
    return None if len(first.weights) == len(second.weights) else min(len(first.weights), len(second.weights)) + 1


def is_same(first: Record, second: Record) -> bool:
    """Return whether two trainings gave the same bytes: those of the model, and the metrics that were made of them."""
    return first.files == second.files and first.metrics == second.metrics


def is_same_class(first: Record, second: Record) -> bool | None:
    """Return whether two trainings ran where the same bits can be expected; None if nobody can tell."""
    prints = [record.facts.get("numeric_fingerprint") for record in (first, second)]
    if all(prints):
        return prints[0] == prints[1]
    if any(cause.kind in MACHINE for cause in causes(first, second)):
        return False
    return None


def causes(first: Record, second: Record) -> list[Cause]:
    """Return what two trainings were not alike in, in the order of `CAUSES`."""
    params = _changes(first.params, second.params, besides=OWN_CAUSE)
    texts = {"params": params, "packages": _changes(installed(first), installed(second))}
    stated = [Cause(kind, text) for kind, text in texts.items() if text]
    return [*_inputs(first, second), *stated, *_machines(first, second)]


def _inputs(first: Record, second: Record) -> list[Cause]:
    changes: dict[str, list[str]] = {"data": [], "code": []}
    tracked = first.tracked | second.tracked
    for path in sorted(first.deps.keys() | second.deps.keys()):
        before, after = first.deps.get(path, "none"), second.deps.get(path, "none")
        if before != after and path != PACKAGES:
            text = f"{path} {before[:12]}, then {after[:12]}{_details(first, second, path)}"
            changes["data" if path in tracked else "code"].append(text)
    return [Cause(kind, "; ".join(texts[:SHOWN])) for kind, texts in changes.items() if texts]


def _details(first: Record, second: Record, path: str) -> str:
    """Return which files of a dep differ, and for data how many records there are; "" where it is unknown."""
    before, after = first.listings.get(path), second.listings.get(path)
    if before and after:
        names = sorted(before.keys() | after.keys())
        others = [name for name in names if before.get(name) != after.get(name)]
        counts = f"{first.records.total()} records, then {second.records.total()}"
        return f" ({len(others)} of {len(names)} files: {', '.join(others[:SHOWN])}; {counts})"
    commits = [str(record.facts.get("data_git_commit_id")) for record in (first, second)]
    changed = try_git("diff", "--name-only", "--relative", *commits, "--", path) or path
    return "" if changed == path else f" ({', '.join(changed.splitlines()[:SHOWN])})"


def _changes(before: dict[str, Any], after: dict[str, Any], besides: tuple[str, ...] = ()) -> str:
    return "; ".join(
        f"{name} {before.get(name, 'none')}, then {after.get(name, 'none')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name.rpartition(".")[2] not in besides
    )


def installed(record: Record) -> dict[str, str]:
    """Return the versions of the packages that computed: the pinned ones, and those that were others."""
    others = (text.rpartition(" ") for text in record.facts.get("environment_differences") or ())
    return record.pins | {name: version for name, _, version in others}


def _machines(first: Record, second: Record) -> list[Cause]:
    before, after = first.facts, second.facts
    devices: list[Cause] = []
    texts = [f"{name} {before[name]}, then {after[name]}" for name in DEVICE if _differs(name, before, after)]
    counts = [Cause(name, f"{before[name]}, then {after[name]}") for name in OWN_CAUSE if _differs(name, before, after)]
    if texts:
        devices.append(Cause("CPU or GPU", "; ".join(texts)))
    elif not counts and _differs("numeric_fingerprint", before, after):
        name = "numeric_fingerprint"
        text = (
            f"the numeric fingerprint is {before[name]}, then {after[name]}: this machine, or settings of its libraries"
        )
        devices.append(Cause("CPU or GPU", f"{text} (ONEDNN_…, MKL_…, ATEN_…), round in another way"))
    return [*devices, *counts]


def _differs(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    return name in before and name in after and before[name] != after[name]


def band(metric: float, records: int) -> float:
    """Return how far a share of so many records may lie from another one by chance: a 95 % interval of it."""
    return 1.96 * math.sqrt(max(metric * (1 - metric), 1 / max(records, 1)) / max(records, 1))
