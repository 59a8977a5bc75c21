"""The update: written once, in full and in mixed precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.propagation import TS1
from worldmodel.errors import UserError
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.training.agent import Agent
from worldmodel.training.fabric import make_fabric
from worldmodel.training.optimizer import Optimizer
from worldmodel.training.randomness import seed_for
from worldmodel.types import ActionSpec


def agent(**settings: Any) -> Agent:
    return Agent(
        ActionSpec(tiny.ACTION, discrete=False),
        lambda _: tiny.world_model(),
        lambda action, size: ActorCritic(action, size, ThroughModel(), TS1(), width=16, horizon=3, starts=8),
        optimizer=Optimizer(**{"warmup": 0, **settings}),
    )


class Scaler(torch.amp.GradScaler):
    """Of a chosen scale, which a tiny model overflows or not."""

    def __init__(self, scale: float) -> None:
        super().__init__("cpu", init_scale=scale, growth_interval=10**6)


def in_fp16(scale: float, **settings: Any) -> Agent:
    plugin = MixedPrecision("16-mixed", "cpu", Scaler(scale))
    plugin.forward_context = lambda: torch.autocast("cpu", enabled=False)  # type: ignore[method-assign]
    return agent(**settings).setup(Fabric(accelerator="cpu", devices=1, plugins=[plugin]))


def weights(of: Agent) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.parameters()])


def test_the_losses_compile_in_one_piece() -> None:
    learner = agent().setup()
    explained = torch._dynamo.explain(learner.losses)(tiny.batch())
    assert (explained.graph_count, explained.break_reasons) == (1, [])


def test_an_update_moves_all_that_learns_and_the_target_critic() -> None:
    learner = agent().setup()
    before = copy.deepcopy(learner.state_dict())
    metrics = learner.update(tiny.batch())
    assert {"loss/total", "gradient/world_model", "gradient/actor", "gradient/critic", "kl"} <= metrics.keys()
    assert all(value.shape == () for value in metrics.values()) and learner.updates == 1
    moved = {name for name, value in learner.state_dict().items() if not torch.equal(value, before[name])}
    for part in ("world_model.encoder", "world_model.rssm", "world_model.decoder", "world_model.reward"):
        assert any(name.startswith(part) for name in moved), part
    for part in ("actor_critic.actor", "actor_critic.critic.net", "actor_critic.critic.target"):
        assert any(name.startswith(part) for name in moved), part


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    plain, scaled = agent().setup(), in_fp16(1024.0)
    found = []
    for learner in (plain, scaled):
        torch.manual_seed(0)
        found.append(learner.update(tiny.batch()))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights(plain), weights(scaled), rtol=0, atol=2e-4)


def test_fp16_may_look_for_its_scale_for_as_long_as_it_takes() -> None:
    learner = in_fp16(2.0**125, max_skipped=2)
    before = weights(learner)
    while not learner.update(tiny.batch()):
        assert torch.equal(weights(learner), before)
    assert learner.optimizer.skipped > 2 and learner.optimizer.skipped_in_a_row == 0
    assert learner.optimizer.updates == 1 and not torch.equal(weights(learner), before)


@pytest.mark.parametrize("precise", [True, False], ids=["float32", "fp16"])
def test_losses_that_are_never_finite_end_training(precise: bool) -> None:
    learner = agent(max_skipped=3).setup() if precise else in_fp16(4.0, max_skipped=3)
    batch = tiny.batch()
    broken = batch._replace(action=batch.action * float("nan"))
    with pytest.raises(UserError, match="not finite 3 times in a row after 0 updates"):
        for _ in range(20):
            assert learner.update(broken) == {}


def test_every_purpose_on_every_rank_has_a_seed_of_its_own() -> None:
    seeds = {seed_for(seed, rank, purpose) for seed in (0, 1) for rank in (0, 1, 2) for purpose in ("a", "b")}
    assert len(seeds) == 12 and seed_for(0, 1, "a") == seed_for(0, 1, "a")
    with pytest.raises(UserError, match="seed is -1"):
        seed_for(-1, 0, "a")


@pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(8)])
def test_an_update_in_bf16_comes_to_what_one_in_float32_does(latents: Latents) -> None:
    found: dict[str, dict[str, float]] = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        learner = Agent(
            ActionSpec(tiny.ACTION, discrete=False),
            lambda _: tiny.world_model(latents),
            lambda action, size: ActorCritic(action, size, ThroughModel(), TS1(), width=16, horizon=3, starts=8),
        ).setup(make_fabric(accelerator="cpu", precision=precision))
        torch.manual_seed(1)
        metrics = learner.update(tiny.batch(4, 8))
        found[precision] = {name: float(value) for name, value in metrics.items()}
    exact, rounded = found.values()
    for name in ("loss/reconstruction", "loss/reward", "loss/critic", "loss/dynamics", "kl", "gradient/world_model"):
        assert rounded[name] == pytest.approx(exact[name], rel=0.05), name
    assert rounded["loss/total"] != exact["loss/total"]  # something was rounded
