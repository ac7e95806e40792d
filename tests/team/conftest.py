"""The sources and image formats that every generated project begins with, tested whole, where they lie in the template.

A project's own tests hold what its owner would miss at once.
"""

from ..mlops import conftest as conftest  # it lets `team` be imported
