"""Optimizers and schedules by name: which rates they give, and which names and arguments are refused."""

import io
from typing import Any

import pytest
import torch
from mlops.config import StrictModel, check
from mlops.errors import ProjectError
from mlops.training.recipe import OPTIMIZERS, SCHEDULES, BaseTrainParams, OptimizerParams, ScheduleParams
from pydantic import ValidationError

EPOCHS, STEPS = 5, 4


def sgd() -> torch.optim.Optimizer:
    return OptimizerParams.model_validate({"name": "SGD", "momentum": 0.9}).build(
        [torch.nn.Parameter(torch.zeros(1))], 1.0
    )


def rates(resume_at: int | None = None, **schedule: Any) -> list[float]:
    """Return the learning rate of each step, where its peak is 1; with `resume_at`, saved and loaded at that step."""
    optimizer, params, result = sgd(), ScheduleParams(**schedule), list[float]()
    built = params.build(optimizer, EPOCHS, STEPS)
    for step in range(EPOCHS * STEPS):
        if step == resume_at:
            file = io.BytesIO()
            torch.save([optimizer.state_dict(), built.state_dict()], file)
            file.seek(0)
            optimizer = sgd()
            built = params.build(optimizer, EPOCHS, STEPS)
            states = torch.load(file, weights_only=True)
            optimizer.load_state_dict(states[0])
            built.load_state_dict(states[1])
        result.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        built.step()
    return result


NEEDED: dict[str, dict[str, Any]] = {
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "ExponentialLR": {"gamma": 0.5},
    "MultiStepLR": {"milestones": [1, 3]},
    "StepLR": {"step_size": 2},
}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "ConstantLR"}, {0: 1, 19: 1}),
        ({"name": "ConstantLR", "warmup": 1}, {0: 0.01, 2: 0.505, 4: 1, 19: 1}),
        ({"name": "StepLR", "step_size": 2}, {7: 1, 8: 0.1, 16: 0.01}),
        ({"name": "MultiStepLR", "milestones": [1, 3]}, {3: 1, 4: 0.1, 12: 0.01}),
        ({"name": "MultiStepLR", "milestones": [1], "warmup": 0.5}, {5: 1, 6: 0.1}),
        ({"name": "ExponentialLR", "gamma": 0.5}, {0: 1, 4: 0.5, 8: 0.25}),
        ({"name": "PolynomialLR"}, {0: 1, 10: 0.5}),
        ({"name": "CosineAnnealingLR"}, {0: 1, 10: 0.5}),
        ({"name": "CosineAnnealingLR", "warmup": 1}, {4: 1, 12: 0.5}),
        ({"name": "CosineAnnealingWarmRestarts", "T_0": 2}, {0: 1, 4: 0.5, 8: 1}),
        ({"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0}, {0: 1, 10: 0.5}),
        ({"name": "OneCycleLR"}, {0: 0.04, 5: 1, 19: 4e-6}),
    ],
    ids=str,
)
def test_schedule_counts_epochs(schedule: dict[str, Any], expected: dict[int, float]) -> None:
    result = rates(**schedule)
    assert {step: result[step] for step in expected} == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedule_that_is_saved_and_loaded_goes_on(name: str) -> None:
    schedule = {"name": name, **NEEDED.get(name, {}), **({} if name == "OneCycleLR" else {"warmup": 1.0})}
    for step in (2, 10):
        assert rates(step, **schedule) == rates(**schedule)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"Muon"}))  # which takes matrices only
