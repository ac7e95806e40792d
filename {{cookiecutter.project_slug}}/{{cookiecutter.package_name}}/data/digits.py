"""The default source: 1,797 real handwritten digits, 8x8 pixels, that come with scikit-learn.

The labels of this data set are one fixed form of 130 digits, filled in 14 times, with 23 digits missing. These forms
are the subjects here. Who wrote them was never published, and two forms may be by the same hand: say "form", not
"writer". The ids are derived from the order of the labels; the consent states of the forms are invented.

Source: https://archive.ics.uci.edu/dataset/80 (test part); the forms were found by aligning the labels with `FORM`.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from mlops import Record

from ..images import encode_png

FORM = (
    "012345678901234567890123456789"
    "0955650989841773510022782012633733466649150952820017632174631391768431405369617544728225795488490898"
)
FORMS = 14
MISSING = {
    1: (87, 88, 118, 119),
    7: (0, 48, 49, 50, 86, 122, 123),
    8: (50, 51),
    10: (127, 128),
    12: (17, 18, 77, 78, 113, 114, 122, 123),
}
"""The slots of a form that scikit-learn's copy lacks."""


def records() -> Iterator[Record]:
    """Yield the 1,797 digits; no file is read but scikit-learn's own.

    Yields:
        `form-03-057` of subject `form-03`: slot 57 of form 3, both counted from 0; labels "0" to "9".
    """
    slots = ((form, slot) for form in range(FORMS) for slot in range(len(FORM)) if slot not in MISSING.get(form, ()))
    for position, ((form, slot), label) in enumerate(zip(slots, _digits().target, strict=True)):
        subject = f"form-{form:02}"
        name = f"{subject}-{slot:03}"
        yield Record(name, subject, str(label), content=str(position), origin=name)


def read(position: str) -> bytes:
    """Return a digit as PNG. Ink v, from 0 to 16, is the grey pixel round(v * 255 / 16), and back."""
    return encode_png((_digits().images[int(position)] * 255 / 16).round().astype("uint8"))


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()
