from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, CategoricalActor
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.imitation import Imitator
from worldmodel.control.planners.base import Dynamics, Planner
from worldmodel.control.planners.cem import CEM
from worldmodel.control.planners.gradient import GradientPlanner
from worldmodel.control.planners.mppi import MPPI
from worldmodel.control.planners.shooting import RandomShooting
from worldmodel.control.propagation import Mixture
from worldmodel.model.distributions import GaussianLatents
from worldmodel.model.transitions import Transition
from worldmodel.types import ActionSpec, LatentState, Plan


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Follow(Transition):
    """One member, that moves the whole latent to the action's first number."""

    def __init__(self) -> None:
        super().__init__(members=1)

    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        mean = action[..., :1].expand(*action.shape[:-1], 6)
        return torch.cat([mean, torch.full_like(mean, -5)], -1).unsqueeze(0)


def imitator(planner: Planner, discrete: bool = False, **settings: Any) -> tuple[Imitator, Any]:
    """One that has opinions, and a model whose rewards and values differ between states."""
    model = tiny.world_model(GaussianLatents(6))
    settings = {"width": 16, "layers": 1, "horizon": 2, "starts": 12, "labelled": 8, **settings}
    control = Imitator(ActionSpec(tiny.ACTION, discrete), model.feature_size, Mixture(), planner, **settings)
    for net in (model.reward.net, control.critic.net, control.actor.net):
        torch.nn.init.normal_(net[-1].weight, std=0.5)
    return control, model


def learn(control: Imitator, model: Any, updates: int, rate: float) -> list[float]:
    """Update the actor alone; gives the gaps to the plans."""
    data = tiny.batch(4, 5)
    state = model.observe(data).state
    optimizer = torch.optim.Adam(control.actor.parameters(), rate)
    gaps = []
    for _ in range(updates):
        losses, metrics = control.loss(model, state, data)
        optimizer.zero_grad()
        losses["actor"].mean().backward()
        optimizer.step()
        gaps.append(metrics["imitation_gap"].item())
    return gaps


class Near(torch.nn.Module):
    """A reward for latents near 0.6."""

    def forward(self, feature: Tensor) -> Tensor:
        return -(feature[..., -1] - 0.6).square()


def test_the_actor_comes_to_do_what_is_planned() -> None:
    control, model = imitator(CEM(horizon=1, candidates=16, elites=4, iterations=3), entropy=0.0)
    model.rssm.transition, model.reward = Follow(), Near()
    for net in (control.critic.net, control.actor.net):
        torch.nn.init.zeros_(net[-1].weight)
    gaps = learn(control, model, 120, 2e-2)
    feature = model.observe(tiny.batch(4, 5, seed=1)).state.feature
    off = (control.actor.mode(feature)[..., 0] - 0.6).abs()
    assert off.mean() < 0.1 and off.max() < 0.3 and gaps[0] > 0.1


class Known(Planner):
    """Solves every state by heart: tanh of its memory's first numbers. Remembers what it was given."""

    warm: Tensor
    dynamics: Dynamics

    def act(self, state: Tensor, spec: ActionSpec) -> Tensor:
        wanted = (3 * state[:, : spec.size]).tanh()
        return torch.nn.functional.one_hot(wanted.argmax(-1), spec.size).float() if spec.discrete else wanted

    def plan(
        self,
        dynamics: Dynamics,
        state: Tensor,
        spec: ActionSpec,
        warm: Tensor | None = None,
        proposals: Tensor | None = None,
    ) -> Plan:
        assert not torch.is_grad_enabled() or warm is None
        action = self.act(state, spec)
        if warm is not None:
            self.warm, self.dynamics = warm, dynamics
        mean = action.unsqueeze(1).expand(-1, self.horizon, -1)
        none = torch.zeros(len(state))
        return Plan(action, mean, torch.zeros_like(mean), none, none, mean.unsqueeze(1), none.unsqueeze(1))


@pytest.mark.parametrize("discrete", [False, True])
def test_the_actor_learns_a_rule_that_differs_between_states(discrete: bool) -> None:
    planner = Known(horizon=2)
    control, model = imitator(planner, discrete, entropy=0.0, labelled=12)
    feature = model.observe(tiny.batch(4, 5)).state.feature.flatten(0, 1)
    wanted = planner.act(feature, control.action)
    assert wanted.std(0).min() > 0.1
    gaps = learn(control, model, 150, 2e-2)
    assert sum(gaps[-10:]) < 0.1 * sum(gaps[:10])
    if discrete:
        assert isinstance(control.actor, CategoricalActor)


def test_plans_begin_with_what_the_actor_would_do_and_end_with_the_critic() -> None:
    planner = Known(horizon=3)
    control, model = imitator(planner)
    start = LatentState(*(x[:, -1] for x in model.observe(tiny.batch(4, 5)).state))
    control.label(model, start)
    own = LatentDynamics(model).rollout(start.feature, planner.warm)
    assert planner.warm.shape == (4, 3, tiny.ACTION)
    torch.testing.assert_close(planner.warm, control.actor.mode(own.state[:, :-1]))
    torch.testing.assert_close(planner.dynamics.value(own.state[:, -1]), control.critic(own.state[:, -1]))


