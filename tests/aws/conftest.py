"""An AWS on this machine, for the tests of what runs there."""

import sys
from collections.abc import Iterator

import pytest

from ..conftest import isolate

# Containers are made with namespaces, as Linux has them, and the S3 store is for Linux.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]

if sys.platform == "linux":
    from .bed import Bed

    @pytest.fixture(scope="session")
    def aws_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
        """An AWS account in which a project can work; for the session."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            isolate(monkeypatch, tmp_path_factory)
            started = Bed(tmp_path_factory.mktemp("aws"))
            yield started
            started.close()

    @pytest.fixture
    def aws(aws_account: Bed) -> Iterator[Bed]:
        """It, with nothing going wrong and no calls counted."""
        aws_account.calls.clear()
        yield aws_account
        aws_account.faults.heal()
        aws_account.credentials.renew(aws_account.credentials.key)

    @pytest.fixture
    def mlflow_app(aws: Bed) -> str:
        """The ARN of an MLflow App there."""
        return aws.start_mlflow()
