"""What the stage `train` refuses before it trains, and a disk that is full where it keeps the model."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlops import ProjectError
from team.model.networks import build
from team.model.predictor import ModelConfig, Predictor
from team.model.training import TrainParams
from team.stages import train as stage
from team.stages.manifest import contact_sheet

from ..mlops.conftest import SKELETON
from .fits import PARAMS


@pytest.mark.parametrize(
    ("changes", "classes", "message"),
    [
        (
            {"arch": "small_resnet"},
            "ab",
            r"v/1 has arch: small_cnn, and .*\nFix: set params.yaml:train.arch: small_cnn, ",
        ),
        ({"model": {"width": 8}}, "ab", r"v/1 has model: {}, and .*\nFix: set params.yaml:train.model: {}, or params"),
        (
            {},
            "abcdefghi",
            r"not the same labels: c, d, e, f, g\nFix: set params.yaml:train.init_from to null or another",
        ),
        ({}, "bc", "not the same labels: a, c"),
    ],
    ids=["arch", "model", "more labels", "other labels"],
)
def test_start_from_another_network_or_labels_names_what_to_set(
    changes: dict[str, Any], classes: str, message: str
) -> None:
    half = (0.5,)
    config = ModelConfig(arch="small_cnn", classes=("a", "b"), image_px=8, channels=1, mean=half, std=half)
    start = Predictor(build("small_cnn", 2, 1), config)
    settings = TrainParams.model_validate({**PARAMS, "arch": "small_cnn", "init_from": "models:/v/1", **changes})
    dataset: Any = SimpleNamespace(classes=tuple(classes))
    with pytest.raises(ProjectError, match=message):
        stage._build(settings, dataset, start)


def test_preset_without_weights_that_have_one_names_the_other_values() -> None:
    settings = TrainParams.model_validate({**PARAMS, "resize": "preset"})
    with pytest.raises(ProjectError, match=r"train.resize is preset, .*\nFix: set params.yaml:train.resize to squeeze"):
        stage._preprocess(settings, 1, None)


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is made with Linux namespaces")
def test_full_disk_where_the_model_is_saved_is_an_error_of_the_system(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.mlops import conftest
from team.model.networks import build
from team.model.predictor import ModelConfig, save
half = (0.5,)
config = ModelConfig(arch="small_cnn", classes=("a", "b"), image_px=8, channels=1, mean=half, std=half)
try:
    save(Path("disk/model"), build("small_cnn", 2, 1), config)
except OSError as error:
    print(error.errno)
"""
    (tmp_path / "disk").mkdir()
    mounted = 'mount -t tmpfs -o size=100k none disk && exec "$0" -c "$1" "$2"'
    unshare = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted)
    done = subprocess.run(
        [*unshare, sys.executable, script, str(SKELETON.parent)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.split() == [str(errno.ENOSPC)], done.stderr


def test_contact_sheet_names_the_record_whose_image_is_damaged() -> None:
    with pytest.raises(
        ProjectError, match=r"image of record 'r1' is damaged or .*\nFix: correct the source, then: dvc"
    ):
        contact_sheet([("cat", [("r1", b"x")])], 1)
