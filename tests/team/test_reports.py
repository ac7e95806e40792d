"""Pictures of what a model takes for what: they fit a page, however many labels and mistakes there are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from team.images import encode_png
from team.model import reports
from team.model.reports import confusion_figure, mistakes

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


@pytest.mark.parametrize("count", [25, 101])
def test_confusion_figure_of_many_labels_fits_a_page(tmp_path: Path, count: int) -> None:
    classes = [f"label {number}" for number in range(count)]
    confusion_figure(classes, np.arange(count), np.eye(count)).savefig(tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").width <= 1000


def test_mistakes_are_the_worst_first_on_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    records, probabilities = Records(), np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    page = mistakes("ab", np.zeros(4, int), probabilities, records)
    assert records.read == [2, 0, 3], "equally bad ones in order"
    assert page.width <= 1000
    monkeypatch.setattr(reports, "MISTAKES", 1)
    assert mistakes("ab", np.zeros(4, int), probabilities, records).size == page.size
    assert records.read[3:] == [2]
    assert mistakes("ab", np.ones(1, int), np.array([[0, 1]]), records).height < page.height, "without mistakes"
