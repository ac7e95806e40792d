"""Errors of other tools in words.

No tool is imported: an error that was raised is known by the names of its classes and by its message. What is not among
the known ones stays as it is: a fault of the program keeps its traceback.
"""

import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ProjectError
from .known_errors import KNOWN

LONGEST = 400  # characters of another tool's message
# The modules whose errors may be explained; of Python's own errors, those of the system.
TOOLS = """
    aiobotocore aiohttp boto3 botocore configobj diskcache dulwich dvc dvc_data dvc_objects filelock fsspec git mlflow
    pygit2 requests ruamel s3fs s3transfer scmrepo sqlalchemy sqlite3 ssl tomllib urllib urllib3 zc
"""


def explain(error: BaseException) -> ProjectError | None:
    """Return the error for people that an error of another tool, or of the system, means; None if it is not known.

    Its causes are looked at too. A `ProjectError` is returned as it is.
    """
    if isinstance(error, ProjectError):
        return error
    names = _names_of(error)
    if not (_note_of(error) or isinstance(error, OSError) or set(TOOLS.split()) & set(re.findall(r"(\w+)\.", names))):
        return None
    causes = list(_causes(error))
    return _first_known([(f"{_names_of(cause)}\n{_text_of(cause)}", _values_of(cause)) for cause in causes])


def quiet() -> None:
    """Let other tools print no tracebacks: what they say is told once, by the error that they end in."""
    for name in ("dvc_data.hashfile.transfer", "dvc_data.index.fetch", "dvc_objects.fs.generic", "dvc.repo.fetch"):
        logging.getLogger(name).addFilter(_last_failure)
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).propagate = False  # DVC prints its own; here they would come again, with tracebacks
    for name in ("botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn of a login that has ended, in 40 lines each time


class _Values(dict[str, str]):
    """What may stand in braces."""

    def __missing__(self, key: str) -> str:
        """Return what stands for a value that is not known."""
        known = {"cwd": str(Path.cwd()), "folder": str(Path.cwd()), "bucket": "of that name", "lock": ".git/index.lock"}
        return {**known, "region": "<the bucket's>", "host": "the configured address"}.get(key, "")


class _LastFailure(logging.Filter):
    """Takes errors out of DVC's log, and remembers the last: where many files fail, what DVC raises is their number."""

    error: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing through."""
        if isinstance(record.exc_info, tuple) and record.exc_info[1]:
            self.error = record.exc_info[1]
        return False


_last_failure = _LastFailure()


def _first_known(causes: list[tuple[str, dict[str, str]]]) -> ProjectError | None:
    """Return the error that the first of `KNOWN` makes of any of the causes: a text, and its values."""
    for known in KNOWN:
        for text, values in causes:
            if match := re.search(known.pattern, text, re.MULTILINE):
                filled = _Values({**values, **{name: group for name, group in match.groupdict().items() if group}})
                return known.error(known.problem.format_map(filled), known.fix.format_map(filled))
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what caused it, the cause of that, and so on."""
    following: BaseException | None = error
    while following:
        yield following
        is_number_of_files = "dvc.FileTransferError" in _names_of(following)
        following = _last_failure.error if is_number_of_files else following.__cause__ or following.__context__


def _names_of(error: BaseException) -> str:
    kinds = (kind for kind in type(error).__mro__ if kind not in (object, BaseException, Exception))
    return " ".join(f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__name__}" for kind in kinds)


def _text_of(error: BaseException) -> str:
    """Return an error's message after AWS's code, operation and status, or after the name of the system's error."""
    if response := _response_of(error):
        status = response["ResponseMetadata"].get("HTTPStatusCode", 0)
        code, message = (response["Error"].get(key, "") for key in ("Code", "Message"))
        return f"{code} {getattr(error, 'operation_name', '')} (HTTP {status}): {message}"
    code = errno.errorcode.get(getattr(error, "errno", None) or 0, "")
    return f"{code} {error}\n{_note_of(error)}".strip()


def _note_of(error: BaseException) -> str:
    """Return the note with which `files.read_json` says which file is damaged or missing; "" for other errors."""
    return next((note for note in getattr(error, "__notes__", ()) if note.startswith("file: ")), "")


def _response_of(error: BaseException) -> dict[str, dict[str, Any]]:
    """Return the response of AWS that an error of botocore's holds; {} for others."""
    response = getattr(error, "response", None)
    return {"ResponseMetadata": {}, **response} if isinstance(response, dict) and "Error" in response else {}


def _values_of(error: BaseException) -> dict[str, str]:
    """Return what an error says apart from its message: botocore's values, a file, a host."""
    text, named = str(error), getattr(error, "kwargs", None) or {}
    values = {name: str(value) for name, value in named.items() if value is not None}
    if response := _response_of(error):
        details = response["Error"]
        text = str(details.get("Message", ""))
        values |= {"code": f"{details.get('Code')}: ", "operation": f" {getattr(error, 'operation_name', '')}"}
        if name := details.get("BucketName"):
            values |= {"bucket": str(name), "name": str(name)}
        if region := response["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region"):
            values["region"] = region
    if path := getattr(error, "filename", None) or getattr(error, "path", "") or _note_of(error)[6:]:
        values |= {"file": str(path), "of_file": f": {path}"}
    if host := re.search(r"host='([^']+)', port=(\d+)", text) or re.search(r"://(?:[^/\s@]*@)?([^/\s'\"]+)", text):
        values["host"] = ":".join(host.groups())
    profile = os.environ.get("AWS_PROFILE", "")
    values["of_profile"] = values["of_session"] = f" --profile {profile}" if profile else ""
    if session := re.search(r"Token for (\w[\w.-]*) does not exist", text):
        values["of_session"] = f" --sso-session {session[1]}"
    line = " ".join(re.sub(r"(?<=://)[^/\s]*@", "", text).split())  # without credentials
    return {**values, "message": line if len(line) <= LONGEST else f"{line[:LONGEST]} …"}
