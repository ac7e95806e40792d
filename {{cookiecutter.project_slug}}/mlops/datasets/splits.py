"""How records and labels are spread over train, val and test: now, and with the best salt."""

from collections import Counter, defaultdict

from ..config import load_params, set_param
from ..contract import data_package
from ..errors import ProjectError
from ..output import table
from ..records import splits
from ..records.source import SPLITS, Records, read_records, require_consent

LABELS_SHOWN = 20


def describe(is_suggested: bool, write: bool) -> str:
    """Return how many records of each label are in each split, by `params.yaml` or by the best salt.

    Args:
        is_suggested: Choose the best salt, in place of that of `params.yaml`.
        write: Write that salt to `params.yaml`.

    Raises:
        ProjectError: The source, the registry or the parameters are wrong, or a split would be empty.
    """
    sources, params = data_package(), load_params("split", splits.SplitParams)
    data = load_params("data", sources.DataParams)
    with read_records(sources.load(data.source), data.fraction) as records:
        require_consent(records, data.consent)
        notes = []
        if is_suggested:
            best = splits.suggest(records, *splits.fractions_to_draw(records, params))
            notes = [f"Of {best.tried} salts, {best.salt!r} spreads the labels best", *best.lacking]
            params = params.model_copy(update={"salt": best.salt})
            if write:
                set_param("split.salt", best.salt)
        elif params.salt is None:
            raise ProjectError(
                "params.yaml:split.salt is empty: the first prepare chooses it", f"see which: {splits.SUGGEST}"
            )
        splits.split_by_subject(records, params)
        return "\n".join([*notes, _counts_table(records)])


def _counts_table(records: Records) -> str:
    """Lay out subjects, records, and records of the most frequent labels, by split."""
    query = "SELECT label, split, COUNT(*) FROM records WHERE allowed GROUP BY label, split"
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, split, count in records.table.execute(query):
        labels[label][split] = count
    query = "SELECT split, COUNT(DISTINCT subject_id) FROM records WHERE allowed GROUP BY split"
    shown = sorted(labels, key=lambda label: (-labels[label].total(), label))[:LABELS_SHOWN]
    rows = [("subjects", dict(records.table.execute(query))), ("records", records.by_split())]
    rows += [(f"label {label}", labels[label]) for label in shown]
    cells = [(name, *(str(counts.get(split, 0)) for split in SPLITS)) for name, counts in rows]
    if len(labels) > len(shown):
        cells.append((f"{len(labels) - len(shown)} more labels", "", "", ""))
    return table(cells, ("", *SPLITS))
