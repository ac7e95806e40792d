"""DVC's configuration files, for projects whose path has any characters.

DVC (3.67) reads these files in the encoding of the locale and writes them in ASCII: where a path has another character,
its own writer fails and leaves an empty file.
"""

import locale
import os
import shutil
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..files import atomic_write


def write(path: Path, sections: dict[str, dict[str, Any]]) -> None:
    """Add sections to a configuration file of DVC; what else it holds stays.

    Args:
        path: The file; it need not exist.
        sections: Their keys and values by name; that of a remote is `remote "<name>"`.

    Raises:
        ProjectError: A value has a character that DVC could not read back. The file is as it was.
    """
    from configobj import ConfigObj

    encoding = locale.getpreferredencoding(False)  # as DVC reads it
    content = ConfigObj(str(path), encoding=encoding)
    content.merge(sections)
    try:
        with atomic_write(path) as new:
            with new.open("wb") as file:
                content.write(file)
            if path.exists():
                shutil.copymode(path, new)  # it may hold secrets
    except UnicodeEncodeError as error:
        raise ProjectError(
            f"DVC reads {path} in the encoding {encoding}, which lacks characters of {error.object.strip()!r}",
            "set PYTHONUTF8=1 for every command, or move the project, and its storage, to a path in ASCII",
        ) from error


def as_value(url: str, file: Path) -> str:
    """Return the address of a remote as a configuration file is to hold it.

    A folder is told relative to the file where that leaves ASCII only: any locale reads it, and `dvc remote modify`
    can go on writing the file.

    Args:
        url: An address, or the absolute path of a folder.
        file: The configuration file.
    """
    if "://" in url or url.isascii():
        return url
    try:
        relative = Path(os.path.relpath(url, file.absolute().parent)).as_posix()
    except ValueError:  # on another drive of Windows
        return url
    return relative if relative.isascii() else url
