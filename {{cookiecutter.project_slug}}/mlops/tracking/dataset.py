"""The dataset as MLflow shows it on a run: where it is, at which commit, with which hash."""

import os
import tempfile
from typing import Any

from mlflow.data.dataset_source import DatasetSource


class DvcDatasetSource(DatasetSource):
    """A directory that DVC tracks, at one Git commit.

    Args:
        url: The Git repository; "" when it has no remote.
        rev: The commit whose `dvc.lock` names the dataset.
        path: The directory inside the repository.
        remote_url: The DVC remote that holds the bytes.
    """

    def __init__(self, url: str, rev: str, path: str, remote_url: str) -> None:
        self.url, self.rev, self.path, self.remote_url = url, rev, path, remote_url

    def load(self, dst_path: str | None = None) -> str:
        """Download the dataset.

        Returns:
            The local folder.
        """
        from dvc.repo import Repo

        out = dst_path or os.path.join(tempfile.mkdtemp(), os.path.basename(self.path))
        Repo.get(self.url or os.getcwd(), self.path, out=out, rev=self.rev)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return what MLflow stores."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> "DvcDatasetSource":
        """Make a source of what MLflow stored."""
        return cls(**source_dict)

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False  # made by this project only, never guessed from a string

    @classmethod
    def _resolve(cls, raw_source: Any) -> "DvcDatasetSource":
        raise TypeError(f"a DVC dataset is not named by {raw_source!r}")
