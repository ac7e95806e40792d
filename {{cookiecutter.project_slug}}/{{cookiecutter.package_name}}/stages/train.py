"""Stage `train`: train a network on the dataset, keep its best epoch, and measure exactly the weights that are kept.

    dvc repro train
    dvc exp run train -S train.max_lr=0.001

The networks are in `model/networks.py`, the loop and its parameters in `model/training.py`.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from mlops import (
    ProjectError,
    TrainingRun,
    confusion_figure,
    load_version,
    numeric_fingerprint,
    params,
    run_processes,
    training_run,
    write_report,
    write_reports,
)
from torch import nn
from tqdm import tqdm

from ..model.dataset import Dataset, ImageDataset, read_dataset
from ..model.metrics import measure
from ..model.mistakes import draw_mistakes
from ..model.networks import NetworkError, build, channels_of, head_parameters, loss_of
from ..model.predictor import ModelConfig, Predictor, check_rebuilds, save
from ..model.training import TrainParams, fit, place
from ..model.transforms import Normalise, Preprocess
from ..model.weights import Weights, find_weights, load_weights

DATASET_DIR = Path("data/dataset")
MODEL_DIR = Path("models/model")
AT_ONCE = 1024  # images of a split that are in memory while the saved model is measured


def main() -> None:
    """Run the stage, in `train.processes` processes."""
    settings = params("train", TrainParams)
    run_processes(
        partial(_main, settings),
        settings.processes,
        settings.threads,
        settings.precision,
        settings.deterministic,
        settings.portable,
    )


def _main(settings: TrainParams, fabric: Fabric) -> None:
    parent = load_version(settings.init_from) if settings.init_from else None
    start = Predictor.load(parent.model_dir) if parent else None
    weights = find_weights(settings.arch, settings.weights, settings.weights_file)
    channels = start.config.channels if start else channels_of(settings.arch)
    preprocess = _preprocess(settings, channels, weights)
    dataset = read_dataset(DATASET_DIR, preprocess, settings.augment, settings.cache)
    with training_run(fabric, parents=[parent] if parent else []) as run:
        train(settings, dataset, start or weights, fabric, run)


def train(
    settings: TrainParams, dataset: Dataset, start: Predictor | Weights | None, fabric: Fabric, run: TrainingRun
) -> None:
    """Train in every process, from a model, pretrained weights or scratch; the first then writes model and reports."""
    torch.manual_seed(settings.seed)
    try:
        module, normalise = _build(settings, dataset, start)
        config = ModelConfig(
            arch=settings.arch,
            model=settings.model,
            classes=dataset.classes,
            image_px=settings.image_px,
            channels=dataset.channels,
            resize=settings.resize,
            resize_px=dataset.train.preprocess.resize_px,
            interpolation=dataset.train.preprocess.interpolation,
            mean=normalise.mean,
            std=normalise.std,
        )
        check_rebuilds(module, config)
    except NetworkError as error:
        raise ProjectError(str(error), error.fix) from error
    place(module, fabric)
    run.note(_facts(settings, module, dataset, start, fabric))
    if fabric.is_global_zero:
        kind = "gray, 1 channel" if dataset.channels == 1 else "colour, 3 channels"
        origin = f", as in {settings.init_from}" if isinstance(start, Predictor) else ""
        print(f"Images: {kind}, {settings.image_px} x {settings.image_px} pixels{origin}")
    network = settings.arch, len(dataset.classes), dataset.channels
    head = head_parameters(module, *network, **settings.model) if settings.freeze_epochs else []
    best = fit(module, dataset, normalise, settings, fabric, run, head)
    if fabric.is_global_zero:
        run.summary["best_epoch"] = best.number  # the figures of `metrics` are this epoch's; curves go on to the last
        print(f"best epoch {best.number + 1} of {settings.epochs}: validation accuracy {best.val['acc']:.4f}")
        save(MODEL_DIR, module, config)
        _write_reports(Predictor.load(MODEL_DIR), dataset, run)  # what is measured is what was saved


def _facts(
    settings: TrainParams, module: nn.Module, dataset: Dataset, start: Predictor | Weights | None, fabric: Fabric
) -> dict[str, str]:
    """Return what the run notes: the bits that this machine gives, and the pretrained weights."""
    facts = start.facts if isinstance(start, Weights) else {}
    if settings.deterministic:
        records = settings.batch_size // fabric.world_size // settings.accumulate
        shape = (records, dataset.channels, settings.image_px, settings.image_px)
        facts["numeric_fingerprint"] = numeric_fingerprint(module, shape, len(dataset.classes), fabric, loss_of)
    return facts


def _write_reports(model: Predictor, dataset: Dataset, run: TrainingRun) -> None:
    classes, records = dataset.classes, dataset.test.contents
    val, test = (_measure(model, split) for split in (dataset.val, dataset.test))
    run.summary.update(write_reports(classes, val, test, records, measure))
    run.log_image("confusion.png", confusion_figure(classes, *test))
    write_report(Path("reports/mistakes.png"), draw_mistakes(classes, *test, records))


def _preprocess(settings: TrainParams, channels: int | None, weights: Weights | None) -> Preprocess:
    """Return what makes the network's images of contents."""
    if settings.resize != "preset":
        return Preprocess(settings.image_px, channels, settings.resize)
    if not (weights and weights.preset):
        problem = "params.yaml:train.resize is preset, and no pretrained weights say how their images were made"
        raise ProjectError(problem, "set params.yaml:train.resize to squeeze or crop, or set train.weights")
    preset = weights.preset
    resize_px = round(settings.image_px * preset.resize_px / preset.crop_px)
    return Preprocess(settings.image_px, channels, "preset", resize_px, preset.interpolation)


def _build(settings: TrainParams, dataset: Dataset, start: Predictor | Weights | None) -> tuple[nn.Module, Normalise]:
    """Return the network to train and the normalisation that its weights expect."""
    if isinstance(start, Predictor):
        elsewhere = "params.yaml:train.init_from to null or another version"
        for name in ("arch", "model"):
            if (theirs := getattr(start.config, name)) != (ours := getattr(settings, name)):
                problem = f"{settings.init_from} has {name}: {theirs}, and params.yaml:train.{name} is {ours}"
                raise ProjectError(problem, f"set params.yaml:train.{name}: {theirs}, or {elsewhere}")
        if other := sorted(set(start.config.classes) ^ set(dataset.classes)):
            problem = f"{settings.init_from} and data/dataset have not the same labels: {', '.join(other[:5])}"
            raise ProjectError(problem, f"set {elsewhere}, or let both have these labels")
        return start.module, start.normalise
    network = settings.arch, len(dataset.classes), dataset.channels
    module = build(*network, **settings.model)
    if start is None:
        return module, Normalise.of(dataset.train.measured())
    load_weights(module, start, head_parameters(module, *network, **settings.model))
    if start.preset is None:
        return module, Normalise.of(dataset.train.measured())
    return module, Normalise(start.preset.mean, start.preset.std)


def _measure(model: Predictor, images: ImageDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a split and what the model says of it, as it will be served."""
    starts = tqdm(range(0, len(images), AT_ONCE), "measure", unit="k images", delay=5)
    rows = [model.probabilities(images.contents[start : start + AT_ONCE]) for start in starts]
    return images.labels.numpy(), np.concatenate(rows)
