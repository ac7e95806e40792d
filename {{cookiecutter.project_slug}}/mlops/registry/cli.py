"""The verbs `registry` (registered versions) and `mirror` (the copy in MLflow)."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from .. import output
from ..errors import ProjectError
from ..output import as_json, print_json

if TYPE_CHECKING:
    from ..tracking.mlflow_reader import StoredVersion
    from .aliases import Registry
    from .repair import Status

why = click.option("--why", default="", help="A reason, for the record.")


@click.group(invoke_without_command=True, no_args_is_help=True)
@click.option("--at", metavar="TIME", help="Show what was in use then. 2026-01-31, 2026-01-31T09:00+01:00; else UTC.")
@click.option("--alias", type=click.Choice(["champion", "challenger"]), help="With --at.  [default: champion]")
@as_json
@click.pass_context
def registry(context: click.Context, at: str | None, alias: str | None, as_json: bool) -> None:
    """Registered versions: see them, put one in use, take it back.

    With --at: which version was in use then, on whose data and under which consent. Exit code 3: a part is unknown.
    """
    if context.invoked_subcommand:
        if at or alias or as_json:
            raise click.UsageError(f"options go behind the verb: registry {context.invoked_subcommand} …", context)
        return
    if not at:
        raise click.UsageError("Missing command, or --at.", context)
    from . import history

    usage = history.in_use(at, alias or "champion")
    if as_json:
        print_json(usage)
    else:
        click.echo(output.table([*history.lines(usage), *(("unknown", reason) for reason in usage["unknown"])]))
    click.echo("".join(f"{line}\n" for line in history.doubts(usage["alias"])), nl=False, err=True)
    sys.exit(3 if usage["unknown"] else 0)


@registry.command("list")
@as_json
def list_versions(as_json: bool) -> None:
    """List the registered versions, the newest first."""
    from . import aliases

    known = aliases.read()
    rows = version_rows(known)
    if as_json:
        print_json(rows)
    else:
        click.echo(table(rows) if rows else f"MLflow has no version of {known.name}")
    click.echo("".join(f"{line}\n" for line in doubts(known)), nl=False, err=True)


@registry.command()
@click.argument("version", metavar="VERSION|ALIAS")
@as_json
def show(version: str, as_json: bool) -> None:
    """Show what is known of one version. What made it, how good it is, who put it in use, when and why."""
    from ruamel.yaml import YAML

    from . import aliases

    known = aliases.read()
    details = version_details(known, known.find(version))
    if as_json:
        print_json(details)
    else:
        yaml = YAML()
        yaml.width = output.WIDTH
        yaml.dump(details, sys.stdout)
    click.echo("".join(f"{line}\n" for line in doubts(known)), nl=False, err=True)


@registry.command("log")
@as_json
def show_log(as_json: bool) -> None:
    """Show who put which version in use. And what was refused; when and why, the newest last."""
    from .aliases import MOVE, REFUSAL, alias_changes

    entries = [dataclasses.asdict(change) for change in alias_changes(kinds=(MOVE, REFUSAL))]
    if as_json:
        print_json(entries)
        return
    rows = [
        (
            f"{entry['when'][:10]} {entry['when'][11:16]}",
            f"{entry['action']} {entry['alias']} to {entry['version']}",
            entry["who"].partition(" <")[0],
            "; ".join(filter(None, (" ".join(entry["why"].split()), *entry["metrics"].get("objections", ())))),
        )
        for entry in entries
    ]
    click.echo(output.table(rows, ("UTC", "what", "who", "why")) if rows else "No version was put in use yet")


@registry.command()
@click.argument("version", metavar="VERSION|ALIAS")
@click.option("--to", type=click.Choice(["champion", "challenger"]), default="champion", show_default=True)
@click.option("--by", default="test_acc", show_default=True, help="Compare by this metric of the test set.")
@why
@click.option("--anyway", is_flag=True, help="Also when it is refused, or can't be compared; needs --why.")
def promote(version: str, to: str, by: str, why: str, anyway: bool) -> None:
    """Put a version in use, unless it is worse. Both are measured on the same records: params.yaml:promote."""
    from . import promotion

    click.echo(promotion.promote(version, to, by, why, anyway))


@registry.command()
@why
def rollback(why: str) -> None:
    """Make the previous champion champion again."""
    from . import promotion

    click.echo(promotion.rollback(why))


@click.group()
def mirror() -> None:
    """Keep MLflow in step with DVC's files."""


@mirror.command()
def sync() -> None:
    """Send to MLflow the runs that it lacks. They are in the outbox, and in reports/train."""
    from ..tracking.sync_status import STATUS
    from ..tracking.uploader import upload_all

    for run_id in upload_all():
        click.echo(f"MLflow has run {run_id}")
    click.echo(f"There is nothing more to send from here; what else MLflow lacks: {STATUS}")


@mirror.command()
@as_json
def status(as_json: bool) -> None:
    """List what MLflow lacks of what this clone knows. Exit code 1 when there is something."""
    from . import repair

    _print_status(repair.status(), as_json)


@mirror.command("repair")
@click.option("--dry-run", is_flag=True, help="Only list what is lacking, and what would mend it.")
@as_json
def mirror_repair(dry_run: bool, as_json: bool) -> None:
    """Rebuild a wiped or a second MLflow from Git and DVC. Exit code 1 when something can't be rebuilt."""
    from . import repair

    _print_status(repair.status() if dry_run else repair.repair(), as_json)


