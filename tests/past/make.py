"""Make the project of version 0.1 that `test_past.py` unpacks, and pack it into `v0.1.tar.xz`, its template beside it.

    python -m tests.past.make

The template is taken from Git, as it was at `V0_1`; the packages must be those of that commit's lock. The project is
made in `/tmp/past`, since DVC hashes files that name the folder of a run: no other path of this machine gets into it.
Each call gives the same data, code and parameters, and on machines of one kind the same weights. Ids and times differ.
"""

import getpass
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cookiecutter.main import cookiecutter

from ..conftest import SETTINGS, TEMPLATE, BakedProject
from ..projects import commit, edit
from .project import ARCHIVE, COMMAND, MADE_AT, PACKAGE, REVOKED, TEMPLATE_ARCHIVE, TEMPLATE_FILES

V0_1 = "a287c6954200a2d478f643d284fb41f31baf1f64"
"""Version 0.1 of the template: the last commit whose projects have all their code in one package."""

PLACE = Path(MADE_AT)
"""Where the project is made."""

KEPT = (".git", ".dvc/config.local", "dvc-storage", "mlflow.db", "mlartifacts")
"""What is packed. The work tree is that of HEAD, and is checked out when it is unpacked."""
GIT_RENEWS = ("hooks", "logs", "index", "COMMIT_EDITMSG", "ORIG_HEAD", "FETCH_HEAD")
"""What Git makes anew."""

SMALL = (  # of params.yaml: as little as it takes
    ("fraction: 1.0 ", "fraction: 0.25 "),
    ("shards: 8 ", "shards: 2 "),
    (
        "epochs: 15   # passes over the training split, 1 …",
        "epochs: 10   # enough for a first look; ask Ada before you raise it",
    ),
    ("test_acc: 0.9\n", "test_acc: 0.2\n"),
)
NARROWER = (  # of networks.py
    ("66,000 weights", "8,000 weights"),
    ("_conv(1, 16)", "_conv(1, 8)"),
    ("_conv(16, 32)", "_conv(8, 16)"),
    ("_conv(32, 64)", "_conv(16, 24)"),
    ("_conv(64, 64)", "_conv(24, 16)"),
    ("nn.Linear(64, classes)", "nn.Linear(16, classes)"),
)
WIDER = (("8,000 weights", "12,000 weights"), ("_conv(24, 16)", "_conv(24, 32)"), ("nn.Linear(16,", "nn.Linear(32,"))
MACRO_F1 = '''def macro_f1(counts: np.ndarray) -> float:
    """Return the mean F1 of the labels that occur or were predicted, from `confusion`."""
    right, both = counts.diagonal(), counts.sum(0) + counts.sum(1)
    return float((2 * right[both > 0] / both[both > 0]).mean())


def write_confusion('''
IMPORTS = (
    "from ..model.evaluation import Evaluation, confusion, confusion_image, evaluate, write_confusion, write_per_class"
)
MORE_IMPORTS = """from ..model.evaluation import (
    Evaluation,
    confusion,
    confusion_image,
    evaluate,
    macro_f1,
    write_confusion,
    write_per_class,
)"""
METRIC = (  # of the package, and of the tests
    (f"{PACKAGE}/model/evaluation.py", "def write_confusion(", MACRO_F1),
    (f"{PACKAGE}/stages/train.py", IMPORTS, MORE_IMPORTS),
    (
        f"{PACKAGE}/stages/train.py",
        "figures = metrics(val, test)",
        'figures = {**metrics(val, test), "macro_f1": round(macro_f1(counts), 4)}',
    ),
    (
        "tests/stages/test_train.py",
        "model.evaluation import evaluate",
        "model.evaluation import confusion, evaluate, macro_f1",
    ),
    (
        "tests/stages/test_train.py",
        '        "test_loss": round(test.loss, 4),\n',
        '        "test_loss": round(test.loss, 4),\n'
        '        "macro_f1": round(macro_f1(confusion(dataset.test.labels, test.predicted, 10)), 4),\n',
    ),
    (
        "params.yaml",
        "    test_acc: 0.2\n",
        "    test_acc: 0.2\n    macro_f1: 0.1   # a label that is never found counts\n",
    ),
)
WEAKEST = '''"""Name the label that is found least often. Run it with `dvc repro weakest`."""

import csv
import json
from pathlib import Path

with Path("reports/per_class.csv").open(encoding="utf-8", newline="") as file:
    recall = {row["label"]: float(row["recall"] or 0) for row in csv.DictReader(file)}
label = min(recall, key=lambda name: (recall[name], name))
report = json.dumps({"weakest_label": int(label), "weakest_recall": recall[label]}, indent=2)
Path("reports/weakest.json").write_text(f"{report}\\n", encoding="utf-8", newline="\\n")
'''
STAGE = """
  weakest:
    desc: Name the label that is found least often
    cmd: python scripts/weakest.py
    deps:
      - scripts/weakest.py
      - reports/per_class.csv
    metrics:
      - reports/weakest.json: {cache: false}

plots:
  - loss:
"""


def main() -> None:
    """Make the project and pack it."""
    if PLACE.parent.resolve() != PLACE.parent or PLACE.parent.exists():
        sys.exit(f"{PLACE.parent} is there already, or a link leads to it.\nFix: delete it; on macOS, use Linux")
    traces = (str(TEMPLATE), sys.prefix, sys.base_prefix, f"{Path.home()}/")
    PLACE.parent.mkdir()
    try:
        with tempfile.TemporaryDirectory() as folder:
            isolate_environment(Path(folder).resolve())
            project = new_project(Path(folder, "template"))
            live(project)
            project.run("git", "reflog", "expire", "--expire=now", "--all")
            project.run("git", "gc", "--quiet", "--prune=now")
            check_no_traces(project, (*traces, str(Path(folder).resolve())))
            pack(project)
            pack_template()
    finally:
        shutil.rmtree(PLACE.parent)
    for archive in (ARCHIVE, TEMPLATE_ARCHIVE):
        print(f"{archive}: {archive.stat().st_size:,} bytes")


