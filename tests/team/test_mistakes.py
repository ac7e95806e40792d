"""The page of the worst mistakes: it fits, however many there are."""

from typing import Any

import numpy as np
import pytest
from team.images import encode_png
from team.model import mistakes
from team.model.mistakes import draw_mistakes

PNG: bytes = encode_png(np.zeros((8, 8), dtype=np.uint8))


class Records:
    """Records with long ids, which note those that are looked at."""

    record_ids = subject_ids = tuple(f"r{number}" * 60 for number in range(9))

    def __init__(self) -> None:
        """Begin with none."""
        self.read: list[int] = []

    def __getitem__(self, index: int) -> bytes:
        """Return an image."""
        self.read.append(index)
        return PNG


def test_mistakes_are_the_worst_first_on_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    records: Any = Records()
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    page = draw_mistakes("ab", np.zeros(4, int), probabilities, records)
    assert records.read == [2, 0, 3], "equally bad ones in order"
    assert page.width <= 1000
    monkeypatch.setattr(mistakes, "MOST", 1)
    assert draw_mistakes("ab", np.zeros(4, int), probabilities, records).size == page.size
    assert records.read[3:] == [2]
    assert draw_mistakes("ab", np.ones(1, int), np.array([[0, 1]]), records).height < page.height, "without mistakes"
