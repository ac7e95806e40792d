"""Stage `train`: train a network on the dataset, keep its best epoch, and measure exactly the weights that are kept.

    dvc repro train
    dvc exp run train -S train.max_lr=0.001

The networks are in `model/networks.py`, the loop and its parameters in `model/training.py`.
"""

from pathlib import Path

import torch
from lightning_fabric import Fabric
from mlops import ProjectError, TrainingRun, load_version, params, run_processes, training_run, write_report
from torch import nn

from ..model.dataset import Dataset, Images, read_dataset
from ..model.evaluation import Evaluation, confusion_figure, evaluate, per_class, scores
from ..model.networks import CHANNELS, build
from ..model.predictor import ModelConfig, Predictor, save
from ..model.training import TrainParams, fit
from ..model.transforms import IMAGENET, Normalise

DATASET_DIR = Path("data/dataset")
MODEL_DIR = Path("models/model")
REPORTS_DIR = Path("reports")


def main() -> None:
    """Run the stage, in `train.processes` processes."""
    settings = params("train", TrainParams)
    run_processes(lambda fabric: _main(fabric, settings), settings.processes, settings.threads)


def _main(fabric: Fabric, settings: TrainParams) -> None:
    parent = load_version(settings.init_from) if settings.init_from else None
    start = Predictor.load(parent.model_dir) if parent else None
    channels = start.config.channels if start else CHANNELS.get(settings.arch)
    dataset = read_dataset(DATASET_DIR, channels, settings.image_px)
    with training_run(fabric, parents=[parent] if parent else []) as run:
        train(settings, dataset, start, run, fabric)


def train(settings: TrainParams, dataset: Dataset, start: Predictor | None, run: TrainingRun, fabric: Fabric) -> None:
    """Train in every process, from scratch or from `start`; the first one then writes the model and its reports."""
    torch.manual_seed(settings.seed)
    module, normalise = _build_model(settings, dataset, start)
    if fabric.is_global_zero:
        kind = "gray, 1 channel" if dataset.channels == 1 else "colour, 3 channels"
        origin = f", as in {settings.init_from}" if start else ""
        print(f"Images: {kind}, {settings.image_px} x {settings.image_px} pixels{origin}")
    best = fit(module, dataset.train, dataset.val, normalise, settings, run, fabric)
    if not fabric.is_global_zero:
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
    figures = metrics(dataset, val, test)
    write_report(REPORTS_DIR / "metrics.json", figures)
    run.summary.update(figures)
    actual, predicted = _names(dataset.test, test, dataset.classes)
    # DVC's confusion template counts the pairs itself.
    pairs = [{"actual": a, "predicted": p} for a, p in zip(actual, predicted, strict=True)]
    write_report(REPORTS_DIR / "confusion.csv", pairs)
    write_report(REPORTS_DIR / "per_class.csv", per_class(actual, predicted, dataset.classes))
    run.log_image("confusion.png", confusion_figure(actual, predicted, dataset.classes))


def metrics(dataset: Dataset, val: Evaluation, test: Evaluation) -> dict[str, float]:
    """Return what `reports/metrics.json` holds: the metrics of `evaluation.scores`, and the mean loss in nats."""
    figures = {
        f"{split}_{name}": value
        for split, images, result in (("test", dataset.test, test), ("val", dataset.val, val))
        for name, value in scores(*_names(images, result, dataset.classes)).items()
    }
    return {name: round(value, 4) for name, value in {**figures, "test_loss": test.loss}.items()}


def _names(images: Images, result: Evaluation, classes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return actual and predicted labels by name."""
    return [classes[label] for label in images.labels.tolist()], [classes[label] for label in result.predicted.tolist()]
