"""The files of one run: where they are, and what they say."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..files import read_json
from .metrics_reader import CURVES

log = logging.getLogger(__name__)

RUN_DIR = Path("reports/train")
LINEAGE = RUN_DIR / "lineage.json"
PLOTS = "plots.json"  # in the run's folder: how DVCLive would draw each of its plots
INPUT_FILES = ("data/manifest.parquet", "reports/manifest.json")  # as the run found it at its start
ARTIFACTS = (*INPUT_FILES, "reports/confusion.csv", "reports/per_class.csv")
FACTS = (  # what the run is made from, as MLflow has it among the params: they can't be changed there
    "data_git_commit_id",
    "git_remote_url",
    "dataset_md5",
    "data_version",
    "manifest_sha256",
    "consent_sha256",
    "consent_excluded",  # records left out for lack of consent
    "dvc_exp_name",
    "dvc_remote_url",
    "parents",
    "cpu_capability",
    "environment_differences",
)
TEXT_CHARACTERS = 5000  # of a param; MLflow takes 6,000


def read_facts(root: Path = Path()) -> dict[str, Any]:
    """Read the identity of the run below `root`, what it was made from, and how it ended, if it has.

    Raises:
        ProjectError: There is no run.
    """
    try:
        facts: dict[str, Any] = read_json(root / LINEAGE)
    except FileNotFoundError as error:
        raise ProjectError(f"there is no run in {root / RUN_DIR}", "dvc repro train, or dvc pull train") from error
    return facts


def check_manifest(root: Path) -> None:
    """See that the manifest below `root` is the one that the run read.

    Raises:
        ProjectError: It is another one, or there is none.
    """
    facts, report = read_facts(root), root / "reports" / "manifest.json"
    if not report.exists() or read_json(report)["sha256"] != [facts["manifest_sha256"]]:
        raise ProjectError(
            f"data/manifest.parquet is not the one of run {facts['run']}",
            f"git checkout {facts['data_git_commit_id']} -- dvc.lock reports/manifest.json && dvc checkout manifest",
        )


def params(root: Path) -> dict[str, str]:
    """Return the params that were logged, by names such as `train.max_lr`, and the facts."""
    from ruamel.yaml import YAML

    path = root / RUN_DIR / "params.yaml"
    logged = (YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}
    facts = read_facts(root)
    values = {name.replace("/", "."): value for name, value in _flat(logged)} | {name: facts[name] for name in FACTS}
    return {name: _text(value) for name, value in values.items()}


def summary(root: Path) -> dict[str, float]:
    """Return the figures of DVCLive's summary; none when it can't be read, as after a full disk."""
    path = root / RUN_DIR / "metrics.json"
    try:
        figures = dict(_flat(read_json(path))) if path.exists() else {}
    except ValueError as error:
        log.warning("%s is not whole: %s", path, error)
        return {}
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float) and name != "step"}


def files(root: Path) -> dict[Path, dict[str, Any] | None]:
    """Return images, plots and artifacts, and how DVCLive would draw each of the plots; None for the others."""
    folder, told = root / RUN_DIR, root / RUN_DIR / PLOTS
    configs = read_json(told) if told.exists() else {}
    found = (path for name in ("plots", "artifacts") for path in sorted((folder / name).rglob("*")) if path.is_file())
    return {
        path: configs.get(path.relative_to(folder).as_posix(), {}) if _is_plot(path.relative_to(folder)) else None
        for path in found
        if not path.is_relative_to(folder / CURVES)
    }


def _is_plot(path: Path) -> bool:
    return path.parts[0] == "plots" and path.suffix == ".json"


def end(root: Path) -> tuple[str, int]:
    """Return how the run ended and when, in milliseconds since 1970 UTC.

    A run that was killed could not say so: it failed when its last row was written, whoever asks and however often.
    """
    facts = read_facts(root)
    if "ended_at" in facts:
        ended = milliseconds(facts["ended_at"])
    else:
        rows = (path.stat().st_mtime for path in (root / RUN_DIR / CURVES).rglob("*.tsv"))
        ended = round(max(rows, default=0) * 1000)
    return facts.get("status", "FAILED"), max(ended, milliseconds(facts["started_at"]))


def milliseconds(moment: str) -> int:
    """Return an ISO 8601 time in milliseconds since 1970 UTC."""
    return round(datetime.fromisoformat(moment).astimezone(UTC).timestamp() * 1000)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= TEXT_CHARACTERS else f"{text[: TEXT_CHARACTERS - 30]}… ({len(text)} characters)"
