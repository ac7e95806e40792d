"""The command line, `python -m mlops --help`: a verb for each thing that the project can do, and no logic."""

import importlib
import importlib.util
import logging
import sys

import click

from .explain import explain, quiet

# The module `cli` of each adds its `groups` of verbs; any of them but `registry` and `datasets` may be deleted.
FOLDERS = ("registry", "datasets", "consent", "compute", "audit", "optout", "lineage")


class Verbs(click.Group):
    """Prints errors for people as two lines, and exits with 2; Ctrl-C exits with 130."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # of `| head`: click ends without a word
            raise
        except Exception as error:
            if not (known := explain(error)):
                raise
            click.echo(f"{click.style('Error:', fg='red', bold=True)} {known.problem}", err=True)
            click.echo(f"Fix: {known.fix}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("Interrupted: what was not finished is not recorded; the same command does it again.", err=True)
            sys.exit(130)


@click.group(cls=Verbs)
def main() -> None:
    """Train a model whose data, code and parameters can be named."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger(__package__).setLevel(logging.INFO)
    quiet()


@main.command()
@click.argument("name")
def stage(name: str) -> None:
    """Run one stage. `dvc repro` does, when something that it reads has changed."""
    from .runner import run_stage

    run_stage(name)


@main.command()
def setup() -> None:
    """Give the clone a DVC remote and MLflow's database. What is configured already stays."""
    from .setup_clone import set_up

    for line in set_up():
        click.echo(line)


@main.command()
@click.option("--to", default="", help="A tag, branch or commit of the template.  [default: its default branch]")
@click.option("--template", default="", help="Another address of the template, to be remembered.")
@click.option("--anyway", is_flag=True, help="Write it although the checks fail: your package is to be changed then.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def update(to: str, template: str, anyway: bool, yes: bool) -> None:
    """Bring in a later version of the template. It has mlops/ and the pins of packages, in one commit."""
    from .update import update

    options = [name for name, given in (("--anyway", anyway), ("--yes", yes)) if given]
    sys.exit(update(to, template, options))


@main.command()
def environment() -> None:
    """Pin the installed packages that compute. `make lock` does it: it writes environment.json."""
    from .config import write_pins

    write_pins()


@main.command()
@click.option("--port", default=5000, show_default=True)
@click.option("--browser/--no-browser", default=True, help="Open the page, where there is a screen.")
def ui(port: int, browser: bool) -> None:
    """Show the project's trainings in MLflow's pages."""
    from .tracking.ui import serve

    sys.exit(serve(port, browser))


@main.group()
def lineage() -> None:
    """Publish the log of trainings and registrations. To read it: git log --first-parent lineage."""


@lineage.command("push")
@click.argument("remote", default="origin")
def lineage_push(remote: str) -> None:
    """Publish the log to a Git remote. The tags of versions and datasets go with it."""
    from .config import load_platform
    from .tracking.lineage_log import push

    click.echo(f"{remote} has lineage at {push(remote, (f'*{load_platform().project}@v*', 'data/*'))[:10]}")


for _folder in FOLDERS:
    if importlib.util.find_spec(f".{_folder}", __package__):
        for _group in importlib.import_module(f".{_folder}.cli", __package__).groups:
            main.add_command(_group)
