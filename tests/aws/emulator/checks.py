"""A request against botocore's model of the API, with AWS's words for what is wrong."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from .errors import ServiceError


@functools.cache
def model() -> Any:
    """Return botocore's model of SageMaker."""
    return botocore.session.get_session().get_service_model("sagemaker")


def check(operation: str, request: dict[str, Any]) -> None:
    """See that a request is one of this operation.

    Raises:
        ServiceError: It is not.
    """
    shape = model().operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ServiceError("ValidationException", report.generate_report())
    problems = list(_problems(request, shape, ""))
    if problems:
        raise validation(problems)


def validation(problems: list[str]) -> ServiceError:
    """Return the error for what is wrong with a request."""
    number = "1 validation error" if len(problems) == 1 else f"{len(problems)} validation errors"
    return ServiceError("ValidationException", f"{number} detected: {'; '.join(problems)}")


def fitted(operation: str, description: dict[str, Any]) -> dict[str, Any]:
    """Return what of a description the operation's answer has a field for."""
    shape = model().operation_model(operation).output_shape
    return {name: value for name, value in description.items() if shape and name in shape.members and value is not None}


def _problems(value: Any, shape: Any, where: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        for name, member in value.items():
            if name not in shape.members:
                yield f"Unknown field {_path(where, name)}"
            elif member is not None:
                yield from _problems(member, shape.members[name], _path(where, name))
    elif kind == "list":
        yield from _length(value, shape, where)
        for number, member in enumerate(value, 1):
            yield from _problems(member, shape.member, f"{where}.{number}.member")
    elif kind == "map":
        yield from _length(value, shape, where)
        for name, member in value.items():
            yield from _problems(name, shape.key, where)
            yield from _problems(member, shape.value, f"{where}.{name}.member")
    elif kind == "string":
        yield from _text(value, shape, where)
    elif kind in ("integer", "long"):
        yield from _bounds(value, value, "value", shape, where)


def _path(where: str, name: str) -> str:
    return f"{where}.{name[0].lower()}{name[1:]}".lstrip(".")


def _text(value: str, shape: Any, where: str) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        yield _failed(value, where, f"satisfy enum value set: [{', '.join(shape.enum)}]")
    yield from _length(value, shape, where)
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield _failed(value, where, f"satisfy regular expression pattern: {pattern}")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    if r"[\p{L}" in pattern:  # letters in a class with others: what is no letter is listed instead
        pattern = pattern.replace(r"\p{L}", r"\w").replace(r"\p{Z}", r"\s").replace(r"\p{N}", r"\d")
    return re.compile(pattern.replace(r"\p{Alnum}", "a-zA-Z0-9"))


def _length(value: Any, shape: Any, where: str) -> Iterator[str]:
    yield from _bounds(value, len(value), "length", shape, where)


def _bounds(value: Any, size: int, what: str, shape: Any, where: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield _failed(value, where, f"have {what} greater than or equal to {least}")
    if most is not None and size > most:
        yield _failed(value, where, f"have {what} less than or equal to {most}")


def _failed(value: Any, where: str, constraint: str) -> str:
    return f"Value '{value}' at '{where}' failed to satisfy constraint: Member must {constraint}"
