from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from tests import tiny
from worldmodel.control import dyna
from worldmodel.control.critic import Critic
from worldmodel.control.dyna import Dyna
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.propagation import TS1
from worldmodel.control.truncation import AtLimit
from worldmodel.training.agent import Agent
from worldmodel.training.allowed import check_value
from worldmodel.types import ActionSpec, LatentState, SequenceBatch

SPEC = ActionSpec(tiny.ACTION, discrete=False)
F = 4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def control(feature_size: int, **settings: Any) -> Dyna:
    given = {"imagined_after": 0, "width": 16, "horizon": 1, "starts": 8, "discount": 0.9}
    return Dyna(SPEC, feature_size, TS1(), **{**given, **settings})


def ring(sequences: int = 8, length: int = 12) -> tuple[LatentState, SequenceBatch]:
    """Four states in a ring, whatever is done; coming to state 0 earns 1. Features are one-hot."""
    data = tiny.batch(sequences, length)
    place = (torch.arange(sequences).unsqueeze(1) + torch.arange(length)) % F
    data = data._replace(reward=(place == 0).float())
    one_hot = torch.nn.functional.one_hot(place, F).float()
    return LatentState(one_hot, one_hot[..., :0], one_hot[..., :0]), data


def trained(learner: Dyna, state: LatentState, data: SequenceBatch, updates: int = 200) -> torch.Tensor:
    """The critics' values of the four states, (4,)."""
    optimizer, model = torch.optim.Adam(learner.parameters(), 1e-2), tiny.world_model()
    for _ in range(updates):
        losses, _ = learner.loss(model, state, data)
        optimizer.zero_grad()
        sum(loss.mean() for loss in losses.values()).backward()
        optimizer.step()
        learner.critic.update_target()
    return learner.critic(torch.eye(F)).detach()


@pytest.mark.parametrize("lam", [0.0, 0.8])
def test_critics_learn_what_a_ring_of_states_is_worth(lam: float) -> None:
    learner = control(F, imagined_share=0, lam=lam, discount=0.7, critic=partial(Critic, target_rate=0.5))
    # from state s it takes 4 - s steps to earn 1, and then 4 each time
    expected = torch.tensor([0.7 ** (3 - s) / (1 - 0.7**4) for s in range(F)])
    torch.testing.assert_close(trained(learner, *ring()), expected, rtol=0.05, atol=0)


def test_a_terminal_state_ends_the_value_and_a_time_limit_does_not() -> None:
    learner = control(F, imagined_share=0, lam=0.5)
    state, data = ring(1, 6)
    data.is_first[0, 3] = True  # 2 was the last of its episode
    worth = torch.tensor([[3.0, 5.0, 7.0, 11.0, 13.0, 17.0]])
    learner._target = lambda feature: worth
    found = learner._real(state, data)
    reward = data.reward[0]
    last = reward[2] + 0.9 * worth[0, 2]
    torch.testing.assert_close(found.returns[1], last)
    torch.testing.assert_close(found.returns[0], reward[1] + 0.9 * (0.5 * worth[0, 1] + 0.5 * last))
    assert found.weight.tolist() == [1.25, 1.25, 0.0, 1.25, 1.25]
    data.is_terminal[0, 2] = True
    found = learner._real(state, data)
    torch.testing.assert_close(found.returns[1], reward[2])
    torch.testing.assert_close(found.action, data.action[0, 1:])


