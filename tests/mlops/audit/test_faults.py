"""What can't be read is never taken for good; and ids stay what they are."""

import csv
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlops.audit import catalog_mlflow

from .conftest import HEADER, Project, write_manifest
from .test_index import HOSTILE

REVOKED = ("P1,active,2024-01-01T00:00:00Z", "P2,active,2024-01-01T00:00:00Z", "P2,revoked,2025-06-01T00:00:00Z")


@pytest.fixture
def violated(project: Project) -> Project:
    """One run, trained on P2 after the revocation."""
    project.consent(*REVOKED)
    project.run("late", "2025-07-01", subjects=["P1", "P2"])
    return project


def test_verify_finds_the_violation(violated: Project) -> None:
    done = violated.audit("verify", "P2")
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == "FAIL"


def missing(project: Project) -> None:
    project.artifact("late").unlink()


def swapped(project: Project) -> None:
    write_manifest(["P1"], project.artifact("late"))


def emptied(project: Project) -> None:
    project.artifact("late").write_bytes(b"")


@pytest.mark.parametrize("fault", [missing, swapped, emptied], ids=lambda fault: fault.__name__)
def test_manifest_that_is_not_the_recorded_one_is_inconclusive(
    violated: Project, fault: Callable[[Project], None]
) -> None:
    fault(violated)
    for verb in ("verify", "find"):
        done = violated.audit(verb, "P2")
        assert done.exit_code == 3, done.output
    assert violated.audit("list", "late").exit_code == 3
    # The same manifest of another run is as good: its digest says so.
    violated.run("again", "2025-07-02", subjects=["P1", "P2"])
    assert violated.audit("verify", "P2").exit_code == 1


