"""Store old deliveries in fewer files."""

from pathlib import Path
from urllib.parse import unquote

from ..config import set_param
from ..errors import ProjectError


def compact(until: str) -> str:
    """Set `params.yaml:data.compact_until`; return what the next `prepare` will write anew.

    Raises:
        ProjectError: The dataset isn't there, or no delivery in it is named so.
    """
    folders = Path("data", "dataset").glob("*/delivery=*")
    deliveries = {folder: unquote(folder.name.removeprefix("delivery=")) for folder in folders}
    if until not in deliveries.values():
        listed = ", ".join(sorted(set(deliveries.values())))
        fix = "name one of these" if listed else "docs/data.md says how to name deliveries; then: dvc repro prepare"
        raise ProjectError(f"data/dataset has no delivery {until!r}; it has {listed or 'none'}", fix)
    merged = {folder: name for folder, name in deliveries.items() if name <= until}
    files = [file.stat().st_size for folder in merged for file in folder.iterdir()]
    set_param("data.compact_until", until)
    count = len(set(merged.values()))
    return (
        f"params.yaml:data.compact_until is {until!r}. The next dvc repro stores {count} deliveries as one: "
        f"{len(files)} files, {sum(files) / 1e6:.1f} MB, are written and uploaded anew, once. "
        "Training runs again, to the same weights."
    )
