"""What a source of data gives: records with text ids, each able to read its own image.

`digits.py`, `cifar10.py` and `folder.py` are sources: a function that takes a folder and yields `Record`s.
To add your own, write such a function and name it in `stages/prepare.py:SOURCES`.

What an id is, is decided here too, for data, registry and audits alike: `plain_form` is how an id is written, `fold`
is what ids share that may be one person's. Unicode's tables are those of ICU, in every version of Python: which
characters are assigned, invisible or look alike (Unicode Technical Standard 39). ICU takes 20 ms to load, and an
ASCII id needs none of it.
"""

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..errors import ProjectError

BLANK = "\u2800\U00013441\U00013442\U00016fe4\U0001d159"
"""Braille, hieroglyph, Khitan and musical characters that print as nothing. No property of Unicode says so."""

LOOKS = str.maketrans("01|`", "oll'")
WIDE = (("m", "rn"), ('"', "''"), ("%", "º/₀"))
"""What ASCII characters look like, by ICU's table, in small letters: to one character, which is fast, and to several.
I and l are kept apart: else ids of every scheme that counts in letters (AI, AL) were alike."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image. Its ids mean it for ever: original positions, or ids of your own.

    Args:
        record_id: Names the record; unique in its source.
        subject_id: Names the person (or the thing) that the record is of, to whom consent and split apply.
        label: The name of its class.
        read: Returns the encoded image file; called once at most, and only for a record that is kept.
        origin: Where the record is written down, for errors.
    """

    record_id: str
    subject_id: str
    label: str
    read: Callable[[], bytes]
    origin: str


def load(found: Iterable[Record], source: str) -> list[Record]:
    """Gather a source's records without reading any image. Subject ids that look alike in ASCII are printed.

    Raises:
        ProjectError: An id or a label is empty or not in plain form, a `record_id` appears twice, two subject ids of
            which one is not ASCII look alike, or there are no records.
    """
    records: dict[str, Record] = {}
    problems: list[str] = []
    for record in tqdm(found, desc=f"Records of {source}", unit=" records", delay=2):
        faults = ((column, fault_of(getattr(record, column))) for column in ("record_id", "subject_id", "label"))
        if fault := next((f"{column} {fault}" for column, fault in faults if fault), ""):
            problems.append(f"{record.origin}: {fault}")
        elif (first := records.setdefault(record.record_id, record)) is not record:
            problems.append(f"{record.origin}: record_id {record.record_id!r} was given before, at {first.origin}")
    pairs = look_alikes(records.values())
    problems += [_alike(*pair) for pair in pairs if not is_ascii(*pair)]
    refuse(problems, "correct these records where they are written down; nothing was changed")
    if not records:
        raise ProjectError(f"the source {source} has no records", "choose another one: params.yaml:data.source")
    if pairs:
        more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
        print(f"May be one person, or two: {_alike(*pairs[0])}{more}")
    return list(records.values())


def look_alikes(records: Iterable[Record]) -> list[tuple[Record, Record]]:
    """Return records of subjects whose ids look like an earlier one's: the first record of each, the earlier first."""
    subjects: dict[str, Record] = {}
    for record in records:
        subjects.setdefault(record.subject_id, record)
    earlier: dict[str, Record] = {}
    pairs = ((earlier.setdefault(fold(subject), record), record) for subject, record in subjects.items())
    return [(first, record) for first, record in pairs if first is not record]


def is_ascii(first: Record, second: Record) -> bool:
    """Say whether both subject ids are ASCII."""
    return first.subject_id.isascii() and second.subject_id.isascii()


def _alike(first: Record, second: Record) -> str:
    one, other = first.subject_id, second.subject_id
    return (
        f"{second.origin}: subject_id {other!r} looks like {one!r}, at {first.origin} (it has {difference(other, one)})"
    )


def refuse(problems: list[str], fix: str) -> None:
    """Raise one error that counts all problems and tells the first, if there are any.

    Raises:
        ProjectError: There are problems.
    """
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:5])
        more = f"\n  … and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ProjectError(f"bad records: {len(problems)}{listed}{more}", fix)


def fault_of(text: str) -> str:
    """Say what is wrong with an id or a label; nothing if it is fine.

    Ids that look the same must be the same: else a withdrawn consent could miss a person's records.
    """
    plain = plain_form(text)
    if not plain:
        return "is empty"
    if unknown := unassigned(plain):
        return f"{text!a} holds {unknown}: leave it out"
    if plain == text:
        return ""
    return f"{text!r} has hidden or non-standard characters: write {plain!r} (it has {difference(text, plain)})"


