from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldmodel.control.actor_critic import (
    Actor,
    ActorCritic,
    CategoricalActor,
    NormalActor,
    Objective,
    PolicyGradient,
    ThroughModel,
)
from worldmodel.control.critic import Critic
from worldmodel.control.propagation import TS1, Mixture
from worldmodel.control.returns import ReturnScale
from worldmodel.model.distributions import GaussianLatents
from worldmodel.types import ActionSpec, LatentState

F = 6


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def awake(actor: Actor) -> Actor:
    """With an output layer that says something: it starts at zero."""
    torch.nn.init.normal_(actor.net[-1].weight, std=3)
    return actor


def test_normal_actor_stays_in_bounds_and_keeps_its_noise() -> None:
    actor = awake(NormalActor(F, 3, 16, 1, min_std=0.2, max_std=0.9))
    feature = 5 * torch.randn(500, F)
    action, std = actor.bound(actor.sample(feature)), actor.distribution(feature).base_dist.stddev
    assert action.shape == (500, 3) and action.abs().max() == 1  # clipped, and it happens
    assert actor.mode(feature).abs().max() <= 1
    assert std.min() >= 0.2 and std.max() <= 0.9
    assert (std.max() - std.min()) > 0.5
    torch.testing.assert_close(actor.mode(feature), actor.distribution(feature).mean)


def test_clipping_lets_the_gradient_pass() -> None:
    actor = NormalActor(F, 1, 16, 1)
    action = actor.bound(actor.sample(torch.zeros(100, F)))
    assert (action.abs() == 1).any()
    (gradient,) = torch.autograd.grad(action.sum(), actor.net[-1].bias)
    assert gradient[0].item() == pytest.approx(100)  # the mean is tanh(bias), at zero


def test_categorical_actor_is_one_hot_and_frequent_as_it_should_be() -> None:
    actor = awake(CategoricalActor(F, 4, 16, 1))
    action = actor.sample(torch.randn(1000, F))
    assert torch.equal(action.detach(), action.detach().round()) and (action.sum(-1) == 1).all()
    feature = torch.randn(1, F)
    action = actor.sample(feature.expand(20000, F))
    probs = actor.distribution(feature).mean[0]
    torch.testing.assert_close(action.mean(0), probs, atol=0.015, rtol=0)
    assert probs.min() >= 0.01 / 4
    assert actor.mode(feature).argmax() == probs.argmax() and actor.mode(feature).sum() == 1


def test_categorical_gradient_is_that_of_the_probabilities() -> None:
    actor = awake(CategoricalActor(F, 4, 16, 1))
    feature, weight = torch.randn(5, F), torch.randn(5, 4)
    bias = actor.net[-1].bias
    (straight,) = torch.autograd.grad((actor.sample(feature) * weight).sum(), bias)
    (expected,) = torch.autograd.grad((actor.distribution(feature).mean * weight).sum(), bias)
    torch.testing.assert_close(straight, expected)


