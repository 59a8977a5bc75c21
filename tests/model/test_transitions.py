from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldmodel.control.imagine import imagine
from worldmodel.control.propagation import TS1, Mixture, TSInf, deal
from worldmodel.model.bayesian import BayesianTransition, DropoutTransition
from worldmodel.model.distributions import GaussianLatents
from worldmodel.model.independent import IndependentEnsemble
from worldmodel.model.transitions import SharedTrunk, Transition, member_linear, select_member

SIZES = (8, 20, 2, 12)  # deter, feature, action, params
KINDS: dict[str, tuple[type[Transition], dict[str, Any]]] = {
    "shared": (SharedTrunk, {}),
    "independent": (IndependentEnsemble, {}),
    "priors": (IndependentEnsemble, {"prior_scale": 1.0, "normalise": False}),
    "bayesian": (BayesianTransition, {"layers": 2, "initial_std": 0.3}),
    "dropout": (DropoutTransition, {"rate": 0.3}),
}
SAMPLED = ("bayesian", "dropout")
every_kind = pytest.mark.parametrize("kind", KINDS)
sampled = pytest.mark.parametrize("kind", SAMPLED)


def make(kind: str, members: int = 3, sizes: tuple[int, ...] = SIZES) -> Any:
    torch.manual_seed(0)
    made, settings = KINDS[kind]
    return made(*sizes, members=members, width=16, **settings)


def inputs(*batch: int) -> list[Tensor]:
    return [torch.randn(*batch, n) for n in SIZES[:3]]


@every_kind
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("batch", [(), (5,), (4, 6), (2, 3, 4)])
def test_shapes(kind: str, members: int, batch: tuple[int, ...]) -> None:
    transition = make(kind, members)
    given = inputs(*batch)
    prior = transition(*given)
    assert prior.shape == (members, *batch, 12)
    first = (0,) * len(batch)
    torch.testing.assert_close(prior[(slice(None), *first)], transition(*(x[first] for x in given)))


@every_kind
def test_members_start_apart(kind: str) -> None:
    prior = make(kind)(*inputs(5))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (prior[one] - prior[other]).abs().mean() > 0.01


