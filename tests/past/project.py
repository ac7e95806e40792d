"""A project of version 0.1 with a past: what its owner changed, trained, put in use and took out again.

`make.py` made it and packed it into `v0.1.tar.xz`. What the template promises to such a project, it must go on keeping.
"""

import contextlib
import sqlite3
import tarfile
from pathlib import Path, PurePosixPath

from ..conftest import BakedProject

ARCHIVE = Path(__file__).with_name("v0.1.tar.xz")
MADE_AT = PurePosixPath("/tmp/past/digit-classifier")  # noqa: S108 (where it was made; nothing is read from there)
PACKAGE = "digit_classifier"
COMMAND = ("python", "-m", PACKAGE)
"""Starts the command line of version 0.1."""

REVOKED = "form-03"
"""The subject that withdrew: versions 1 and 2 of the model know it, version 3 was made without it."""

LOCATIONS = ("%uri", "%location")
"""Columns of MLflow's tables that hold addresses of files, as patterns of SQL."""


def unpack(folder: Path) -> BakedProject:
    """Unpack the project below `folder`, as if its owner had moved it there; nothing is pulled from its DVC remote.

    Where MLflow and DVC look for files becomes the new folder. What runs recorded of the old one stays, as MLflow's
    copy must agree with the run's own files, which DVC knows by their hash.
    """
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    project = BakedProject(folder.resolve() / MADE_AT.name, PACKAGE)
    config = project.path / ".dvc/config.local"
    text = config.read_text(encoding="utf-8").replace(str(MADE_AT), project.path.as_posix())
    config.write_text(text, encoding="utf-8", newline="\n")
    move_artifacts(project.path / "mlflow.db", project.path)
    project.run("git", "reset", "--quiet", "--hard")
    return project


def move_artifacts(database: Path, place: Path) -> None:
    """Let MLflow look for its files in another folder.

    Args:
        database: MLflow's, in SQLite.
        place: Where the project is now.
    """
    columns = """
        SELECT tables.name, columns.name FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table' AND (columns.name LIKE ? OR columns.name LIKE ?)
    """
    prefixes = ((MADE_AT.as_uri(), place.as_uri()), (str(MADE_AT), place.as_posix()))
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table, column in connection.execute(columns, LOCATIONS).fetchall():
            for old, new in prefixes:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608 (MLflow's own names)
                    (new, len(old) + 1, len(old), old),
                )
