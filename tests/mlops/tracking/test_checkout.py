"""Two trainings that read different files never name the same commit, and the commit gives back what was read."""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mlops.compute import transfer
from mlops.errors import ProjectError
from mlops.tracking.run_context import snapshot

from .conftest import Run, commit_all

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, and filters in sh")


def write(path: str, text: str) -> None:
    """Write a file and the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text.encode())


def depend_on(path: str) -> None:
    """Make it a dep of `train`."""
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    write("dvc.yaml", text.replace("data/dataset, code]", f"data/dataset, code, {path}]"))


def submodule(run: Run, path: str) -> None:
    """Add a submodule with one file, `part.py`."""
    origin = Path("..", "origin-of-submodule")
    origin.mkdir()
    run("git", "init", "--quiet", str(origin))
    (origin / "part.py").write_text("part = 1\n", encoding="utf-8")
    run("git", "-C", str(origin), "add", ".")
    run("git", "-C", str(origin), "commit", "--quiet", "-m", "Start")
    allow = ("-c", "protocol.file.allow=always")
    run("git", *allow, "submodule", "--quiet", "add", str(origin.resolve()), path)
    run("git", "commit", "--quiet", "-m", "A submodule")


@pytest.fixture
def larger(repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the folder `ml/p` of a larger repository; `common/shared.py` is a dep of `train`."""
    project = repository.parent / "larger" / "ml" / "p"
    shutil.copytree(repository, project, ignore=shutil.ignore_patterns(".git", ".dvc", "dvc.lock"))
    monkeypatch.chdir(project)
    write("../../common/shared.py", "shared = 1\n")
    depend_on("../../common/shared.py")
    run("git", "init", "--quiet", "--initial-branch=main", "../..")
    run("dvc", "init", "--quiet", "--subdir")
    run("git", "add", "../..")
    commit_all(run)
    run("dvc", "repro", "--quiet")
    return project


def test_snapshot_variables_of_the_pipeline_must_be_tracked(repository: Path, run: Run) -> None:
    write("settings.yaml", "name: code\n")
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    write("dvc.yaml", "vars: [settings.yaml]\n" + text.replace("data/dataset, code]", "data/dataset, '${name}']"))
    with pytest.raises(ProjectError, match="git add settings.yaml"):
        snapshot("train")
    run("git", "add", "settings.yaml")
    assert run("git", "show", f"{snapshot('train')}:settings.yaml") == "name: code"


def test_snapshot_holds_a_dep_elsewhere_in_a_larger_repository(larger: Path, run: Run) -> None:
    commits = []
    for text in ("shared = 2\n", "shared = 3\n"):
        write("../../common/shared.py", text)
        commits.append(snapshot("train"))
        assert run("git", "show", f"{commits[-1]}:common/shared.py") == text.strip()
    assert len(set(commits)) == 2
    assert run("git", "diff", "--cached", "--name-only") == "", "the index is as it was"


def test_snapshot_takes_only_its_own_of_a_larger_repository(larger: Path, run: Run) -> None:
    write("../../common/other.py", "other = 1\n")
    run("git", "add", "../../common/other.py")
    run("git", "commit", "--quiet", "-m", "Other")
    write("../../common/other.py", "other = 2\n")
    assert run("git", "show", f"{snapshot('train')}:common/other.py") == "other = 1"


def test_snapshot_untracked_dep_elsewhere_in_a_larger_repository_is_refused(larger: Path) -> None:
    write("../../common/new.py", "")
    text = Path("dvc.yaml").read_text(encoding="utf-8")
    write("dvc.yaml", text.replace("../../common/shared.py", "../../common"))
    with pytest.raises(ProjectError, match=r"(?s)Git does not track.*git add ../../common/new.py"):
        snapshot("train")


def test_snapshot_names_the_commit_of_a_submodule(repository: Path, run: Run) -> None:
    submodule(run, "code/part")
    write("code/part/part.py", "part = 2\n")
    with pytest.raises(ProjectError, match=r"(?s)code/part/part.py.*git -C code/part commit"):
        snapshot("train")
    run("git", "-C", "code/part", "commit", "--quiet", "-am", "Two")
    commit = snapshot("train")
    assert run("git", "rev-parse", f"{commit}:code/part") == run("git", "-C", "code/part", "rev-parse", "HEAD")
    write("code/part/new.py", "")
    with pytest.raises(ProjectError, match=r"(?s)code/part/new.py.*git -C code/part add new.py"):
        snapshot("train")


