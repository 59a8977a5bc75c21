from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from tests import tiny
from tests.model.test_world_model import NAMES, squares
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.propagation import TS1
from worldmodel.errors import UserError
from worldmodel.model.representation import (
    BarlowTwins,
    InfoNCE,
    NextEmbedding,
    RepresentationLoss,
    decorrelate,
)
from worldmodel.model.world_model import WorldModel
from worldmodel.training.agent import Agent
from worldmodel.types import ActionSpec

EVERY = [BarlowTwins, InfoNCE, NextEmbedding]
LEARNED = {
    "barlow": "barlow_correlation",
    "infonce": "infonce_accuracy",
    "next_embedding": "next_embedding_correlation",
}
every_loss = pytest.mark.parametrize("kind", EVERY)


def model(kind: type[RepresentationLoss], **settings: Any) -> WorldModel:
    made = tiny.world_model(**settings)
    made.represent(kind)
    return made


def agent(kind: Any, decoder: bool = True, **settings: Any) -> Agent:
    def world_model(_: int) -> WorldModel:
        made = tiny.world_model()
        if not decoder:
            made._modules["decoder"] = None
        return made

    def control(action: ActionSpec, size: int) -> ActorCritic:
        return ActorCritic(action, size, ThroughModel(), TS1(), width=16, horizon=3, starts=8)

    return Agent(ActionSpec(tiny.ACTION, discrete=False), world_model, control, representation=kind, **settings)


def naive(said: torch.Tensor, seen: torch.Tensor, redundancy: float) -> torch.Tensor:
    x, y = ((z - z.mean(0)) / z.std(0, unbiased=False) for z in (said, seen))
    c = x.T @ y / len(x)
    off = c - torch.diag(c.diagonal())
    return ((1 - c.diagonal()).square().sum() + redundancy * off.square().sum()) * 1024 / len(c)


def test_correlations_are_those_of_the_matrix_and_leave_out_what_does_not_count() -> None:
    said, seen = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    loss, alike = decorrelate(said, seen, torch.ones(4, 5), 0.1)
    torch.testing.assert_close(loss, naive(said.flatten(0, 1), seen.flatten(0, 1), 0.1))
    assert -1 < alike < 1
    said[0, 0], counts = 1e3, torch.ones(4, 5)
    counts[0, 0] = 0
    torch.testing.assert_close(
        decorrelate(said, seen, counts, 0.1)[0], naive(said.flatten(0, 1)[1:], seen.flatten(0, 1)[1:], 0.1)
    )
    for nothing in (torch.zeros(4, 5), torch.ones(4, 5)):  # no record counts; all are alike
        assert decorrelate(torch.ones(4, 5, 7), seen, nothing, 0.1)[0] == pytest.approx(1024)


@every_loss
def test_losses_by_name_and_shape(kind: type[RepresentationLoss]) -> None:
    made, data = model(kind), tiny.batch(3, 6)
    losses, _, metrics = made.loss(data)
    assert losses.keys() == NAMES | {kind.name}
    assert all(loss.shape == (3, 6) and loss.isfinite().all() for loss in losses.values())
    assert metrics[LEARNED[kind.name]].shape == () and not metrics[LEARNED[kind.name]].requires_grad


@every_loss
def test_one_batch_is_learned_by_heart(kind: type[RepresentationLoss]) -> None:
    made, data = model(kind), squares()
    made.fit_statistics(data.image.flatten(0, 1))
    before, _, knew = made.loss(data)
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(100):
        losses, _, metrics = made.loss(data)
        optimizer.zero_grad()
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
        optimizer.step()
    name = LEARNED[kind.name]
    assert losses[kind.name].mean() < 0.4 * before[kind.name].mean()
    assert knew[name] < 0.5 and metrics[name] > 0.75
    assert losses["reconstruction"].mean() < 0.5 * before["reconstruction"].mean()  # the decoder learned to look


@every_loss
def test_the_decoder_beside_teaches_the_model_nothing(kind: type[RepresentationLoss]) -> None:
    made = model(kind)
    losses, _, _ = made.loss(tiny.batch())
    losses["reconstruction"].mean().backward(retain_graph=True)
    assert all(name.startswith("decoder.") == (p.grad is not None) for name, p in made.named_parameters())
    made.zero_grad()
    losses[kind.name].mean().backward()
    taught = {name.partition(".")[0] for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"encoder", "rssm", "representation"}  # the encoder through the posterior


def test_what_an_episode_begins_with_is_not_predicted() -> None:
    made, data = NextEmbedding(5, 7, tiny.ACTION, 16), tiny.batch(3, 6)
    feature, embed = torch.randn(3, 6, 5), torch.randn(3, 6, 7)
    data.is_first[1, 3] = True
    other = embed.clone()
    other[1, 3], other[:, 0] = 9.0, 9.0
    torch.testing.assert_close(made(feature, embed, data)[0], made(feature, other, data)[0])
    other[1, 4] = 9.0
    assert not torch.equal(made(feature, embed, data)[0], made(feature, other, data)[0])


@every_loss
@pytest.mark.parametrize("decoder", [True, False])
def test_an_agent_learns_with_it(kind: type[RepresentationLoss], decoder: bool) -> None:
    learner = agent(kind, decoder).setup()
    assert learner.weights[kind.name] == kind.weight
    learner.world_model.fit_statistics(tiny.batch().image.flatten(0, 1))
    metrics = learner.update(tiny.batch())
    assert {f"loss/{kind.name}", LEARNED[kind.name]} <= metrics.keys()
    assert (metrics["loss/reconstruction"] == 0) == (not decoder)
    assert any(name.startswith("world_model.representation.") for name in learner.state_dict())
    assert agent(kind, weights={kind.name: 3.0}).weights[kind.name] == 3.0


def test_what_does_not_go_together_is_said() -> None:
    with pytest.raises(UserError, match="nothing teaches the model to see"):
        agent(None, decoder=False)
    with pytest.raises(UserError, match="infonce is to stand beside the reconstruction, and there is no decoder"):
        agent(partial(InfoNCE, beside=True), decoder=False)
    with pytest.raises(UserError, match="no loss is called barlow"):
        agent(None, weights={"barlow": 1.0})
    blind = agent(InfoNCE, decoder=False).world_model
    with pytest.raises(UserError, match="this run has no decoder"):
        blind.decoder.image(torch.zeros(1, blind.feature_size))


@every_loss
def test_the_loss_compiles_in_one_piece(kind: type[RepresentationLoss]) -> None:
    made, data = kind(5, 7, tiny.ACTION, 16), tiny.batch(2, 3)
    explained = torch._dynamo.explain(made)(torch.randn(2, 3, 5), torch.randn(2, 3, 7), data)
    assert (explained.graph_count, explained.break_reasons) == (1, [])


@every_loss
@pytest.mark.parametrize("beside", [False, True])
def test_the_model_learns_from_the_drawing_where_the_loss_stands_beside_it(
    kind: type[RepresentationLoss], beside: bool
) -> None:
    made, data = tiny.world_model(), tiny.batch(3, 6)
    made.represent(partial(kind, beside=beside))
    losses, _, _ = made.loss(data)
    losses["reconstruction"].mean().backward()
    moved = [x.grad is not None and bool(x.grad.any()) for x in made.rssm.parameters()]
    assert any(moved) == beside
