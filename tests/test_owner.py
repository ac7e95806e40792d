"""What the owner of a project changes every day: each of it is one or two files of theirs, and nothing else moves."""

import json
from collections.abc import Callable

import pytest

from .conftest import BakedProject
from .projects import commit, edit, executed, read

Change = Callable[[BakedProject], None]

NETWORK = '''def _tiny(classes: int, channels: int, width: int = 8) -> nn.Module:
    """A network of one convolution."""
    return nn.Sequential(_conv(channels, width), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, classes))


NETWORKS: dict['''

SHIFT = """def _shift(px: int) -> Augmentation:
    import torch
    from torchvision.transforms import v2

    shift = v2.Lambda(lambda image: image.roll(int(torch.randint(-1, 2, ())), -1))
    steps: Augmentation = v2.Compose([v2.Resize((px, px)), shift])
    return steps


AUGMENTATIONS: dict["""

SOURCE = '''"""The first half of the forms."""

from collections.abc import Iterator

from mlops import Record

from . import digits


def records() -> Iterator[Record]:
    """Yield the records of forms 0 to 6."""
    return (record for record in digits.records() if int(record.subject_id.removeprefix("form-")) < 7)


read = digits.read
'''

STAGE = '''"""Stage `sizes`: how many records each split has."""

from pathlib import Path

from mlops import read_split, write_report


def main() -> None:
    """Count them."""
    sizes = {split: len(read_split(Path("data/dataset", split))) for split in ("train", "val", "test")}
    write_report(Path("reports/sizes.json"), sizes)
'''
ENTRY = """
  sizes:
    cmd: python -m mlops stage sizes
    deps:
      - {package}/stages/sizes.py
      - mlops/records
      - environment.json
      - data/dataset
    metrics:
      - reports/sizes.json: {{cache: false}}

plots:
  - loss"""


def write(project: BakedProject, name: str, text: str) -> None:
    """Write a new file of the package."""
    (project.path / project.package / name).write_text(text, encoding="utf-8", newline="\n")


def add_network(project: BakedProject) -> None:
    """Add a network that has a parameter of its own, and train it."""
    networks = f"{project.package}/model/networks.py"
    edit(project, networks, "NETWORKS: dict[", NETWORK)
    edit(project, networks, "SmallResNet,\n}", 'SmallResNet,\n    "tiny": _tiny,\n}')
    edit(project, "params.yaml", "  arch: small_cnn ", "  arch: tiny ")
    edit(project, "params.yaml", "  model: {}", "  model: {width: 16}")


def add_augmentation(project: BakedProject) -> None:
    """Shift the training images by a pixel, each another way."""
    transforms = f"{project.package}/model/transforms.py"
    edit(project, transforms, "AUGMENTATIONS: dict[", SHIFT)
    edit(project, transforms, '    "none": None,', '    "shift": _shift,\n    "none": None,')
    edit(project, "params.yaml", "  augment: none ", "  augment: shift ")


def add_metric(project: BakedProject) -> None:
    """Report the share of wrong answers, on both splits."""
    edit(
        project,
        f"{project.package}/model/metrics.py",
        "METRICS = (\n",
        "METRICS = (\n"
        '    Metric("error", lambda actual, p: float((p.argmax(1) != actual).mean()), higher_is_better=False),\n',
    )


def add_parameter(project: BakedProject) -> None:
    """Train on images with noise, and make its strength a parameter."""
    training = f"{project.package}/model/training.py"
    edit(project, training, "    patience: int", "    noise: float = Field(ge=0, le=1)\n    patience: int")
    before = "        return loss_of(self.parallel(self.normalise(images)), labels, self._criterion)\n"
    after = (
        "        noise = self.params.noise * torch.randn(images.shape, device=images.device)\n"
        "        return loss_of(self.parallel(self.normalise(images) + noise), labels, self._criterion)\n"
    )
    edit(project, training, before, after)
    edit(project, "params.yaml", "  seed: 0 ", "  noise: 0.1   # in deviations\n  seed: 0 ")