def test_snapshot_follows_a_submodule_that_git_is_told_to_ignore(repository: Path, run: Run) -> None:
    submodule(run, "code/part")
    run("git", "config", "submodule.code/part.ignore", "all")
    write("code/part/part.py", "part = 2\n")
    run("git", "-C", "code/part", "commit", "--quiet", "-am", "Two")
    commit = snapshot("train")
    assert run("git", "rev-parse", f"{commit}:code/part") == run("git", "-C", "code/part", "rev-parse", "HEAD")


def test_snapshot_repository_inside_that_is_no_submodule_is_refused(repository: Path, run: Run) -> None:
    write("code/part/part.py", "part = 1\n")
    run("git", "init", "--quiet", "code/part")
    run("git", "-C", "code/part", "add", ".")
    run("git", "-C", "code/part", "commit", "--quiet", "-m", "Start")
    write(".gitignore", "part\n")
    with pytest.raises(
        ProjectError, match=r"(?s)own.*git submodule add <address> code/part; .*: rm -r code/part/\.git"
    ):
        snapshot("train")
    shutil.rmtree("code/part/.git")
    with pytest.raises(ProjectError, match="git add --force code/part/part.py"):
        snapshot("train")


def test_snapshot_repository_inside_without_a_commit_is_refused(repository: Path, run: Run) -> None:
    write("code/part/part.py", "part = 1\n")
    run("git", "init", "--quiet", "code/part")
    with pytest.raises(
        ProjectError, match=r"code/part is a Git repository without a commit\nFix: rm -r code/part/\.git"
    ):
        snapshot("train")
    shutil.rmtree("code/part/.git")
    run("git", "add", ".")
    snapshot("train")


def test_snapshot_of_what_is_no_regular_file_is_refused(repository: Path) -> None:
    os.mkfifo("code/pipe")
    with pytest.raises(ProjectError, match=r"code/pipe is no regular file\nFix: remove code/pipe, or put a file"):
        snapshot("train")
    Path("code/pipe").unlink()
    snapshot("train")


def test_snapshot_link_inside_is_stored_with_what_it_leads_to(repository: Path, run: Run) -> None:
    write("shared/module.py", "shared = 1\n")
    Path("code/module.py").symlink_to("../shared/module.py")
    run("git", "add", ".")
    first = snapshot("train")
    write("shared/module.py", "shared = 2\n")
    second = snapshot("train")
    assert [run("git", "show", f"{commit}:shared/module.py") for commit in (first, second)] == [
        "shared = 1",
        "shared = 2",
    ]


LINKS = {
    "a file outside": ("../../outside.py", r"code/module.py is a link that leads outside the Git repository"),
    "an absolute address": ("HERE/step.py", r"code/module.py is a link to the absolute address"),
    "itself": ("module.py", r"code/module.py is a link that leads to itself"),
    "what Git does not track": ("../untracked.py", r"Git does not track: untracked.py"),
    "what DVC keeps": ("../data/dataset", r"code/module.py is a link into data/dataset, which DVC keeps"),
}


@pytest.mark.parametrize(("target", "problem"), LINKS.values(), ids=LINKS)
def test_snapshot_link_that_no_commit_can_store_is_refused(
    repository: Path, run: Run, target: str, problem: str
) -> None:
    write("../outside.py", "")
    write("untracked.py", "")
    Path("code/module.py").symlink_to(target.replace("HERE", str(repository)))
    run("git", "add", "code")
    fix = (
        "git add untracked.py" if "track" in problem else "put the file itself in place of the link, or a relative link"
    )
    with pytest.raises(ProjectError, match=f"(?s){problem}.*Fix: {fix}"):
        snapshot("train")
    Path("code/module.py").unlink()
    write("code/module.py", "")
    run("git", "add", "code")
    snapshot("train")


