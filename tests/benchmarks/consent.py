"""What a large consent registry costs: processor time and peak memory of the commands, and of reading it in a stage.

    python -m tests.benchmarks consent

DVC tracks the registry. A tenth of its lines are second ones of a person, in no order of time, as after merges.
"""

import random
import tempfile
from pathlib import Path

from ..conftest import BakedProject
from ..projects import commit
from .timing import copy_of

LINES = 1_000_000
READ = "from mlops.records import consent; consent.read(consent.PATH)"
COMMANDS = {
    "`consent status`": ("-m", "mlops", "consent", "status", "patient-0000007"),
    "`consent history`": ("-m", "mlops", "consent", "history", "patient-0000007"),
    "`consent revoke`": ("-m", "mlops", "consent", "revoke", "patient-0000008"),
    "`consent add`": ("-m", "mlops", "consent", "add", "patient-new"),
    "`consent check`": ("-m", "mlops", "consent", "check"),
    "in `prepare`, `register` and audits": ("-c", READ),
}
# A process of its own for each: the peak memory is that of the largest child so far.
PROBE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(done.returncode and done.stderr)
"""


def measure(project: BakedProject, full: bool) -> str:
    """Write the registry, and run each command on it."""
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        done = copy_of(project, Path(folder))
        done.run("git", "config", "user.name", "Test")
        done.run("git", "config", "user.email", "test@example.org")
        _write(done.path / "data/consent.csv")
        done.run("git", "rm", "--cached", "--quiet", "data/consent.csv")
        done.run("dvc", "add", "--quiet", "data/consent.csv")
        commit(done, "A large registry")
        rows = [f"| {name} | {_figures(done, command)} |" for name, command in COMMANDS.items()]
    return "\n".join(["| command | s | peak memory |", "|---|---:|---:|", *rows, ""])


def _write(path: Path) -> None:
    choose = random.Random(0)  # noqa: S311
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("subject_id,consent_status,effective_at\n")
        for number in range(LINES):
            is_first = number < LINES * 9 // 10
            subject = number if is_first else choose.randrange(LINES * 9 // 10)
            status, year = ("active", 2024) if is_first else (choose.choice(("active", "revoked")), 2025)
            day = f"{year}-{choose.randint(1, 12):02}-{choose.randint(1, 28):02}"
            file.write(f"patient-{subject:07},{status},{day}T{choose.randint(0, 23):02}:00:00Z\n")


def _figures(project: BakedProject, command: tuple[str, ...]) -> str:
    cpu_s, peak_kb = project.run("python", "-c", PROBE, *command).stdout.split()
    return f"{float(cpu_s):.1f} | {int(peak_kb) / 1024:.0f} MB"
