"""What is asked: subjects, from the command line or a file; a date; and the consent registry to compare with."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ..config import read_params
from ..errors import ProjectError
from ..records import consent
from ..records.csv_reader import rows
from ..records.ids import parse_id


def plain(subjects: Iterable[str]) -> list[str]:
    """Return ids in the form that manifests have them, each once.

    Raises:
        ProjectError: There are none, one is empty, or one is no text.
    """
    found = list(map(parse_id, subjects))
    if not found or not all(found):
        raise ProjectError(
            "a subject is empty" if found else "no subject is named", "name subjects, or give --subjects-file <file>"
        )
    return list(dict.fromkeys(found))


def subjects_in(file: Path) -> list[str]:
    """Read subjects from a file: a CSV file with a column `subject_id`, or plain lines of one id each.

    Raises:
        ProjectError: The file isn't there, is not UTF-8, or holds none.
    """
    try:
        with file.open("rb") as opened:
            first = opened.readline().decode("utf-8-sig")
            if "subject_id" in [cell.strip().strip('"').lower() for cell in first.split(",")]:
                opened.seek(0)
                return [cell for _, (cell,) in rows(opened, file.name, ("subject_id",))]
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file} can't be read: {error}", "give a file of subjects in UTF-8, one a line") from error
    return [line for line in lines if line.strip()]


def moment(text: str) -> datetime:
    """Read a date or a time; a date begins at midnight UTC, and so does a time without a zone count.

    Raises:
        ProjectError: It is none.
    """
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ProjectError(
            f"--since {text!r} is no date", "write it like 2025-06-01 or 2025-06-01T02:00:00+02:00"
        ) from error


def read_registry() -> consent.Registry:
    """Read the consent registry as it is now.

    Raises:
        ProjectError: Nobody's consent is asked for, the registry isn't there, or it is malformed.
    """
    if read_params().get("data", {}).get("consent") == consent.NOT_REQUIRED:
        raise ProjectError(
            "nobody's consent is asked for (params.yaml:data.consent), so there is no end of it to compare with",
            "audit verify <subject> --since <date>; or set params.yaml:data.consent to required",
        )
    return consent.read(consent.PATH)