@every_kind
def test_every_parameter_learns(kind: str) -> None:
    transition = make(kind)
    transition(*inputs(5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in transition.parameters())


@every_kind
def test_a_copy_and_a_checkpoint_predict_the_same(kind: str) -> None:
    transition, given = make(kind), inputs(5)
    assert torch.equal(copy.deepcopy(transition)(*given), transition(*given))
    torch.manual_seed(1)
    loaded = KINDS[kind][0](*SIZES, members=3, width=16, **KINDS[kind][1])
    assert not torch.equal(loaded(*given), transition(*given))
    loaded.load_state_dict(transition.state_dict())
    for each in (transition, loaded):
        torch.manual_seed(2)
        each.draw()
    assert torch.equal(loaded(*given), transition(*given))


@every_kind
@pytest.mark.parametrize("training", [True, False])
def test_members_are_held_until_they_are_drawn(kind: str, training: bool) -> None:
    transition, given = make(kind).train(training), inputs(5)
    before = transition(*given)
    assert torch.equal(transition(*given), before)
    transition.draw()
    assert torch.equal(transition(*given), before) == (kind not in SAMPLED)


@every_kind
def test_members_of_before_can_be_held_again(kind: str) -> None:
    transition, given = make(kind), inputs(5)
    before, drawn = transition(*given), transition.drawn()
    assert bool(drawn) == (kind in SAMPLED)
    for _ in range(2):
        transition.draw()
        transition.hold(drawn)
        assert torch.equal(transition(*given), before)


@sampled
def test_what_is_drawn_follows_the_seed_and_stays_out_of_checkpoints(kind: str) -> None:
    transition, given = make(kind), inputs(5)
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        transition.draw()
        drawn.append(transition(*given))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert transition.state_dict().keys() == dict(transition.named_parameters()).keys()
    transition.double().draw()
    assert transition(*(x.double() for x in given)).dtype == torch.float64


@every_kind
def test_a_draw_leaves_earlier_graphs_alone(kind: str) -> None:
    """Filtering and imagination draw in turn, and one backward goes through both."""
    transition, given = make(kind), inputs(5)

    def gradient(interrupted: bool) -> list[Tensor]:
        torch.manual_seed(3)
        transition.draw()
        total = transition(*given).square().sum()
        if interrupted:
            transition.draw()
            transition(*given)
        return list(torch.autograd.grad(total, list(transition.parameters())))

    for plain, interrupted in zip(gradient(False), gradient(True), strict=True):
        assert torch.equal(plain, interrupted)


@every_kind
def test_one_backward_through_observing_and_imagining(kind: str) -> None:
    latents = GaussianLatents(4)
    model = tiny.world_model(latents)
    sizes = (16, model.feature_size, tiny.ACTION, latents.param_size)
    model.rssm.transition = make(kind, tiny.MEMBERS, sizes)
    losses, state, _ = model.loss(tiny.batch())
    start = type(state)(*(x.flatten(0, 1) for x in state))
    policy = torch.nn.Linear(model.feature_size, tiny.ACTION)
    path = imagine(model, lambda s: policy(s.feature), start, 3, propagation=TS1())
    total = torch.stack([x.mean() for x in (*losses.values(), path.reward, path.uncertainty)]).sum()
    total.backward()
    for p in (*policy.parameters(), *model.rssm.transition.parameters()):
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any()
    assert (path.uncertainty > 0).all()


def test_member_linear_is_a_layer_per_member() -> None:
    weight, bias = torch.randn(3, 5, 4), torch.randn(3, 5)
    shared, own = torch.randn(7, 4), torch.randn(3, 7, 4)
    for k in range(3):
        torch.testing.assert_close(member_linear(shared, weight, bias)[k], shared @ weight[k].T + bias[k])
        torch.testing.assert_close(member_linear(own, weight, bias)[k], own[k] @ weight[k].T + bias[k])


def test_each_head_has_parameters_of_its_own() -> None:
    transition = make("shared")
    prior = transition(*inputs(5))
    gradient = torch.autograd.grad(prior[1].sum(), transition.heads.weight)[0].view(3, 12, 16)
    assert gradient[1].any() and not gradient[[0, 2]].any()


@every_kind
def test_an_ensemble_has_members(kind: str) -> None:
    with pytest.raises(ValueError, match="at least 1 member"):
        make(kind, members=0)


@pytest.mark.parametrize("made", [IndependentEnsemble, BayesianTransition, DropoutTransition])
def test_a_network_has_a_hidden_layer(made: type[Any]) -> None:
    with pytest.raises(ValueError, match="at least 1 hidden layer, got 0"):
        made(*SIZES, layers=0)


def test_select_member() -> None:
    params = torch.randn(3, 4, 2, 5)
    index = torch.randint(3, (4, 2))
    chosen = select_member(params, index)
    for i in range(4):
        for j in range(2):
            assert torch.equal(chosen[i, j], params[index[i, j], i, j])


def test_choices_of_members() -> None:
    size = (3, torch.Size([3000]), torch.device("cpu"))

    steps = TS1()
    picks = torch.stack([steps.pick(*size, steps.start(*size)) for _ in range(2)])
    assert (picks[0].bincount(minlength=3) == 1000).all()
    assert 0.28 < (picks[0] == picks[1]).float().mean() < 0.39  # independent of the last step

    whole = TSInf()
    drawn = whole.start(*size)
    assert torch.equal(whole.pick(*size, drawn), drawn)
    assert (drawn.bincount(minlength=3) == 1000).all()

    mixture = Mixture()
    assert mixture.pick(*size, mixture.start(*size)) is None


def test_members_are_dealt_evenly_and_each_is_as_likely_everywhere() -> None:
    dealt = torch.stack([deal(3, torch.Size([2, 2]), torch.device("cpu")).flatten() for _ in range(6000)])  # (6000, 4)
    counts = torch.stack([row.bincount(minlength=3) for row in dealt[:50]])
    assert ((counts == 1) | (counts == 2)).all()
    for place in range(4):
        torch.testing.assert_close(
            dealt[:, place].bincount(minlength=3) / 6000, torch.full((3,), 1 / 3), atol=0.03, rtol=0
        )


@every_kind
@pytest.mark.parametrize("batch", [(6,), (7,), (2, 4), (1,)])
def test_the_member_that_is_followed_predicts_what_it_does_among_all(kind: str, batch: tuple[int, ...]) -> None:
    transition, given = make(kind), inputs(*batch)
    member = deal(3, torch.Size(batch), torch.device("cpu"))
    expected = select_member(transition(*given), member)
    torch.testing.assert_close(transition.follow(*given, member), expected)
    learned = list(transition.parameters())
    one = torch.autograd.grad(transition.follow(*given, member).square().sum(), learned)
    for found, wanted in zip(one, torch.autograd.grad(expected.square().sum(), learned), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