def test_flipped_byte_is_never_a_pass(violated: Project) -> None:
    path = violated.artifact("late")
    whole, codes = path.read_bytes(), set()
    for place in range(4, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        Path(".dvc/tmp/records/index.db").unlink(missing_ok=True)
        code = violated.audit("verify", "P2").exit_code
        assert code in (1, 3), place  # 1: where the rows are whole, in an index of the file
        codes.add(code)
    assert 3 in codes


@pytest.mark.parametrize(
    "facts",
    [
        {"subjects": None},
        {"subjects": None, "digest": "no digest"},
        {"subjects": None, "digest": "f" * 64},
        {"subjects": ["P1"], "digest": ""},
        {"subjects": ["P1"], "parents": None},
        {"subjects": ["P1"], "parents": ["gone"]},
        {"subjects": ["P1"], "parents": ["odd"]},
        {"subjects": ["P1"], "parents": [""]},
        {"subjects": ["P1"], "artifact": False},
    ],
    ids=[
        "nothing",
        "no-digest",
        "no-manifest",
        "digest-untold",
        "parents-untold",
        "parent-unknown",
        "own-parent",
        "parent-unnamed",
        "no-artifact",
    ],
)
def test_run_that_does_not_tell_is_inconclusive(project: Project, facts: dict[str, object]) -> None:
    project.consent(*REVOKED)
    project.run("odd", "2025-07-01", **facts)  # type: ignore[arg-type]
    done = project.audit("verify", "P2", "--json")
    assert (done.exit_code, json.loads(done.output)["unknown"][0]["title"]) == (3, "odd")
    assert project.audit("verify", "P1").exit_code == 0, "who consents may be anywhere"


def test_parents_that_are_no_list_are_unknown() -> None:
    for text in ("", "R1", '"R1"', "null", "[1]", '["R1", null]', '["R1"… (6001 characters)', '{"R1": 1}'):
        assert catalog_mlflow.parse_parents(text) is None, text
    assert catalog_mlflow.parse_parents("[]") == ()
    assert catalog_mlflow.parse_parents('["R1", "R2"]') == ("R1", "R2")


def test_cycle_of_parents_is_inconclusive_but_what_is_known_is_told(project: Project) -> None:
    project.consent(*REVOKED)
    for name, parent, subjects in (("a", "b", ["P1"]), ("b", "c", ["P3"]), ("c", "a", ["P1"]), ("d", "a", ["P1"])):
        project.run(name, "2025-07-01", subjects=subjects, parents=[parent])
    assert project.audit("verify", "P2").exit_code == 3
    done = json.loads(project.audit("verify", "P3", "--json").output)
    assert {row["title"]: row["exposure"] for row in done["rows"]} == {
        **dict.fromkeys("acd", "inherited"),
        "b": "direct",
    }


@pytest.mark.parametrize("verb", [("find", "P2"), ("verify", "P2"), ("deployed",), ("list", "1"), ("diff", "1", "2")])
def test_mlflow_away_is_inconclusive(
    violated: Project, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = violated.audit(*verb)
    assert done.exit_code == 3
    assert "INCONCLUSIVE: MLflow at http://127.0.0.1:9 can't be reached: no server answers" in done.output
    assert "PASS" not in done.output


def test_mlflow_database_that_is_damaged_is_inconclusive(violated: Project) -> None:
    Path("mlflow.db").write_bytes(b"no database" * 1000)
    assert violated.audit("verify", "P2").exit_code == 3


def test_mlflow_without_any_run_is_inconclusive(project: Project) -> None:
    for command in (("verify", "P1"), ("deployed",), ("find", "P1")):
        done = project.audit(*command)
        assert done.exit_code == 3
        assert "there is no run in sqlite:///" in done.output
        assert "Fix: see that it is the right one (platform.yaml:tracking_uri)" in done.output


def test_all_experiments_and_deleted_ones_count(violated: Project) -> None:
    other = violated.client.create_experiment("other", Path("mlartifacts").resolve().as_uri())
    names = [f"r{number}" for number in range(5)]
    for name in names:
        violated.run(name, "2025-07-01", subjects=["P2"], experiment=other)
    violated.client.delete_run(violated.ids["r4"])
    deleted = violated.client.create_experiment("gone", Path("mlartifacts").resolve().as_uri())
    violated.run("gone", "2025-07-01", subjects=["P2"], experiment=deleted)
    violated.client.delete_experiment(deleted)
    answer = json.loads(violated.audit("verify", "P2", "--json").output)
    assert {row["title"] for row in answer["rows"]} == {"late", "gone", *names}
    assert {row["title"] for row in answer["rows"] if row["deleted"]} == {"gone", "r4"}
    narrow = json.loads(violated.audit("verify", "P2", "--experiment", "digits", "--json").output)
    assert [row["title"] for row in narrow["rows"]] == ["late"]
    assert narrow["source"]["experiments"] == ["digits"]
    assert violated.audit("verify", "P2", "--experiment", "dgits").exit_code == 2, "a name that is misspelt"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="only POSIX can change the zone of a process")
def test_time_zone_of_the_machine_does_not_matter(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.consent(*REVOKED)
    project.run("just before", "2025-05-31T22:30", "2025-05-31T23:30", subjects=["P2"])
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert project.audit("verify", "P2").exit_code == 0
        assert project.audit("verify", "P2", "--since", "2025-05-31T23:00").exit_code == 1
        assert project.audit("verify", "P2", "--since", "2025-06-01T01:00+02:00").exit_code == 1
    monkeypatch.undo()
    time.tzset()


def test_ids_are_text_and_never_numbers(project: Project) -> None:
    project.consent("00123,active,2024-01-01T00:00:00Z", "00123,revoked,2025-06-01T00:00:00Z", "7,active,")
    project.run("late", "2025-07-01", subjects=["00123", "NA", "1e3"])
    assert project.audit("verify", "00123").exit_code == 1
    assert project.audit("verify", "123").exit_code == 3, "what a spreadsheet made of it"
    assert project.audit("verify", "NA").exit_code == 1
    assert project.audit("verify", "1000").exit_code == 0


def test_id_in_other_case_is_inconclusive(violated: Project) -> None:
    violated.run("greek", "2025-07-01", subjects=["ΣΊΣΥΦΟΣ"])
    for subject in ("p2", "σίσυφος", "Σίσυφος"):
        done = violated.audit("verify", subject)
        assert done.exit_code == 3, subject
        assert "a similar id that may be the same person" in violated.audit("verify", subject, "--csv").output
    assert violated.audit("verify", "\uff502").exit_code == 3, "in plain form, p2"
    assert violated.audit("verify", "\uff302").exit_code == 1, "in plain form, P2"


def test_id_that_a_manifest_has_in_no_plain_form_is_inconclusive(project: Project) -> None:
    project.consent("Z,active,")
    project.run("late", "2025-07-01", subjects=["two\nlines", " edge", "tab\there", "\u200bhidden"])
    for subject in ("two\nlines", " edge", "tab\there", "\u200bhidden", "twolines", "edge"):
        assert project.audit("verify", "--", subject).exit_code == 3, subject
    assert project.audit("verify", "--", "two").exit_code == 0


def test_id_that_looks_like_one_of_a_manifest_is_inconclusive(project: Project) -> None:
    project.consent("form-03,active,2024-01-01T00:00:00Z", "form-03,revoked,2025-06-01T00:00:00Z")
    project.run("late", "2025-07-01", subjects=["f\u043erm-03", "form\u034f-04", "1O"])
    for subject in ("form-03", "form-04", "form\u034f-04", "lO", "10"):
        assert project.audit("verify", subject).exit_code == 3, subject
    done = project.audit("verify", "form-\udcff")
    assert done.exit_code == 2 and "U+DCFF, which is no character" in done.output


def test_deployed_asks_for_those_whose_withdrawal_lost_in_a_merge(project: Project) -> None:
    lines = ("P2,revoked,2025-01-10T00:00:00Z", "P2,active,2025-03-10T00:00:00Z", "P2,revoked,2025-02-10T00:00:00Z")
    project.consent("P1,active,", *lines)
    project.run("first", "2025-04-01", subjects=["P1"])
    project.version("first", alias="champion")
    done = project.audit("deployed", "--json")
    assert [row["subject"] for row in json.loads(done.output)["subjects"]] == ["P2"]
    assert done.exit_code == 0
    project.run("second", "2025-05-01", subjects=["P1", "P2"])
    project.version("second", alias="challenger")
    done = project.audit("deployed")
    assert done.exit_code == 3
    assert "in doubt: 1 subject(s) whose withdrawal lost in a merge: P2 (line 5)" in done.output


def test_hostile_ids_are_found_and_their_neighbours_are_not(project: Project) -> None:
    ids = [subject for subject in HOSTILE if subject.strip() and subject.isprintable() and subject not in ("P", "NA")]
    project.consent("Z,active,")
    project.run("late", "2025-07-01", subjects=ids)
    for subject in ids:
        done = project.audit("verify", "--json", "--", subject)
        assert done.exit_code == 1, subject
        assert json.loads(done.output)["rows"][0]["subject"] == subject
    for near in ("P100", "P", "P1%", "P_", "O'", "say", "*", "../../etc/passwd2", "=cmd", "数"):
        assert project.audit("verify", "--", near).exit_code == 0, near
    file = Path("asked.csv")
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("name", "subject_id"), *(("x", subject) for subject in ids)])
    answer = json.loads(project.audit("verify", "--subjects-file", str(file), "--json").output)
    assert [row["subject"] for row in answer["subjects"]] == ids


