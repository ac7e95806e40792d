"""The error that is meant for a person: what is wrong, and what to do about it."""

import click


class UpdateError(click.ClickException):
    """Nothing was changed, and why; the command line prints both parts and exits with 2.

    Args:
        problem: What is wrong, with the value that is wrong.
        fix: A command to type, or the `file:key` to change.
    """

    exit_code = 2

    def __init__(self, problem: str, fix: str) -> None:  # noqa: D107 (the class's docstring has the arguments)
        super().__init__(problem)
        self.fix = fix

    def show(self, file: object = None) -> None:
        """Print the problem and the fix as two lines."""
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {self.message}", err=True)
        click.echo(f"Fix: {self.fix}", err=True)
