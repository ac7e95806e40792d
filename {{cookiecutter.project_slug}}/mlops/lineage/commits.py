"""What commits pin: `dvc.lock`, `params.yaml` and the reports that Git keeps, of many commits at once."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..pipeline import LOCK
from ..tracking.run_files import LINEAGE, RUN_DIR
from .objects import Objects

REPORTS = ("prepare", "manifest", "run", "metrics", "register")
OUT = r"^ {4}outs:\n(?:^ {4}[- ].*\n)*?^ {4}- path: %s\n(?:^ {6}(?!md5:).*\n)*^ {6}md5: (\S+)$"  # as DVC writes it
FILES = (LOCK, "params.yaml", *(f"reports/{name}.json" for name in REPORTS))


@dataclass(frozen=True)
class Pinned:
    """What a commit pins.

    Args:
        commit: Its id.
        texts: Its files among `FILES`, by path.
    """

    commit: str
    texts: dict[str, str]

    @cached_property
    def lock(self) -> dict[str, Any]:
        """Return the stages of `dvc.lock`; none where there is no such file, or it can't be read."""
        return dict(_yaml(self.texts.get(LOCK, "")).get("stages") or {})

    @cached_property
    def params(self) -> dict[str, Any]:
        """Return `params.yaml`."""
        return _yaml(self.texts.get("params.yaml", ""))

    def report(self, name: str) -> dict[str, Any]:
        """Return a report of a stage, such as `manifest`; empty if Git has none in this commit."""
        try:
            return dict(json.loads(self.texts.get(f"reports/{name}.json") or "{}"))
        except ValueError:
            return {}

    def out(self, path: str) -> str:
        """Return DVC's hash of an output; "" where `dvc.lock` has none."""
        if md5 := self.quick_out(path):
            return md5
        outs = (out for stage in self.lock.values() for out in stage.get("outs", ()))
        return next((str(out.get("md5", "")) for out in outs if out["path"] == path), "")

    def quick_out(self, path: str) -> str:
        """Return what `out` does from a file as DVC writes it: to read all of a thousand takes seconds."""
        match = re.search(OUT % re.escape(path), self.texts.get(LOCK, ""), re.MULTILINE)
        return match[1] if match else ""


def _yaml(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return dict(YAML(typ="safe").load(text) or {})
    except (YAMLError, TypeError, ValueError):  # it was committed so, with conflicts
        return {}


def read(commits: Iterable[str]) -> dict[str, Pinned]:
    """Return what commits pin, by their ids; those that this clone lacks are left out."""
    wanted = list(dict.fromkeys(filter(None, commits)))
    texts: dict[str, dict[str, str]] = {}
    for (commit, path), content in blobs((commit, path) for commit in wanted for path in FILES).items():
        texts.setdefault(commit, {})[path] = content.decode(errors="replace")
    return {commit: Pinned(commit, texts[commit]) for commit in wanted if commit in texts}


def blobs(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return files of the project at commits, by commit and path; those that are not there are left out."""
    wanted = list(names)
    read = objects(f"{commit}:./{path}" for commit, path in wanted)
    return {name: content for name, (_, kind, content) in zip(wanted, read, strict=True) if kind == b"blob"}


def objects(names: Iterable[str]) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield Git's objects in order: the name that was asked for, the kind (b"" where there is none), the content.

    What `git replace` puts in an object's place is read like the object.
    """
    wanted = list(names)
    queries = "".join(f"{name}\n" for name in wanted).encode(errors="surrogateescape")
    done = subprocess.run(["git", "cat-file", "--batch"], input=queries, capture_output=True, env=_environment())
    output, start = done.stdout, 0
    for name in wanted:
        end = output.find(b"\n", start)
        if end < 0:
            raise ProjectError(f"git cat-file: {done.stderr.decode(errors='replace').strip()}", "git fsck")
        header, start = output[start:end].split(b" "), end + 1
        if len(header) == 3 and header[2].isdigit():
            size = int(header[2])
            yield name, header[1], output[start : start + size]
            start += size + 1
        else:
            yield name, b"", b""


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_INDEX_FILE")}


def facts(pinned: Pinned, objects: Objects) -> dict[str, Any]:
    """Return what the run recorded whose results a commit pins: `reports/train/lineage.json`.

    Raises:
        ProjectError: The commit has no such results; or they are lost, damaged or out of reach, as `Objects.read` says.
    """
    md5 = pinned.out(RUN_DIR.as_posix())
    if not md5:
        problem = f"commit {pinned.commit[:10]} has no results of a training"
        raise ProjectError(problem, "name a run or a version: python -m mlops registry list")
    name = LINEAGE.relative_to(RUN_DIR).as_posix()
    return dict(json.loads(objects.read(objects.listing(md5)[name])))


def run_file(pinned: Pinned, objects: Objects, name: str | Path) -> bytes:
    """Return a file of `reports/train` of the run whose results a commit pins; b"" where there is none of this name."""
    md5 = pinned.out(RUN_DIR.as_posix())
    files = objects.listing(md5) if md5 else {}
    path = Path(name).as_posix()
    return objects.read(files[path]) if path in files else b""