def test_snapshot_linked_folder_in_a_dep_is_refused_since_dvc_does_not_look_into_it(repository: Path, run: Run) -> None:
    write("shared/module.py", "shared = 1\n")
    Path("code/shared").symlink_to("../shared")
    run("git", "add", ".")
    with pytest.raises(ProjectError, match=r"(?s)DVC does not look into code/shared.*add `- shared`"):
        snapshot("train")
    depend_on("shared")
    assert run("git", "show", f"{snapshot('train')}:shared/module.py") == "shared = 1"


ATTRIBUTES = {
    "line ends": ("* text", "one = 1\r\n"),
    "an identity": ("* ident", "# $Id: mine $\n"),
    "a filter": ("* filter=drop", "one = 1  # dropped\n"),
}


@pytest.mark.parametrize(("attributes", "text"), ATTRIBUTES.values(), ids=ATTRIBUTES)
@pytest.mark.parametrize("place", [".gitattributes", ".git/info/attributes"])
def test_snapshot_file_that_a_checkout_would_change_is_refused(
    repository: Path, run: Run, place: str, attributes: str, text: str
) -> None:
    run("git", "config", "filter.drop.clean", "sed 's/  #.*//'")
    write(place, attributes.replace("*", "code/*"))
    write("code/model.py", text)
    run("git", "add", ".")
    takes, keeps = (
        "git add code/model.py && rm code/model.py && git checkout -- code/model.py",
        "git check-attr -a code/",
    )
    with pytest.raises(ProjectError, match=rf"(?s)other bytes than code/model.py .*Fix: .*{takes}; .*{keeps}"):
        snapshot("train")
    if place == ".gitattributes":
        run("bash", "-c", takes)
    else:
        Path(place).unlink()
    snapshot("train")


def test_snapshot_filter_that_gives_the_bytes_back_is_fine_where_the_commit_names_it(
    repository: Path, run: Run
) -> None:
    for way, letters in (("clean", "tr a-y b-z"), ("smudge", "tr b-z a-y")):
        run("git", "config", f"filter.turn.{way}", letters)
    write("code/model.py", "abc\n")
    write(".gitattributes", "code/* filter=turn\n")
    run("git", "add", ".")
    assert run("git", "show", f"{snapshot('train')}:code/model.py") == "bcd"
    write(".gitattributes", "")
    write(".git/info/attributes", "code/* filter=turn\n")
    with pytest.raises(ProjectError, match=r"code/model.py"):
        snapshot("train")


