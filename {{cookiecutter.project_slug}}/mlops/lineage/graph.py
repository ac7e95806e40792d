"""What was made from what: nodes, such as versions, runs, commits and datasets, and the edges between them.

A graph is of one node, its target: all that the target was made from, and all that was made from the target. What the
target was made from is told in full; of what was made from it, what it is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..contract import package_name
from ..errors import ProjectError
from ..registry.versions import MANIFEST
from ..tracking import lineage_log
from ..tracking.git import git, try_git
from ..tracking.run_context import DATASET
from . import commits
from .commits import Pinned
from .history import History
from .names import MODEL, Target

SCHEMA = "trace/1"
RECORDED = (  # of what a run recorded, in this order
    *("user", "status", "started_at", "ended_at", "resumed_at", "dvc_exp_name", "job", "image"),
    *("instance_type", "device", "device_name", "capability", "cpu_capability", "driver", "precision", "processes"),
    *("threads", "numeric_fingerprint", "environment_differences", "data_version", "data_pushed", "inputs_elsewhere"),
    *("git_remote_url", "git_branch", "baseline_commit", "dvc_remote_url", "parents"),
)
FACTS: dict[str, tuple[str, ...]] = {  # of each kind of node; None is what is unknown
    "version": (
        *("model", "number", "aliases", "registered", "tag", "commit", "published", "in_mlflow", "model_md5"),
        *("model_sha256", "metrics", "moves"),
    ),
    "run": ("name", "known_to", *RECORDED, "results", "metrics", "mlflow_run"),
    "commit": ("author", "date", "subject", "parent", "params", "code_changed_since"),
    "dataset": (
        *("labels", "records", "subjects", "splits", "counts", "manifest_sha256", "manifest_md5", "files", "bytes"),
        "commit",
    ),
    "source": ("data", "split", "deps"),
    "consent": ("rule", "sha256", "excluded", "withdrawn_since"),
    "alias": ("who", "when", "why"),
    "subject": ("consent", "ended"),
}


@dataclass
class Node:
    """Something that was made, or that something was made from.

    Args:
        kind: version, run, commit, dataset, source, consent, alias or subject.
        id: Names it among those of its kind.
        title: For people.
        facts: What is known of it, in types of JSON: the keys of `FACTS`, with None for what is unknown. Of what was
            made from the target, most are.
    """

    kind: str
    id: str
    title: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name the facts that are unknown, too."""
        self.facts = dict.fromkeys(FACTS[self.kind]) | self.facts

    @property
    def key(self) -> str:
        """Return its name in the graph."""
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True)
class Edge:
    """One node came from another one.

    Args:
        result: The key of what was made.
        origin: The key of what it was made from.
        relation: How, as in `version 3 was made by run 4f1c`.
    """

    result: str
    origin: str
    relation: str


@dataclass
class Graph:
    """All that one node was made from, and all that was made from it.

    Args:
        query: What was asked for.
        target: The key of the node that this is about.
        notes: What could not be read, and what to do about it.
    """

    query: str
    target: str
    notes: list[str] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[Edge, None] = field(default_factory=dict)

    def origins(self, key: str) -> Iterator[tuple[str, Node]]:
        """Yield what a node was made from, each with how."""
        return ((edge.relation, self.nodes[edge.origin]) for edge in self.edges if edge.result == key)

    def results(self, key: str) -> Iterator[tuple[str, Node]]:
        """Yield what was made from a node, each with how."""
        return ((edge.relation, self.nodes[edge.result]) for edge in self.edges if edge.origin == key)

    def as_dict(self) -> dict[str, Any]:
        """Return it in types of JSON."""
        nodes = [
            {"key": node.key, "kind": node.kind, "id": node.id, "title": node.title, "facts": node.facts}
            for node in self.nodes.values()
        ]
        edges = [{"from": edge.result, "to": edge.origin, "relation": edge.relation} for edge in self.edges]
        return {
            "schema": SCHEMA,
            "query": self.query,
            "target": self.target,
            "nodes": nodes,
            "edges": edges,
            "notes": self.notes,
        }


