"""Update a project to this version of the template: `mlops/`, `requirements.lock` and `environment.json`.

In a project, `python -m mlops update` clones the template and runs this. A project of a version that has no such
command is updated from a clone of the template, with the project's Python:

    /path/to/project/.venv/bin/python -m update /path/to/project

The three change together in one commit, or not at all. What else the template changed is the owner's to take over:
its files are listed.
"""

import json
import sys
from pathlib import Path

import click

from hooks.post_gen_project import ONLY_FOR, RECORD, record, unchosen

from . import checks, packages
from .errors import UpdateError
from .project import CRUFT, Origin, Project, Scratch, is_below, named
from .template import LOCK, PINS, PYPROJECT, Template, open_template

Changes = dict[str, bytes | None]
"""What an update writes: the content of each file that changes, None for a file that goes."""


@click.command()
@click.argument("root", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True))
@click.option("--template", "address", default="", help="The template's address, to be remembered.")
@click.option(
    "--from", "commit", default="", help="The template's commit that the project has, where none is recorded."
)
@click.option("--anyway", is_flag=True, help="Write it although the checks fail: your package is to be changed then.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def main(root: Path, address: str, commit: str, anyway: bool, yes: bool) -> None:
    """Update the project in ROOT to this version of the template."""
    template = open_template(Path(__file__).resolve().parents[1], address)
    project = Project(root)
    origin = project.origin(template, commit)
    new = named(template.version, template.commit)
    if origin.commit == template.commit and RECORD in project.files:
        click.echo(f"Up to date: the project has version {origin} of the template.")
        return
    if origin.commit and template.is_later(origin.commit):
        problem = f"the project has version {origin} already, which is later than {new}"
        raise UpdateError(problem, "revert the commit of the update, or give a later version: --to")
    project.check_clean()
    project.check_idle()
    changes = plan(project, template, origin)
    with project.scratch() as scratch:
        before = checks.look_at(scratch.root, Path(sys.executable))
        scratch.write(changes)
        after = try_out(project, scratch, changes)
        print_changes(project, template, origin, changes)
        print_stages(project, changes, before, after)
        print_files(project, template, origin)
        problems = [*after.problems, *lost_deps(before, after)]
        if problems and not anyway:
            fix = "CHANGELOG.md says what to change in your package. To change it after the update: --anyway"
            raise UpdateError("this version does not work in your project:\n  " + "\n  ".join(problems), fix)
        if not yes and not click.confirm("\nWrite it, as one commit?"):
            click.echo("Nothing was changed.")
            return
        made = scratch.commit(changes, f"Update the template to {new}\n\nFrom {origin} of {template.address}")
    project.take(made)
    click.echo(f"Updated to {new}: commit {made[:10]}.")


def plan(project: Project, template: Template, origin: Origin) -> Changes:
    """Return what the update writes; raise UpdateError if it would undo what the owner changed."""
    theirs = template.machinery("HEAD")
    answers = {prompt: origin.answers.get(prompt, template.prompts[prompt][0]) for prompt, _, _ in ONLY_FOR}
    other_answers = unchosen(answers)
    files = {
        path: content
        for path, content in theirs.items()
        if path.startswith("mlops/") and not is_below(path, other_answers)
    }
    project.check_unedited(origin, template, files)
    is_known = origin.commit is not None and template.knows(origin.commit)
    merged = packages.merge(template.machinery(str(origin.commit)) if is_known else None, project.files, theirs)
    if CRUFT in project.files:  # its base for these files is no longer what the project has: two updaters, two parts
        merged[PYPROJECT] = packages.skip_in_cruft(merged[PYPROJECT], ("mlops", LOCK, PINS, RECORD))
    deleted = project.deleted_folders(origin)
    content: Changes = {path: files.get(path) for path in origin.files}
    content |= {path: text for path, text in files.items() if not is_below(path, deleted)} | merged
    content[RECORD] = record(template.address, answers, template.version, template.commit, files)
    return {
        path: text for path, text in content.items() if project.files.get(path) != text and not is_below(path, deleted)
    }


def try_out(project: Project, scratch: Scratch, changes: Changes) -> checks.Report:
    """Return how the updated copy of the project does, with the packages of its lock."""
    lock = changes.get(LOCK) or project.files[LOCK]
    pins = packages.pinned_versions(lock)
    python = checks.environment(lock, pins, LOCK in changes, scratch.tree.with_name("environment"))
    click.echo("Trying it in a copy of the project: imports, your package, dvc status")
    return checks.look_at(scratch.root, python, pins if LOCK in changes else {})


def lost_deps(before: checks.Report, after: checks.Report) -> list[str]:
    """Return the deps in `dvc.yaml` that the new version no longer has, in lines."""
    return [
        f"dvc.yaml:stages.{stage}.deps names {path}, which the new version does not have"
        for stage, reasons in after.reasons.items()
        for path, state in reasons.items()
        if state == "deleted" and before.reasons.get(stage, {}).get(path) != "deleted"
    ]


def print_changes(project: Project, template: Template, origin: Origin, changes: Changes) -> None:
    """Print what the update changes."""

    def changed(path: str) -> bytes:
        return changes.get(path) or project.files[path]

    code = [path for path in changes if path.startswith("mlops/")]
    old, new = packages.pinned_versions(project.files[LOCK]), packages.pinned_versions(changed(LOCK))
    pins = [
        f"{name} {old.get(name, 'new')} -> {new.get(name, 'gone')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    numeric = [pin for pin in pins if pin.split()[0] in json.loads(changed(PINS))]
    lines = changed(PYPROJECT).decode().splitlines()
    listed = [line.strip(" ,") for line in lines if line not in project.files[PYPROJECT].decode().splitlines()]
    click.echo(f"\nVersion {named(template.version, template.commit)} of the template; the project has {origin}.")
    summary = {"mlops/": [f"{len(code)} file(s)"] if code else [], LOCK: pins, PINS: numeric, PYPROJECT: listed}
    for name, items in summary.items():
        click.echo(f"  {name:18} {_some(items) or 'no change'}")


def print_stages(project: Project, changes: Changes, before: checks.Report, after: checks.Report) -> None:
    """Print which stages will run again, and why."""
    new = {
        stage: sorted(path for path, state in reasons.items() if before.reasons.get(stage, {}).get(path) != state)
        for stage, reasons in after.reasons.items()
    }
    again = [stage for stage in after.upstream if new.get(stage)]
    click.echo("\nThese stages will run again:" if again else "\nNo stage will run again because of it.")
    for stage in again:
        causes = []
        for dep in new[stage]:
            below = [Path(path).name for path in changes if is_below(path, [dep]) and path != dep]
            causes.append(f"{dep} ({_some(below)})" if below else dep)
        click.echo(f"  {stage:12} {', '.join(causes)}")
    if later := [stage for stage, others in after.upstream.items() if stage not in again and set(others) & set(again)]:
        click.echo(f"and, if what these make is different: {', '.join(later)}")
    if stale := [stage for stage in after.upstream if "modified" in before.reasons.get(stage, {}).values()]:
        click.echo(f"Out of date without the update too: {', '.join(stale)}")


def print_files(project: Project, template: Template, origin: Origin) -> None:
    """Print which of the owner's files the template changed too, and how to see it."""
    if not origin.commit or not template.knows(origin.commit):
        click.echo(
            f"\nWhat else the template changed can't be told: its version {origin} is not in {template.address}."
        )
        return
    package = packages.team_package(project.files[PYPROJECT])
    dropped = unchosen(origin.answers)
    files = [path for path in template.changed_files(origin.commit, package) if not is_below(path, dropped)]
    if not files:
        return
    click.echo(f"\nThe template also changed {len(files)} of your files, which stay as they are:")
    for path in files:
        click.echo(f"  {path}")
    if CRUFT in project.files:
        click.echo("To merge these changes, after this: cruft update")
    else:
        click.echo("To see these changes, in a clone of the template:")
        click.echo(f"  git diff {origin.commit[:10]} {template.commit[:10]} -- '*/<file>'")


def _some(names: list[str]) -> str:
    return ", ".join([*names[:4], f"and {len(names) - 4} more"] if len(names) > 5 else names)


if __name__ == "__main__":
    main(prog_name="python -m update")
