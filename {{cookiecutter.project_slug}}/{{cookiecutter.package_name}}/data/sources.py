"""What a source of data gives: records with text ids, each able to read its own image.

`digits.py`, `cifar10.py` and `folder.py` are sources: a function that takes a folder and yields `Record`s.
To add your own, write such a function and name it in `stages/prepare.py:SOURCES`.
"""

import io
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from tqdm import tqdm

from ..errors import ProjectError


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
    """Gather a source's records without reading any image.

    Raises:
        ProjectError: An id or a label is empty or not in plain form, a `record_id` appears twice, or there are none.
    """
    records: dict[str, Record] = {}
    problems: list[str] = []
    for record in tqdm(found, desc=f"Records of {source}", unit=" records", delay=2):
        faults = ((column, fault_of(getattr(record, column))) for column in ("record_id", "subject_id", "label"))
        if fault := next((f"{column} {fault}" for column, fault in faults if fault), ""):
            problems.append(f"{record.origin}: {fault}")
        elif (first := records.setdefault(record.record_id, record)) is not record:
            problems.append(f"{record.origin}: record_id {record.record_id!r} was given before, at {first.origin}")
    refuse(problems, "correct these records where they are written down; nothing was changed")
    if not records:
        raise ProjectError(f"the source {source} has no records", "choose another one: params.yaml:data.source")
    return list(records.values())


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
    return "" if plain == text else f"{text!r} has hidden or non-standard characters: write {plain!r}"


def plain_form(text: str) -> str:
    """Return an id as it must be written: Unicode NFKC, without invisible characters or white space around it."""
    if text.isascii() and text.isprintable():
        return text.strip()
    text = unicodedata.normalize("NFKC", text)
    visible = (c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp"))
    return unicodedata.normalize("NFKC", "".join(visible)).strip()


def png(pixels: Any) -> bytes:
    """Encode an image as PNG, without loss.

    Args:
        pixels: Array of bytes, (height, width) in grey or (height, width, 3) in colour.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