class Builder:
    """Builds the graph of a target from the history of the project."""

    def __init__(self, history: History, graph: Graph) -> None:
        self._history, self._graph = history, graph
        self._full: set[str] = set()
        self._add_origins: dict[str, Callable[[Node], None]] = {
            "version": self._version,
            "run": self._run,
            "commit": self._commit,
            "dataset": self._dataset,
            "subject": lambda node: None,
        }

    def build(self, target: Target) -> None:
        """Add the target, all that it was made from, and all that was made from it."""
        self._expand(self._node(target.kind, target.id))
        if target.kind == "subject":
            self._subject(target.id)
        else:
            self._add_results(target.key, set())

    def _node(self, kind: str, name: str) -> Node:
        """Return a node; a new one says what it is, and no more."""
        if node := self._graph.nodes.get(f"{kind}:{name}"):
            return node
        node = Node(kind, name, f"{kind} {name[:12]}")
        if kind == "version":
            node.title = f"{self._history.model} version {name}"
            node.facts |= self._about_version(int(name))
        elif kind == "run":
            known = self._history.runs.get(name)
            stored = self._history.mlflow_runs.get(name)
            title = known.name if known else stored.name if stored else name
            node.title = f"run {name}" if title == name else f"run {name} ({title})"
            node.facts |= {"name": title, "known_to": "log" if known else "MLflow" if stored else "nobody"}
        elif kind == "dataset":
            node.facts |= self._about_dataset(name)
        self._graph.nodes[node.key] = node
        return node

    def _link(self, result: Node, origin: Node, relation: str) -> None:
        self._graph.edges[Edge(result.key, origin.key, relation)] = None

    def _expand(self, node: Node) -> None:
        """Add what a node was made from, once."""
        if node.key not in self._full:
            self._full.add(node.key)
            self._add_origins[node.kind](node)

    def _version(self, node: Node) -> None:
        for alias in node.facts["aliases"]:
            self._link(self._alias(alias), node, "is")
        version = self._history.versions.get(int(node.id))
        stored = self._history.mlflow_versions.get(int(node.id))
        made_by = dict(version.made_by) if version else {}
        if stored and not made_by:
            made_by = {stored.tags["run"]: ""} if "run" in stored.tags else {}
        if not made_by:
            self._graph.notes.append(f"{node.title}: the run that made it is not known in this clone; git fetch origin")
        for run in made_by:
            origin = self._node("run", run)
            self._link(node, origin, "was made by")
            self._expand(origin)

    def _about_version(self, number: int) -> dict[str, Any]:
        history = self._history
        version, stored = history.versions.get(number), history.mlflow_versions.get(number)
        pinned = history.pinned_at(version.commit) if version else None
        tags = stored.tags if stored else {}
        changes = [change for change in history.changes if number in (change.version, change.before)]
        return {
            "model": history.model,
            "number": number,
            "aliases": sorted(alias for alias, holder in history.holders.items() if holder == number),
            "registered": version.registered if version else tags.get("registered_at"),
            "tag": version.tag if version else None,
            "commit": version.commit if version else tags.get("result_commit"),
            "published": None if not version else not (self._unpublished & {version.commit}),
            "in_mlflow": bool(stored),
            "model_md5": pinned.quick_out(MODEL) if pinned else None,
            "model_sha256": tags.get("model_sha256"),
            "metrics": pinned.report("metrics") if pinned else {},
            "moves": [
                {key: getattr(change, key) for key in ("action", "alias", "before", "version", "who", "when", "why")}
                | {"objections": list(change.metrics.get("objections", ()))}
                for change in changes
            ],
        }

    @cached_property
    def _unpublished(self) -> set[str]:
        return {commit for commit, _ in lineage_log.unpublished()}

    def _alias(self, alias: str) -> Node:
        changes = [change for change in self._history.changes if change.alias == alias]
        # Who moved it, unless it was moved since, in MLflow alone.
        is_logged = changes and changes[-1].version == self._history.holders.get(alias)
        since = {key: getattr(changes[-1], key) for key in ("who", "when", "why")} if is_logged else {}
        node = Node("alias", alias, f"alias {alias}", since)
        return self._graph.nodes.setdefault(node.key, node)

    def _run(self, node: Node) -> None:
        history, results = self._history, self._history.results(node.id)
        if results:
            try:
                recorded = commits.facts(results, history.objects)
                node.facts |= {name: recorded.get(name) for name in RECORDED}
            except ProjectError as error:
                self._graph.notes.append(f"{node.title}: {error.problem}. Fix: {error.fix}")
            node.facts |= {"results": results.commit, "metrics": results.report("metrics")}
        if stored := history.mlflow_runs.get(node.id):
            node.facts["mlflow_run"] = stored.id
            node.facts["status"] = node.facts["status"] or stored.status
        commit = history.inputs.get(node.id)
        if commit:
            origin = self._node("commit", commit)
            self._link(node, origin, "read")
            self._expand(origin)
        elif md5 := history.dataset_of(node.id):
            origin = self._node("dataset", md5)
            self._link(node, origin, "read")
            self._expand(origin)
        if (parent := history.started_from(node.id)) is not None:
            origin = self._node("version", str(parent))
            self._link(node, origin, "started from")
            self._expand(origin)

    def _commit(self, node: Node) -> None:
        pinned = self._history.pinned_at(node.id)
        if not pinned:
            self._graph.notes.append(f"commit {node.id[:12]} is not in this clone. Fix: git fetch --tags origin")
            return
        author, date, subject = git("show", "-s", "--format=%an%n%cI%n%s", node.id).split("\n", 2)
        changed = git("diff", "--name-only", "--relative", node.id, "HEAD", "--", package_name(), "mlops")
        parent = try_git("rev-parse", "--verify", "--quiet", f"{node.id}^")
        node.facts |= {
            "author": author,
            "date": date,
            "subject": subject,
            "parent": parent,
            "params": json.loads(json.dumps(pinned.params, default=str)),
            "code_changed_since": changed.splitlines(),
        }
        if md5 := pinned.quick_out(DATASET):
            origin = self._node("dataset", md5)
            self._link(node, origin, "pins")
            self._expand(origin)
        run = pinned.report("run").get("run")
        if (
            node.key == self._graph.target
            and run in self._history.runs
            and node.id not in self._history.inputs.values()
        ):
            origin = self._node("run", run)
            self._link(node, origin, "holds the results of")
            self._expand(origin)

    def _pins(self, md5: str) -> Pinned | None:
        """Return what a commit pins that has a dataset, one with the manifest of it where there is one."""
        pinned = [each for each in self._history.pinned.values() if each.quick_out(DATASET) == md5]
        with_manifest = [each for each in pinned if each.report("manifest")]
        return next(iter(with_manifest or pinned), None)

    def _about_dataset(self, md5: str) -> dict[str, Any]:
        pinned = self._pins(md5)
        if not pinned:
            return {"labels": []}
        report = pinned.report("manifest")
        tags = git("for-each-ref", "--format=%(refname:strip=3) %(contents:subject)", "refs/tags/data/").splitlines()
        labels = [label for label, _, subject in (line.partition(" ") for line in tags) if subject == md5]
        splits: dict[str, int] = {}
        for count in report.get("counts", ()):
            splits[count["split"]] = splits.get(count["split"], 0) + count["records"]
        outs = [out for stage in pinned.lock.values() for out in stage.get("outs", ()) if out["path"] == DATASET]
        return {
            "labels": sorted(labels, key=lambda label: (label == md5[: len(label)], label)),
            "records": report.get("records"),
            "subjects": report.get("subjects"),
            "splits": splits,
            "counts": report.get("counts", []),
            "manifest_sha256": next(iter(report.get("sha256", ())), None),
            "manifest_md5": pinned.out(MANIFEST.as_posix()),
            "files": outs[0].get("nfiles") if outs else None,
            "bytes": outs[0].get("size") if outs else None,
            "commit": pinned.commit,
        }

    def _dataset(self, node: Node) -> None:
        if not (pinned := self._pins(node.id)):
            self._graph.notes.append(f"{node.title}: no commit of this clone pins it. Fix: git fetch --tags origin")
            return
        code = ("mlops", package_name(), "environment.json", "data/consent.csv")
        stages = [
            stage for stage in pinned.lock.values() if any(out["path"] == DATASET for out in stage.get("outs", ()))
        ]
        deps = [dep for stage in stages for dep in stage.get("deps", ()) if not dep["path"].startswith(code)]
        data = pinned.params.get("data") or {}
        # The settings and inputs of a source are those of this dataset: another one may have been made with others.
        name = str(data.get("source", "unknown"))
        source = Node("source", f"{name}@{node.id}", f"source {name}")
        source.facts |= {"data": json.loads(json.dumps(data, default=str)), "split": pinned.params.get("split")}
        source.facts["deps"] = [{"path": dep["path"], "hash": dep.get("md5") or dep.get("etag")} for dep in deps]
        self._graph.nodes.setdefault(source.key, source)
        self._link(node, source, "was made from")
        prepared = pinned.report("prepare")
        sha256 = str(next(iter(prepared.get("consent_sha256", ())), "unknown"))
        consent = Node("consent", f"{sha256}@{node.id}", f"consent, registry {sha256[:12]}")
        consent.facts |= {"rule": data.get("consent"), "sha256": sha256, "excluded": prepared.get("excluded")}
        consent.facts["withdrawn_since"] = self._withdrawn(pinned, data.get("consent"))
        self._graph.nodes.setdefault(consent.key, consent)
        self._link(node, consent, "is allowed by")

    def _withdrawn(self, pinned: Pinned, rule: str | None) -> int | None:
        """Return how many subjects of a dataset have no consent today; None where that is not asked, or unknown."""
        if rule != "required":
            return None
        from .subjects import withdrawn

        try:
            sha256 = next(iter(pinned.report("manifest").get("sha256", ())), "")
            return withdrawn(sha256, pinned.out(MANIFEST.as_posix()), self._history.objects)
        except ProjectError as error:
            self._graph.notes.append(f"who withdrew since is unknown: {error.problem}. Fix: {error.fix}")
            return None

    def _add_results(self, key: str, seen: set[str]) -> None:
        """Add what was made from a node, and what was made from that."""
        if key in seen:
            return
        seen.add(key)
        history, node = self._history, self._graph.nodes[key]
        results: list[tuple[Node, str]] = []
        if node.kind == "dataset":
            runs = dict.fromkeys([*history.inputs, *history.mlflow_runs])
            results = [(self._node("run", run), "read") for run in runs if history.dataset_of(run) == node.id]
        elif node.kind == "commit":
            results = [(self._node("run", run), "read") for run, read in history.inputs.items() if read == node.id]
            of_results = [number for number, version in history.versions.items() if version.commit == node.id]
            results += [(self._node("version", str(number)), "is registered at") for number in of_results]
            results += [
                (self._node("run", run), "read a snapshot of")
                for run, read in history.inputs.items()
                if history.snapshots.get(read) == node.id
            ]
        elif node.kind == "run":
            made = [number for number, version in history.versions.items() if node.id in version.made_by]
            results = [(self._node("version", str(number)), "was made by") for number in made]
        elif node.kind == "version":
            results = [(self._alias(alias), "is") for alias in node.facts["aliases"]]
            started = [run for run in history.inputs if history.started_from(run) == int(node.id)]
            results += [(self._node("run", run), "started from") for run in started]
        for result, relation in results:
            self._link(result, node, relation)
            self._add_results(result.key, seen)

    def _subject(self, subject: str) -> None:
        from .subjects import known_to

        node = self._node("subject", subject)
        node.title = f"subject {subject}"
        runs = known_to(subject, node.facts, self._graph.notes)
        for name, exposure in runs.items():
            matches = [known for known, stored in self._history.mlflow_runs.items() if name in (known, stored.id)]
            run = self._node("run", matches[0] if matches else name)
            md5 = self._history.dataset_of(run.id)
            if md5 and exposure == "direct":
                dataset = self._node("dataset", md5)
                self._link(dataset, node, "has records of")
                self._link(run, dataset, "read")
            else:
                self._link(run, node, f"knows ({exposure})")
            self._add_results(run.key, set())
