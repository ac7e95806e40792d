"""What the pages of a run and of a version say."""

from typing import Any

import pytest
from mlflow import MlflowClient
from mlops.files import write_json
from mlops.registry import versions
from mlops.tracking import descriptions
from mlops.tracking.mlflow_sync import NOTE, Mirror
from mlops.tracking.run_files import LINEAGE

COMMIT = "0123456789abcdef"


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://github.com/acme/digits.git", "https://github.com/acme/digits/commit/"),
        ("git@github.com:acme/digits.git", "https://github.com/acme/digits/commit/"),
        ("ssh://git@gitlab.com:22/acme/sub/digits", "https://gitlab.com/acme/sub/digits/-/commit/"),
        ("https://bitbucket.org/acme/digits/", "https://bitbucket.org/acme/digits/commits/"),
        ("https://git.example.org/acme/digits.git", ""),
        ("/srv/git/digits.git", ""),
        ("", ""),
    ],
)
def test_commit_is_a_link_where_the_host_is_known(facts: dict[str, Any], remote: str, page: str) -> None:
    text = descriptions.of_run({**facts, "git_remote_url": remote, "data_git_commit_id": COMMIT})
    commit = f"[0123456789]({page}{COMMIT})" if page else "`0123456789`"
    assert f"with the code of commit {commit}, by Ada." in text


def test_version_has_metrics_data_commits_gate_and_run(facts: dict[str, Any]) -> None:
    gate = {"register.at_least": {"test_acc": 0.9, "f1": 0.8}, "register.at_most": {}, "register.tries": 3}
    text = descriptions.of_version(
        facts, COMMIT, {"test_acc": 0.95, "test_loss": 0.1}, gate, "1/runs/abc", "2026-01-31T09:00:00Z"
    )
    lines = text.splitlines()
    assert lines[0] == "**test_acc 0.95, test_loss 0.1**"
    assert "- Run: [gouty-fifo](#/experiments/1/runs/abc) (`abc123`), 2026-01-01 00:00 UTC, by Ada" in lines
    assert "- Data: x (`x`)" in lines
    assert "- Consent: registry `x`; records left out: 0" in lines
    assert "- Code: commit `x`; with the results: commit `0123456789`" in lines
    assert lines[-2:] == ["- Gate, register.at_least: test_acc 0.9, f1 0.8", "- Gate, register.tries: 3"]


def test_run_links_its_version_once_and_keeps_what_a_person_wrote(client: MlflowClient, facts: dict[str, Any]) -> None:
    write_json(LINEAGE, facts)
    run_id = Mirror(LINEAGE.parents[2], client).run_id
    assert client.get_run(run_id).data.tags[NOTE].startswith("Trained on the dataset **x**")
    client.set_tag(run_id, NOTE, "Ada: the best so far")
    for _ in range(2):
        versions.tag_run(client, run_id, "demo", 3)
    Mirror(LINEAGE.parents[2], client).push()
    tags = client.get_run(run_id).data.tags
    assert tags[NOTE] == "Ada: the best so far\n\nRegistered as [demo version 3](#/models/demo/versions/3)"
    assert tags["model_version"] == "demo/3"
