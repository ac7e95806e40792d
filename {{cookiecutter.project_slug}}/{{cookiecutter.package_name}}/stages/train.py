"""Stage `train`: train a network on the dataset, keep its best epoch, and measure exactly the weights that are kept.

    dvc repro train
    dvc exp run train -S train.max_lr=0.001

The networks are in `model/networks.py`, the loop and its parameters in `model/training.py`.
"""

from pathlib import Path

from mlops import ProjectError, TrainingRun, load_version, params, run_processes, training_run, write_report
from torch import nn

from ..model.dataset import Dataset, Images, read_dataset
from ..model.evaluation import Evaluation, confusion_figure, evaluate, per_class, scores
from ..model.networks import NetworkError, build, channels_of, head_parameters
from ..model.predictor import ModelConfig, Predictor, check_rebuilds, save
from ..model.training import TrainParams, fit, make_deterministic
from ..model.transforms import Normalise
from ..model.weights import find_weights, load_weights

DATASET_DIR = Path("data/dataset")
MODEL_DIR = Path("models/model")
REPORTS_DIR = Path("reports")


def main() -> None:
    """Run the stage, in `train.processes` processes."""
    settings = params("train", TrainParams)
    run_processes(lambda: _main(settings), settings.processes, settings.threads)


def _main(settings: TrainParams) -> None:
    parent = load_version(settings.init_from) if settings.init_from else None
    start = Predictor.load(parent.model_dir) if parent else None
    channels = start.config.channels if start else channels_of(settings.arch)
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
    config = ModelConfig(
        arch=settings.arch,
        model=settings.model,
        classes=dataset.classes,
        image_px=settings.image_px,
        channels=dataset.channels,
        mean=normalise.mean,
        std=normalise.std,
    )
    try:
        check_rebuilds(module, config)
    except NetworkError as error:
        raise ProjectError(str(error), error.fix) from error
    best = fit(module, dataset.train, dataset.val, normalise, settings, run)
    if run.group.rank > 0:
        return
    run.summary["best_epoch"] = best.number  # the figures of `metrics` are this epoch's; curves go on to the last
    print(f"best epoch {best.number + 1} of {settings.epochs}: validation accuracy {best.val_acc:.4f}")
    save(MODEL_DIR, module, config)
    _write_reports(Predictor.load(MODEL_DIR), dataset, run)  # what is measured is what was saved


def _build_model(settings: TrainParams, dataset: Dataset, start: Predictor | None) -> tuple[nn.Module, Normalise]:
    """Return the network to train and the normalisation its weights expect."""
    if start is None:
        network = settings.arch, len(dataset.classes), dataset.channels
        try:
            module = build(*network, **settings.model)
        except NetworkError as error:
            raise ProjectError(str(error), error.fix) from error
        normalise = None
        if weights := find_weights(settings.arch, settings.weights, settings.weights_file):
            load_weights(module, weights, head_parameters(module, *network, **settings.model))
            normalise = Normalise(weights.preset.mean, weights.preset.std) if weights.preset else None
        return module, normalise or Normalise.of(dataset.train.pixels)
    pairs = (
        ("arch", start.config.arch, settings.arch),
        ("model", start.config.model, settings.model),
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
