"""What an id is, for data, registry and audits alike.

`normalize_id` gives the one way to write an id; `match_key` is equal for ids that may mean one person. The Unicode
tables are those of ICU, in every version of Python: which characters are assigned, invisible or look alike (Unicode
Technical Standard 39). ICU takes 10 to 20 ms to load, and an ASCII id needs none of it.
"""

import re
from difflib import SequenceMatcher
from functools import cache
from typing import TYPE_CHECKING

from ..errors import ProjectError

if TYPE_CHECKING:
    import pyarrow as pa

# What ASCII characters look like, by ICU's table, in small letters.
# I and l are kept apart: else ids of every scheme that counts in letters (AI, AL) were alike.
LOOKS = str.maketrans("01|`", "oll'")

LONGEST = 1000  # characters of an id or a label
ROUNDED = r"^\d(\.\d+)?E\+\d\d+$"  # a long number, as spreadsheets show and save it

# Nearly all ids: ASCII, normal, without the rare characters of `match_key`. `match_keys` has the keys of a million.
PLAIN_ID = r"^[!#$&-~]+( [!#$&-~]+)*$"


def id_problem(text: str) -> str:
    """Return what is wrong with an id or a label; "" if nothing is.

    Ids that look the same must be the same: else a withdrawn consent could miss a person's records.
    """
    normal = normalize_id(text)
    if not normal:
        return "is empty"
    if flaw := id_flaw(normal):
        return f"{shown(text)} {flaw}"
    if normal == text:
        return ""
    return f"{text!r} has hidden or non-standard characters: write {normal!r} (it has {difference(text, normal)})"


def parse_id(text: str) -> str:
    """Normalize an id that was typed, or that a registry has; raise ProjectError if it holds what is no character."""
    normal = normalize_id(text)
    if flaw := id_flaw(normal):
        raise ProjectError(f"the id {shown(text)} {flaw}", "write it as it is in the data, in UTF-8")
    return normal


def shown(text: str) -> str:
    """Return a text in quotes, as errors show it: cut where it is long."""
    return repr(text if len(text) <= 100 else f"{text[:60]}…")


def normalize_id(text: str) -> str:
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
        # Braille, hieroglyph, Khitan and musical characters that print as nothing: no property of Unicode says so.
        or character in "\u2800\U00013441\U00013442\U00016fe4\U0001d159"
    )


def id_flaw(text: str) -> str:
    """Return why a normalized text can't be an id: it is too long, a rounded number, or holds what is no character."""
    if len(text) > LONGEST:
        return f"has {len(text):,} characters, more than {LONGEST:,}"
    if text.isascii():
        rounded = "is a number that a spreadsheet has rounded: format its column as text there, and save it anew"
        return rounded if re.search(ROUNDED, text) else ""
    import icu

    none = (icu.UCharCategory.UNASSIGNED, icu.UCharCategory.SURROGATE)
    return next((f"holds U+{ord(c):04X}, which is no character" for c in text if icu.Char.charType(c) in none), "")


def match_key(subject: str) -> str:
    """Return a key that is equal for ids that may mean one person: other case, not normal, look-alikes, 007 and 7.

    Spreadsheets make 7 of 007. Look-alikes are those of Unicode Technical Standard 39.
    """
    key = normalize_id(subject)
    if key.isascii():
        key = key.lower()
    else:
        import icu

        def looks(word: re.Match[str]) -> str:
            # Small and capital letters of other scripts may look like different ASCII letters (those of the Greek nu
            # look like v and N). Among ASCII letters such a letter counts as it is: it is there by mistake. Elsewhere
            # its capital counts, so that words in other case stay alike.
            mixed = any(c.isascii() and c.isalpha() for c in word[0])
            return "".join(c if c.isascii() else _look(c, mixed) for c in word[0])

        key = re.sub(r"[^\W_]+|[^\x00-\x7f]+", looks, key)
        key = str(icu.Normalizer2.getNFDInstance().normalize(icu.CaseMap.fold(key)))
        key = " ".join(key.replace("i\u0307", "i").split())  # in Turkish, the capital of i is İ
    key = key.translate(LOOKS)
    for character, look in (("m", "rn"), ('"', "''"), ("%", "º/₀")):  # by the same table: they look like several
        key = key.replace(character, look)
    if "  " in key:
        key = " ".join(key.split())
    return key if key[:1] != "o" or key.strip("ol23456789") else key.lstrip("o") or "o"


def match_keys(ids: "pa.Array") -> "pa.Array":
    """Return `match_key` of each id, if it is as `PLAIN_ID` has it; of others, any text."""
    import pyarrow.compute as pc

    keys = pc.ascii_lower(ids)
    for character, look in (*((chr(code), chr(look)) for code, look in LOOKS.items()), ("m", "rn")):
        keys = pc.replace_substring(keys, character, look)
    return pc.replace_substring_regex(keys, "^o+([ol2-9]+)$", r"\1")


@cache
def _look(character: str, mixed: bool) -> str:
    import icu

    skeleton = icu.SpoofChecker().getSkeleton
    digit, look = icu.Char.charDigitValue(character), str(skeleton(0, character))
    if not (mixed and look.isascii() and look.isalnum()):
        if digit >= 0:
            return str(digit)
        look = str(skeleton(0, icu.CaseMap.toUpper(character)))
    # The skeleton of I is l, and I and l are kept apart: see `LOOKS`.
    is_i = look.startswith("l") and skeleton(0, icu.CaseMap.toLower(character)).startswith("i")
    return f"i{look[1:]}" if is_i else look


def difference(text: str, other: str) -> str:
    """Name the characters that a text has in place of another's."""
    import icu

    def named(part: str) -> str:
        return " ".join(f"U+{ord(c):04X} {icu.Char.charName(c)}".strip() for c in part) or "nothing"

    parts = SequenceMatcher(None, text, other, autojunk=False).get_opcodes()
    return ", ".join(
        f"{named(text[a:b])} in place of {named(other[c:d])}" for kind, a, b, c, d in parts if kind != "equal"
    )
