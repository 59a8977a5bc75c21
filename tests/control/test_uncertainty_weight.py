from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from tests import tiny
from tests.control.test_actor_critic import agent
from worldmodel.control.actor_critic import ActorCritic, Objective, PolicyGradient, ThroughModel
from worldmodel.control.critic import Critic
from worldmodel.control.imagine import imagine
from worldmodel.control.truncation import AtLimit, Gradual, Truncation
from worldmodel.control.uncertainty_weight import FixedWeight, TunedWeight, UncertaintyWeight
from worldmodel.model.transitions import Transition
from worldmodel.types import ActionSpec, Trajectory


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_a_fixed_weight_stays() -> None:
    for value in (0.0, -2.5):
        weight = FixedWeight(value)
        assert weight(torch.rand(3, 4)).item() == value and weight(torch.full((3, 4), math.nan)).item() == value
        assert weight.counts == (value != 0) and not weight.state_dict()


def uncertainty(weight: Tensor) -> Tensor:
    """How doubtful rollouts are when uncertainty is worth ``weight``: 2 at 0.25."""
    return 1 + 4 * weight / (weight + 0.75)


@pytest.mark.parametrize("initial", [0.002, 8.0])
def test_a_tuned_weight_comes_to_hold_its_target(initial: float) -> None:
    tuned = TunedWeight(target=2.0, rate=0.05, initial=initial)
    weight = torch.tensor(initial)
    for _ in range(400):
        found = uncertainty(weight)
        weight = tuned(found * torch.tensor([[0.5, 1.5], [1.0, 1.0]]))  # only the mean matters
    assert found.item() == pytest.approx(2, abs=0.01) and weight.item() == pytest.approx(0.25, abs=0.01)


def test_a_tuned_weight_moves_by_its_rate_at_most_and_within_its_limits() -> None:
    tuned = TunedWeight(target=2.0, rate=0.1, initial=1.0, limits=(0.5, 1.5))
    little, much = torch.zeros(2, 3), torch.full((2, 3), 1e9)
    assert tuned(little).item() == pytest.approx(math.exp(0.1))
    assert tuned(much).item() == pytest.approx(1)
    assert tuned(torch.full((2, 3), 2.2)).item() == pytest.approx(math.exp(-0.1 * math.log(1.1)))
    for uncertainties, end in ((little, 1.5), (much, 0.5)):
        assert [tuned(uncertainties) for _ in range(20)][-1].item() == pytest.approx(end)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_doubt_that_is_not_finite_leaves_no_trace(broken: float) -> None:
    tuned = TunedWeight(initial=0.3)
    assert tuned(torch.tensor([[1.0, broken]])).item() == pytest.approx(0.3)
    assert tuned(torch.tensor([[1.0, 1.0]])).item() > 0.3


def test_a_tuned_weight_goes_on_from_a_checkpoint_exactly() -> None:
    tuned, other = TunedWeight(), TunedWeight(initial=5.0)
    for _ in range(7):
        tuned(torch.ones(2, 2))
    other.load_state_dict(tuned.state_dict())
    assert torch.equal(tuned(torch.ones(2, 2)), other(torch.ones(2, 2)))
    assert list(tuned.state_dict()) == ["log_weight"] and not list(tuned.parameters())


