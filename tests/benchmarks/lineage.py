"""Proof: `trace` in a project with 50 runs and 10 versions, from each kind of name; `verify --deep` against SHA-256.

    python -m tests.benchmarks lineage

The history is made of one training: its record under other ids, each in a commit of its own; `mirror repair` fills
MLflow from it. A command is timed as a whole process. `verify` hashes the files of a dataset of random bytes, in the
cache and in the remote; SHA-256 is Python's, of the same files, in one thread.
"""

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..conftest import BakedProject
from ..projects import commit, lock, out_md5
from .timing import alternate, copy_of

RUNS, VERSIONS = 50, 10
FILE_BYTES, FILES = 4 << 20, 25
# In the project, with its code: each run is the first one's record under another id, and every fifth is registered.
MORE_RUNS = """
import hashlib, json, pathlib, subprocess, sys
from mlops.lineage import commits
from mlops.lineage.objects import Objects
from mlops.pipeline import LOCK
from mlops.registry.versions import _tag
from mlops.tracking import lineage_log
from mlops.tracking.git import git

def store(content, suffix=""):
    md5 = hashlib.md5(content).hexdigest() + suffix
    for folder in (".dvc/cache", "dvc-storage"):
        path = pathlib.Path(folder, "files/md5", md5[:2], md5[2:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return md5

count, registered = map(int, sys.argv[1:])
head = git("rev-parse", "HEAD")
pinned, objects = commits.read([head])[head], Objects()
facts, lock, folder = commits.facts(pinned, objects), pathlib.Path(LOCK).read_text(), pinned.out("reports/train")
for number in range(2, count + 1):
    run = hashlib.sha256(str(number).encode()).hexdigest()[:12]
    params = pathlib.Path("params.yaml").read_text().replace(f"seed: {number - 2} ", f"seed: {number - 1} ")
    pathlib.Path("params.yaml").write_text(params)
    git("commit", "--quiet", "--all", "-m", f"Seed {number}")
    read = git("rev-parse", "HEAD")
    own = {**facts, "run": run, "name": f"run-{number}", "data_git_commit_id": read}
    files = {**objects.listing(folder), "lineage.json": store(json.dumps(own).encode())}
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    md5 = store(json.dumps(entries, sort_keys=True).encode(), ".dir")
    pathlib.Path(LOCK).write_text(lock.replace(folder, md5))
    pathlib.Path("reports/run.json").write_text(json.dumps({"run": run}))
    git("commit", "--quiet", "--all", "-m", f"Run {number}")
    lineage_log.record_once(read, f"train run-{number}\\n\\nrun: {run}\\nproject: {facts['project']}\\n")
    if number % (count // registered) == 0:
        version = 1 + number // (count // registered)
        if version <= registered:
            result = git("rev-parse", "HEAD")
            lineage_log.record_once(result, f"register {facts['project']} version {version}\\n\\nrun: {run}\\n")
            lineage_log.tag(_tag(version, ""), result, "x")
"""


def measure(project: BakedProject, full: bool) -> str:
    """Make the history, and time the verbs."""
    rounds = 9 if full else 5
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        done = copy_of(project, Path(folder))
        done.run("git", "config", "user.name", "Test")
        done.run("git", "config", "user.email", "test@example.org")
        done.run("dvc", "repro")
        commit(done, "First results")
        done.run("python", "-m", "mlops", "registry", "promote", "1", "--why", "the first")
        done.run("python", "-c", MORE_RUNS, str(RUNS), str(VERSIONS))
        done.run("python", "-m", "mlops", "mirror", "repair")
        return f"{_trace_table(done, rounds)}\n{_verify_table(done, rounds)}"


def _trace_table(project: BakedProject, rounds: int) -> str:
    run = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run"]
    head = project.run("git", "rev-parse", "HEAD~1").stdout.strip()
    dataset = out_md5(lock(project), "data/dataset")
    names = {
        **{"alias": "champion", "version": "7", "tag": f"{project.path.name}@v7.0.0", "run": run},
        **{"experiment": "run-30", "commit": head, "dataset": dataset, "model file": "models/model"},
        "subject": "form-03",
    }
    rows = []
    for kind, name in names.items():
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")  # of the disk; as root, on Linux
        cold = _seconds(project, name)
        warm = [_seconds(project, name) for _ in range(rounds)]
        rows.append(f"| {kind} | {cold:.2f} | {statistics.median(warm):.2f} ({min(warm):.2f} to {max(warm):.2f}) |")
    return "\n".join(["| `trace` of | cold, s | warm, s |", "|---|---:|---:|", *rows, ""])


def _seconds(project: BakedProject, name: str) -> float:
    start = time.perf_counter()
    project.run("python", "-m", "mlops", "trace", name, check=name != "models/model")  # which all versions have here
    return time.perf_counter() - start


def _verify_table(project: BakedProject, rounds: int) -> str:
    """Compare hashing alone: in a process of the project's, on files that the cache and the remote have."""
    paths = []
    for number in range(FILES):
        content = number.to_bytes(4, "big") * (FILE_BYTES // 4)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        for store in (".dvc/cache", "dvc-storage"):
            path = project.path / store / "files/md5" / md5[:2] / md5[2:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
    hashes = [path.parent.name + path.name for path in paths[::2]]
    code = (
        "import sys; from mlops.lineage.hops import Chain; from mlops.lineage.history import History\n"
        f"chain = Chain(History(), True)\nfor line in sys.stdin: print(chain.check_files({hashes!r}), flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=project.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def deep() -> None:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == FILES

    def plain() -> None:
        for path in paths:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    try:
        ours, theirs = map(statistics.median, alternate(deep, plain, rounds))
    finally:
        process.kill()
    megabytes = len(paths) * FILE_BYTES / 1e6
    return (
        "| `verify --deep`, MB/s | SHA-256 in one thread, MB/s | speed | goal |\n|---:|---:|---:|---:|\n"
        f"| {megabytes / ours:.0f} | {megabytes / theirs:.0f} | {theirs / ours:.2f} | ≥ 0.8 |\n"
    )
