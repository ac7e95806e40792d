"""What the pages of a run and of a version say in MLflow, in Markdown, with links to each other and to Git."""

import json
import re
from collections.abc import Mapping
from typing import Any

REMOTE = re.compile(r"(?:\w+://)?(?:[^@/]*@)?(?P<host>[\w.-]+)(?::\d+)?[:/]/?(?P<path>[\w./~-]+?)(?:\.git)?/?")
# Where the hosts show a commit.
COMMIT_PAGES = {"github.com": "commit", "gitlab.com": "-/commit", "bitbucket.org": "commits"}


def of_run(facts: Mapping[str, Any]) -> str:
    """Describe a run."""
    commit = facts["data_git_commit_id"]
    return (
        f"Trained on the dataset **{facts['data_version']}** (`{facts['dataset_md5']}`) "
        f"with the code of {_commit(facts, commit)}, by {facts['user']}.\n\n"
        f"To have what it read: `git checkout {commit[:10]} && make setup && dvc pull --allow-missing`"
    )


def model_link(name: str, number: int | str) -> str:
    """Return what the description of a run says of the version that it made."""
    return f"Registered as [{name} version {number}](#/models/{name}/versions/{number})"


def of_version(
    facts: Mapping[str, Any], commit: str, metrics: Mapping[str, Any], gate: Mapping[str, Any], run_page: str
) -> str:
    """Describe a registered version.

    Args:
        facts: Of the run that made it.
        commit: With its results.
        metrics: Of its weights.
        gate: What they had to reach, the params of the stage that registers.
        run_page: Where MLflow shows the run: `<experiment>/runs/<run>`.
    """
    rows = {
        "Run": f"[{facts['name']}](#/experiments/{run_page}) (`{facts['run']}`), by {facts['user']}",
        "Trained": f"{facts['started_at'][:16].replace('T', ' ')} UTC",
        "Data": f"{facts['data_version']} (`{facts['dataset_md5']}`)",
        "Manifest": f"`{facts['manifest_sha256']}`",
        "Consent": f"registry `{facts['consent_sha256']}`; records left out: {facts['consent_excluded']}",
        "Read": _commit(facts, facts["data_git_commit_id"]),
        "Results": _commit(facts, commit),
        **{f"Asked: {name}": f"`{json.dumps(limits)}`" for name, limits in gate.items() if limits},
    }
    return _table("Metric", "Value", metrics) + "\n\n" + _table("Made from", "", rows)


def _table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    return "\n".join([f"| {left} | {right} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _commit(facts: Mapping[str, Any], commit: str) -> str:
    remote = REMOTE.fullmatch(facts["git_remote_url"])
    if remote and remote["host"] in COMMIT_PAGES:
        page = f"https://{remote['host']}/{remote['path']}/{COMMIT_PAGES[remote['host']]}/{commit}"
        return f"commit [{commit[:10]}]({page})"
    return f"commit `{commit[:10]}`"