@pytest.mark.parametrize(
    ("command", "message", "fix"),
    [
        (("verify",), "no subject is named", "name subjects, or give a --subjects-file with one id a line"),
        (("verify", "--subjects-file", "empty.txt"), "no subject is named", "a --subjects-file with one id a line"),
        (("verify", " "), "a subject is empty", "name subjects"),
        (("verify", "\udcff"), "holds U+DCFF, which is no character", ""),
        (("verify", "P2", "--since", "yesterday"), "--since 'yesterday' is no date", "write it like 2025-06-01 or "),
        (("verify", "P2", "--since", ""), "--since '' is no date", "write it like 2025-06-01 or "),
        (("verify", "--subjects-file", "nowhere.txt"), "nowhere.txt can't be read: No such", "in UTF-8, one a line"),
        (
            ("verify", "--subjects-file", "utf-16.txt"),
            "utf-16.txt can't be read: it is not UTF-8\n",
            "in UTF-8, one a line",
        ),
        (("verify", "P2", "--experiment", "dgits"), "no experiment dgits", "--experiment with one of Default, digits"),
        (
            ("find", "P2", "--experiment", "x", "--source", "dvc"),
            "no MLflow experiments",
            "leave out --experiment, or ",
        ),
        (("list", "9"), "no version, alias or run '9' (registered: none)", "python -m mlops registry list; a run goes"),
        (("diff", "late", "x"), "no version, alias or run 'x'", "python -m mlops registry list; a run goes by"),
        (
            ("export", "empty.txt"),
            "empty.txt can't be written: Not a directory",
            "python -m mlops audit export <a folder",
        ),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, tuple) else "",
)
def test_bad_input_exits_with_2_and_a_fix(violated: Project, command: tuple[str, ...], message: str, fix: str) -> None:
    Path("empty.txt").touch()
    Path("utf-16.txt").write_text("P2\n", encoding="utf-16")
    done = violated.audit(*command)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert fix in done.output.partition("Fix: ")[2]


