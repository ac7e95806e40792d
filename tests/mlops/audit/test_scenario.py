"""Eleven runs around one revocation, and what the reference pattern's own query would have missed of them."""

import json

import pytest

from .conftest import Project

DIGEST = "f" * 64
WANTED = {  # run: what it knows of P2, when it was trained, the verdict; None if it is unknown
    "R1": ("direct", "before", "PASS"),
    "R2": ("direct", "in flight", "FAIL"),
    "R4": ("inherited", "after", "FAIL"),  # fine-tuned from R1
    "R5": ("direct", "after", "FAIL"),
    "R6": ("inherited", "after", "FAIL"),  # from R4
    "R7": ("inherited", "after", "FAIL"),  # trained on R1's pseudo-labels
    "R8": ("inherited", "after", "FAIL"),  # and from R7 too
    "R11": ("direct", "after", "FAIL"),  # deleted
}


@pytest.fixture
def eleven(project: Project) -> Project:
    project.consent(
        "P1,active,2024-01-01T00:00:00Z",
        "P2,active,2024-01-01T00:00:00Z",
        "P2,revoked,2025-06-01T02:00:00+02:00",  # midnight UTC
        "P3,active,2024-01-01T00:00:00Z",
    )
    everybody, rest = ("P1", "P2", "P3"), ("P1", "P3")
    project.run("R1", "2025-01-01", subjects=everybody)
    project.run("R2", "2025-05-31T23:00", "2025-06-01T04:00", subjects=everybody)
    project.run("R3", "2025-06-02", subjects=rest)
    project.run("R4", "2025-06-03", subjects=rest, parents=["R1"])
    project.run("R5", "2025-06-04", subjects=everybody)
    project.run("R6", "2025-06-05", subjects=rest, parents=["R4"])
    project.run("R7", "2025-06-06", subjects=("Q1",), parents=["R1"])
    project.run("R8", "2025-06-07", subjects=("Q2",), parents=["R3", "R7"])
    project.run("R9", "2025-06-08", parents=None)  # tells nothing
    project.run("R10", "2025-06-09", digest=DIGEST)  # its manifest is nowhere
    project.run("R11", "2025-06-10", subjects=everybody)
    project.client.delete_run(project.ids["R11"])
    for run, alias in (("R1", "previous"), ("R4", "champion"), ("R3", "")):
        project.version(run, alias=alias)
    return project


def test_verify_finds_every_violation_with_its_path(eleven: Project) -> None:
    done = eleven.audit("verify", "P2", "--json")
    assert done.exit_code == 1, done.output
    answer = json.loads(done.output)
    names = {run: name for name, run in eleven.ids.items()}
    exposures = {names[row["run"]]: (row["exposure"], row["timing"], row["verdict"]) for row in answer["rows"]}
    assert exposures == WANTED
    assert {names[row["run"]] for row in answer["unknown"]} == {"R9", "R10"}
    path = next(row["path"] for row in answer["rows"] if names[row["run"]] == "R6")
    assert [names[step.removeprefix("run ")] for step in path[:-1]] == ["R6", "R4", "R1"]
    assert path[-1].startswith("manifest ")
    assert answer["subjects"] == [
        {"subject": "P2", "consent": "ended", "ended_at": "2025-06-01T00:00:00.000Z", "runs": 8, "verdict": "FAIL"}
    ]


def test_verify_of_somebody_who_consents_passes_and_lists_what_is_unknown(eleven: Project) -> None:
    done = eleven.audit("verify", "P1", "--json")
    answer = json.loads(done.output)
    assert (done.exit_code, answer["verdict"], answer["rows"], len(answer["unknown"])) == (0, "PASS", [], 2)


def test_verify_without_the_violations_is_still_not_sure(eleven: Project) -> None:
    done = eleven.audit("verify", "P2", "--since", "2025-06-11", "--json")
    answer = json.loads(done.output)
    assert (done.exit_code, answer["verdict"]) == (3, "INCONCLUSIVE")
    assert {row["timing"] for row in answer["rows"]} == {"before"}


def test_find_tells_versions_and_aliases(eleven: Project) -> None:
    done = eleven.audit("find", "P2", "--json")
    answer = json.loads(done.output)
    served = {row["title"]: row["versions"] for row in answer["rows"] if row["versions"]}
    assert served == {"R1": ["digits/1 @previous"], "R4": ["digits/2 @champion"]}
    assert done.exit_code == 3, "two runs are unknown"


def test_deployed_finds_what_is_served_and_grandfathers_nothing(eleven: Project) -> None:
    done = eleven.audit("deployed", "--json")
    answer = json.loads(done.output)
    assert done.exit_code == 1
    rows = {(row["subject"], row["served_by"], row["exposure"], row["timing"]) for row in answer["rows"]}
    assert rows == {
        ("P2", "alias previous (digits/1)", "direct", "before"),
        ("P2", "alias champion (digits/2)", "inherited", "after"),
    }
    eleven.client.delete_registered_model_alias("digits", "champion")
    eleven.client.delete_registered_model_alias("digits", "previous")
    eleven.client.set_registered_model_alias("digits", "champion", "3")
    assert eleven.audit("deployed").exit_code == 0


def test_list_and_diff_tell_who_is_in(eleven: Project) -> None:
    listed = json.loads(eleven.audit("list", "champion", "--json").output)
    assert {row["subject"]: row["exposure"] for row in listed["rows"]} == {
        "P1": "direct",
        "P2": "inherited",
        "P3": "direct",
    }
    same = eleven.audit("list", eleven.ids["R4"], "--json")
    assert json.loads(same.output)["rows"] == listed["rows"]
    changed = eleven.audit("diff", "digits/1", "3", "--json")
    assert [(row["subject"], row["change"]) for row in json.loads(changed.output)["rows"]] == [("P2", "removed")]
    assert eleven.audit("list", "R9").exit_code == 3
    assert eleven.audit("list", "nobody").exit_code == 2
