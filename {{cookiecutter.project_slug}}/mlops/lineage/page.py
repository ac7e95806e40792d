"""A graph as one page to read, print and send: `page.html`, filled in. It loads nothing from anywhere.

python -m mlops trace champion --html champion.html

Five questions are answered: what made it, is it in use, whose records are in it, is the record intact, and what else
is affected. What can't be read is named in its place, and the rest is shown.
"""

import base64
import copy
import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from ..config import read_params
from ..errors import ProjectError
from ..files import atomic_write
from ..registry.aliases import MOVE, REFUSAL, REFUSE, alias_changes
from ..tracking.git import try_git
from . import figures
from .graph import Graph, Node
from .history import History
from .verify import verify

HASH = re.compile(r"[0-9a-f]{12,64}(\.dir)?")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d.*")
# Facts that a question shows in its own way.
ELSEWHERE = {"number", "model", "moves", "metrics", "aliases", "params", "counts", "splits", "labels"}
LABELS = {
    **{"model_md5": "model in DVC", "model_sha256": "sha256 of the weights", "commit": "pinned by commit"},
    **{"published": "record is also outside this clone", "in_mlflow": "is in MLflow", "name": "experiment"},
    **{
        "tag": "Git tag",
        "started_at": "started",
        "ended_at": "ended",
        "resumed_at": "resumed",
        "results": "results in",
    },
    **{"mlflow_run": "run in MLflow", "parents": "started from the weights of", "dvc_exp_name": "DVC experiment"},
    **{"sha256": "registry's sha256", "excluded": "records left out", "withdrawn_since": "withdrawn since"},
    **{"manifest_sha256": "manifest's sha256", "manifest_md5": "manifest in DVC", "deps": "files it was made from"},
    **{"code_changed_since": "code that differs from today's", "environment_differences": "packages other than pinned"},
    **{"ended": "consent ended", "who": "moved by", "when": "moved", "known_to": "known to"},
}
MOST = 200  # results that the page lists


def write_page(graph: Graph, path: Path, with_images: bool = True) -> None:
    """Write a graph as a page.

    Args:
        graph: What to show.
        path: The file, which is replaced.
        with_images: Whether records of the data are shown.

    Raises:
        ProjectError: `path` is a folder.
    """
    if path.is_dir():
        raise ProjectError(
            f"{path} is a folder", f"name a file: --html {shlex.quote((path / 'trace.html').as_posix())}"
        )
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    layout: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, **layout)
    environment.filters |= {"label": lambda name: LABELS.get(name, name.replace("_", " ")), "kind": kind_of}
    environment.filters |= {"minute": minute, "number": number, "sha256": sha256}
    page = environment.get_template("page.html").render(page=Content(graph, with_images))
    with atomic_write(path) as new:
        new.write_text(page.lstrip(), encoding="utf-8", newline="\n")


def kind_of(value: Any) -> str:
    """Return how a fact is shown: as a list, a hash, a time, or text."""
    if isinstance(value, list):
        return "list"
    if isinstance(value, str):
        return "hash" if HASH.fullmatch(value) else "time" if TIME.fullmatch(value) else "text"
    return "text"