def test_critic_learns_and_its_target_follows() -> None:
    critic = Critic(F, 16, 1, bins=41, limit=6, target_rate=0.1)
    feature = torch.randn(64, F)
    returns = 10 * feature[:, 0]
    assert not critic(feature).any()
    optimizer = torch.optim.Adam(critic.net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        critic.loss(feature, returns).mean().backward()
        optimizer.step()
        critic.update_target()
    assert (critic(feature) - returns).square().mean() < 0.3 * returns.var()
    assert all(p.grad is None and not p.requires_grad for p in critic.target.parameters())
    before = critic.target[-1].bias.clone()
    critic.update_target()
    torch.testing.assert_close(critic.target[-1].bias, before + 0.1 * (critic.net[-1].bias - before))


@pytest.mark.parametrize("actor", [NormalActor(F, 2, 16, 1), CategoricalActor(F, 4, 16, 1)])
def test_policy_gradient_raises_what_turned_out_well(actor: Actor) -> None:
    feature = torch.randn(64, 1, F)
    draw = actor.sample(feature).detach().requires_grad_(True)
    returns, value = torch.randn(64, 1, requires_grad=True), torch.randn(64, 1, requires_grad=True)
    good = (returns > value)[:, 0]

    def log_prob() -> Tensor:
        return actor.distribution(feature).log_prob(draw).detach()[:, 0]

    before = log_prob()
    optimizer = torch.optim.Adam(actor.parameters(), 1e-2)
    for _ in range(20):
        loss = PolicyGradient()(
            lambda: actor.distribution(feature).log_prob(draw.detach()), returns, value, torch.tensor(2.0)
        )
        assert loss.shape == (64, 1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    change = log_prob() - before
    assert change[good].mean() > change[~good].mean() + 0.5 and change[~good].mean() < -0.5
    # the estimate is of the actor's gradient alone
    assert returns.grad is None and value.grad is None and draw.grad is None


def test_policy_gradient_is_the_gradient_of_the_expected_return() -> None:
    actor = awake(CategoricalActor(F, 3, 16, 1))
    state = torch.randn(1, F)
    payoff = torch.tensor([1.0, -2.0, 0.5])
    feature = state.expand(100000, 1, F)
    draw = actor.sample(feature).detach()
    returns = draw @ payoff
    log_prob = actor.distribution(feature).log_prob
    loss = PolicyGradient()(lambda: log_prob(draw), returns, torch.full_like(returns, 0.3), torch.tensor(1.0)).mean()
    bias = actor.net[-1].bias
    (estimate,) = torch.autograd.grad(-loss, bias)
    (exact,) = torch.autograd.grad((actor.distribution(state).mean @ payoff).sum(), bias)
    torch.testing.assert_close(estimate, exact, atol=0.03, rtol=0)


def test_the_score_of_a_normal_actor_is_unbiased_at_its_limits() -> None:
    actor = NormalActor(F, 1, 16, 1)
    feature = torch.zeros(200000, F)
    torch.nn.init.constant_(actor.net[-1].bias, 1.0)  # a mean of 0.76: a third of the draws are clipped
    draw = actor.sample(feature).detach()
    assert (actor.bound(draw) != draw).float().mean() > 0.2
    (score,) = torch.autograd.grad(actor.distribution(feature).log_prob(draw).mean(), actor.net[-1].bias)
    assert score.abs().max() < 0.01


def agent(objective: Objective, **settings: Any) -> tuple[ActorCritic, Any]:
    """An actor-critic that has opinions, and a model whose rewards and values differ between states."""
    model = tiny.world_model(GaussianLatents(6))
    settings = {"width": 16, "layers": 1, "horizon": 4, "starts": 10, **settings}
    control = ActorCritic(ActionSpec(tiny.ACTION, False), model.feature_size, objective, Mixture(), **settings)
    for net in (model.reward.net, control.critic.net):
        torch.nn.init.normal_(net[-1].weight)
    return control, model


@pytest.mark.parametrize("objective", [ThroughModel(), PolicyGradient()])
def test_losses_reach_what_they_are_for_and_nothing_else(objective: Objective) -> None:
    control, model = agent(objective)
    data = tiny.batch(4, 5)
    _, state, _ = model.loss(data)
    losses, metrics = control.loss(model, state, data)
    assert losses["actor"].shape == losses["critic"].shape == (10, 4)
    assert losses["replay_critic"].shape == (4, 4)
    assert all(x.shape == () and not x.requires_grad for x in metrics.values())

    losses["actor"].mean().backward(retain_graph=True)
    assert all(p.grad is None for module in (model, control.critic) for p in module.parameters())
    assert control.actor.net[-1].weight.grad.any()
    control.zero_grad()
    (losses["critic"].mean() + losses["replay_critic"].mean()).backward()
    assert all(p.grad is None for module in (model, control.actor) for p in module.parameters())
    assert all(p.grad is not None for p in control.critic.net.parameters())
    assert all(p.requires_grad for p in (*model.parameters(), *control.critic.net.parameters()))


def test_gradient_through_the_model_is_that_of_finite_differences() -> None:
    control, model = agent(ThroughModel(entropy=0.0), critic=partial(Critic, limit=1.0), horizon=1, starts=1000)
    control.scale = ReturnScale(decay=1.0)  # stays at 1
    bias = control.actor.net[-1].bias
    with torch.no_grad():
        bias[tiny.ACTION :] = -20  # little noise: clipping passes gradients that differences do not see
    data = tiny.batch(4, 5)
    state = model.observe(data, mode=True).state

    def loss(shift: float, index: int) -> Tensor:
        with torch.no_grad():
            bias[index] += shift
        torch.manual_seed(1)
        out = control.loss(model, state, data)[0]["actor"].mean()
        with torch.no_grad():
            bias[index] -= shift
        return out

    (gradient,) = torch.autograd.grad(loss(0, 0), bias)
    for index in range(tiny.ACTION):
        difference = (loss(0.005, index) - loss(-0.005, index)).item() / 0.01  # further off it curves
        assert gradient[index].item() == pytest.approx(difference, rel=0.01)
        assert abs(difference) > 0.01


@torch.no_grad()
@pytest.mark.parametrize(("starts", "count"), [(5, 5), (20, 20), (1000, 20)])
def test_each_posterior_is_a_start_once_at_most(starts: int, count: int) -> None:
    control, model = agent(ThroughModel(), starts=starts)
    data = tiny.batch(4, 5)
    state = model.observe(data).state
    chosen, begun = control._starts(state, data)
    assert len(set(chosen.tolist())) == len(chosen) == count
    assert torch.equal(begun.deter, state.deter.flatten(0, 1)[chosen])


@pytest.mark.parametrize(("objective", "rate"), [(ThroughModel(entropy=0), 1e-2), (PolicyGradient(entropy=0), 3e-2)])
def test_imagined_returns_rise(objective: Objective, rate: float) -> None:
    control, model = agent(objective, starts=500, horizon=3)
    data = tiny.batch(100, 5)
    state = model.observe(data).state
    optimizer = torch.optim.Adam(control.actor.parameters(), rate)
    before = torch.stack([control.loss(model, state, data)[1]["return_imagined"] for _ in range(5)])
    for _ in range(40):
        optimizer.zero_grad()
        control.loss(model, state, data)[0]["actor"].mean().backward()
        optimizer.step()
    after = torch.stack([control.loss(model, state, data)[1]["return_imagined"] for _ in range(5)])
    assert after.mean() > before.mean() + 3 * before.std()


def test_entropy_bonus_spreads_the_actor() -> None:
    control, model = agent(PolicyGradient(entropy=100.0))
    data = tiny.batch(4, 5)
    state = model.observe(data).state
    optimizer = torch.optim.Adam(control.actor.parameters(), 1e-2)
    with torch.no_grad():
        control.actor.net[-1].bias[tiny.ACTION :] = -4
    first = control.loss(model, state, data)[1]["entropy"]
    for _ in range(20):
        optimizer.zero_grad()
        control.loss(model, state, data)[0]["actor"].mean().backward()
        optimizer.step()
    assert control.loss(model, state, data)[1]["entropy"] > first + 0.3


def test_starts_are_distinct_states_of_the_batch() -> None:
    control, _ = agent(ThroughModel(), starts=10)
    state = LatentState(*(torch.arange(24.0).view(4, 6, 1) + n for n in (0, 100, 200)))
    chosen, start = control._starts(state, tiny.batch(4, 6))
    assert len(set(chosen.tolist())) == 10
    assert torch.equal(start.deter[:, 0], chosen.float()) and torch.equal(start.stoch[:, 0], chosen + 100.0)
    few = LatentState(*(x[:2, :4] for x in state))
    assert sorted(control._starts(few, tiny.batch(2, 4))[0].tolist()) == list(range(8))


def test_real_returns_stop_at_episodes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    control, model = agent(ThroughModel(), critic=partial(Critic, lam=1.0, bins=41, limit=6), discount=0.5)
    data = tiny.batch(2, 5)
    is_first, is_terminal, reward = data.is_first.clone(), data.is_terminal.clone(), torch.ones(2, 5)
    is_first[0, 3] = is_first[1, 3] = True
    is_terminal[1, 2] = True  # the first sequence's episode ends by a time limit, the second's by itself
    data = data._replace(is_first=is_first, is_terminal=is_terminal, reward=reward)
    state = model.observe(data).state
    value = control.critic(state.feature).detach()
    asked: list[Tensor] = []
    monkeypatch.setattr(control.critic, "loss", lambda feature, returns: asked.append(returns))
    control._replayed(state, data, torch.empty(0, dtype=torch.long), torch.empty(0, 4))
    returns = asked[0]
    v = value[0]
    limited = [1 + 0.5 * (1 + 0.5 * v[2]), 1 + 0.5 * v[2], v[2], 1 + 0.5 * v[4]]
    ended = [1 + 0.5 * 1, 1.0, value[1, 2], 1 + 0.5 * value[1, 4]]
    torch.testing.assert_close(returns, torch.tensor([limited, ended]))


def test_the_imagined_future_counts_only_while_the_episode_goes_on() -> None:
    control, model = agent(PolicyGradient(entropy=0.0), horizon=3, discount=0.9)
    with torch.no_grad():
        model.cont.net[-1].bias.fill_(-30)  # every state is terminal
    data = tiny.batch(4, 5)
    losses, _ = control.loss(model, model.observe(data).state, data)
    assert losses["critic"][:, 0].min() > 0 and losses["critic"][:, 1:].abs().max() < 1e-6
    assert losses["actor"][:, 1:].abs().max() < 1e-6

    with torch.no_grad():
        model.cont.net[-1].bias.fill_(30)  # none is
        control.critic.net[-1].weight.zero_()  # even logits: the same loss everywhere
    critic = control.loss(model, model.observe(data).state, data)[0]["critic"].mean(0)
    torch.testing.assert_close(critic / critic[0], torch.tensor([1, 0.9, 0.81]))


def test_discrete_actions() -> None:
    model = tiny.world_model()
    spec = ActionSpec(tiny.ACTION, discrete=True)
    control = ActorCritic(spec, model.feature_size, PolicyGradient(), TS1(), width=16, starts=6, horizon=2)
    data = tiny.batch(3, 4)
    losses, metrics = control.loss(model, model.observe(data).state, data)
    assert isinstance(control.actor, CategoricalActor) and losses["actor"].isfinite().all()
    assert metrics["entropy"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"starts": 0}])
def test_a_rollout_has_a_length_and_a_start(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        agent(ThroughModel(), **wrong)
