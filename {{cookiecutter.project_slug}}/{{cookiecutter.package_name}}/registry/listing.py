"""What is registered: `registry list`, and all of one version: `registry show`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import figures
from .aliases import TAG, Registry
from .moves import ALIASES, Move

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

SHORT = 10  # digits of a commit


def rows(registry: Registry) -> list[dict[str, Any]]:
    """Return what `registry list` tells of each version, the newest first.

    Raises:
        ProjectError: MLflow can't be reached.
    """
    versions = list(reversed(registry.versions.values()))
    found, names = figures.runs(versions), figures.names(versions)
    return [_row(registry, version, found.get(version.run_id or ""), names) for version in versions]


def table(listed: list[dict[str, Any]]) -> str:
    """Lay rows out for people, a metric a column."""
    names = list(listed[0]["metrics"]) if listed else []
    flat = [{**row, "commit": row["commit"][:SHORT], **row["metrics"]} for row in listed]
    columns = ["version", "aliases", "run", "experiment", "data_version", *names, "commit", "registered"]
    cells = [columns, *([_cell(row[column]) for column in columns] for row in flat)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def detail(registry: Registry, version: "ModelVersion") -> dict[str, Any]:
    """Return all that is known of one version.

    Raises:
        ProjectError: MLflow can't be reached.
    """
    number = int(version.version)
    run = figures.runs([version]).get(version.run_id or "")
    void = registry.standing.void
    history = [
        {**move_facts(move), "counts": move.id not in void, "in_log": move not in registry.foreign}
        for move in sorted([*registry.log, *registry.foreign], key=lambda move: move.id)
        if number in (move.version, move.before)
    ]
    return {
        **_row(registry, version, run, figures.names([version])),
        "mlflow_run_id": version.run_id,
        "tags": {key: value for key, value in sorted(version.tags.items()) if not key.startswith(TAG)},
        "moves": history,
    }


def page(shown: dict[str, Any]) -> str:
    """Lay `detail` out for people."""
    lines = [f"{key + ':':<18}{_cell(value)}" for key, value in shown.items() if not isinstance(value, dict | list)]
    lines.insert(1, f"{'aliases:':<18}{_cell(shown['aliases'])}")
    for title in ("metrics", "tags"):
        lines += ["", title, *(f"  {key:<22}{_cell(value)}" for key, value in shown[title].items())]
    lines += ["", "moves" if shown["moves"] else "no moves"]
    for move in shown["moves"]:
        note = "" if move["counts"] else "  (did not count: another was first)"
        note += "" if move["in_log"] else "  (not in the log of this clone)"
        lines += [f"  {move['when']}  {move['action']} {move['alias']}: {move['from'] or 'none'} to {move['to']}{note}"]
        lines += [f"    {key:<9}{_cell(move[key])}" for key in ("who", "aws", "why", "metrics")]
    return "\n".join(lines)


def warnings(registry: Registry) -> list[str]:
    """Return where MLflow and the log tell different things."""
    if registry.foreign:
        return [f"the log of this clone lacks a move: {move.subject()}" for move in registry.foreign]
    pairs = {alias: (registry.aliases.get(alias), registry.standing.of(alias)) for alias in ALIASES}
    return [
        f"{alias} is {have or 'none'} in MLflow, and {told or 'none'} in the log"
        for alias, (have, told) in pairs.items()
        if have != told
    ]


def move_facts(move: Move) -> dict[str, Any]:
    """Return a move as it is shown."""
    names = ("id", "action", "alias", "who", "aws", "when", "why", "metrics")
    return {"from": move.before, "to": move.version, **{name: getattr(move, name) for name in names}}


def _row(registry: Registry, version: "ModelVersion", run: "Run | None", names: list[str]) -> dict[str, Any]:
    params = run.data.params if run else {}
    metrics = run.data.metrics if run else {}
    number, registered = int(version.version), datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return {
        "version": number,
        "aliases": sorted(alias for alias, target in registry.aliases.items() if target == number),
        "run": version.tags.get("run", ""),
        "experiment": params.get("dvc_exp_name", ""),
        "data_version": params.get("data_version", ""),
        "metrics": {name: metrics.get(name) for name in names},
        "commit": version.tags.get(figures.COMMIT, ""),
        "registered": registered.isoformat(timespec="seconds"),
    }


def _cell(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
