"""Which of train, val and test a record belongs to: decided by its subject alone, or by the source itself.

A draw by hash needs no memory and no order. Take a subject out, or add one, and nobody else moves; so two versions of
a dataset can be compared on the records that they share. What can be chosen is the salt: `suggest` does.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from ..config import StrictModel, job_file, set_param
from ..errors import ProjectError
from .hashing import uniform_hash
from .source import SPLITS, Problems, Records

SALTS = 1000  # that are tried, at most
DRAWS = 1_000_000  # hashes that are computed to choose a salt, about
LOOKED_AT = 200_000  # subjects, at most, by which it is chosen; with so many, every salt is good
SUGGEST = "python -m mlops data split --suggest"


class SplitParams(StrictModel):
    """`params.yaml:split`: which subjects are learned from, chosen by, and tested on."""

    salt: str | int | None  # another one draws another split; None: the first `prepare` chooses, and writes it
    val: Annotated[float, Field(gt=0, lt=1)]  # fraction of the subjects by which the best epoch is chosen
    test: Annotated[float, Field(gt=0, lt=1)]  # fraction of the subjects that training never sees

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val and test together must be less than 1, to leave subjects to train on")
        return self


@dataclass(frozen=True)
class Suggestion:
    """The best salt of those that were tried, and what can't be had with it."""

    salt: str
    tried: int
    lacking: list[str]  # labels that a split lacks


def split_of(subject_id: str, salt: str, val: float, test: float) -> str:
    """Return the split of a subject; `val` and `test` are fractions of all subjects."""
    number = uniform_hash(salt, subject_id)
    return "test" if number < test else "val" if number < test + val else "train"


def split_by_subject(records: Records, params: SplitParams) -> None:
    """Part records into train, val and test.

    A split that the source gives is taken as it is. If it gives no val or no test, they are drawn from its train.
    With an empty salt, the best one is chosen, written to `params.yaml`, and printed.

    Args:
        records: What `read_records` gave, after `require_consent`.
        params: The salt, and the fractions of subjects in val and test.

    Raises:
        ProjectError: A part would be empty, or the source gives splits to a part of its records only, or two of them
            to one subject; or a job was to choose the salt.
    """
    val, test = fractions_to_draw(records, params)
    salt = params.salt
    if val + test:
        salt = _choose_salt(records, val, test) if salt is None else str(salt)
        draw = partial(split_of, salt=salt, val=val, test=test)
        records.table.create_function("split_of", 1, draw, deterministic=True)
        records.table.execute("UPDATE records SET split = split_of(subject_id) WHERE split IN ('', 'train')")
    parts = records.by_split()
    if empty := [name for name in SPLITS if name not in parts]:
        fix = f"{SUGGEST} --write; or raise params.yaml:split.val, split.test or data.fraction"
        to_draw = {"train": val + test, "val": val, "test": test}
        if not all(to_draw[name] for name in empty):
            fix = f"the source gives splits itself: add records of {' and '.join(empty)} there, or their consents"
        raise ProjectError(
            f"no record falls into {' and '.join(empty)} with salt {salt!r}, val {params.val} and test {params.test}: "
            f"{records.count()} records of {records.count_subjects()} subjects are left",
            fix,
        )


