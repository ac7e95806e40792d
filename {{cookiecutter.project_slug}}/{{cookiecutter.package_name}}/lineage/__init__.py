"""What can be asked: who is in which model, and may they be. It only reads what `tracking/` and DVC wrote.

This file is the only door to the folder. A project may be without some of its parts, or without the whole.
"""

import importlib
import importlib.util

import click

PARTS = ("records", "optout")  # each has `verbs`, its commands

verbs: tuple[click.Command, ...] = tuple(
    verb
    for part in PARTS
    if importlib.util.find_spec(f".{part}", __package__)
    for verb in importlib.import_module(f".{part}", __package__).verbs
)