def test_the_weight_is_no_path_for_gradients() -> None:
    uncertainties = torch.rand(2, 3, requires_grad=True)
    tuned = TunedWeight()
    first = tuned(uncertainties)
    tuned(uncertainties)  # moves what the first was computed from
    (slope,) = torch.autograd.grad((first * uncertainties).sum(), uncertainties)
    torch.testing.assert_close(slope, first.expand(2, 3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": 0.0}, "above 0"),
        ({"rate": -1.0}, "above 0"),
        ({"initial": 20.0}, "hold initial"),
        ({"limits": (0.0, 1.0)}, "hold initial"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TunedWeight(**wrong)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (0.5, FixedWeight),
        (
            {"class_path": "worldmodel.control.uncertainty_weight.TunedWeight", "init_args": {"target": 3.0}},
            TunedWeight,
        ),
    ],
)
def test_a_configuration_gives_a_number_or_a_class(given: Any, kind: type[UncertaintyWeight]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--control", type=Callable[[ActionSpec, int], ActorCritic])
    settings = {
        "objective": "worldmodel.control.actor_critic.ThroughModel",
        "propagation": "worldmodel.control.propagation.TS1",
        "uncertainty_weight": given,
        "truncation": {"class_path": "worldmodel.control.truncation.AtLimit", "init_args": {"limit": 2.0}},
    }
    path = "worldmodel.control.actor_critic.ActorCritic"
    parsed = parser.parse_object({"control": {"class_path": path, "init_args": settings}})
    control = parser.instantiate_classes(parsed).control(ActionSpec(2, False), 6)
    assert isinstance(control.uncertainty_weight, kind) and control.truncation.limit == 2
    assert getattr(control.uncertainty_weight, "value", 0.5) == 0.5
    assert getattr(control.uncertainty_weight, "target", 3.0) == 3.0


def test_uncertainty_is_worth_its_weight() -> None:
    returns = []
    for weight in (0.0, 3.0, -2.0):
        control, model = agent(ThroughModel(), uncertainty_weight=weight, horizon=1)
        data = tiny.batch(4, 5)
        torch.manual_seed(1)
        returns.append(control.loss(model, model.observe(data).state, data)[1]["return_imagined"].item())
    bonus = (returns[1] - returns[0]) / 3
    assert bonus > 1e-3
    assert (returns[2] - returns[0]) / -2 == pytest.approx(bonus, abs=1e-4)


@pytest.mark.parametrize("agree", [True, False])
def test_caution_lowers_and_curiosity_raises_returns_where_members_disagree(agree: bool) -> None:
    returns = []
    for weight in (-2.0, 0.0, 2.0):
        control, model = agent(PolicyGradient(), uncertainty_weight=weight)
        heads = model.rssm.transition.heads
        if agree:
            with torch.no_grad():
                for part in (heads.weight, heads.bias):
                    first, *others = part.chunk(tiny.MEMBERS)
                    for other in others:
                        other.copy_(first)
        data = tiny.batch(4, 5)
        state = model.observe(data).state
        torch.manual_seed(1)
        returns.append(control.loss(model, state, data)[1]["return_imagined"].item())
    cautious, neutral, curious = returns
    if agree:
        assert cautious == pytest.approx(neutral, abs=1e-5) and curious == pytest.approx(neutral, abs=1e-5)
    else:
        assert cautious < neutral - 1e-3 < neutral + 1e-3 < curious


class Split(Transition):
    """Two members whose means differ by an action's first number: the uncertainty is (1 + a)^2, and so at most 4."""

    def __init__(self) -> None:
        super().__init__(members=2)

    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        mean = (1 + action[..., :1]).expand(*action.shape[:-1], 6)
        raw = torch.full_like(mean, -5)
        return torch.stack([torch.cat([mean, raw], -1), torch.cat([-mean, raw], -1)])


def torn(objective: Objective, **settings: Any) -> tuple[ActorCritic, Any]:
    """An agent for which nothing but its own uncertainty depends on what it does."""
    control, model = agent(objective, **settings)
    model.rssm.transition = Split()
    for net in (model.reward.net, model.cont.net, control.critic.net):
        torch.nn.init.zeros_(net[-1].weight)
    model.typical_uncertainty.fill_(0.5)  # so that uncertainties reach 8
    return control, model


def tendency(control: ActorCritic, model: Any, updates: int) -> float:
    """The mean of the first number of the actor's modes when it has learned."""
    data = tiny.batch(10, 5)
    state = model.observe(data).state
    optimizer = torch.optim.Adam(control.actor.parameters(), 3e-2)
    for _ in range(updates):
        optimizer.zero_grad()
        control.loss(model, state, data)[0]["actor"].mean().backward()
        optimizer.step()
    return control.actor.mode(state.feature)[..., 0].mean().item()


@pytest.mark.parametrize("objective", [ThroughModel(entropy=0.0), PolicyGradient(entropy=0.0)])
def test_a_curious_actor_goes_where_members_disagree_and_a_cautious_one_does_not(objective: Objective) -> None:
    assert tendency(*torn(objective, uncertainty_weight=1.0, starts=50, horizon=1), updates=40) > 0.6
    assert tendency(*torn(objective, uncertainty_weight=-1.0, starts=50, horizon=1), updates=40) < -0.6


def test_fading_trust_teaches_an_actor_to_stay_where_the_model_knows() -> None:
    for truncation, less in ((Gradual(half=2.0), 0.6), (AtLimit(limit=1e6), 0.0)):
        control, model = torn(ThroughModel(entropy=0.0), truncation=truncation, starts=20)
        with torch.no_grad():
            model.reward.net[-1].bias[-20] = 50.0  # the same good reward everywhere
        assert model.reward(torch.zeros(1, model.feature_size)) > 1
        learned = tendency(control, model, updates=25)
        assert learned < -less if less else learned == 0


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_rollout_is_truncated_where_the_model_is_unsure(monkeypatch: pytest.MonkeyPatch, weight: float) -> None:
    uncertainty = torch.tensor([1.0, 9.0, 1.0])

    def imagined(*given: Any, **settings: Any) -> Trajectory:
        path = imagine(*given, **settings)
        reward = torch.tensor([1.0, 2.0, 4.0])
        each = (x.expand_as(path.reward) for x in (reward, torch.ones(3), uncertainty))
        return Trajectory(path.state, path.action, *each)

    monkeypatch.setattr("worldmodel.control.actor_critic.imagine", imagined)
    settings = {"horizon": 3, "discount": 0.5, "uncertainty_weight": weight}
    critic = partial(Critic, lam=1.0)
    control, model = agent(PolicyGradient(), critic=critic, truncation=AtLimit(5.0), **settings)
    asked: list[tuple[Tensor, Tensor]] = []

    def loss(feature: Tensor, returns: Tensor) -> Tensor:
        asked.append((feature, returns))
        return torch.ones_like(returns)

    monkeypatch.setattr(control.critic, "loss", loss)
    values: list[Tensor] = []
    forward = control.critic.forward

    def value(feature: Tensor) -> Tensor:
        values.append(forward(feature))
        return values[-1]

    monkeypatch.setattr(control.critic, "forward", value)
    data = tiny.batch(4, 5)
    losses, metrics = control.loss(model, model.observe(data).state, data)
    priced = [1 + weight, 2 + 9 * weight, 4 + weight]
    end = 0.5 * values[0][3]  # time first
    by_hand = [torch.full_like(end, priced[0] + 0.5 * priced[1]), torch.full_like(end, priced[1]), priced[2] + end]
    torch.testing.assert_close(asked[0][1], torch.stack(by_hand))
    torch.testing.assert_close(losses["critic"], torch.tensor([1, 0.5, 0]).expand(10, 3))  # none goes beyond the second
    assert not losses["replay_critic"].any()  # real returns are another target: not truncated, without a bonus
    assert metrics["uncertainty_imagined"].item() == pytest.approx(11 / 3)
    assert metrics["uncertainty_weight"].item() == pytest.approx(weight)


@pytest.mark.parametrize("settings", [{}, {"uncertainty_weight": 0.5}, {"truncation": Gradual()}])
def test_what_a_checkpoint_holds_does_not_depend_on_fixed_settings(settings: dict[str, Any]) -> None:
    control, model = agent(ThroughModel(), **settings)
    assert {name.split(".")[0] for name in control.state_dict()} == {"actor", "critic", "scale"}
    assert sum(name.startswith("scale") for name in control.state_dict()) == 1
    data = tiny.batch(4, 5)
    metrics = control.loss(model, model.observe(data).state, data)[1]
    assert ("uncertainty_imagined" in metrics) == ("uncertainty_weight" in metrics) == bool(settings)


def test_doubt_is_not_measured_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def imagined(*given: Any, uncertainty: bool, **settings: Any) -> Trajectory:
        asked.append(uncertainty)
        return imagine(*given, uncertainty=uncertainty, **settings)

    monkeypatch.setattr("worldmodel.control.actor_critic.imagine", imagined)
    data = tiny.batch(4, 5)
    for settings in (
        {},
        {"uncertainty_weight": FixedWeight(0.0)},
        {"truncation": AtLimit()},
        {"uncertainty_weight": -1},
    ):
        control, model = agent(ThroughModel(), **settings)
        control.loss(model, model.observe(data).state, data)
    assert asked == [False, False, True, True]


def test_a_tuned_weight_is_used_tuned_and_kept() -> None:
    control, model = agent(ThroughModel(), uncertainty_weight=TunedWeight(target=1e6, rate=0.5, initial=0.1))
    data = tiny.batch(4, 5)
    state = model.observe(data).state
    first, second = (control.loss(model, state, data)[1]["uncertainty_weight"].item() for _ in range(2))
    assert first == pytest.approx(0.1 * math.exp(0.5)) and second == pytest.approx(0.1 * math.e)
    other, _ = agent(ThroughModel(), uncertainty_weight=TunedWeight(target=1e6, rate=0.5))
    other.load_state_dict(control.state_dict())
    third = [c.loss(model, state, data)[1]["uncertainty_weight"] for c in (control, other)]
    assert torch.equal(third[0], third[1])


@pytest.mark.parametrize(
    ("truncation", "kept"), [(AtLimit(3.0), [1.0, 1.0, 1.0, 0.0]), (Gradual(3.0), [1.0, 1.0, 0.5, 0.25])]
)
def test_trust_is_full_at_the_usual_doubt(truncation: Truncation, kept: list[float]) -> None:
    uncertainty = torch.tensor([[0.0, 1.0, 3.0, 5.0]], requires_grad=True)
    weight = truncation(uncertainty)
    torch.testing.assert_close(weight, torch.tensor([kept]))
    if weight.requires_grad:
        (slope,) = torch.autograd.grad(weight.sum(), uncertainty)
        assert (slope[0, 2:] < 0).all()


@pytest.mark.parametrize("wrong", [lambda: AtLimit(0.0), lambda: Gradual(1.0)])
def test_trust_ends_somewhere(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is an uncertainty above"):
        wrong()