@mirror.command("give-up")
@click.argument("runs", metavar="RUN…", nargs=-1, required=True)
@click.option("--why", required=True, help="A reason, for the record.")
def give_up(runs: tuple[str, ...], why: str) -> None:
    """Give up runs whose files are lost. The log records it; should the files turn up, repair sends them."""
    from ..tracking.sync_status import STATUS
    from . import repair

    repair.give_up(runs, why)
    click.echo(f"given up: {', '.join(runs)}; to see it: {STATUS}")


@mirror.command(hidden=True)
@click.argument("run")
def follow(run: str) -> None:
    """Copy a run while it trains; `train` starts this, and the end of standard input ends it."""
    from ..tracking import uploader

    sys.exit(uploader.follow(run))


def _print_status(status: "Status", as_json: bool) -> None:
    from ..tracking.publishing import describe_unpublished

    if text := describe_unpublished():
        click.echo(text, err=True)
    missing = [*status.runs.values(), *status.registry.values()]
    runs, versions, count = len(status.known), len(status.versions), sum(item.counts for item in missing)
    if as_json:
        lacking = [dataclasses.asdict(item) for item in missing]
        content = {"runs": runs, "versions": versions, "complete": not count, "lacking": lacking}
        print_json(content)
    else:
        for item in missing:
            click.echo(f"{item.what}: MLflow lacks {item.lacks}; {item.remedy}")
        head = f"{count} lack(s); this clone knows" if count else "MLflow has all that this clone knows:"
        click.echo(f"{head} {runs} run(s) and {versions} registered version(s)")
    sys.exit(int(count > 0))


def version_rows(registry: "Registry") -> list[dict[str, Any]]:
    """Return what `registry list` says of each version, the newest first."""
    from ..tracking import mlflow_client, mlflow_reader
    from .versions import TAG_MODEL_VERSION, metrics_at, registered_at

    with mlflow_client.translate_errors(mlflow_client.RETRY):
        reader = mlflow_reader.connect()
        experiments = [experiment.id for experiment in reader.experiments() if experiment.name == registry.name]
        runs = reader.runs(experiments, f"tags.{TAG_MODEL_VERSION} LIKE '{registry.name}/%'")
    facts = {run.id: run.facts for run in runs}
    return [
        {
            "version": number,
            "aliases": sorted(alias for alias, target in registry.aliases.items() if target == number),
            "run": version.tags.get("run", ""),
            "experiment": facts.get(version.run_id or "", {}).get("dvc_exp_name", ""),
            "data_version": facts.get(version.run_id or "", {}).get("data_version", ""),
            "metrics": metrics_at(version.tags.get("result_commit", "")),
            "commit": version.tags.get("result_commit", ""),
            "registered": registered_at(version),
        }
        for number, version in reversed(registry.versions.items())
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out for people: a column for each metric, as many as fit, and none for what no version has."""
    known = [name for name in ("version", "aliases", "run", "experiment", "data_version") if any(r[name] for r in rows)]
    metrics, left_out = list(dict.fromkeys(name for row in rows for name in row["metrics"])), list[str]()
    while True:
        columns = [*known, *metrics, "registered"]
        lines = [["data" if name == "data_version" else name for name in columns]]
        for row in rows:
            row = {**row, **row["metrics"], "aliases": " ".join(row["aliases"]), "registered": row["registered"][:10]}
            lines.append(["-" if row.get(name) in (None, "") else str(row[name]) for name in columns])
        widths = [output.longest_word(column) for column in zip(*lines, strict=True)]
        if not (output.is_too_wide(widths) and metrics[1:]):
            more = f"\nMore metrics ({', '.join(left_out)}): registry show VERSION" if left_out else ""
            return output.table(lines) + more
        left_out.insert(0, metrics.pop())


def version_details(registry: "Registry", version: "StoredVersion") -> dict[str, Any]:
    """Return all that is known of one version: its row, its tags in MLflow, its changes and refusals in the log."""
    from ..tracking.lineage_log import unpublished
    from .aliases import MOVE, REFUSAL, alias_changes

    number = int(version.version)
    row = next(row for row in version_rows(registry) if row["version"] == number)
    copies = tuple(f"{kind}." for kind in (MOVE, REFUSAL))
    tags = {key: value for key, value in sorted(version.tags.items()) if not key.startswith(copies)}
    changes = [dataclasses.asdict(change) for change in registry.log if number in (change.version, change.before)]
    refusals = [dataclasses.asdict(each) for each in alias_changes(kinds=(REFUSAL,)) if each.version == number]
    # The commits of its runs and results: an entry of a promotion names them too, and may come later.
    entries = {commit for commit, subject in unpublished() if subject.startswith(("train ", "register "))}
    only_here = sorted(entries & {row["commit"], *version.tags.values()})
    return {**row, "unpublished": only_here, "tags": tags, "moves": changes, "refusals": refusals}


def doubts(registry: "Registry") -> list[str]:
    """Return why what MLflow has may not be all: versions that it lost, aliases that disagree with the log."""
    from .versions import tagged_versions

    lost = [str(number) for number in tagged_versions() if number not in registry.versions]
    lines = [f"MLflow lacks version {', '.join(lost)}: python -m mlops mirror status"] if lost else []
    try:
        registry.check_agrees()
    except ProjectError as error:
        lines.append(f"{error.problem}\nFix: {error.fix}")
    return lines


groups = (mirror, registry)
