"""The command line, `python -m mlops --help`: a verb for each thing that the project can do, and no logic."""

import importlib
import importlib.util
import json
import logging
import sys
from pathlib import Path

import click

from .errors import ProjectError

FOLDERS = ("consent", "compute", "audit", "optout")  # each adds its `groups` of verbs; any of them may be deleted


class Verbs(click.Group):
    """Prints the project's errors as two lines, and exits with 2; Ctrl-C exits with 130."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except ProjectError as error:
            click.echo(f"{click.style('Error:', fg='red', bold=True)} {error.problem}", err=True)
            click.echo(f"Fix: {error.fix}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("Interrupted: what was not finished is not recorded; the same command does it again.", err=True)
            sys.exit(130)


@click.group(cls=Verbs)
def main() -> None:
    """Train a model whose data, code and parameters can be named."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger(__package__).setLevel(logging.INFO)
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).propagate = False  # DVC prints its own; here they would come again, with tracebacks


@main.command()
@click.argument("name")
def stage(name: str) -> None:
    """Run one stage. `dvc repro` does, when something that it reads has changed."""
    from .runner import run_stage

    run_stage(name)


@main.command()
def setup() -> None:
    """Make the clone ready: a DVC remote and MLflow's database, where none is configured."""
    from .setup_clone import set_up

    for line in set_up():
        click.echo(line)


@main.command()
def environment() -> None:
    """Write the installed versions of the numeric packages to environment.json (part of `make lock`)."""
    from .environment import write_pins

    write_pins()


@main.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """Open MLflow's pages on the project's tracking store."""
    from .tracking.mlflow_client import serve_ui

    sys.exit(serve_ui(port))


@main.group()
def mirror() -> None:
    """Keep MLflow in step with DVC's files."""


@mirror.command("sync")
def mirror_sync() -> None:
    """Send to MLflow what it lacks: the runs in the outbox, and the one in reports/train."""
    from .tracking.uploader import upload_all

    for run_id in upload_all():
        click.echo(f"MLflow has run {run_id}")
    click.echo("There is nothing more to send")


@mirror.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def mirror_status(as_json: bool) -> None:
    """List what MLflow lacks of the runs and versions that this clone knows; exit code 1 when there is something."""
    from .registry import repair

    found = repair.status()
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else found.table())
    sys.exit(int(found.many > 0))


@mirror.command("repair")
@click.option("--dry-run", is_flag=True, help="Only list what is lacking, and what would mend it.")
def mirror_repair(dry_run: bool) -> None:
    """Rebuild a wiped or a second MLflow from Git and DVC; exit code 1 when something can't be rebuilt."""
    from .registry import repair

    found = repair.status() if dry_run else repair.repair()
    click.echo(found.table())
    sys.exit(int(found.many > 0))


@mirror.command("follow", hidden=True)
@click.argument("run")
def mirror_follow(run: str) -> None:
    """Copy a run while it trains; `train` starts this, and the end of standard input ends it."""
    from .tracking.uploader import follow

    sys.exit(follow(run))


@main.group()
def registry() -> None:
    """Registered versions: see them, put one in use, take it back."""


@registry.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def registry_list(as_json: bool) -> None:
    """List the registered versions, the newest first."""
    from .registry import aliases, cli_output

    found = aliases.read()
    listed = cli_output.rows(found)
    click.echo(json.dumps(listed, indent=2) if as_json else cli_output.table(listed))
    for line in cli_output.doubts(found):
        click.echo(line, err=True)


@registry.command("show")
@click.argument("version", metavar="VERSION|ALIAS")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def registry_show(version: str, as_json: bool) -> None:
    """Show one version: what made it, how good it is, who put it in use, when and why."""
    from .registry import aliases, cli_output

    found = aliases.read()
    shown = cli_output.detail(found, found.find(version))
    click.echo(json.dumps(shown, indent=2) if as_json else cli_output.page(shown))
    for line in cli_output.doubts(found):
        click.echo(line, err=True)


@registry.command("promote")
@click.argument("version", metavar="VERSION|ALIAS")
@click.option("--to", type=click.Choice(["champion", "challenger"]), default="champion", show_default=True)
@click.option("--by", default="test_acc", show_default=True, help="Compare by this measure.")
@click.option("--why", default="", help="A reason, for the record.")
@click.option("--anyway", is_flag=True, help="Also when it is worse, or can't be compared; needs --why.")
def registry_promote(version: str, to: str, by: str, why: str, anyway: bool) -> None:
    """Put a version in use, when it is as good as the champion on the same records."""
    from .registry.promotion import promote

    click.echo(promote(version, to, by, why, anyway))


@registry.command("rollback")
@click.option("--why", default="", help="A reason, for the record.")
def registry_rollback(why: str) -> None:
    """Make the version champion that was it before the present one."""
    from .registry.promotion import rollback

    click.echo(rollback(why))


@main.group()
def lineage() -> None:
    """The log of trainings and registrations: git log --first-parent lineage."""


@lineage.command("push")
@click.argument("remote", default="origin")
def lineage_push(remote: str) -> None:
    """Publish the log and the tags of registered versions to a Git remote."""
    from .config import load_platform
    from .tracking.lineage_log import push

    click.echo(f"{remote} has lineage at {push(remote, (f'*{load_platform().project}@v*', 'data/*'))[:10]}")


@main.group()
def data() -> None:
    """Label and export datasets."""


@data.command("tag")
@click.argument("version")
def data_tag(version: str) -> None:
    """Label the dataset of the work tree, such as v1.0; runs on it show the label as data_version."""
    from .tracking.run_context import tag_dataset

    click.echo(f"data/{version} is commit {tag_dataset(version)[:10]}")


@data.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
def data_export(folder: Path) -> None:
    """Write the dataset as image files: FOLDER/<split>/<label>/<record_id>.<ext>."""
    from .records.shards import export

    click.echo(f"{export(Path('data/dataset'), folder)} images in {folder}")


for _folder in FOLDERS:
    if importlib.util.find_spec(f".{_folder}", __package__):
        for _group in importlib.import_module(f".{_folder}", __package__).groups:
            main.add_command(_group)