def suggest(records: Records, val: float, test: float) -> Suggestion:
    """Choose the salt that leaves no split empty and spreads labels best, over the records that may be used.

    Args:
        records: With consent decided; those with a split of their own stay there, but for train's.
        val: Fraction of the subjects, 0 where the source has a val of its own.
        test: Likewise.

    Raises:
        ProjectError: Every salt leaves a split empty, or no split is to be drawn.
    """
    if not val + test:
        raise ProjectError("the source gives all splits itself, so no salt is used", "python -m mlops data split")
    counts = _Counts.of(records)
    if not counts.subjects:
        fix = "add records of the split train to the source, or consents of their subjects"
        raise ProjectError("there is no record of train that may be used, of which val and test are drawn", fix)
    salts = [str(number) for number in range(min(SALTS, max(1, DRAWS // len(counts.subjects))))]
    wanted = np.array([[1 - val - test], [val], [test]])
    drawn = wanted[:, 0] > 0

    def badness(salt: str) -> tuple[int, int, int, float]:
        """Return how many splits are empty, labels never learned, labels lacking, and how far shares are off."""
        table = counts.spread(salt, val, test)
        never_learned = (table[0] == 0) & (table[1:].sum(0) > 0)
        difference = np.abs(table / table.sum(0) - wanted).mean()
        empty = (table.sum(1) == 0) & drawn
        return int(empty.sum()), int(never_learned.sum()), int((table[drawn] == 0).sum()), float(difference)

    best = min(salts, key=badness)
    table = counts.spread(best, val, test)
    if not table[drawn].sum(1).all():
        raise ProjectError(
            f"none of {len(salts)} salts leaves a record in each of {', '.join(SPLITS)}: {table.sum()} records of "
            f"{len(counts.subjects)} subjects, with val {val} and test {test}",
            "give records of more subjects, or raise params.yaml:split.val and split.test",
        )
    lacking = [
        f"label {label!r}, of {subjects} subjects, is not in {' and '.join(np.array(SPLITS)[(column == 0) & drawn])}"
        for label, subjects, column in zip(counts.labels, np.bincount(counts.label_of), table.T, strict=True)
        if not column[drawn].all()
    ]
    return Suggestion(best, len(salts), lacking)


@dataclass(frozen=True)
class _Counts:
    """How many records each subject has of each label: a row for each pair, as positions in the lists."""

    subjects: list[str]
    labels: list[str]
    subject_of: np.ndarray
    label_of: np.ndarray
    records: np.ndarray

    @classmethod
    def of(cls, records: Records) -> "_Counts":
        query = (
            "SELECT subject_id, label, COUNT(*) FROM records WHERE allowed AND split IN ('', 'train')"
            " GROUP BY subject_id, label LIMIT ?"
        )
        subjects, labels = dict[str, int](), dict[str, int]()
        rows = [
            (subjects.setdefault(subject, len(subjects)), labels.setdefault(label, len(labels)), count)
            for subject, label, count in records.table.execute(query, [LOOKED_AT])
        ]
        return cls(list(subjects), list(labels), *np.array(rows, dtype=np.int64).reshape(-1, 3).T)

    def spread(self, salt: str, val: float, test: float) -> np.ndarray:
        """Return the records by split and label, (3, labels)."""
        places = np.array([SPLITS.index(split_of(subject, salt, val, test)) for subject in self.subjects])
        table = np.zeros((len(SPLITS), len(self.labels)), dtype=np.int64)
        np.add.at(table, (places[self.subject_of], self.label_of), self.records)
        return table


def _choose_salt(records: Records, val: float, test: float) -> str:
    if job_file():
        problem = "params.yaml:split.salt is empty, and a job can't write the salt that it would choose"
        raise ProjectError(problem, f"where the data are: {SUGGEST} --write; or set it to any text")
    best = suggest(records, val, test)
    set_param("split.salt", best.salt)
    print(f"params.yaml:split.salt was empty. Of {best.tried} salts, {best.salt!r} spreads the labels best: written")
    for line in best.lacking:
        print(f"With no salt can this be had: {line}")
    return best.salt


def fractions_to_draw(records: Records, params: SplitParams) -> tuple[float, float]:
    """Return the fractions of val and test that are to be drawn; 0 for a split that the source has itself."""
    query = "SELECT split, COUNT(*), MIN(origin) FROM records GROUP BY split"
    given = {split: (count, origin) for split, count, origin in records.table.execute(query)}
    if given.keys() == {""}:
        return params.val, params.test
    if "" in given:
        count, origin = given[""]
        problem = f"{count} records have no split, and others have one; the first is {origin}"
        raise ProjectError(problem, "give a split to all records, or to none")
    problems = Problems("correct the splits in the source: all records of a subject belong to one")
    query = (
        "SELECT subject_id, COUNT(*), GROUP_CONCAT(DISTINCT split) FROM records"
        " GROUP BY subject_id HAVING MIN(split) < MAX(split)"
    )
    for subject, count, splits in records.table.execute(query):
        problems.add(f"subject {subject!r} has {count} records, in {splits.replace(',', ' and ')}")
    problems.check()
    drawn = [name for name in ("val", "test") if name not in given]
    if drawn:
        print(f"The source has no split {' and '.join(drawn)}: drawn from the subjects of its train")
    return ("val" in drawn) * params.val, ("test" in drawn) * params.test
