"""What it costs to ask who is in which model: an index of manifests, against reading a CSV file of every run.

    python -m tests.benchmarks records [--full]

Records are synthetic, five to a subject; 0.1 % of the subjects change from one version to the next. The scan does what
is common: each run has its manifest as a CSV artifact, which is downloaded and read with pandas. "which runs" asks the
index just that, "audit find" asks over a connection of its own, and for versions, aliases and what the log knows as
well. All ask one MLflow on SQLite, in one process, and find the same runs. "command" is all of
`python -m mlops audit find SUBJECT`, of which importing MLflow is most. Ratios are of the processor's time, since a
machine that does other work stretches short waits more than long ones; the clock's are beside them.

In the branched history, every other version lacks the same 1 % of the subjects: each of them comes and goes 500 times.
`--full` also draws docs/records-growth.png.
"""

import importlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv

from ..conftest import TEMPLATE, BakedProject
from .histories import PER_SUBJECT, History

GROWTH = ("records", "manifest, MB", "read, check and add, s", "index, MB", "one subject, ms", "peak MB")


def measure(project: BakedProject, full: bool) -> str:
    """Measure; `full` adds an index of 10,000,000 records."""
    scan = _alone(_scan_table, project, [(20, 1_000_000), (100, 100_000)])
    versions = _alone(_versions_table, project, 1_000, 1_000_000)
    growth = [_alone(_growth_row, project, 10**power) for power in range(4, 8 if full else 7)]
    if full:
        _draw(growth, TEMPLATE / "docs" / "records-growth.png")
    return "\n".join((scan, versions, _growth_table(growth)))


