from __future__ import annotations

import pytest
import torch

from worldmodel.model.transitions import EveryStep, EveryTrajectory, Mixture, SharedTrunk, select_member

SIZES = (8, 20, 2, 12)  # deter, feature, action, params


@pytest.mark.parametrize("batch", [(5,), (4, 6), (2, 3, 4)])
def test_shared_trunk_shapes(batch: tuple[int, ...]) -> None:
    transition = SharedTrunk(*SIZES, members=3, width=16)
    deter, feature, action = (torch.randn(*batch, n) for n in SIZES[:3])
    prior = transition(deter, feature, action)
    assert prior.shape == (3, *batch, 12)
    first = (0,) * len(batch)
    torch.testing.assert_close(prior[(slice(None), *first)], transition(deter[first], feature[first], action[first]))


def test_members_start_apart() -> None:
    prior = SharedTrunk(*SIZES, members=3, width=16)(*(torch.randn(5, n) for n in SIZES[:3]))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (prior[one] - prior[other]).abs().mean() > 0.01


def test_each_member_has_parameters_of_its_own() -> None:
    transition = SharedTrunk(*SIZES, members=3, width=16)
    prior = transition(*(torch.randn(5, n) for n in SIZES[:3]))
    gradient = torch.autograd.grad(prior[1].sum(), transition.heads.weight)[0].view(3, 12, 16)
    assert gradient[1].any() and not gradient[[0, 2]].any()


def test_an_ensemble_has_members() -> None:
    with pytest.raises(ValueError, match="at least 1 member"):
        SharedTrunk(*SIZES, members=0)


def test_select_member() -> None:
    params = torch.randn(3, 4, 2, 5)
    index = torch.randint(3, (4, 2))
    chosen = select_member(params, index)
    for i in range(4):
        for j in range(2):
            assert torch.equal(chosen[i, j], params[index[i, j], i, j])


def test_choices_of_members() -> None:
    params = torch.randn(3, 3000, 5)
    size, cpu = torch.Size([3000]), torch.device("cpu")

    steps = EveryStep()
    picks = torch.stack([steps.pick(params, steps.start(3, size, cpu)) for _ in range(2)])
    assert (picks[0].bincount(minlength=3) > 850).all() and len(picks[0].bincount()) == 3
    assert 0.28 < (picks[0] == picks[1]).float().mean() < 0.39  # independent of the last step

    whole = EveryTrajectory()
    drawn = whole.start(3, size, cpu)
    assert torch.equal(whole.pick(params, drawn), drawn)
    assert (drawn.bincount(minlength=3) > 850).all() and len(drawn.bincount()) == 3

    mixture = Mixture()
    assert mixture.pick(params, mixture.start(3, size, cpu)) is None
