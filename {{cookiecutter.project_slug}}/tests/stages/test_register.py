"""Only a model that is good enough is registered."""

import pytest
from mlops import ProjectError

from {{ cookiecutter.package_name }}.stages.register import RegisterParams, check_gate

METRICS = {"test_acc": 0.95, "test_loss": 0.2}


def test_gate_good_enough_passes() -> None:
    check_gate(METRICS, RegisterParams(at_least={"test_acc": 0.95}, at_most={"test_loss": 0.2}))
    check_gate(METRICS, RegisterParams(at_least={}, at_most={}))


@pytest.mark.parametrize(
    ("metrics", "params", "problem"),
    [
        (METRICS, RegisterParams(at_least={"test_acc": 0.96}), "test_acc is 0.95, at least 0.96 is asked"),
        (METRICS, RegisterParams(at_most={"test_loss": 0.1}), "test_loss is 0.2, at most 0.1 is asked"),
        (METRICS, RegisterParams(at_least={"f1": 0.5}), "the gate asks for f1"),
        ({"test_acc": float("nan")}, RegisterParams(at_least={"test_acc": 0.0}), "test_acc is nan"),
    ],
    ids=["too-low", "too-high", "unknown", "nan"],
)
def test_gate_otherwise_refuses(metrics: dict[str, float], params: RegisterParams, problem: str) -> None:
    with pytest.raises(ProjectError, match=problem):
        check_gate(metrics, params)
