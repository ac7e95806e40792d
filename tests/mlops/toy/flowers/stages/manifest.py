"""Stage `manifest`."""

from pathlib import Path

from mlops import write_manifest, write_report


def main() -> None:
    """Make `data/manifest.parquet` and `reports/manifest.json`."""
    manifest = write_manifest(Path("data/dataset"), Path("data/manifest.parquet"))
    write_report(Path("reports/manifest.json"), {"records": manifest.records, "sha256": [manifest.sha256]})