def parts(learner: Dyna, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> tuple[dict[str, Any], int]:
    """Losses and metrics of noise, in which something is changed, and how often anything was imagined."""
    model, data = tiny.world_model(), tiny.batch()
    calls: list[int] = []
    imagine = dyna.imagine

    def imagined(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return imagine(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(dyna, "imagine", imagined)
        state = model.observe(data).state
        losses, metrics = learner.loss(model, state, data._replace(**changed))
    return losses | {f"metric/{k}": v for k, v in metrics.items()}, len(calls)


def test_a_share_of_none_imagines_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = control(tiny.world_model().feature_size, imagined_share=0)
    found, calls = parts(learner, monkeypatch)
    assert calls == 0 and len(found["critic"]) == 3 * 5 and "metric/reward_imagined" not in found


def test_a_share_of_all_learns_from_nothing_real(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = control(tiny.world_model().feature_size, imagined_share=1)
    torch.manual_seed(1)
    one, calls = parts(learner, monkeypatch)
    torch.manual_seed(1)
    other, _ = parts(learner, monkeypatch, reward=torch.full((3, 6), 100.0), action=torch.ones(3, 6, tiny.ACTION))
    assert calls == 1 and len(one["critic"]) == 8
    assert torch.equal(one["critic"], other["critic"]) and torch.equal(one["actor"], other["actor"])


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_share_between_is_that_of_the_losses(share: float) -> None:
    model, data = tiny.world_model(), tiny.batch()
    learner, state = control(model.feature_size, imagined_share=share), model.observe(data).state
    found = dyna._mixed([(torch.tensor(1 - share), learner._real(state, data)),
                         (torch.tensor(share), learner._imagined(model, state, data)[0])])  # fmt: skip
    assert len(found.weight) == 3 * 5 + 8
    total = found.weight.sum()
    assert found.weight[:15].sum() / total == pytest.approx(1 - share, abs=0.01)
    assert found.weight.mean() == pytest.approx(1, abs=0.01)


def test_nothing_is_imagined_before_the_model_has_learned() -> None:
    model, data = tiny.world_model(), tiny.batch()
    learner, state = control(model.feature_size, imagined_share=1, imagined_after=2), model.observe(data).state
    shares = [float(learner.loss(model, state, data)[1]["imagined_share"]) for _ in range(4)]
    assert shares == [0, 0, 1, 1]
    learner.eval().loss(model, state, data)
    assert learner.learned == 4 and "learned" in learner.state_dict()


def test_uncertainty_weighs_imagined_transitions_and_their_rewards() -> None:
    model, data = tiny.world_model(), tiny.batch()
    state = model.observe(data).state
    for limit, weight in ((1e-9, 0.0), (1e9, 1.0)):
        learner = control(model.feature_size, truncation=AtLimit(limit), horizon=3)
        found, metrics = learner._imagined(model, state, data)
        assert len(found.weight) == 24 and (found.weight.view(8, 3)[:, 0] == weight).all()
        assert metrics["uncertainty_imagined"] > 0
    returns = []
    for worth in (0.0, -2.0):
        torch.manual_seed(2)
        learner = control(model.feature_size, uncertainty_weight=worth, truncation=AtLimit(1e9))
        torch.manual_seed(3)
        found, metrics = learner._imagined(model, state, data)
        returns.append(found.returns.mean())
    assert returns[0] - returns[1] == pytest.approx(2 * float(metrics["uncertainty_imagined"]), rel=1e-3)


def test_each_learns_from_its_own_loss_and_the_model_from_none() -> None:
    model, data = tiny.world_model(), tiny.batch()
    learner = control(model.feature_size, imagined_share=0.5)
    for critic in learner.critic.each:
        torch.nn.init.normal_(critic.net[-1].weight)
    losses, _ = learner.loss(model, model.loss(data)[1], data)
    losses["actor"].mean().backward(retain_graph=True)
    assert all(p.grad is not None for p in learner.actor.parameters())
    assert all(p.grad is None for p in (*learner.critic.parameters(), *model.parameters()))
    losses["critic"].mean().backward()
    assert all(p.grad is not None for critic in learner.critic.each for p in critic.net.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_an_agent_takes_it_and_planners_ask_its_critics() -> None:
    agent = Agent(SPEC, lambda _: tiny.world_model(), lambda action, size: control(size)).setup()
    assert {"actor", "critic"} <= agent.weights.keys() and "replay_critic" not in agent.weights
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    agent.update(tiny.batch())
    moved = {name for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}
    for part in ("actor.net", "critic.each.0.net", "critic.each.1.net", "critic.each.0.target", "learned"):
        assert any(name.startswith(f"actor_critic.{part}") for name in moved), part
    ids = [id(p) for part in agent.parts.values() for p in part]
    assert len(ids) == len(set(ids))
    feature = torch.randn(5, agent.world_model.feature_size)
    critic = agent.actor_critic.critic
    asked = LatentDynamics(agent.world_model, critic).value(feature)
    assert torch.equal(asked, critic.value(feature, agent.actor_critic.actor.mode(feature)))


def test_discrete_actions_are_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="for discrete ones take policy/policy_gradient"):
        Dyna(ActionSpec(3, discrete=True), F, TS1())


@pytest.mark.parametrize("path", ["dyna.Dyna", "imitation.Imitator"])
def test_a_strangers_run_may_set_what_is_handed_on(path: str) -> None:
    settings = {"class_path": f"worldmodel.control.{path}", "init_args": {"horizon": 3, "discount": 0.9}}
    check_value(settings, type(control(F)).__mro__[1], "model.actor_critic", source="a stranger's file")
    settings["init_args"]["horizn"] = 3  # type: ignore[index]
    with pytest.raises(Exception, match="horizn"):
        check_value(settings, type(control(F)).__mro__[1], "model.actor_critic", source="a stranger's file")
