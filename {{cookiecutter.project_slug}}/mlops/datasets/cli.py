"""The commands `data` and `evaluate`."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ProjectError
from ..files import atomic_write
from ..output import as_json, print_json, print_json_rows, shorten, table

if TYPE_CHECKING:
    from .contents import Comparison

LABELS = 40  # rows of a table, at most
SHOWN = 5  # ids of a change
NEW_PATH = click.Path(path_type=Path)


@click.group("data")
def verbs() -> None:
    """The dataset: label its versions, list and compare them."""


@verbs.command()
@click.argument("version")
def tag(version: str) -> None:
    """Label the dataset of the work tree, such as v1.0. Runs on it show the label as data_version."""
    from . import versions

    click.echo(f"data/{version} is commit {versions.tag(version)[:10]}")


@verbs.command("list")
@as_json
def list_versions(as_json: bool) -> None:
    """List the versions of the dataset. Each has a tag, or a model of it is registered; the newest is first."""
    from . import versions

    rows = [version.row() for version in versions.known()]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("No version of the dataset has a label or a registered model yet: python -m mlops data tag v1.0")
    else:
        splits = list(dict.fromkeys(split for row in rows for split in row["splits"]))
        lines = [
            [
                ", ".join(name.removeprefix("data/") for name in row["tags"]) or row["version"],
                row["date"][:10],
                *(_number(number) for number in (row["records"], row["subjects"], *map(row["splits"].get, splits))),
                ", ".join(map(str, row["models"])) or "-",
            ]
            for row in rows
        ]
        click.echo(table(lines, ["version", "date", "records", "subjects", *splits, "models"]))


@verbs.command()
@click.argument("version")
@click.option("--samples", type=NEW_PATH, help="Write the first records of each label as files into this new folder.")
@as_json
def show(version: str, samples: Path | None, as_json: bool) -> None:
    """Show what is in a version. VERSION is its label, the start of its hash, a Git revision, or `workspace`."""
    from . import contents, versions

    chosen = versions.find(version)
    manifest = versions.read_manifest(chosen)
    details = contents.describe(chosen, manifest)
    if as_json:
        print_json(details)
    else:
        _print_details(details)
    if samples:
        count = contents.write_samples(chosen, manifest, samples)
        click.echo(f"{count} contents are in {samples}", err=True)


@verbs.command()
@click.argument("folder", type=NEW_PATH)
def export(folder: Path) -> None:
    """Write the dataset as image files. They are FOLDER/<split>/<label>/<record_id>.<ext>."""
    from ..records import shards

    click.echo(f"{shards.export(Path('data/dataset'), folder)} images in {folder}")


@verbs.command()
@click.option("--suggest", is_flag=True, help="With the salt that spreads labels best.")
@click.option("--write", is_flag=True, help="Write that salt to params.yaml.")
def split(suggest: bool, write: bool) -> None:
    """Count subjects, and records of each label, by split."""
    from .splits import describe

    click.echo(describe(suggest or write, write))


@verbs.command()
@click.argument("delivery")
def compact(delivery: str) -> None:
    """Store deliveries up to this one as one, in fewer files. Their order is that of their names."""
    from .compaction import compact

    click.echo(compact(delivery))


@verbs.command()
@click.argument("old")
@click.argument("new", default="workspace")
@click.option("--csv", "csv_file", type=NEW_PATH, help="Write every change into this file.")
@as_json
def diff(old: str, new: str, csv_file: Path | None, as_json: bool) -> None:
    """Compare the records of two versions. They are named as for `show`; contents are not compared."""
    from . import contents, versions

    chosen = {"old": versions.find(old), "new": versions.find(new)}
    manifests = {side: versions.read_manifest(version) for side, version in chosen.items()}
    comparison = contents.compare(manifests["old"], manifests["new"])
    sides = {
        side: {
            "version": name,
            "commit": chosen[side].commit or None,
            "dataset_md5": chosen[side].md5,
            "records": len(manifests[side]),
            "subjects": len(manifests[side]["subject_id"].unique()),
        }
        for side, name in (("old", old), ("new", new))
    }
    if as_json:
        print_json_rows({**sides, "counts": comparison.counts}, "changes", comparison.rows())
    else:
        _print_comparison(sides, comparison)
    if csv_file:
        _write_csv(csv_file, comparison)


@click.command()
@click.argument("model")
@click.option("--on", default="data/dataset", show_default=True, help="A folder, or a version of dataset or model.")
@click.option("--split", default="test", show_default=True)
@click.option("--output", type=NEW_PATH, help="Write each prediction into this Parquet file.")
@click.option("--include-seen", is_flag=True, help="Also on records of subjects that it was trained on.")
@as_json
def evaluate(model: str, on: str, split: str, output: Path | None, include_seen: bool, as_json: bool) -> None:
    """Measure a model on a dataset, without training. MODEL is a directory, or a version's number or alias."""
    from ..records.scores import write_scores
    from .evaluate import evaluate as measure

    if output and output.suffix != ".parquet":
        raise ProjectError(f"{output} is not .parquet", f"--output {output.with_suffix('.parquet')}")
    result = measure(model, on, split, include_seen)
    if output:
        records = result.predictions
        ids = records.record_ids, records.subject_ids, records.labels
        write_scores(output, *ids, records.classes, records.probabilities)
    row = result.row()
    if as_json:
        print_json(row)
        return
    click.echo(f"{model} on {on}, {split}: {row['records']} records of {row['subjects']} subjects")
    seen = "nobody can tell how many" if result.seen is None else result.seen
    click.echo(f"  that it has trained on: {seen} ({'counted' if include_seen else 'left out'})")
    click.echo(f"  without consent today: {result.without_consent} (left out)\n")
    click.echo(table([[name, f"{value:.4f}"] for name, value in row["metrics"].items()]))