def sha256(script: str) -> str:
    """Return the digest of a script by which the page allows it, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def minute(time: str) -> str:
    """Return a time in ISO format as people read it, in UTC."""
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return time


def number(value: Any) -> str:
    """Return a number in few digits, and other values as text: yes, no, or JSON."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return (
            ", ".join(f"{name}: {'none' if item is None else number(item)}" for name, item in value.items()) or "none"
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Content:
    """What the page says, read from a graph and, for what the graph has not, from the project.

    Attributes:
        notes: What could not be read.
        with_images: Whether records of the data are shown.
    """

    def __init__(self, graph: Graph, with_images: bool) -> None:
        graph = copy.deepcopy(graph)
        for node in graph.nodes.values():  # what is unknown is left out, not printed
            node.facts = {name: value for name, value in node.facts.items() if value is not None}
        self._graph, self._history, self.with_images = graph, History(), with_images
        self.notes = list(graph.notes)
        self.name, self.target = graph.query, graph.nodes[graph.target]
        self.written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        self.head = try_git("rev-parse", "HEAD") or ""
        self.model = self._history.model
        self.chain = list(_walk(graph.origins, self.target, 0, {graph.target}))
        self.affected = list(_walk(graph.results, self.target, 1, {graph.target}))
        self.most = MOST
        self.versions = self._kind("version")[:1] if self.target.kind == "version" else self._results("version")
        self.datasets = self._kind("dataset") or self._results("dataset")
        self.verified = None if self.target.kind == "subject" else self._read("verify", self._verify)
        self.commands = self._commands()
        self._log = alias_changes(kinds=(MOVE, REFUSAL))

    def _kind(self, kind: str) -> list[Node]:
        nodes = [self.target, *(node for _, _, _, node in self.chain)]
        return [node for node in nodes if node.kind == kind]

    def _results(self, kind: str) -> list[Node]:
        return [node for _, _, _, node in self.affected if node.kind == kind]

    def _read(self, what: str, read: Callable[[], Any]) -> Any:
        """Return what a function reads; None, with a note, where it can't."""
        try:
            return read()
        except ProjectError as error:
            self.notes.append(f"{what}: {error.problem}. Fix: {error.fix}")
            return None

    def _verify(self) -> dict[str, Any]:
        return verify(self._graph.query).as_dict()

    def _commands(self) -> dict[str, str]:
        """Return what to type to check it and to make it again, by what it does."""
        kind, name = self.target.kind, self.target.id
        short = shlex.quote(f"{'data' if kind == 'dataset' else kind}:{name}")
        commands = {"check every byte": f"python -m mlops verify {short} --deep"}
        if kind in ("version", "run"):
            commands["say whether this machine gives the same bits"] = f"python -m mlops reproduce {short} --dry-run"
            commands["train it again, and compare"] = f"python -m mlops reproduce {short}"
        return commands

    @property
    def run(self) -> Node | None:
        """Return the run that the target is, or that made it."""
        return next(iter(self._kind("run")), None)

    @property
    def commit(self) -> Node | None:
        """Return the commit that the target is, or that its run read."""
        return next(iter(self._kind("commit")), None)

    def facts(self, node: Node) -> dict[str, Any]:
        """Return the facts of a node that no question shows in its own way."""
        facts = {name: value for name, value in node.facts.items() if name not in ELSEWHERE and value != ""}
        if facts.get("capability") == facts.get("cpu_capability"):
            facts.pop("cpu_capability", None)
        return ({"id": node.id} if node.kind in ("run", "commit", "dataset") else {}) | facts

    def params(self, node: Node) -> dict[str, str]:
        """Return the params of a commit by their whole names."""
        return dict(_flat(node.facts.get("params") or {}, ""))

    def consent(self, dataset: Node) -> dict[str, Any]:
        """Return the facts of the consent of a dataset; empty where they are unknown."""
        return next((node.facts for _, node in self._graph.origins(dataset.key) if node.kind == "consent"), {})

    def counts(self, dataset: Node) -> dict[str, dict[str, int]]:
        """Return records by label and split."""
        counts: dict[str, dict[str, int]] = {}
        for row in dataset.facts.get("counts", ()):
            counts.setdefault(row["label"], {})[row["split"]] = row["records"]
        return counts

    def moves(self, version: Node) -> list[dict[str, Any]]:
        """Return the entries of the log on a version in use, the newest first, each with its comparison."""
        of_version = [
            vars(change) for change in reversed(self._log) if int(version.id) in (change.version, change.before)
        ]
        return [move for move in of_version if move["action"] != REFUSE or move["version"] == int(version.id)]

    def in_use(self, version: Node) -> list[dict[str, Any]]:
        """Return the entries of the log by which a version has its aliases."""
        last = {move["alias"]: move for move in reversed(self.moves(version)) if move["action"] != REFUSE}
        logged = {alias: move for alias, move in last.items() if move["version"] == int(version.id)}
        return [logged.get(alias, {"alias": alias}) for alias in version.facts["aliases"]]

    @property
    def champion(self) -> int:
        """Return the version in use; 0 for none."""
        return self._history.holders.get("champion", 0)

    def metrics(self, version: Node) -> dict[str, list[Any]]:
        """Return metrics: of the version, of the champion, what was needed to register it."""
        champion = self._history.versions.get(self.champion)
        pinned = self._history.pinned_at(champion.commit) if champion else None
        theirs = pinned.report("metrics") if pinned else {}
        of_version = self._history.versions.get(int(version.id))
        own = self._history.pinned_at(of_version.commit) if of_version else None
        gate = (own.params.get("register") or {}) if own else {}
        least, most = gate.get("at_least") or {}, gate.get("at_most") or {}
        needed = {name: f"at least {limit}" for name, limit in least.items()}
        needed |= {name: f"at most {limit}" for name, limit in most.items()}
        return {
            name: [value, theirs.get(name, ""), needed.get(name, "")]
            for name, value in version.facts["metrics"].items()
        }

    @property
    def results(self) -> str:
        """Say how many things of each kind were made from it."""
        kinds = Counter(node.kind for _, _, _, node in self.affected)
        return ", ".join(f"{kind}: {count}" for kind, count in kinds.items()) or "nothing"

    @property
    def same_data(self) -> list[int]:
        """Return the other versions that were trained on the same dataset."""
        datasets = {node.id for node in self._kind("dataset")[:1] if node is not self.target}
        own = {node.key for node in self.versions}
        return [
            number
            for number, version in self._history.versions.items()
            if f"version:{number}" not in own and {self._history.dataset_of(run) for run in version.made_by} & datasets
        ]

    @property
    def curves(self) -> list[figures.Curve]:
        """Return the curves of the run."""
        results = self._history.results(self.run.id) if self.run else None
        objects = self._history.objects
        return (self._read("curves", lambda: figures.curves(results, objects)) if results else None) or []

    @property
    def confusion(self) -> dict[str, Any] | None:
        """Return the confusion matrix of the run."""
        results = self._history.results(self.run.id) if self.run else None
        return figures.confusion(results) if results else None

    def samples(self, dataset: Node) -> figures.Samples | None:
        """Return records of a dataset."""
        if not self.with_images or self.target.kind == "subject":
            return None
        result: figures.Samples | None = self._read("images", lambda: self._samples(dataset))
        return result

    def _samples(self, dataset: Node) -> figures.Samples:
        rules = {self.consent(dataset).get("rule"), (read_params().get("data") or {}).get("consent")}
        rule = rules.pop() if len(rules) == 1 else None  # in doubt, consent is needed
        return figures.samples(dataset.facts, rule, dataset.id, self._history.objects)


Step = tuple[int, str, Node, Node]  # level, relation, whose, node


def _walk(edges: Callable[[str], Iterator[tuple[str, Node]]], node: Node, level: int, seen: set[str]) -> Iterator[Step]:
    """Yield what is before or behind a node, each once."""
    for relation, other in edges(node.key):
        if other.key not in seen:
            seen.add(other.key)
            yield level, relation, node, other
            yield from _walk(edges, other, level + 1, seen)


def _flat(params: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, default=str)