def add_source(project: BakedProject) -> None:
    """Add a source of records, and do not use it yet."""
    write(project, "data/halves.py", SOURCE)


def use_source(project: BakedProject) -> None:
    """Use it; a model that learned from half of the data passes an easier gate."""
    edit(project, "params.yaml", "  source: digits ", "  source: halves ")
    edit(project, "params.yaml", "    test_acc: 0.9\n", "    test_acc: 0.5\n")


def add_stage(project: BakedProject) -> None:
    """Add a fifth stage, with a metric that DVC shows."""
    write(project, "stages/sizes.py", STAGE)
    edit(project, "dvc.yaml", "\nplots:\n  - loss", ENTRY.format(package=project.package))


def run_tests(project: BakedProject, *tests: str) -> str:
    """Run the project's own tests, and return what was printed."""
    return project.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, check=False).stdout


def test_owners_change_is_two_files_at_most_and_reruns_only_the_stages_that_it_concerns(project: BakedProject) -> None:
    changed_stages: dict[Change, set[str]] = {
        add_source: {"prepare"},
        add_network: {"train", "register"},
        add_augmentation: {"train", "register"},
        add_metric: {"train", "register"},
        add_parameter: {"train", "register"},
        add_stage: {"sizes"},
    }
    for change, stages in changed_stages.items():
        change(project)
        check_files(project)
        assert set(json.loads(project.run("dvc", "status", "--json").stdout)) == stages, change
        project.run("git", "stash", "push", "--quiet", "--include-untracked")


def check_files(project: BakedProject) -> None:
    """See that one or two files of the owner's were changed, and no other."""
    changed = [line[3:] for line in project.run("git", "status", "--porcelain", "-uall").stdout.split("\n")[:-1]]
    assert 1 <= len(changed) <= 2, changed
    own = (f"{project.package}/", "params.yaml", "dvc.yaml")
    assert all(name.startswith(own) for name in changed), changed


@pytest.mark.slow
def test_owners_changes_are_two_files_each_at_most_and_no_test_of_the_project_fails(project: BakedProject) -> None:
    stages_that_run: dict[Change, list[str]] = {
        add_source: ["prepare"],  # which makes the same dataset: no training for a source that nobody uses
        add_network: ["train", "register"],
        add_augmentation: ["train", "register"],
        add_metric: ["train", "register"],
        add_parameter: ["train", "register"],
        add_stage: ["sizes"],
        use_source: ["prepare", "manifest", "train", "register", "sizes"],
    }
    for change, stages in stages_that_run.items():
        change(project)
        check_files(project)
        assert executed(project.run("dvc", "repro").stdout) == stages, change
        commit(project, change.__name__)
    metrics = read(project, "reports/metrics.json")
    assert {"test_error", "val_error"} <= metrics.keys()
    assert read(project, "models/model/model.json")["model"] == {"width": 16}
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert shown["reports/sizes.json"]["data"] == read(project, "reports/sizes.json")
    project.run("ruff", "check", project.package)
    project.run("mypy")
    output = run_tests(project)
    assert " failed" not in output, output[-5000:]
    assert " passed" in output, output[-5000:]


def test_owner_who_forgets_a_dep_of_a_new_stage_is_told_by_the_project_s_test(project: BakedProject) -> None:
    add_stage(project)
    test = "tests/test_pipeline.py::test_deps_of_each_stage_are_the_code_that_it_imports"
    edit(project, "dvc.yaml", f"      - {project.package}/stages/sizes.py\n      - mlops/records\n", "")
    output = run_tests(project, test)
    assert f"dvc.yaml:stages.sizes.deps lacks {project.package}/stages/sizes.py" in output
    assert "dvc.yaml:stages.sizes.deps lacks mlops/records/" in output
