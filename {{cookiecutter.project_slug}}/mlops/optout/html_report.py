"""The report of an opt-out as one page to read, print and file: no script, nothing from elsewhere."""

from collections.abc import Iterable
from html import escape
from typing import Any

from ..audit.policy import Verdict, worst

STYLE = """
body { font: 11pt/1.45 Georgia, serif; color: #1a1a1a; max-width: 46em; margin: 2.5em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin: 0 } h2 { font-size: 1.1em; margin: 1.8em 0 .4em; border-bottom: 1px solid #bbb }
table { border-collapse: collapse; width: 100%; font-size: .92em } caption { text-align: left; font-style: italic }
th, td { text-align: left; vertical-align: top; padding: .25em .9em .25em 0; border-bottom: 1px solid #e2e2e2 }
code, .id { font: .88em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
.end { border: 2px solid; padding: .6em 1em; margin: 1.2em 0 } .end b { font-size: 1.15em }
.PASS { color: #14602b } .FAIL { color: #a01010 } .INCONCLUSIVE { color: #7a5200 } .end span { color: #1a1a1a }
li { margin: .35em 0 } p.small { color: #555; font-size: .9em }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid } tr, li { break-inside: avoid } }
"""
MEANING = {
    "verify": "Was every model that knows them trained while they consented?",
    "deployed": "Is nothing in use that knows anybody of these subjects?",
}
ENDS = {
    "PASS": "Nothing that is in use knows these subjects, and nothing was trained on them after they withdrew.",
    "FAIL": "The withdrawal is recorded, and holds. It is not yet carried out.",
    "INCONCLUSIVE": "The withdrawal is recorded, and holds. Nobody can tell yet whether it is carried out.",
}

Cells = Iterable[Any]


def html(told: dict[str, Any]) -> str:
    """Return the page of what `Report` holds."""
    verdicts = [answer["verdict"] for answer in told["answers"].values()]
    end = worst(map(Verdict, [*verdicts, *(["FAIL"] if told["stopped"] or not verdicts else [])]))
    stopped = [f"<p>{_text(told['stopped'][key])}</p>" for key in ("problem", "fix") if told["stopped"]]
    parts = [
        f"<h1>Opt-out {_text(told['id'])}</h1>",
        f'<div class="end {end}"><b>{end}</b> <span>{ENDS[end]}</span>{"".join(stopped)}</div>',
        _table(
            "Who withdrew",
            ("subject", "consent ended (UTC)", "line of data/consent.csv"),
            ((one["subject"], one["ended_at"] or "no line tells", one["line"]) for one in told["subjects"]),
        ),
        f'<p class="small">Carried out by {_text(told["by"] or "nobody yet")}.</p>',
        _table(
            "What was done",
            ("step", "first done (UTC)", "with this result"),
            ((step, did["at"], "; ".join(did["told"])) for step, did in told["done"].items()),
        ),
        _table("The version without them", ("", ""), _version(told["version"])),
        _table(
            "What the audit answers",
            ("question", "answer", "asked (UTC)"),
            (
                (f"{MEANING[name]} (audit {name})", answer["verdict"], answer["asked_at"])
                for name, answer in told["answers"].items()
            ),
        ),
        *_plan(told["plan"]),
        _section("What this does not do", _limits(told)),
        _section("To erase what is left", _erasure(told)),
    ]
    head = f"<title>Opt-out {_text(told['id'])}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8">{head}\n{_joined(parts)}</html>\n'


def _version(version: dict[str, Any]) -> list[tuple[str, Any]]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in version.get("metrics", {}).items())
    plain = {name: value for name, value in version.items() if name not in ("metrics", "moves") and value != ""}
    rows = [(name.replace("_", " "), value) for name, value in plain.items()]
    return [*rows, ("metrics", metrics), ("in use", "; ".join(version["moves"]) or "no")] if version else []


