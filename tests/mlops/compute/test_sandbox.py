"""Jobs of the sandbox that can't start."""

from types import SimpleNamespace

import pytest
from mlops.compute.sandbox import backend
from mlops.errors import ProjectError


def test_check_on_windows_says_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "os", SimpleNamespace(name="nt"))
    fix = "work in WSL, or run the stage here: RUN_ON=local"
    with pytest.raises(ProjectError, match=f"the sandbox needs Linux or macOS\nFix: {fix}"):
        backend.Sandbox().check()
    monkeypatch.setattr(backend, "os", SimpleNamespace(name="posix"))
    backend.Sandbox().check()
