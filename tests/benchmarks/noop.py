"""What a pipeline that is up to date costs: `dvc repro` against `dvc status`, which must look at as much.

python -m tests.benchmarks noop
"""

import tempfile
from pathlib import Path

from ..conftest import BakedProject
from .timing import alternate, copy_of, ratio_table


def measure(project: BakedProject, full: bool) -> str:
    """Run the pipeline once, then both commands in turn."""
    with tempfile.TemporaryDirectory(dir=project.path.parent, ignore_cleanup_errors=True) as folder:
        done = copy_of(project, Path(folder))
        done.run("dvc", "repro")
        seconds = alternate(lambda: _repro(done), lambda: done.run("dvc", "status"), 25 if full else 9)
    return ratio_table(("dvc repro", "dvc status"), seconds, goal=1.5)


def _repro(done: BakedProject) -> None:
    output = done.run("dvc", "repro").stdout
    assert "Running stage" not in output, f"a stage ran again:\n{output}"  # then this would measure something else