def _plan(plan: dict[str, Any]) -> list[str]:
    if not plan:
        return []
    aliases = {f"{alias}: version {number}" for alias, number in plan["aliases"].items()}
    return [
        _table(
            "Datasets that hold their records",
            ("dataset", "label", "records", "files"),
            (
                (one["md5"], one["data_version"], sum(one["shards"].values()), ", ".join(one["shards"]))
                for one in plan["datasets"]
            ),
        ),
        _table(
            "Trainings that know them",
            ("run", "name", "how", "deleted in MLflow"),
            ((run["run"], run["title"], run["exposure"], "yes" if run["deleted"] else "") for run in plan["runs"]),
        ),
        _table("Registered versions that know them", ("version",), ([one] for one in plan["versions"])),
        _table("What of these was in use before", ("alias",), ([one] for one in sorted(aliases))),
        _table("Of which nobody can tell", ("what, and why",), ([one] for one in plan["unknown"])),
    ]


def _limits(told: dict[str, Any]) -> list[str]:
    versions = ", ".join(told["plan"].get("versions", [])) or "those that know them"
    return [
        f"It does not take anything out of weights that exist. {_text(versions)}: trained with the records, as before.",
        "It deletes nothing. Earlier datasets, models and manifests are still in MLflow, in Git's history and in the "
        "DVC remote, so that what was in use before can be explained; whoever may read those may read the records.",
        "Copies are not found: exports, other clones and their caches, backups, predictions that were stored.",
        "The registry keeps the subject's id, to keep them out. This report names them: it is not in Git.",
    ]


def _erasure(told: dict[str, Any]) -> list[str]:
    plan = told["plan"]
    objects = [name for one in plan.get("datasets", []) for name in one["objects"]]
    listed = f"<br>{'<br>'.join(f'<code>{_text(one)}</code>' for one in objects)}" if objects else ""
    unlisted = [one["data_version"] or one["manifest_sha256"] for one in plan.get("datasets", []) if not one["objects"]]
    if unlisted:
        listed += f"<br>{_text(', '.join(unlisted))}: this clone does not know the files; dvc pull that version first."
    nothing = "none" if plan and not plan["unknown"] else "none that could be found"
    versions = "; ".join(f"<code>{_text(one)}</code>" for one in plan.get("versions", [])) or nothing
    runs = ", ".join(f"<code>{_text(run['run'])}</code>" for run in plan.get("runs", [])) or nothing
    return [
        "Images of your own: take their rows and files out of <code>data/raw</code>, then "
        "<code>dvc add data/raw</code>.",
        f"Versions in MLflow: {versions}: <code>MlflowClient().delete_model_version(name, number)</code>. Then their "
        f"runs, {runs}: <code>MlflowClient().delete_run(run)</code>, and <code>mlflow gc</code> for the files.",
        f"In the DVC remote, the files that hold the records, and nothing else of the datasets:{listed} Each holds "
        "other subjects too, and these dataset versions can't be restored after that. Pictures of records are also in "
        "<code>reports/samples</code> of those versions.",
        "<code>dvc gc -w -c</code> deletes from this clone's cache and the remote all that the work tree does not "
        "name, of every version, not only these. <code>dvc gc -A -c</code> deletes none of it: the branch lineage and "
        "the tags name it. Other clones have caches of their own.",
        "A bucket with object versions keeps what is deleted until they expire; one with Object Lock until the lock "
        "ends.",
        "Git has hashes and no records; ids are in its history only if the registry was committed to it.",
    ]


def _table(caption: str, columns: Cells, rows: Iterable[Cells]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{_text(column)}</th>" for column in columns if column)
    return f"<h2>{_text(caption)}</h2><table>{f'<tr>{head}</tr>' if head else ''}{body}</table>" if body else ""


def _section(title: str, points: list[str]) -> str:
    return f"<h2>{title}</h2><ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>"


def _text(value: Any) -> str:
    return escape(str(value))


def _joined(parts: list[str]) -> str:
    return "\n".join(part for part in parts if part) + "\n"