def _alone(what: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(what, *arguments).result()


def _importer(project: BakedProject) -> Callable[[str], Any]:
    """Return a function that imports a module of the project's `mlops`; the project becomes the working directory."""
    sys.path.insert(0, str(project.path))
    os.chdir(project.path)
    return lambda name: importlib.import_module(f"mlops.{name}")


def _scan_table(project: BakedProject, sizes: list[tuple[int, int]]) -> str:
    rows = [
        "| runs | records in each | scan of CSV files: CPU s (clock) | which runs: CPU ms (clock) | ratio (clock) | "
        "audit find: CPU ms (clock) | ratio (clock) | command: CPU s (clock) | ratio (clock) |\n"
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        *(_scan_row(project, runs, records) for runs, records in sizes),
    ]
    return "".join(rows)


def _scan_row(project: BakedProject, runs: int, records: int) -> str:
    import_of = _importer(project)
    manifest, mlflow_client, mlflow_reader = map(
        import_of, ("records.manifest", "tracking.mlflow_client", "tracking.mlflow_reader")
    )
    names = ("catalog", "audit", "index", "catalog_mlflow")
    catalog, audit, index, catalog_mlflow = (import_of(f"audit.{name}") for name in names)
    with tempfile.TemporaryDirectory(dir=project.path.parent) as scratch:
        folder = Path(scratch)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
        client = mlflow_client.client()
        experiment = client.create_experiment(project.path.name, (folder / "artifacts").as_uri())
        history = History(records, runs)
        for version in range(runs):
            table = history.manifest(version, manifest.SCHEMA)
            sha256 = manifest.write([table], folder / "manifest.parquet").sha256
            pyarrow.csv.write_csv(table, folder / "manifest.csv", pyarrow.csv.WriteOptions(quoting_style="none"))
            run = client.create_run(experiment).info.run_id
            client.log_artifact(run, str(folder / "manifest.csv"))
            client.log_artifact(run, str(folder / "manifest.parquet"), "data")
            for key, value in (("manifest_sha256", sha256), ("parents", "[]")):
                client.log_param(run, key, value)
            client.set_terminated(run)
        known = index.Index(folder / "index.db")
        audit.Audit(catalog.read(), known)
        subject = str(history.names[3])
        wanted, scan = _timed(lambda: _scan(client, experiment, subject), 1)

        def which() -> set[str]:
            runs_alone = catalog_mlflow.Catalog(
                catalog_mlflow.read_runs(mlflow_reader.connect()), [], lambda sha256: []
            )
            return {row["run"] for row in audit.Audit(runs_alone, known).find([subject]).rows}

        def whole() -> set[str]:
            report = audit.Audit(catalog.read(), known).find([subject])
            assert report.verdict is None, report.unknown
            return {row["run"] for row in report.rows}

        def command() -> set[str]:
            done = subprocess.run(
                [sys.executable, "-m", "mlops", "audit", "find", subject, "--csv"],
                check=True,
                capture_output=True,
                text=True,
            )
            return {run for run in wanted if run in done.stdout}

        cells = [f"{scan[0]:.1f} ({scan[1]:.1f})"]
        for ask in (which, whole):
            answer, took = _timed(ask, 15)
            assert answer == wanted, (answer, wanted)
            cells += [
                f"{took[0] * 1e3:.0f} ({took[1] * 1e3:.0f})",
                f"{scan[0] / took[0]:.0f} ({scan[1] / took[1]:.0f})",
            ]
        command()  # makes an index of its own
        answer, took = _timed(command, 5, resource.RUSAGE_CHILDREN)
        assert answer == wanted, (answer, wanted)
        cells += [f"{took[0]:.1f} ({took[1]:.1f})", f"{scan[0] / took[0]:.1f} ({scan[1] / took[1]:.1f})"]
    return f"| {runs} | {records:,} | {' | '.join(cells)} |\n"


def _timed(ask: Callable[[], set[str]], rounds: int, who: int = resource.RUSAGE_SELF) -> tuple[set[str], list[float]]:
    """Return an answer, and the medians of the seconds of the processor and of the clock."""
    took = []
    for _ in range(rounds):
        start, cpu = time.perf_counter(), _cpu_s(who)
        answer = ask()
        took.append((_cpu_s(who) - cpu, time.perf_counter() - start))
    return answer, [statistics.median(column) for column in zip(*took, strict=True)]


def _cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _scan(client: Any, experiment: str, subject: str) -> set[str]:
    import pandas as pd

    matches = set()
    for run in client.search_runs([experiment]):
        folder = tempfile.mkdtemp()
        path = client.download_artifacts(run.info.run_id, "manifest.csv", folder)
        if (pd.read_csv(path)["subject_id"] == subject).any():
            matches.add(run.info.run_id)
        shutil.rmtree(folder)
    return matches


def _versions_table(project: BakedProject, versions: int, records: int) -> str:
    head = (
        f"| {versions:,} versions of {records:,} records | index, MB | one subject, ms (p50) | (p99) | "
        "1,000 subjects, ms | a version, ms | peak MB |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    return head + "".join(_alone(_versions_row, project, versions, records, branched) for branched in (False, True))


def _versions_row(project: BakedProject, versions: int, records: int, branched: bool) -> str:
    index = _importer(project)("audit.index")
    history = History(records, versions, branched)
    with tempfile.TemporaryDirectory(dir=project.path.parent) as scratch:
        known = index.Index(Path(scratch, "index.db"))
        each = []
        for version in range(versions):
            subjects = history.subjects(version)
            start = time.perf_counter()
            known.add(f"{version:064}", subjects)
            each.append(time.perf_counter() - start)
        peak = _peak_mb()
        random = np.random.default_rng(1)
        chosen = random.choice(len(history.names), 1000, replace=False)
        single = []
        for place in chosen:
            start = time.perf_counter()
            membership = known.memberships([history.names[place]])[history.names[place]]
            single.append(time.perf_counter() - start)
            assert membership.exact == sum(
                1 << version for version in range(versions) if _held(history, place, version)
            )
        many = []
        for _ in range(9):
            start = time.perf_counter()
            known.memberships(history.names[chosen])
            many.append(time.perf_counter() - start)
        size = Path(scratch, "index.db").stat().st_size
    p50, p99 = (np.percentile(single, share) * 1e3 for share in (50, 99))
    name = "branched" if branched else "linear"
    return (
        f"| {name} | {size / 1e6:.1f} | {p50:.2f} | {p99:.2f} | {statistics.median(many) * 1e3:.0f} | "
        f"{statistics.median(each) * 1e3:.0f} | {peak:.0f} |\n"
    )


def _held(history: History, place: int, version: int) -> bool:
    if history.branched and version % 2 and place % 97 == 0:
        return False
    return bool(history.added[place] <= version < history.removed[place])


def _growth_table(rows: list[tuple[float, ...]]) -> str:
    lines = [f"| {' | '.join(GROWTH)} |", "|---:" * len(GROWTH) + "|"]
    for records, manifest, seconds, size, single, peak in rows:
        lines.append(f"| {records:,.0f} | {manifest:.1f} | {seconds:.1f} | {size:.1f} | {single:.2f} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


def _draw(rows: list[tuple[float, ...]], path: Path) -> None:
    """Draw how the index grows with the records of a manifest, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records, *columns = zip(*rows, strict=True)
    figure, axes = pyplot.subplots(1, len(columns), figsize=(3 * len(columns), 2.8), layout="constrained")
    for axis, name, values in zip(axes, GROWTH[1:], columns, strict=True):
        axis.loglog(records, values, "o-")
        axis.set(title=name, xlabel="records", ylim=(min(values) / 3, max(values) * 3))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80, metadata={"Software": None})


def _growth_row(project: BakedProject, records: int) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory(dir=project.path.parent) as scratch:
        path = Path(scratch, "manifest.parquet")
        sha256 = _alone(_write_manifest, project, records, path)
        import_of = _importer(project)
        index = import_of("audit.index")
        known = index.Index(Path(scratch, "index.db"))
        start = time.perf_counter()
        missing = index.ingest(known, [sha256], lambda wanted: [lambda folder: path])
        seconds = time.perf_counter() - start
        assert not missing, missing
        peak, single = _peak_mb(), []
        for number in range(0, records // PER_SUBJECT, max(1, records // PER_SUBJECT // 300)):
            start = time.perf_counter()
            membership = known.memberships([f"PAT-{number:08}"])[f"PAT-{number:08}"]
            single.append(time.perf_counter() - start)
            assert membership.exact == 1
        sizes = [file.stat().st_size / 1e6 for file in (path, Path(scratch, "index.db"))]
    return records, sizes[0], seconds, sizes[1], statistics.median(single) * 1e3, peak


def _write_manifest(project: BakedProject, records: int, path: Path) -> str:
    manifest = _importer(project)("records.manifest")
    return str(manifest.write([History(records, 1).manifest(0, manifest.SCHEMA)], path).sha256)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
