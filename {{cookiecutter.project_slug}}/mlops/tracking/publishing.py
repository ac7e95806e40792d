"""Publish the log by itself, after each training and registration, as `platform.yaml:publish` says.

It is `python -m mlops lineage push` in a process of its own, which may take its time and may fail: no training waits
for it. What it does not send, the next one does; until then, `describe_unpublished` tells what is in this clone only.
"""

import logging
import os
import subprocess
import sys

import click

from ..config import home, load_platform
from . import lineage_log
from .git import git, unattended

PUSH = "python -m mlops lineage push"
LOG = ".dvc/tmp/publish.log"  # what it printed
WAIT_S = 20.0  # so long a registration or a promotion waits for it
SHOWN = 3  # entries that are named

log = logging.getLogger(__name__)


def publish(wait: bool = True, may_ask: bool = False) -> None:
    """Publish the log, or tell what is in this clone only; a failure is told, and never raised.

    Args:
        wait: Whether to wait some time for it; a training does not.
        may_ask: Whether to ask a person at the terminal, where the setting is `ask`.
    """
    setting, text, has_origin = load_platform().publish, describe_unpublished(), _has_origin()
    if setting == "never" or not (text or wait) or not (wait or has_origin):
        return
    if text and setting == "ask" and has_origin and may_ask and sys.stdin.isatty():
        setting = "auto" if click.confirm(f"{text}\nPublish now?", err=True) else "never"
    if setting == "auto" and has_origin:
        process = _start()  # also when all is published, but the tags of a version
        text = _wait(process) if process and wait else ""
    if text and setting != "never":
        log.log(logging.WARNING if has_origin else logging.INFO, "%s", text)


def _wait(process: "subprocess.Popen[bytes]") -> str:
    """Return what is in this clone only after some time, and why; "" when all is published."""
    try:
        code = process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        return f"{describe_unpublished() or f'{PUSH} takes long'}. It goes on in the background, and writes to {LOG}"
    if not code:
        return ""
    lines = (home() / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    reason = next((line for line in reversed(lines) if line.startswith("Error: ")), f"see {LOG}")
    return f"{describe_unpublished() or f'not all is published. Fix: {PUSH}'}. {reason}"


def describe_unpublished() -> str:
    """Return what is in this clone only, with the command that publishes it; "" when nothing is."""
    entries = lineage_log.unpublished()
    if not entries:
        return ""
    more = f" and {len(entries) - SHOWN} more" if entries[SHOWN:] else ""
    named = ", ".join(subject for _, subject in entries[:SHOWN]) + more
    add = "" if _has_origin() else "git remote add origin <address>, then "
    return f"entries of the log are in this clone only: {named}. Fix: {add}{PUSH}"


def _has_origin() -> bool:
    return "origin" in git("remote", where=home()).split()


def _start() -> "subprocess.Popen[bytes] | None":
    path = home() / LOG
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *PUSH.split()[1:]],
                cwd=home(),  # the folder of an experiment may be deleted while it runs
                env={**os.environ, **unattended()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the training alone
            )
    except OSError as error:  # no space, no process: no reason to end a training
        log.warning("the log is not published: %s", error)
        return None
