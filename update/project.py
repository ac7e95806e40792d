"""The project: where it came from, what its owner edited, and the commit that an update makes."""

import difflib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import click
import psutil

from hooks.post_gen_project import ONLY_FOR, RECORD, digest

from .errors import UpdateError
from .git import GitError, git, list_files, read_files
from .template import LOCK, MACHINERY, PINS, PYPROJECT, Template

CRUFT = ".cruft.json"


@dataclass(frozen=True)
class Origin:
    """The version of the template that a project has.

    Args:
        commit: The template's commit; None when it is not known.
        version: Its number; "" when it is not known.
        answers: The answers that decide which files there are.
        files: A hash of each file of `mlops/`, as it was generated.
    """

    commit: str | None
    version: str
    answers: dict[str, str]
    files: dict[str, str]

    def __str__(self) -> str:
        """Name the version for people."""
        return named(self.version, self.commit)


def named(version: str, commit: str | None) -> str:
    """Return a version as people read it."""
    parts = (version, f"commit {commit[:10]}" if commit else "")
    return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Project:
    """A project in its Git repository.

    Args:
        root: Its root, where `dvc.yaml` is.
    """

    root: Path
    head: str = field(init=False)
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        """Read where the root is in its repository, and which commit is checked out."""
        try:
            object.__setattr__(self, "prefix", git(self.root, "rev-parse", "--show-prefix"))
            object.__setattr__(self, "head", git(self.root, "rev-parse", "--verify", "HEAD^{commit}"))
        except GitError as error:
            problem = f"{self.root} has no Git commit ({error.message})"
            raise UpdateError(problem, "git init && git add --all && git commit -m Start") from error

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The committed files that an update looks at, by their paths from the root."""
        paths = (*MACHINERY, RECORD, CRUFT)
        files = read_files(self.root, self.head, *(self.prefix + path for path in paths))
        return {path.removeprefix(self.prefix): content for path, content in files.items()}

    def origin(self, template: Template, commit: str = "") -> Origin:
        """Return the version of the template that the project has.

        A project of an earlier version has no record: then cruft's file names the commit, or else it is the commit
        of the template that has most of the project's files.

        Raises:
            UpdateError: The project has no `mlops/`, or lacks another file that an update needs.
        """
        if not any(path.startswith("mlops/") for path in self.files):
            problem = "the project has no mlops/: it was made by version 0.1, with all its code in one package"
            fix = (
                f"cruft update brings it to two packages, once, and says where your changes meet the template's; before"
                f" it, where there is no {CRUFT}: cruft link {template.address} --checkout <the commit of 0.1 in"
                " CHANGELOG.md>. Then: make update"
            )
            raise UpdateError(problem, fix)
        if missing := [name for name in (LOCK, PINS, PYPROJECT) if name not in self.files]:
            raise UpdateError(
                f"the project's last commit has no {missing[0]}", f"restore it: git checkout {missing[0]}"
            )
        if RECORD in self.files:
            try:
                content = json.loads(self.files[RECORD])
                return Origin(content["commit"], content["version"], content["answers"], content["files"])
            except (ValueError, KeyError) as error:
                problem = f"{RECORD} is not as it was written ({type(error).__name__}: {error})"
                raise UpdateError(problem, f"restore it: git log -- {RECORD} tells who changed it") from error
        state = json.loads(self.files.get(CRUFT, b"{}"))
        ids = list_files(self.root, self.head, *(f"{self.prefix}{path}" for path in ("mlops", LOCK)))
        known = {path.removeprefix(self.prefix): name for path, name in ids.items()}
        if commit and not template.knows(commit):
            raise UpdateError(f"the template has no commit {commit!r}", "leave --from out: the project's files tell")
        recorded = str(state.get("commit", ""))
        commit = commit or (recorded if template.knows(recorded) else template.closest_commit(known))
        given = state.get("context", {}).get("cookiecutter", {})
        old = {path: content for path, content in template.machinery(commit).items() if path.startswith("mlops/")}
        answers = {}
        for prompt, answer, paths in ONLY_FOR:
            is_chosen = any(is_below(name, paths) for name in known) or not any(is_below(name, paths) for name in old)
            other = next(choice for choice in template.prompts[prompt] if choice != answer)
            answers[prompt] = given.get(prompt, answer if is_chosen else other)
        return Origin(commit, "", answers, {path: digest(content) for path, content in old.items()})

    def check_clean(self) -> None:
        """Raise UpdateError if a file that an update writes has changes that are not committed."""
        changed = git(
            self.root, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *MACHINERY, RECORD
        )
        lines = [(line[:2], line[3:].removeprefix(self.prefix)) for line in changed.split("\0") if line]
        if not lines:
            return
        untracked = [name for state, name in lines if state == "??"]
        tracked = [name for state, name in lines if state != "??"]
        undo = ["git restore --source=HEAD --staged --worktree -- " + " ".join(tracked)] if tracked else []
        undo += ["git clean -f -- " + " ".join(untracked)] if untracked else []
        problem = f"{len(lines)} file(s) that an update writes have changes that are not committed: "
        fix = f"commit them, or undo them: {'; '.join(undo)}"
        raise UpdateError(problem + ", ".join(name for _, name in lines), fix)

    def check_idle(self) -> None:
        """Raise UpdateError while DVC runs a stage here: it would read half of the old code and half of the new."""
        path = self.root / ".dvc/tmp/rwlock"
        try:
            locks = json.loads(path.read_text(encoding="utf-8") or "{}")
        except (FileNotFoundError, json.JSONDecodeError):
            return
        entries = [
            entry
            for lock in locks.values()
            for entry in ([lock["write"]] if lock.get("write") else []) + lock.get("read", [])
        ]
        if running := [entry for entry in entries if psutil.pid_exists(entry["pid"])]:
            problem = f"DVC runs a stage in this project: {running[0]['cmd']} (process {running[0]['pid']})"
            raise UpdateError(problem, "wait until it has ended")

    def deleted_folders(self, origin: Origin) -> set[str]:
        """Return the folders of `mlops/` that were generated and that the owner deleted whole."""
        folders = {parent.as_posix() for path in origin.files for parent in Path(path).parents[:-2]}
        return {folder for folder in folders if not any(path.startswith(f"{folder}/") for path in self.files)}

    def check_unedited(self, origin: Origin, template: Template, new: Mapping[str, bytes]) -> None:
        """Raise UpdateError, and print what differs, if the owner changed `mlops/` and the update would undo it.

        A folder that was deleted whole is no change, and neither is one that the new version has as well.
        """
        ours = {path: content for path, content in self.files.items() if path.startswith("mlops/")}
        deleted = self.deleted_folders(origin)
        changed = [
            path
            for path in sorted(ours.keys() | origin.files.keys())
            if not is_below(path, deleted)
            and (digest(ours[path]) if path in ours else None) not in (origin.files.get(path), _digest(new.get(path)))
        ]
        if not changed:
            return
        old = template.machinery(origin.commit) if origin.commit and template.knows(origin.commit) else {}
        sources: dict[str, list[str]] = {}
        for path in changed:
            before = old.get(path, b"")
            if path in origin.files:
                source, generated = self._last_with(path, origin.files[path])
                if source:
                    sources.setdefault(source[:10], []).append(path)
                if digest(before) != origin.files[path]:  # the template no longer has it
                    before = generated
            _print_diff(path, before, ours.get(path, b""))
        problem = f"mlops/ was edited, and the update would undo it: {', '.join(changed)}"
        undo = [f"git checkout {source} -- {' '.join(paths)}" for source, paths in sources.items()]
        if added := [path for path in changed if path not in origin.files]:
            undo.append(f"git rm {' '.join(added)}")
        fix = f"make the change in your package, or propose it to {template.address}; here, undo it, and commit"
        if undo:
            fix += f": {'; '.join(undo)}"
        raise UpdateError(problem, fix)

    def _last_with(self, path: str, expected: str) -> tuple[str, bytes]:
        """Return the last commit in which a file had the content with this digest, and that content; or nothing."""
        for commit in git(self.root, "log", "--format=%H", self.head, "--", path).split():
            content = read_files(self.root, commit, self.prefix + path).get(self.prefix + path)
            if content is not None and digest(content) == expected:
                return commit, content
        return "", b""

    @contextmanager
    def scratch(self) -> Iterator["Scratch"]:
        """Check the commit out into a temporary folder, to try an update in."""
        with tempfile.TemporaryDirectory(prefix="update-") as name:
            folder = Path(name).resolve()
            tree = folder / "tree"
            tree.mkdir()
            env = {
                "GIT_DIR": git(self.root, "rev-parse", "--absolute-git-dir"),
                "GIT_WORK_TREE": str(tree),
                "GIT_INDEX_FILE": str(folder / "index"),
            }
            git(tree, "read-tree", self.head, env=env)
            listed = git(tree, "ls-files", "-z", "--", self.prefix or ".", env=env)
            git(tree, "checkout-index", "-z", "--stdin", "--force", stdin=listed, env=env)
            yield Scratch(self, tree, env)

    def take(self, commit: str) -> None:
        """Move the project's branch and files to a commit that follows the present one.

        Raises:
            UpdateError: Git refuses, and has changed nothing.
        """
        try:
            git(self.root, "merge", "--quiet", "--ff-only", commit)
        except GitError as error:
            fix = "see what Git says (was there a commit meanwhile?), and update again"
            raise UpdateError(f"the update was not taken over: {error.message}", fix) from error


@dataclass(frozen=True)
class Scratch:
    """A temporary checkout of a project, with an index of its own.

    Args:
        project: The project.
        tree: The top folder of the checkout.
        env: Lets Git work on it.
    """

    project: Project
    tree: Path
    env: Mapping[str, str]

    @property
    def root(self) -> Path:
        """The project's root in it."""
        return self.tree / self.project.prefix

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        """Write files, and delete those whose content is None."""
        for path, content in changes.items():
            file = self.root / path
            if content is None:
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)

    def commit(self, paths: Collection[str], message: str) -> str:
        """Commit the written files on top of the project's commit, and return the new one; no branch moves."""
        names = "".join(f"{self.project.prefix}{path}\0" for path in paths)
        git(self.tree, "update-index", "--add", "--remove", "-z", "--stdin", stdin=names, env=self.env)
        tree = git(self.tree, "write-tree", env=self.env)
        return git(self.project.root, "commit-tree", tree, "-p", self.project.head, "-m", message)


def is_below(path: str, folders: Collection[str]) -> bool:
    """Return whether a file lies in one of some folders, or is one of them."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _digest(content: bytes | None) -> str | None:
    return None if content is None else digest(content)


def _print_diff(path: str, before: bytes, after: bytes) -> None:
    old, new = (content.decode("utf-8", errors="replace").splitlines() for content in (before, after))
    for line in difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm=""):
        click.echo(line)
