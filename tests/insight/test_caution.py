from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from tests import tiny
from tests.control.planners.test_base import Cliff
from tests.control.test_actor_critic import agent
from tests.insight.test_trust import ORIGIN, H, dreams
from worldmodel.control.actor_critic import ThroughModel
from worldmodel.control.planners import CEM
from worldmodel.control.planners.base import Planner
from worldmodel.errors import UserError
from worldmodel.insight.caution import AtTrustHorizon, Caution, RewardErrorWeight
from worldmodel.insight.error_model import Clues
from worldmodel.insight.trust import Trust, fit_trust
from worldmodel.training.acting import read_policy


@pytest.fixture(scope="module")
def trust() -> Trust:
    """The error of the reward is 0.2 times the root of the step's uncertainty; that of pixels its sum so far."""
    rng = np.random.default_rng(0)
    clues, errors, episode = dreams(rng, 4000)
    clues = clues._replace(so_far=clues.uncertainty.cumsum(1))

    def noise() -> np.ndarray:
        return np.exp(0.1 * rng.normal(size=(4000, H)))

    errors |= {"reward": 0.2 * clues.uncertainty**0.5 * noise(), "pixels": 0.01 * clues.so_far * noise()}
    return fit_trust(clues, errors | {"still": np.full((4000, H), 0.06) * noise()}, episode, ORIGIN)


