"""Stage `train`: train a network on the dataset, keep its best epoch, and measure exactly the weights that are kept.

    dvc repro train
    dvc exp run train -S train.max_lr=0.001

The networks are in `model/networks.py`, the loop and its parameters in `model/training.py`.
"""

from pathlib import Path

from mlops import ProjectError, TrainingRun, load_version, params, read_split, run_processes, training_run
from torch import nn

from ..model.dataset import Dataset, read_dataset
from ..model.evaluation import evaluate
from ..model.networks import CHANNELS, build
from ..model.predictor import ModelConfig, Predictor, save
from ..model.reports import confusion_figure, write_reports
from ..model.training import TrainParams, fit, make_deterministic
from ..model.transforms import IMAGENET, Normalise

DATASET_DIR = Path("data/dataset")
MODEL_DIR = Path("models/model")


def main() -> None:
    """Run the stage, in `train.processes` processes."""
    settings = params("train", TrainParams)
    run_processes(lambda: _main(settings), settings.processes, settings.threads)


def _main(settings: TrainParams) -> None:
    parent = load_version(settings.init_from) if settings.init_from else None
    start = Predictor.load(parent.model_dir) if parent else None
    channels = start.config.channels if start else CHANNELS.get(settings.arch)
    dataset = read_dataset(DATASET_DIR, channels, settings.image_px)
    with training_run(parents=[parent] if parent else []) as run:
        train(settings, dataset, start, run)


def train(settings: TrainParams, dataset: Dataset, start: Predictor | None, run: TrainingRun) -> None:
    """Train in every process, from scratch or from `start`; the first one then writes the model and its reports."""
    # Dropout is to differ between processes; weights to start from, and the order of the images, are the first one's.
    make_deterministic(settings.seed + run.group.rank, settings.threads)
    module, normalise = _build_model(settings, dataset, start)
    if run.group.rank == 0:
        kind = "gray, 1 channel" if dataset.channels == 1 else "colour, 3 channels"
        origin = f", as in {settings.init_from}" if start else ""
        print(f"Images: {kind}, {settings.image_px} x {settings.image_px} pixels{origin}")
    best = fit(module, dataset.train, dataset.val, normalise, settings, run)
    if run.group.rank > 0:
        return
    run.summary["best_epoch"] = best.number  # the figures of `metrics` are this epoch's; curves go on to the last
    print(f"best epoch {best.number + 1} of {settings.epochs}: validation accuracy {best.val_acc:.4f}")
    config = ModelConfig(
        arch=settings.arch,
        options=settings.arch_options,
        classes=dataset.classes,
        image_px=settings.image_px,
        channels=dataset.channels,
        mean=normalise.mean,
        std=normalise.std,
    )
    save(MODEL_DIR, module, config)
    _write_reports(Predictor.load(MODEL_DIR), dataset, run)  # what is measured is what was saved


def _build_model(settings: TrainParams, dataset: Dataset, start: Predictor | None) -> tuple[nn.Module, Normalise]:
    """Return the network to train and the normalisation its weights expect."""
    if start is None:
        try:
            classes, channels = len(dataset.classes), dataset.channels
            module = build(settings.arch, classes, channels, settings.weights, **settings.arch_options)
        except ConnectionError as error:
            fix = "connect to the internet (once: torch keeps them), or set params.yaml:train.weights to null"
            raise ProjectError(str(error), fix) from error
        except TypeError as error:
            if not settings.arch_options:
                raise
            raise ProjectError(f"{settings.arch}: {error}", "correct params.yaml:train.arch_options") from error
        return module, IMAGENET if settings.weights else Normalise.of(dataset.train.pixels)
    pairs = (
        ("arch", start.config.arch, settings.arch),
        ("options", start.config.options, settings.arch_options),
        ("labels", start.config.classes, dataset.classes),
    )
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise ProjectError(
                f"{settings.init_from} has the {name} {theirs}, this training {ours}",
                "change params.yaml:train.init_from, or set it to null",
            )
    return start.module, start.normalise


def _write_reports(model: Predictor, dataset: Dataset, run: TrainingRun) -> None:
    val, test = (
        evaluate(model.module, split.pixels, split.labels, model.normalise) for split in (dataset.val, dataset.test)
    )
    run.summary.update(write_reports(dataset.classes, val, test, _TestSet()))
    run.log_image("confusion.png", confusion_figure(dataset.classes, *test))


class _TestSet:
    """Its records as they are stored."""

    def __init__(self) -> None:
        table = read_split(DATASET_DIR / "test")
        self.record_ids, self.subject_ids, self.images = (
            table[name].to_pylist() for name in ("record_id", "subject_id", "image")
        )

    def __getitem__(self, index: int) -> bytes:
        return bytes(self.images[index])