def _print_details(details: dict[str, Any]) -> None:
    facts = {
        "version": details["version"],
        "tags": ", ".join(details["tags"]) or "-",
        "commit": f"{details['commit']} of {details['date'][:10]}" if details["commit"] else "that of the work tree",
        "dataset": details["dataset_md5"],
        "manifest": details["manifest_sha256"],
        "records": f"{details['records']} of {details['subjects']} subjects",
        "left out": f"{_number(details['excluded'])} for lack of consent",
        "models": ", ".join(map(str, details["models"])) or "-",
    }
    click.echo(table([[name, shorten(fact)] for name, fact in facts.items()]) + "\n")
    counts = {(count["split"], count["label"]): str(count["records"]) for count in details["counts"]}
    first: dict[str, list[str]] = {}
    for record in details["first_records"]:
        first.setdefault(record["label"], []).append(record["record_id"])
    splits = list(details["splits"])
    rows = [["all", *map(str, details["splits"].values()), ""]]
    for label, ids in first.items():
        rows.append([label, *(counts.get((split, label), "0") for split in splits), ", ".join(ids)])
    _print_labels(rows, ["label", *splits, "first records"])


def _print_comparison(sides: dict[str, dict[str, Any]], comparison: "Comparison") -> None:
    facts = {"dataset": "dataset_md5", "records": "records", "subjects": "subjects"}
    lines = [[fact, *(shorten(str(side[key])) for side in sides.values())] for fact, key in facts.items()]
    click.echo(table(lines, ["", *(side["version"] for side in sides.values())]) + "\n")
    ids = {f"records {change}": records["record_id"] for change, records in comparison.records.items()}
    ids |= {f"subjects {change}": subjects for change, subjects in comparison.subjects.items()}
    lines = [[change, str(len(names)), ", ".join(names[:SHOWN].to_pylist())] for change, names in ids.items()]
    click.echo(table(lines, ["change", "count", "first"]) + "\n")
    labels = sorted({count["label"] for count in comparison.counts})
    splits = list(dict.fromkeys(count["split"] for count in comparison.counts))
    counts = {(count["split"], count["label"]): (count["old"], count["new"]) for count in comparison.counts}

    def cell(split: str, *labels: str) -> str:
        old, new = map(sum, zip(*(counts.get((split, label), (0, 0)) for label in labels), strict=True))
        return f"{new} ({new - old:+})" if new != old else str(new)

    rows = [["all", *(cell(split, *labels) for split in splits)]]
    rows += [[label, *(cell(split, label) for split in splits)] for label in labels]
    _print_labels(rows, ["label", *splits])
    if sides["old"]["dataset_md5"] == sides["new"]["dataset_md5"]:
        click.echo("\nIt is the same dataset, to the byte.")
    elif not any(map(len, ids.values())):
        click.echo("\nThe records are the same; their contents, or how they are stored, are not.")
    else:
        click.echo("\nContents are not compared: whether a record has another image now is not seen here.")


def _print_labels(rows: list[list[str]], headers: list[str]) -> None:
    """Print a table of labels, of which the first row is the sum."""
    click.echo(table(rows[: LABELS + 1], headers))
    if rows[LABELS + 1 :]:
        click.echo(f"and {len(rows) - LABELS - 1} more labels: --json")


def _write_csv(path: Path, comparison: "Comparison") -> None:
    with atomic_write(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, comparison.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(comparison.rows())


def _number(number: int | None) -> str:
    return "-" if number is None else str(number)


groups = (verbs, evaluate)