def test_snapshot_module_beside_the_package_that_was_imported_must_be_tracked(
    repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("helper_of_a_test.py", "one = 1\n")
    snapshot("train")
    monkeypatch.syspath_prepend(str(repository))
    monkeypatch.delitem(sys.modules, "helper_of_a_test", raising=False)
    importlib.import_module("helper_of_a_test")
    with pytest.raises(ProjectError, match="git add helper_of_a_test.py"):
        snapshot("train")
    run("git", "add", ".")
    assert run("git", "show", f"{snapshot('train')}:helper_of_a_test.py") == "one = 1"
    monkeypatch.delitem(sys.modules, "helper_of_a_test")


@pytest.mark.skipif(not shutil.which("git-lfs"), reason="Git LFS is not installed")
def test_snapshot_file_that_git_lfs_keeps_is_restored(repository: Path, run: Run) -> None:
    run("git", "lfs", "install", "--local", "--skip-repo")
    run("git", "lfs", "track", "code/*.bin")
    commits = []
    for text in ("one", "two"):
        write("code/large.bin", text)
        run("git", "add", ".")
        commits.append(snapshot("train"))
    assert "git-lfs" in run("git", "show", f"{commits[0]}:code/large.bin")
    assert len(set(commits)) == 2


@pytest.mark.parametrize("name", ["a b.py", "ä.py", "[x].py", "-x.py", ":x.py", '"x".py', "x\ny.py", "\udcff.py"])
def test_snapshot_of_odd_names(repository: Path, run: Run, name: str) -> None:
    (Path("code") / name).write_text("one = 1\n", encoding="utf-8")
    with pytest.raises(ProjectError, match="Git does not track"):
        snapshot("train")
    run("git", "add", ".")
    first = snapshot("train")
    (Path("code") / name).write_text("one = 2\n", encoding="utf-8")
    assert snapshot("train") != first


def test_pack_has_submodules_links_and_what_attributes_would_leave_out(
    repository: Path, run: Run, tmp_path: Path
) -> None:
    submodule(run, "code/part")
    write("code/left_out.py", "x = '$Format:%H$'\n")
    Path("code/link.py").symlink_to("left_out.py")
    write(".gitattributes", "left_out.py export-ignore\nmodel.py export-subst\n")
    run("git", "add", ".")
    transfer.pack(snapshot("train"), tmp_path / "code.tar.gz")
    transfer.unpack(tmp_path / "code.tar.gz", tmp_path / "job")
    assert read(tmp_path / "job" / "code") == read(Path("code"))


def read(folder: Path) -> dict[str, bytes]:
    """Return what Python would read below a folder, through links."""
    contents = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git")]
        for path in (Path(root, name) for name in names if name != ".git" and Path(root, name).exists()):
            contents[path.relative_to(folder).as_posix()] = path.read_bytes()
    return contents


NAMES = ["code/a.py", "code/b.txt", "code/sub/c.py", "shared/d.py", "code/part/part.py"]
EDITS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from(["1\n", "2\n", "1\r\n", "# $Id: 1$\n"])),
    st.tuples(
        st.just("link"),
        st.sampled_from(NAMES[:3]),
        st.sampled_from(["a.py", "../shared/d.py", "../../out.py", "../shared"]),
    ),
    st.tuples(st.just("write"), st.just("../out.py"), st.sampled_from(["1\n", "2\n"])),
    st.tuples(st.just("write"), st.just(".gitignore"), st.sampled_from(["", "*.txt\n"])),
    st.tuples(
        st.just("write"),
        st.sampled_from([".gitattributes", ".git/info/attributes"]),
        st.sampled_from(["", "* text eol=crlf\n", "*.py ident\n", "* filter=up\n"]),
    ),
    st.tuples(st.sampled_from(["add", "add", "add", "commit in the submodule"]), st.just(""), st.just("")),
)


@pytest.mark.slow
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=st.lists(EDITS, min_size=6, max_size=12))
def test_snapshot_of_any_history_names_what_was_read(
    repository: Path, run: Run, edits: list[tuple[str, str, str]]
) -> None:
    """Random trees with links, a submodule, ignored files, attributes, filters and edits."""
    start = Path.cwd()
    with tempfile.TemporaryDirectory(dir=repository.parent) as folder:
        shutil.copytree(repository, Path(folder, "r"), symlinks=True)
        os.chdir(Path(folder, "r"))
        try:
            check_history(run, edits)
        finally:
            os.chdir(start)


def check_history(run: Run, edits: list[tuple[str, str, str]]) -> None:
    submodule(run, "code/part")
    run("git", "config", "filter.up.clean", "tr a-z A-Z")
    depend_on("shared")
    seen: dict[str, dict[str, bytes]] = {}
    for edit in edits:
        do(run, *edit)
        try:
            commit = snapshot("train")
        except ProjectError:
            continue
        now = {**read(Path("code")), **{f"shared/{name}": text for name, text in read(Path("shared")).items()}}
        assert seen.setdefault(commit, now) == now
    for commit, wanted in seen.items():
        with tempfile.TemporaryDirectory() as folder:
            transfer.pack(commit, Path(folder, "code.tar.gz"))
            transfer.unpack(Path(folder, "code.tar.gz"), Path(folder, "job"))
            given = {**read(Path(folder, "job/code"))}
            given |= {f"shared/{name}": text for name, text in read(Path(folder, "job/shared")).items()}
            assert given == wanted


def do(run: Run, what: str, path: str, text: str) -> None:
    """Make one change to the repository."""
    if what == "add":
        subprocess.run(["git", "add", "."], capture_output=True)
    elif what == "commit in the submodule":
        subprocess.run(["git", "-C", "code/part", "commit", "--quiet", "-am", "More"], capture_output=True)
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_symlink():
            Path(path).unlink()
        if what == "write":
            Path(path).write_bytes(text.encode())
        elif not Path(path).is_dir():
            Path(path).unlink(missing_ok=True)
            Path(path).symlink_to(text)
