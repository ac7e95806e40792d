"""A page of the worst mistakes on the test set: the records that are predicted wrong, the highest loss first."""

from collections.abc import Sequence

import numpy as np
from mlops import Contents
from PIL import Image, ImageDraw, ImageFont

from ..pictures import shorten, thumbnail
from .metrics import losses

MOST = 40  # mistakes on a page
ACROSS, CELL, GAP, LINE = 8, 112, 12, 15
"""Images beside each other; pixels: side of an image, space between images, height of a line of text."""


def draw_mistakes(
    classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, records: Contents
) -> Image.Image:
    """Draw the records that are predicted wrong, the highest loss first, with label, prediction and id of each."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-losses(labels, probabilities)[wrong], kind="stable")][:MOST].tolist()
    step, font = CELL + 3 * LINE + GAP, ImageFont.load_default(12)
    page = Image.new("RGB", (ACROSS * (CELL + GAP), 2 * LINE + -(-len(worst) // ACROSS) * step), "white")
    pen = ImageDraw.Draw(page)
    head = f"{len(wrong)} of {len(labels)} records are predicted wrong; first those whose label is the least likely"
    pen.text((GAP // 2, 4), head, "black", font)
    for number, index in enumerate(worst):
        left, top = GAP // 2 + number % ACROSS * (CELL + GAP), 2 * LINE + number // ACROSS * step
        page.paste(thumbnail(records[index], CELL), (left, top))
        guess, actual = predicted[index], labels[index]
        lines = (
            f"{probabilities[index, guess]:.2f}  predicted {classes[guess]}",
            f"{probabilities[index, actual]:.2f}  actual {classes[actual]}",
            records.record_ids[index],
        )
        for down, text in enumerate(lines):
            pen.text((left, top + CELL + down * LINE), shorten(text, font, CELL), "black", font)
    return page