def plain_id(text: str) -> str:
    """Return an id that was typed, or that a registry has, in plain form; an empty one stays empty.

    Raises:
        ProjectError: It is no text, or holds what is no character.
    """
    plain = plain_form(text)
    if unknown := unassigned(plain):
        raise ProjectError(f"the id {text!a} holds {unknown}", "write it as it is in the data, in UTF-8")
    return plain


def plain_form(text: str) -> str:
    """Return an id as it must be written: Unicode NFKC, without invisible characters or white space around it."""
    if text.isascii() and text.isprintable():
        return text.strip()
    import icu

    nfkc = icu.Normalizer2.getNFKCInstance()
    return str(nfkc.normalize("".join(c for c in nfkc.normalize(text) if not _is_invisible(c)))).strip()


@cache
def _is_invisible(character: str) -> bool:
    import icu

    kinds, kind = icu.UCharCategory, icu.Char.charType(character)
    return (
        kind in (kinds.CONTROL_CHAR, kinds.FORMAT_CHAR, kinds.LINE_SEPARATOR, kinds.PARAGRAPH_SEPARATOR)
        or icu.Char.hasBinaryProperty(ord(character), icu.UProperty.DEFAULT_IGNORABLE_CODE_POINT)
        or character in BLANK
    )


def unassigned(text: str) -> str:
    """Name the first code point of a text that is no character: a part of one (such as a byte), or not assigned."""
    if text.isascii():
        return ""
    import icu

    none = (icu.UCharCategory.UNASSIGNED, icu.UCharCategory.SURROGATE)
    return next((f"U+{ord(c):04X}, which is no character" for c in text if icu.Char.charType(c) in none), "")


def fold(subject: str) -> str:
    """Return what ids share that may be one person's: in other case, not plain, look-alikes, or made a number.

    Spreadsheets make numbers: 007 becomes 7. Look-alikes are those of Unicode Technical Standard 39.
    """
    subject = plain_form(subject)
    key = (subject.lower() if subject.isascii() else _folded(subject)).translate(LOOKS)
    for character, look in WIDE:
        if character in key:
            key = key.replace(character, look)
    if "  " in key:
        key = " ".join(key.split())
    return key if key[:1] != "o" or key.strip("ol23456789") else key.lstrip("o") or "o"


def _folded(subject: str) -> str:
    import icu

    looks = re.sub(r"[^\W_]+|[^\x00-\x7f]+", lambda word: _looks(word[0]), subject)
    key = str(icu.Normalizer2.getNFDInstance().normalize(icu.CaseMap.fold(looks)))
    return " ".join(key.replace("i\u0307", "i").split())  # in Turkish, the capital of i is İ


def _looks(word: str) -> str:
    """Return what a word looks like.

    Small and capital letters of other scripts may look like different ASCII letters (those of the
    Greek nu look like v and N). Among ASCII letters such a letter counts as it stands: it is there by mistake.
    Elsewhere its capital counts, so that words in other case stay alike.
    """
    mixed = any(c.isascii() and c.isalpha() for c in word)
    return "".join(c if c.isascii() else _look(c, mixed) for c in word)


@cache
def _look(character: str, mixed: bool) -> str:
    import icu

    skeleton = icu.SpoofChecker().getSkeleton
    digit, as_it_stands = icu.Char.charDigitValue(character), str(skeleton(0, character))
    if mixed and as_it_stands.isascii() and as_it_stands.isalnum():
        look = as_it_stands
    elif digit >= 0:
        return str(digit)
    else:
        look = str(skeleton(0, icu.CaseMap.toUpper(character)))
    # The skeleton of I is l, and I and l are kept apart: see `LOOKS`.
    is_i = look.startswith("l") and skeleton(0, icu.CaseMap.toLower(character)).startswith("i")
    return f"i{look[1:]}" if is_i else look


def difference(text: str, other: str) -> str:
    """Name the characters that a text has in place of another's."""
    parts = SequenceMatcher(None, text, other, autojunk=False).get_opcodes()
    return ", ".join(
        f"{_named(text[a:b])} in place of {_named(other[c:d])}" for kind, a, b, c, d in parts if kind != "equal"
    )


def _named(text: str) -> str:
    import icu

    return " ".join(f"U+{ord(c):04X} {icu.Char.charName(c)}".strip() for c in text) or "nothing"


def png(pixels: Any) -> bytes:
    """Encode an image as PNG, without loss.

    Args:
        pixels: Array of bytes, (height, width) in grey or (height, width, 3) in colour.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