PLANNERS = [
    CEM(horizon=2, candidates=8, elites=2, iterations=1),
    MPPI(horizon=2, candidates=8, iterations=1),
    RandomShooting(horizon=2, candidates=4),
    GradientPlanner(horizon=2, steps=2),
]


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda p: type(p).__name__)
def test_no_plan_is_worse_than_the_actor(planner: Planner) -> None:
    control, model = imitator(planner)
    start = LatentState(*(x.detach().flatten(0, 1) for x in model.observe(tiny.batch(4, 5)).state))
    plan = control.label(model, start)
    dynamics = LatentDynamics(model, control.critic)
    rollout, latent = [], start.feature
    for _ in range(planner.horizon):
        rollout.append(control.actor.mode(latent))
        latent = dynamics.step(latent, rollout[-1]).state
    own, _ = planner.score(dynamics, start.feature, control.action, torch.stack(rollout, 1).unsqueeze(1))
    assert (plan.value >= own[:, 0] - 1e-5).all() and (plan.value > own[:, 0] + 1e-4).any()
    assert all(p.grad is None for p in (*model.parameters(), *control.parameters()))


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda p: type(p).__name__)
def test_losses_reach_what_they_are_for_and_nothing_else(planner: Planner) -> None:
    control, model = imitator(planner)
    data = tiny.batch(4, 5)
    _, state, _ = model.loss(data)
    losses, metrics = control.loss(model, state, data)
    assert {name: tuple(x.shape) for name, x in losses.items()} == {
        "actor": (8,),
        "critic": (12, 2),
        "replay_critic": (4, 4),
    }
    assert all(x.shape == () and not x.requires_grad for x in metrics.values())
    losses["actor"].mean().backward(retain_graph=True)
    assert all(p.grad is None for module in (model, control.critic) for p in module.parameters())
    assert all(p.grad is not None for p in control.actor.parameters())
    control.zero_grad()
    (losses["critic"].mean() + losses["replay_critic"].mean()).backward()
    assert all(p.grad is None for module in (model, control.actor) for p in module.parameters())
    assert all(p.grad is not None for p in control.critic.net.parameters())
    assert all(p.requires_grad for p in (*model.parameters(), *control.critic.net.parameters()))


@pytest.mark.parametrize(
    "planner",
    PLANNERS,
    ids=lambda p: type(p).__name__,
)
def test_half_precision_is_planned_in(planner: Planner) -> None:
    control, model = imitator(planner, uncertainty_weight=0.5)
    data = tiny.batch(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        losses, metrics = control.loss(model, model.observe(data).state, data)
    assert all(x.isfinite().all() for x in (*losses.values(), *metrics.values()))


def test_the_loss_is_the_likelihood_of_the_plan_and_an_entropy_bonus() -> None:
    control, model = imitator(Known(horizon=2), entropy=0.5, starts=20, labelled=100)  # all there are
    data = tiny.batch(4, 5)
    is_terminal = data.is_terminal.clone()
    is_terminal[2, 3] = True  # nothing is to be done there
    state = model.observe(data).state
    losses, metrics = control.loss(model, state, data._replace(is_terminal=is_terminal))
    feature = state.feature[~is_terminal]
    distribution = control.actor.distribution(feature)
    planned = control.planner.act(feature, control.action)
    expected = -distribution.log_prob(planned) - 0.5 * distribution.entropy()
    torch.testing.assert_close(losses["actor"].sum(), expected.sum())
    assert losses["actor"].shape == (20,) and (losses["actor"] == 0).sum() == 1
    everywhere = state.feature.flatten(0, 1)
    gap = (control.planner.act(everywhere, control.action) - control.actor.mode(everywhere)).square().mean()
    torch.testing.assert_close(metrics["imitation_gap"], gap)


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="labelled must be at least 1"):
        imitator(Known(), labelled=0)
    with pytest.raises(ValueError, match="continuous actions only"):
        Imitator(ActionSpec(2, discrete=True), 4, Mixture(), GradientPlanner(), width=8)


def test_asking_a_planner_what_it_can_leaves_the_random_numbers_alone() -> None:
    initial = []
    for planner in (RandomShooting(), Known()):
        torch.manual_seed(3)
        Imitator(ActionSpec(2, discrete=False), 4, Mixture(), planner, width=8)
        initial.append(torch.rand(1))
    assert torch.equal(*initial)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_configuration_names_the_planner_and_settings_of_the_actor_critic() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--control", type=Callable[[ActionSpec, int], ActorCritic])
    settings = {
        "propagation": "worldmodel.control.propagation.Mixture",
        "planner": {"class_path": "worldmodel.control.planners.cem.CEM", "init_args": {"horizon": 3}},
        "labelled": 4,
        "starts": 7,
        "uncertainty_weight": 0.5,
    }
    path = "worldmodel.control.imitation.Imitator"
    parsed = parser.parse_object({"control": {"class_path": path, "init_args": settings}})
    control = parser.instantiate_classes(parsed).control(ActionSpec(2, False), 6)
    assert isinstance(control, Imitator) and control.planner.horizon == 3
    assert (control.labelled, control.starts, control.uncertainty_weight.value) == (4, 7, 0.5)
