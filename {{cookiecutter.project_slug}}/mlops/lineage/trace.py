"""What something was made from, and what was made from it, as a tree.

python -m mlops trace champion
"""

from typing import Any

import click

from .graph import Builder, Graph, Node
from .history import History
from .names import find

MOST = 12  # results of a node that the tree shows


def trace(name: str) -> Graph:
    """Return what something was made from, and what was made from it.

    Args:
        name: As `names.find` takes it.

    Raises:
        ProjectError: Nothing has the name, or several things have it; or Git's history is cut off.
    """
    history = History()
    target = find(name, history)
    graph = Graph(name, target.key, history.notes)
    Builder(history, graph).build(target)
    return graph


def text(graph: Graph) -> str:
    """Return a graph as a tree for a terminal."""
    target = graph.nodes[graph.target]
    lines = [click.style(target.title, bold=True), *(f"  {line}" for line in describe(target))]
    lines += _tree(graph, target, set(), "")
    results = _results(graph, target, {target.key}, "")
    if results:
        lines += ["", click.style("What was made from it:", bold=True), *results]
    elif target.kind != "subject":
        lines += ["", "Nothing else was made from it."]
    return "\n".join([*lines, *([""] if graph.notes else []), *graph.notes])


def _tree(graph: Graph, node: Node, seen: set[str], indent: str) -> list[str]:
    """Return lines of what a node was made from; what is in `seen` is only named."""
    origins, lines = list(graph.origins(node.key)), []
    if node.key in seen:
        return []
    seen.add(node.key)
    for number, (relation, origin) in enumerate(origins):
        is_last = number == len(origins) - 1
        lines.append(f"{indent}{'└─' if is_last else '├─'} {relation} {click.style(origin.title, bold=True)}")
        below = indent + ("   " if is_last else "│  ")
        if origin.key in seen:
            lines[-1] += " (above)"
            continue
        lines += [f"{below}  {line}" for line in describe(origin)]
        lines += _tree(graph, origin, seen, below)
    return lines


def _results(graph: Graph, node: Node, seen: set[str], indent: str) -> list[str]:
    results = [(relation, result) for relation, result in graph.results(node.key) if result.key not in seen]
    lines: list[str] = []
    for number, (relation, result) in enumerate(results):
        if number == MOST:
            lines.append(f"{indent}… and {len(results) - MOST} more: --json")
            break
        seen.add(result.key)
        facts = result.facts
        more = f": {facts['why']}" if result.kind == "alias" and facts.get("why") else ""
        how = (
            f"is {result.title}" if result.kind == "alias" else f"{click.style(result.title, bold=True)} {relation} it"
        )
        lines.append(f"{indent}- {how}{more}")
        lines += _results(graph, result, seen, f"{indent}  ")
    return lines


def describe(node: Node) -> list[str]:
    """Return lines that say what is known of a node, for people."""
    facts = node.facts
    return list(filter(None, DESCRIBE[node.kind](facts) if node.kind in DESCRIBE else ()))


def _minute(time: Any) -> str:
    return str(time)[:16].replace("T", " ")


def _version(facts: dict[str, Any]) -> list[str]:
    tag = f"tag {facts['tag']}" if facts["tag"] else "known to MLflow alone: this clone has no tag of it"
    commit, registered = str(_known(facts["commit"]))[:12], _minute(_known(facts["registered"]))
    lines = [f"{tag}, commit {commit}, registered {registered} UTC"]
    if facts["aliases"]:
        alias = facts["aliases"][0]
        moves = [m for m in facts["moves"] if m["alias"] == alias]
        moves = moves if moves and moves[-1]["version"] == facts["number"] else []
        since = f" since {_minute(moves[-1]['when'])} UTC, by {moves[-1]['who'].partition(' <')[0]}" if moves else ""
        why = f": {moves[-1]['why']}" if moves and moves[-1]["why"] else ""
        lines.append(f"{', '.join(facts['aliases'])}{since}{why}")
    else:
        lines.append("not in use")
    lines.append(_metrics(facts["metrics"]))
    return lines


def _metrics(metrics: dict[str, Any]) -> str:
    shown = [f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)]
    return ", ".join(shown[:5])


def _run(facts: dict[str, Any]) -> list[str]:
    if not facts["started_at"]:
        missing = "its record is not here" if facts["results"] else "its results are in no commit"
        return [f"{facts['status'] or ''} {missing}".strip()]
    times = f"{facts['status'] or ''} {_minute(facts['started_at'])} to {_minute(facts['ended_at'] or '…')} UTC"
    machine = [facts["instance_type"], facts["device"], facts["device_name"], facts["capability"]]
    lines = [f"{times}, by {_known(facts['user'])}", ", ".join(filter(None, machine))]
    counts = f"{facts['processes'] or 1} process(es) of {facts['threads'] or '?'} thread(s)"
    lines.append(f"{counts}, numeric fingerprint {facts['numeric_fingerprint'] or 'unknown'}")
    if differences := facts["environment_differences"]:
        lines.append(f"packages other than pinned: {', '.join(differences)}")
    return lines


def _commit(facts: dict[str, Any]) -> list[str]:
    if not facts["date"]:
        return []
    train = (facts["params"] or {}).get("train") or {}
    shown = [
        f"{name} {value}" for name, value in train.items() if name in ("arch", "epochs", "max_lr", "batch_size", "seed")
    ]
    changed = len(facts["code_changed_since"])
    code = f"its code is that of today, but for {changed} file(s)" if changed else "its code is that of today"
    return [f"{_minute(facts['date'])}: {facts['subject']}", code, ", ".join(shown)]


def _dataset(facts: dict[str, Any]) -> list[str]:
    splits = ", ".join(f"{name} {count}" for name, count in (facts["splits"] or {}).items())
    labels = f"label {', '.join(facts['labels'])}; " if facts["labels"] else ""
    records = f"{_known(facts['records'])} records of {_known(facts['subjects'])} subjects"
    sha256 = str(_known(facts["manifest_sha256"]))[:12]
    return [f"{labels}{records}{f' ({splits})' if splits else ''}; manifest {sha256}"]


def _known(value: Any) -> Any:
    return "unknown" if value is None else value


def _source(facts: dict[str, Any]) -> list[str]:
    return [f"{dep['path']} {str(dep['hash'])[:12]}" for dep in facts["deps"]]


def _consent(facts: dict[str, Any]) -> list[str]:
    if facts["rule"] != "required":
        return [f"consent: {facts['rule']}"]
    since = facts["withdrawn_since"]
    state = "unknown how many withdrew" if since is None else f"{since} of its subjects have withdrawn"
    return [f"required; {facts['excluded']} records were left out; since then, {state}"]


def _subject(facts: dict[str, Any]) -> list[str]:
    ended = f" since {_minute(facts['ended'])} UTC" if facts["ended"] else ""
    return [f"consent: {facts['consent']}{ended}" if facts["consent"] else "no registry of consent"]


DESCRIBE = {
    **{"version": _version, "run": _run, "commit": _commit, "dataset": _dataset},
    **{"source": _source, "consent": _consent, "subject": _subject},
}