def test_optimizer_of_each_name_lowers_a_loss(name: str) -> None:
    weight = torch.nn.Parameter(torch.full((2,), 3.0))
    optimizer = OptimizerParams(name=name).build([weight], 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.square().sum() < 18


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (OptimizerParams, {"name": "Adm"}, "known: ASGD, .*AdamW"),
        (OptimizerParams, {"name": "LBFGS"}, "known: "),
        (OptimizerParams, {"name": "SGD", "momentm": 1}, "no argument momentm of SGD; it takes momentum, "),
        (OptimizerParams, {"name": "SGD", "lr": 1}, "no argument lr of SGD"),
        (ScheduleParams, {"name": "Cosine"}, "known: ConstantLR, .*StepLR"),
        (ScheduleParams, {"name": "StepLR", "size": 1}, "no argument size of StepLR; it takes step_size, gamma"),
        (ScheduleParams, {"name": "OneCycleLR", "warmup": 1.0}, "warm-up in OneCycleLR already: pct_start"),
        (ScheduleParams, {"name": "StepLR", "warmup": -1.0}, "greater than or equal to 0"),
    ],
    ids=["optimizer", "no plain step", "argument", "lr", "schedule", "its argument", "two warm-ups", "negative"],
)
def test_unknown_names_list_the_known_ones(model: type[StrictModel], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(values)


PARAMS: dict[str, Any] = {
    **{"epochs": 1, "batch_size": 64, "max_lr": 0.003, "seed": 0, "threads": 1},
    **{"optimizer": {"name": "AdamW"}, "schedule": {"name": "OneCycleLR"}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no mapping": ({"optimizer": "AdamW"}, r"train.optimizer is 'AdamW': write it like \{name: …\}"),
    "empty": ({"schedule": None}, "train.schedule is null: write it like"),
    "text": (
        {"optimizer": {"name": "AdamW", "eps": "x"}},
        r"another kind of value; AdamW takes betas=\(0.9, 0.999\), ",
    ),
    "one of two": ({"optimizer": {"name": "AdamW", "betas": [0.9]}}, "another kind of value; AdamW takes betas"),
    "range": ({"optimizer": {"name": "SGD", "momentum": -1}}, "invalid momentum value: -1"),
    "missing": ({"schedule": {"name": "StepLR"}}, "an argument is missing, .*; StepLR takes step_size, gamma=0.1"),
    "no list": ({"schedule": {"name": "MultiStepLR", "milestones": 3}}, "MultiStepLR takes milestones, gamma=0.1"),
    "no epochs": ({"schedule": {"name": "CosineAnnealingLR", "T_max": 0}}, "epochs of T_max have to be more than 0"),
    "nan epochs": ({"schedule": {"name": "StepLR", "step_size": float("nan")}}, "epochs of step_size have to be more"),
    "negative rate": (
        {"schedule": {"name": "StepLR", "step_size": 1, "gamma": -1}},
        "it makes -1.0 of a learning rate",
    ),
    "no rate": ({"schedule": {"name": "StepLR", "step_size": 1, "gamma": float("nan")}}, "it makes nan of a learning"),
    "processes": ({"processes": "many"}, r"train.processes is 'many': auto, or 1 to 32: .*\nFix: .*:train.processes$"),
    "true": ({"processes": True}, r"train.processes is true: auto, or 1 to 32"),
}


def recipe(changes: dict[str, Any]) -> Any:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(3, 3))
    return check("params.yaml", "train", {**PARAMS, **changes}, BaseTrainParams).build_recipe(network, 10)


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_arguments_that_pytorch_does_not_take_are_refused_before_the_training_in_plain_words(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProjectError, match=message) as refused:
        recipe(changes)
    assert refused.value.fix.startswith("change params.yaml:train.")
    assert "__init__" not in refused.value.problem and "supported between" not in refused.value.problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"name": "Adadelta"}}, r"Adadelta with OneCycleLR: .*cycle_momentum"),
        ({"optimizer": {"name": "Muon"}}, r"Muon with OneCycleLR: .*2D parameters"),
        ({"optimizer": {"name": "AdamW", "capturable": True}}, r"AdamW with OneCycleLR: If capturable=True"),
    ],
    ids=["schedule", "network", "device"],
)
def test_optimizer_that_does_not_fit_the_rest_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=rf"{message}.*\nFix: correct params.yaml:train.optimizer or train.schedule"):
        recipe(changes)


def test_step_of_less_than_an_epoch_is_one_step_at_least() -> None:
    assert rates(name="StepLR", step_size=0.001)[:2] == [1, pytest.approx(0.1)]