def isolate_environment(folder: Path) -> None:
    """Take away the settings and the name of whoever runs this; the environment's commands come first on PATH."""
    for name in list(os.environ):
        if name in SETTINGS or name.startswith(("GIT_", "MAKE", "AWS_", "MLFLOW_", "DVC_", "COOKIECUTTER_")):
            del os.environ[name]
    home = folder / "home"
    home.mkdir()
    os.environ |= dict.fromkeys(("HOME", "USERPROFILE", "XDG_CONFIG_HOME"), str(home))
    os.environ |= dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "ada")
    os.environ |= {"GIT_CONFIG_NOSYSTEM": "1", "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ |= {"DVC_SITE_CACHE_DIR": str(folder / "site"), "PYTHONDONTWRITEBYTECODE": "1", "TQDM_DISABLE": "1"}
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    assert getpass.getuser() == "ada"


def new_project(template: Path) -> BakedProject:
    """Generate the project from the template as it was, and set it up."""
    archived = subprocess.run(["git", "archive", V0_1], cwd=TEMPLATE, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        archive.extractall(template, filter="data")
    path = cookiecutter(str(template), no_input=True, default_config=True, output_dir=str(PLACE.parent))
    assert Path(path) == PLACE
    project = BakedProject(PLACE, PACKAGE)
    project.run("git", "config", "user.name", "Ada Byron")
    project.run("git", "config", "user.email", "ada@example.org")
    project.run(*COMMAND, "setup")
    return project


def live(project: BakedProject) -> None:
    """Do what an owner does: two versions put in use one after the other, an experiment, and an opt-out."""
    edit_all(project, "params.yaml", SMALL)
    edit_all(project, f"{PACKAGE}/model/networks.py", NARROWER)
    edit(
        project,
        "README.md",
        "# Digit Classifier\n",
        "# Digit Classifier\n\nAda's. Ask her before you change the network.\n",
    )
    commit(project, "A narrower network, on a quarter of the digits")
    project.run("dvc", "repro", "manifest")
    project.run(*COMMAND, "data", "tag", "v1.0")
    project.run("dvc", "repro")
    commit(project, "Version 1")
    project.run(*COMMAND, "registry", "promote", "1", "--why", "the first")
    project.run("dvc", "exp", "run", "train", "--temp", "--name", "slow", "-S", "train.max_lr=0.001")
    for name, old, new in METRIC:
        edit(project, name, old, new)
    add_stage(project)
    edit_all(project, f"{PACKAGE}/model/networks.py", WIDER)
    edit(project, "params.yaml", "epochs: 10 ", "epochs: 20 ")
    commit(project, "A wider last layer, macro F1, and the weakest label")
    project.run("dvc", "repro")
    commit(project, "Version 2")
    project.run(*COMMAND, "registry", "promote", "2", "--why", "a wider layer, more passes")
    project.run(*COMMAND, "optout", REVOKED, "--anyway")
    commit(project, f"Version 3, without {REVOKED}")
    project.run("dvc", "push", "--quiet")
    assert project.run("git", "status", "--porcelain").stdout == ""


def add_stage(project: BakedProject) -> None:
    """Add a stage of the owner's own, with its script."""
    path = project.path / "scripts/weakest.py"
    path.parent.mkdir()
    path.write_text(WEAKEST, encoding="utf-8", newline="\n")
    edit(project, "dvc.yaml", "\nplots:\n  - loss:\n", STAGE)


def edit_all(project: BakedProject, name: str, changes: tuple[tuple[str, str], ...]) -> None:
    """Replace several texts in one file."""
    for old, new in changes:
        edit(project, name, old, new)


def packed_paths(project: BakedProject) -> Iterator[Path]:
    """Yield the files and folders to pack, sorted: Git needs some of its folders also when they are empty."""
    roots = (project.path / name for name in KEPT)
    paths = (path for root in roots for path in ((root, *root.rglob("*")) if root.is_dir() else (root,)))
    renewed = tuple(project.path / ".git" / name for name in GIT_RENEWS)
    yield from sorted(path for path in paths if not any(path.is_relative_to(other) for other in renewed))


def check_no_traces(project: BakedProject, traces: tuple[str, ...]) -> None:
    """See that neither a file nor an object of Git names this machine.

    Args:
        project: The project, packed by Git.
        traces: What must not occur.
    """
    objects = ("git", "cat-file", "--batch-all-objects", "--batch")
    contents = {
        "an object of Git": subprocess.run(objects, cwd=project.path, check=True, stdout=subprocess.PIPE).stdout
    }
    contents |= {str(path): path.read_bytes() for path in packed_paths(project) if path.is_file()}
    named = [f"{name}: {trace}" for name, data in contents.items() for trace in traces if trace.encode() in data]
    assert not named, "\n".join(named)


def pack(project: BakedProject) -> None:
    """Write the archive: nothing in it tells when, by whom or where it was packed."""
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for path in packed_paths(project):
            member = archive.gettarinfo(path, path.relative_to(project.path.parent).as_posix())
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = 0
            archive.addfile(member, io.BytesIO(path.read_bytes()) if path.is_file() else None)


def pack_template() -> None:
    """Write the template as it was, without its tests: a clone may lack the history that has it."""
    tar = ("git", "archive", "--format=tar", V0_1, *TEMPLATE_FILES)
    content = subprocess.run(tar, cwd=TEMPLATE, check=True, stdout=subprocess.PIPE).stdout
    TEMPLATE_ARCHIVE.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
