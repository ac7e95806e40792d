"""Lines that are appended: nothing before them changes, and each of them has the wanted effect."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dvc.repo import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from mlops.consent import edits, storage
from mlops.errors import ProjectError
from mlops.records import consent
from mlops.records.ids import normalize_id

from .conftest import LINES

JUNE = datetime(2025, 6, 1, tzinfo=UTC)
TOMORROW = datetime.now(UTC) + timedelta(days=1)
ROOT = Path(str(edits.__file__)).parents[2]


def allows(path: Path, subject: str) -> bool:
    return consent.read(path).allows(subject)


def test_revoke_appends_one_line_and_again_nothing(registry: Path) -> None:
    assert edits.revoke(["form-01"], JUNE) == ["form-01 is revoked (line 6)"]
    assert registry.read_bytes() == LINES + b"form-01,revoked,2025-06-01T00:00:00Z\n"
    assert edits.revoke(["form-01", "form-02"]) == [
        "form-01 is revoked already (line 6); nothing was written",
        "form-02 is revoked already (line 5); nothing was written",
    ]
    assert registry.read_bytes() == LINES + b"form-01,revoked,2025-06-01T00:00:00Z\n"


def test_add_after_a_withdrawal_counts_from_now(registry: Path) -> None:
    before = datetime.now(UTC)
    edits.add(["form-02", "form-00", "new"])
    lines = consent.entries(registry.read_bytes(), "it")[4:]
    assert [(line.subject_id, line.status) for line in lines] == [("form-02", "active"), ("new", "active")]
    assert all(line.since and before <= line.since <= datetime.now(UTC) for line in lines)
    assert all(allows(registry, subject) for subject in ("form-00", "form-02", "new"))


def test_revoke_dated_in_the_future_says_that_it_holds_from_today(registry: Path) -> None:
    assert "it holds from today" in edits.revoke(["form-01"], TOMORROW)[0]
    assert not allows(registry, "form-01")


@pytest.mark.parametrize(
    ("do", "problem"),
    [
        (lambda: edits.add(["form-02"], TOMORROW), "is in the future"),
        (lambda: edits.add(["form-02"], datetime(2025, 5, 1, tzinfo=UTC)), "line 5 .* form-02 would still be revoked"),
        (lambda: edits.add(["form-02"], JUNE), "form-02 would still count as revoked: .*Fix: .* history form-02"),
        (
            lambda: edits.revoke(["form-01"], datetime(2024, 1, 1, tzinfo=UTC)),
            "would still be active.*Fix: leave --at out",
        ),
        (
            lambda: edits.revoke(["form-01", "form-3"]),
            r"does not know 'form-3' \(did you mean 'form-0\d'\?\).*Fix: correct the id; .*--unlisted",
        ),
        (
            lambda: edits.revoke(["form-01", " "]),
            "an id is empty.*Fix: name the subject as data/manifest.parquet has it",
        ),
        (lambda: edits.add(["FORM-02"]), "'FORM-02' looks like 'form-02', which line 4 of .* U\\+0046 LATIN CAPITAL"),
        (lambda: edits.add(["FORM-00"]), "'FORM-00' looks like 'form-00'"),
        (lambda: edits.add(["f\u043erm-02"]), "U\\+043E CYRILLIC SMALL LETTER O in place of U\\+006F.* 'form-02'"),
        (lambda: edits.add(["f\u043erm-02"], alike=True), "ids that look alike"),
        (lambda: edits.add(["new-1", "new-l"]), "'new-l' looks like 'new-1', which is named here too"),
        (lambda: edits.revoke(["f\u043erm-01"]), "looks like 'form-01', which line 3 .*--unlisted"),
        (lambda: edits.add(["form-\udcff"]), "the id 'form-.udcff' holds U\\+DCFF, which is no character"),
        (
            lambda: edits.revoke(["form-\u0378"], unlisted=True),
            "holds U\\+0378, which is no character.*Fix: write it as it is in",
        ),
    ],
    ids=[
        *("future", "too early", "tie", "grant is later", "misspelt", "empty", "case", "case, both active"),
        *("look-alike", "look-alike of one who withdrew", "two new ones", "withdrawal", "no text", "not assigned"),
    ],
)
def test_line_without_the_wanted_effect_is_refused(registry: Path, do: Callable[[], object], problem: str) -> None:
    with pytest.raises(ProjectError, match=f"(?s){problem}"):
        do()
    assert registry.read_bytes() == LINES


@pytest.mark.parametrize("hidden", ["form\u034f-02", "form-02\ufe0f", "\u2800form-02", "form\u1160-02", "\uff46orm-02"])
def test_add_never_gives_a_consent_back_by_an_id_with_hidden_characters(registry: Path, hidden: str) -> None:
    with pytest.raises(ProjectError, match="write 'form-02'"):
        edits.add([hidden])
    assert registry.read_bytes() == LINES
    edits.revoke([hidden.replace("2", "0")])
    assert not allows(registry, "form-00")


def test_add_after_a_withdrawal_dated_in_the_future_says_when_it_can_be_done(registry: Path) -> None:
    edits.revoke(["form-01"], TOMORROW)
    with pytest.raises(ProjectError, match="line 6 .* is later: form-01 would still be revoked") as error:
        edits.add(["form-01"])
    assert error.value.fix == f"again after {edits.stamp(TOMORROW)}, its date"


def test_revoke_of_an_unlisted_subject_is_recorded_when_meant(registry: Path) -> None:
    edits.revoke(["nobody"], JUNE, unlisted=True)
    assert registry.read_bytes() == LINES + b"nobody,revoked,2025-06-01T00:00:00Z\n"


def test_two_persons_whose_ids_look_alike_are_recorded_when_meant(registry: Path) -> None:
    edits.add(["f\u043erm-01"], alike=True)
    assert allows(registry, "form-01") and allows(registry, "f\u043erm-01")
    edits.revoke(["f\u043erm-01"])
    assert not allows(registry, "form-01") and not allows(registry, "f\u043erm-01"), "nobody can tell whose it is"


def test_invisible_characters_are_left_out_of_an_id(registry: Path) -> None:
    edits.revoke(["form\u034f-01", "\u2800form-00\ufe0f"], JUNE)
    assert [entry.subject_id for entry in consent.entries(registry.read_bytes(), "it")[4:]] == ["form-01", "form-00"]


MERGED = {
    "a, b": ["revoked,2025-01-10", "active,2025-03-10", "revoked,2025-02-10"],
    "b, a": ["revoked,2025-02-10", "revoked,2025-01-10", "active,2025-03-10"],
}


@pytest.mark.parametrize("lines", MERGED.values(), ids=MERGED)
@pytest.mark.parametrize("do", [edits.add, edits.revoke])
def test_withdrawal_that_lost_in_a_merge_is_settled_by_either_word(
    registry: Path, do: Callable[..., list[str]], lines: list[str]
) -> None:
    registry.write_bytes(LINES + "".join(f"x,{line}T00:00:00Z\n" for line in lines).encode())
    content = consent.read(registry)
    assert not content.allows("x") and content.doubtful == {"x": (8 if lines[0].endswith("1-10") else 6,)}
    with pytest.raises(ProjectError, match="(?s)line . of .* is later: x would still be active.*Fix: leave --at out"):
        do(["x"], datetime(2025, 2, 1, tzinfo=UTC))
    assert do(["x"]) == [f"x is {'active' if do is edits.add else 'revoked'} (line 9)"]
    assert allows(registry, "x") == (do is edits.add)
    assert "nothing was written" in do(["x"])[0]
    edits.revoke(["x"])
    edits.add(["x"])
    assert allows(registry, "x")
    assert len(consent.entries(registry.read_bytes(), "it")) == 4 + 3 + (3 if do is edits.add else 2)


def test_grant_after_two_withdrawals_that_a_merge_put_out_of_order_takes(registry: Path) -> None:
    registry.write_bytes(LINES + b"x,revoked,2025-03-10T00:00:00Z\nx,revoked,2025-01-10T00:00:00Z\n")
    edits.add(["x"])
    assert allows(registry, "x")


def test_revoke_settles_a_grant_that_lost_in_a_merge(registry: Path) -> None:
    registry.write_bytes(LINES + b"form-02,active,2025-03-10T00:00:00Z\n")
    edits.revoke(["form-02"])
    assert "already" in edits.revoke(["form-02"])[0]
    assert len(consent.entries(registry.read_bytes(), "it")) == 6


def test_append_to_a_malformed_registry_is_refused(registry: Path) -> None:
    registry.write_bytes(LINES + b"form-03,active\n")
    with pytest.raises(ProjectError, match="line 6 has 2 cells"):
        edits.revoke(["form-01"])
    assert registry.read_bytes() == LINES + b"form-03,active\n"


FILES = {
    "no last line end": (LINES.rstrip(), b"\nform-01,revoked,2025-06-01T00:00:00Z\n"),
    "CRLF": (LINES.replace(b"\n", b"\r\n"), b"form-01,revoked,2025-06-01T00:00:00Z\r\n"),
    "CRLF without the last": (
        LINES.replace(b"\n", b"\r\n").rstrip(),
        b"\r\nform-01,revoked,2025-06-01T00:00:00Z\r\n",
    ),
    "CR": (LINES.replace(b"\n", b"\r"), b"form-01,revoked,2025-06-01T00:00:00Z\r"),
    "byte order mark": (b"\xef\xbb\xbf" + LINES, b"form-01,revoked,2025-06-01T00:00:00Z\n"),
    "blank lines": (b"\n \n" + LINES + b"\n\n", b"form-01,revoked,2025-06-01T00:00:00Z\n"),
    "other columns": (
        b'Effective_At ,"note, of ours",CONSENT_STATUS,subject_id\n2025-01-01T00:00:00Z,"a\nb",active,form-01\n',
        b"2025-06-01T00:00:00Z,,revoked,form-01\n",
    ),
}


@pytest.mark.parametrize(("content", "appended"), FILES.values(), ids=FILES)
def test_append_keeps_all_bytes_and_the_file_s_own_form(registry: Path, content: bytes, appended: bytes) -> None:
    registry.write_bytes(content)
    edits.revoke(["form-01"], JUNE)
    assert registry.read_bytes() == content + appended
    assert not allows(registry, "form-01")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cn")), min_size=1).filter(normalize_id),
        min_size=1,
        max_size=4,
        unique_by=lambda s: normalize_id(s).casefold(),
    ),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_extended_with_any_ids_reads_back_as_these_ids(subjects: list[str], end: bytes) -> None:
    rows = [(normalize_id(subject), "active", "2025-01-01T00:00:00Z") for subject in subjects]
    content = LINES.replace(b"\n", end) + storage.Form(end=end.decode(), start="").text(rows)
    assert [entry.subject_id for entry in consent.entries(content, "it")[4:]] == [row[0] for row in rows]


@pytest.mark.parametrize("subject", ['=HYPERLINK("x")', 'a "quoted" one', "Dupont, Jean", "-1", "数字"])
def test_add_an_odd_id_is_that_id(registry: Path, subject: str) -> None:
    edits.add([subject])
    assert allows(registry, subject)
    edits.revoke([subject])
    assert not allows(registry, subject)


def test_first_consent_makes_the_registry_and_first_withdrawal_does_not(registry: Path) -> None:
    registry.unlink()
    Repo.init(no_scm=True).close()
    with pytest.raises(ProjectError, match="is not there"):
        edits.revoke(["a"])
    edits.add(["a"])
    assert registry.read_text().startswith("subject_id,consent_status,effective_at\na,active,20")


def test_project_that_requires_no_consent_says_what_a_subject_is(registry: Path) -> None:
    Path("params.yaml").write_text("data: {source: cifar10, consent: not_required}\n", encoding="utf-8")
    registry.unlink()
    with pytest.raises(ProjectError, match="in cifar10 a subject is the record itself(?s:.*)data.consent: required"):
        edits.revoke(["7"])


@pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")
def test_replace_never_writes_into_what_dvc_linked_and_keeps_who_may_read(registry: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.write_bytes(LINES)
    cached.chmod(0o440)
    registry.unlink()
    registry.symlink_to(cached)
    edits.revoke(["form-01"])
    assert cached.read_bytes() == LINES
    assert not registry.is_symlink()
    assert registry.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_while_writing_leaves_the_old_file_or_the_new(registry: Path, call: str) -> None:
    """The process dies at the worst moment, for real; the same command then completes."""
    deadly = f"import os, signal; os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
    deadly += f"from {edits.__name__.rpartition('.')[0]} import edits; edits.revoke(['form-01'])"
    done = subprocess.run([sys.executable, "-c", deadly], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    assert registry.read_bytes() == LINES
    edits.revoke(["form-01"], JUNE)
    assert registry.read_bytes() == LINES + b"form-01,revoked,2025-06-01T00:00:00Z\n"
    assert [path.name for path in registry.parent.iterdir()] == ["consent.csv"]


def test_many_at_once_lose_no_line(registry: Path) -> None:
    code = f"import sys; from {edits.__name__.rpartition('.')[0]} import edits; edits.add(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen([sys.executable, "-c", code, f"new-{n}"], env=environment) for n in range(6)]
    assert [process.wait() for process in started] == [0] * 6
    assert all(allows(registry, f"new-{n}") for n in range(6))
    assert registry.read_bytes().startswith(LINES)
    assert registry.read_bytes().count(b"\n") == LINES.count(b"\n") + 6
