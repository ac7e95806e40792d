"""What the pages of a run and of a version say in MLflow, in Markdown, with links to each other and to Git."""

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
    facts: Mapping[str, Any],
    commit: str,
    metrics: Mapping[str, Any],
    gate: Mapping[str, Any],
    run_page: str,
    registered: str,
) -> str:
    """Describe a registered version.

    Args:
        facts: Of the run that made it.
        commit: With its results.
        metrics: Of its weights.
        gate: What they had to reach, the params of the stage that registers.
        run_page: Where MLflow shows the run: `<experiment>/runs/<run>`.
        registered: When, in UTC; MLflow's own time may be that of a repair.
    """
    rows = {
        "Run": f"[{facts['name']}](#/experiments/{run_page}) (`{facts['run']}`), "
        f"{facts['started_at'][:16].replace('T', ' ')} UTC, by {facts['user']}",
        "Registered": f"{registered[:16].replace('T', ' ')} UTC",
        "Data": f"{facts['data_version']} (`{facts['dataset_md5']}`)",
        "Manifest": f"`{facts['manifest_sha256']}`",
        "Consent": f"registry `{facts['consent_sha256']}`; records left out: {facts['consent_excluded']}",
        "Code": f"{_commit(facts, facts['data_git_commit_id'])}; with the results: {_commit(facts, commit)}",
        **{f"Gate, {name}": _line(limits) if isinstance(limits, dict) else limits for name, limits in gate.items()},
    }
    lines = [f"- {name}: {text}" for name, text in rows.items() if text not in ("", None)]
    return "\n".join([f"**{_line(metrics)}**\n", *lines])


def _line(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _commit(facts: Mapping[str, Any], commit: str) -> str:
    remote = REMOTE.fullmatch(facts["git_remote_url"])
    if remote and remote["host"] in COMMIT_PAGES:
        page = f"https://{remote['host']}/{remote['path']}/{COMMIT_PAGES[remote['host']]}/{commit}"
        return f"commit [{commit[:10]}]({page})"
    return f"commit `{commit[:10]}`"
