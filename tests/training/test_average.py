"""The running mean of the weights: what it is, and who has it."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from tests.training.test_update import agent, weights
from worldmodel.commands.export import light
from worldmodel.training.average import WeightAverage, mean_weights
from worldmodel.training.evaluation import evaluating


def net(value: float) -> torch.nn.Linear:
    made = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(made.weight, value)
    return made


def test_it_is_a_plain_mean_at_first_and_an_exponential_one_later() -> None:
    module, average = net(7.0), WeightAverage(rate=0.25)
    average.setup(module)
    seen = []
    for value in (1.0, 2.0, 6.0, 3.0, 11.0):
        torch.nn.init.constant_(module.weight, value)
        average.update()
        with average.applied():
            seen.append(module.weight.item())
        assert module.weight.item() == value  # and back
    assert seen == pytest.approx([1, 1.5, 3, 3, 5])


def test_the_weights_come_back_after_an_error() -> None:
    module, average = net(1.0), WeightAverage()
    average.setup(module)
    average.update()
    torch.nn.init.constant_(module.weight, 2.0)
    with pytest.raises(ZeroDivisionError), average.applied():
        assert module.weight.item() == 1
        raise ZeroDivisionError
    assert module.weight.item() == 2


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match="share"):
        WeightAverage(rate)


def test_evaluations_and_exports_have_the_mean_and_training_does_not() -> None:
    learner = agent().setup()
    for _ in range(3):
        learner.update(tiny.batch())
    live = weights(learner)
    with evaluating(learner):
        mean = weights(learner)
    assert torch.equal(weights(learner), live) and not torch.equal(mean, live)
    checkpoint = {"state_dict": learner.state_dict(), "average": learner.average.state_dict()}
    other = agent()
    other.load_state_dict(light(checkpoint)["state_dict"])
    assert torch.equal(weights(other), mean)
    assert mean_weights({"state_dict": {"a": live}})["a"] is live  # of a file that holds no mean
    without = agent()
    without.average = WeightAverage(rate=1)
    without.setup().update(tiny.batch())
    assert without.average.state_dict()["mean"] == {}
