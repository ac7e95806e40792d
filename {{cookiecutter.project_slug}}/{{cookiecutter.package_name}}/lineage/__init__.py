"""What can be asked of what `tracking/` and DVC wrote. It only reads.

This file is the only door to the folder. A project may be without some of its parts, or without the whole.
"""

import importlib
import importlib.util

import click

PARTS = ("records", "optout")  # each has `groups` of commands

groups: tuple[click.Command, ...] = tuple(
    group
    for part in PARTS
    if importlib.util.find_spec(f".{part}", __package__)
    for group in importlib.import_module(f".{part}", __package__).groups
)
