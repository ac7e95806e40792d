"""Tests whose processes start others: these import `mlops` and `team` too, which that file makes possible."""

from .. import conftest  # noqa: F401