def test_a_unit_of_expected_error_is_worth_its_weight(trust: Trust) -> None:
    uncertainty = torch.tensor([[0.5, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    weight = Caution(trust).weight(-3.0)
    price = weight.price(uncertainty)
    torch.testing.assert_close(price, -0.6 * uncertainty**0.5, rtol=0.1, atol=0)
    torch.testing.assert_close(weight(uncertainty) * uncertainty.mean(), price.mean())
    torch.testing.assert_close(Caution(trust).reward_error(uncertainty), price / -3)
    (slope,) = torch.autograd.grad(price.sum(), uncertainty)
    assert (slope < 0).all() and weight.counts and not RewardErrorWeight.of(trust, 0.0).counts
    assert not weight.state_dict() and not list(weight.parameters())


def test_it_is_what_the_calibration_expects(trust: Trust) -> None:
    clues, _, _ = dreams(np.random.default_rng(1), 20)
    clues = clues._replace(uncertainty=clues.uncertainty.clip(max=1.5))
    clues = clues._replace(so_far=clues.uncertainty.cumsum(1))
    uncertainty = torch.from_numpy(clues.uncertainty)
    assert trust.along is not None
    found = Caution(trust).reward_error(uncertainty).numpy()
    np.testing.assert_allclose(found, trust.along.expected(clues, "reward").median, rtol=1e-4)
    steps = Caution(trust).truncation()(uncertainty).cumprod(1).sum(1).numpy()
    np.testing.assert_array_equal(steps, trust.along.trusted_steps(clues))
    assert 0 < steps.mean() < H
    for threshold in (0.02, 0.05):
        steps = Caution(trust).truncation(threshold)(uncertainty).cumprod(1).sum(1).numpy()
        np.testing.assert_array_equal(steps, trust.along.trusted_steps(clues, threshold))


def test_beyond_what_was_held_out_the_error_grows_in_proportion(trust: Trust) -> None:
    assert trust.along is not None
    top = float(trust.along.models["reward"].top[0, Clues._fields.index("uncertainty")])
    expected = Caution(trust).reward_error(torch.tensor([[top], [4 * top], [40 * top]]))[:, 0]
    assert expected[0].item() == pytest.approx(0.2 * top**0.5, rel=0.1)
    assert (expected / expected[0]).tolist() == pytest.approx([1, 4, 40], rel=0.02)


def test_only_what_is_unusual_may_count(trust: Trust) -> None:
    assert trust.along is not None
    top = float(trust.along.models["reward"].top[0, Clues._fields.index("uncertainty")])
    uncertainty = torch.tensor([[0.3 * top], [0.9 * top], [4 * top]], requires_grad=True)
    weight, whole = Caution(trust).weight(-2.0, unusual=True), Caution(trust).weight(-2.0)
    price = weight.price(uncertainty)[:, 0]
    assert price[:2].tolist() == [0, 0] and price[2].item() == pytest.approx(
        0.75 * float(whole.price(uncertainty)[2]), rel=0.01
    )
    torch.testing.assert_close(weight(uncertainty) * uncertainty.mean(), price.mean())
    (slope,) = torch.autograd.grad(price.sum(), uncertainty)
    assert slope[2] < 0 == slope[0] == slope[1]


def test_beyond_what_is_known_the_last_step_stands_for_all(trust: Trust) -> None:
    uncertainty = torch.ones(2, H + 5)
    uncertainty[:, H:] = 1e-9
    expected = Caution(trust).reward_error(uncertainty)
    assert expected.shape == (2, H + 5) and expected.isfinite().all()
    assert (Caution(trust).truncation()(uncertainty)[:, H:] == Caution(trust).truncation()(uncertainty)[:, -1:]).all()
    unknown = trust.along
    assert unknown is not None
    unknown.models["reward"].ratio[3:] = np.inf
    assert Caution(trust).reward_error(uncertainty).isfinite().all()


def test_a_cautious_planner_keeps_to_what_it_knows(trust: Trust) -> None:
    dynamics = Cliff()
    state = torch.zeros(1, 2, dtype=torch.float64)

    def end(**settings: Any) -> float:
        torch.manual_seed(0)
        return float(CEM(6, **settings).plan(dynamics, state, dynamics.spec).uncertainty)

    plain, cautious = end(), end(uncertainty_weight=Caution(trust).weight(-100.0))
    assert cautious < plain


def test_an_actor_takes_it(trust: Trust) -> None:
    caution = Caution(trust)
    control, model = agent(ThroughModel(), uncertainty_weight=caution.weight(), truncation=caution.truncation())
    data = tiny.batch(4, 5)
    losses, metrics = control.loss(model, model.observe(data).state, data)
    assert all(x.isfinite().all() for x in losses.values()) and metrics["uncertainty_weight"] < 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_configuration_names_it(trust: Trust, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(trust.to_json())
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--planner", type=Planner)
    names = {"uncertainty_weight": "RewardErrorWeight", "truncation": "AtTrustHorizon"}
    given = {
        name: {"class_path": f"worldmodel.insight.caution.{kind}", "init_args": {"calibration": str(path)}}
        for name, kind in names.items()
    }
    parsed = parser.parse_object({"planner": {"class_path": "worldmodel.control.planners.cem.CEM", "init_args": given}})
    planner = parser.instantiate_classes(parsed).planner
    assert isinstance(planner.uncertainty_weight, RewardErrorWeight) and isinstance(planner.truncation, AtTrustHorizon)
    assert planner.uncertainty_weight.value == -1 and planner.needs_uncertainty
    controller = "worldmodel.control.planner_controller.PlannerController"
    planning = {"class_path": "worldmodel.control.planners.cem.CEM", "init_args": given}
    who = {"class_path": controller, "init_args": {"planner": planning}}
    (tmp_path / "cautious.yaml").write_text(json.dumps({"model": {"evaluate_with": who}}))
    assert callable(read_policy(tmp_path / "cautious.yaml"))  # of our own classes: nobody need be trusted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda trust: RewardErrorWeight("nowhere.json"), "there is no calibration nowhere.json: worldmodel report"),
        (lambda trust: AtTrustHorizon(__file__), "no calibration that can be read"),
        (lambda trust: RewardErrorWeight.of(trust._replace(along=None)), "nothing of uncertainty along a rollout"),
    ],
)
def test_refused_in_a_line(trust: Trust, make: Callable[[Trust], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make(trust)
    assert "\n" not in str(error.value)


def test_clues_have_what_it_reads() -> None:
    assert {"uncertainty", "so_far"} <= set(Clues._fields)