def folder_that_is_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


def file_that_is_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[Callable[[Path], None], str] = {
    folder_that_is_a_file: "File exists",
    file_that_is_a_folder: "unable to open",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_index_that_cannot_be_used_is_inconclusive_and_made_again_as_the_fix_says(
    violated: Project, fault: Callable[[Path], None]
) -> None:
    assert violated.audit("verify", "P2").exit_code == 1
    fault(Path(".dvc/tmp/records/index.db"))
    for command in (("verify", "P2"), ("reindex",)):
        done = violated.audit(*command)
        assert done.exit_code == 3
        assert f"index.db can't be used: {FAULTS[fault]}" in done.output
    remove = done.output.partition("Fix: ")[2].partition(" (")[0]
    assert subprocess.run(remove.split(), check=True).args[:2] == ["rm", "-r"]
    assert violated.audit("verify", "P2").exit_code == 1


@pytest.mark.parametrize(
    "text", ["", HEADER, HEADER + "P2,revoked\n", HEADER + "P2,active,2999-01-01T00:00:00Z\n", None]
)
def test_registry_that_is_malformed_or_gone_stops_the_audit(violated: Project, text: str | None) -> None:
    path = Path("data/consent.csv")
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    for command in (("verify", "P2"), ("deployed",)):
        assert violated.audit(*command).exit_code == 2
    assert violated.audit("verify", "P2", "--since", "2025-06-01").exit_code == 1, "it needs no registry"


def test_registry_that_is_not_required_is_told(violated: Project) -> None:
    Path("params.yaml").write_text("data: {consent: not_required}\n", encoding="utf-8")
    done = violated.audit("verify", "P2")
    assert done.exit_code == 2
    assert "Fix: python -m mlops audit verify <subject> --since <date>; or set params.yaml:data.consent" in done.output
    assert violated.audit("verify", "P2", "--since", "2025-08-01").exit_code == 0


def test_manifests_are_fetched_once_and_the_index_is_disposable(violated: Project) -> None:
    first = violated.audit("verify", "P2", "--csv").output
    Path(".dvc/tmp/records/index.db").unlink()
    assert violated.audit("verify", "P2", "--csv").output == first
    assert violated.audit("reindex").exit_code == 0
    violated.artifact("late").unlink()
    assert violated.audit("verify", "P2", "--csv").output == first
    assert violated.audit("reindex").exit_code == 3, "now nobody has it"
    assert violated.audit("verify", "P2").exit_code == 3


@pytest.mark.parametrize("made", [(), ("gone",), ("clean", "gone")], ids=["no-run", "run-gone", "one-of-two-gone"])
def test_deployed_version_whose_runs_are_not_known_is_inconclusive(project: Project, made: tuple[str, ...]) -> None:
    project.run("clean", "2025-07-01", subjects=["P1"])
    project.version(*made, alias="live", model="other")
    project.log("train clean\n\nrun: clean\n")
    done = project.audit("deployed", "--json")
    answer = json.loads(done.output)
    assert (done.exit_code, answer["unknown"][-1]["served_by"]) == (3, "alias live (other/1)")
    assert project.audit("deployed", "P1").exit_code == 0
    assert project.audit("deployed", "P9").exit_code == 3
    assert project.audit("list", "other/1").exit_code == 3


def test_deployed_finds_who_never_consented(project: Project) -> None:
    project.run("clean", "2025-07-01", subjects=["P1", "stranger"])
    project.version("clean", alias="live", model="other")
    answer = json.loads(project.audit("deployed", "--json").output)
    assert [(row["subject"], row["timing"], row["verdict"]) for row in answer["rows"]] == [
        ("stranger", "never consented", "FAIL")
    ]


def test_deployed_where_nothing_is_served_says_so(violated: Project) -> None:
    violated.version("late")
    violated.log_registered("late")
    for source in ("mlflow", "dvc"):
        done = violated.audit("deployed", "--source", source)
        assert (done.exit_code, done.output.count("nothing is served")) == (0, 1), done.output
