"""What commands print: tables for people, which fit a terminal, and JSON for programs (docs/json.md)."""

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import click

WIDTH = 100  # columns
GAP = "  "
SHORTEST = 8  # columns of a cell that wraps

as_json = click.option("--json", "as_json", is_flag=True, help="For programs: docs/json.md.")


def print_json(content: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(content, indent=2))


def print_json_rows(head: dict[str, Any], name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print one JSON document, `head` with one more key: a list that need not fit into memory."""
    click.echo(json.dumps(head, indent=2).removesuffix("\n}") + f',\n  "{name}": [', nl=False)
    for number, row in enumerate(rows):
        click.echo(f"{',' if number else ''}\n    {json.dumps(row)}", nl=False)
    click.echo("\n  ]\n}")


def shorten(text: str) -> str:
    """Cut ids and digests in a text to their first 12 characters, which name them as well."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,52}(\.dir)?\b", r"\1", text)


def table(rows: Iterable[Sequence[str]], headers: Sequence[str] = ()) -> str:
    """Lay out rows of texts in columns; where they are too wide, cells wrap: between words, if that is enough."""
    lines = [*([headers] if headers else []), *rows]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for narrowest in ([longest_word(column) for column in columns], [SHORTEST] * len(columns)):
        while is_too_wide(widths) and (wide := [n for n, width in enumerate(widths) if width > narrowest[n]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
    printed = []
    for line in lines:
        cells = [_wrapped(cell, width) for cell, width in zip(line, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            printed.append(GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(printed)


def longest_word(texts: Iterable[str]) -> int:
    """Return the length of the longest word in texts: a column of them is so wide at least."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def is_too_wide(widths: Sequence[int]) -> bool:
    """Return whether columns of these widths don't fit side by side."""
    return sum(widths) + len(GAP) * (len(widths) - 1) > WIDTH


def _wrapped(cell: str, width: int) -> list[str]:
    return [cell] if len(cell) <= width else textwrap.wrap(cell, width)
