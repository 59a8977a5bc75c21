from __future__ import annotations

import pytest
import torch

from tests import tiny
from tests.dream.dreaming import dreams, model
from worldmodel.control.propagation import TS1, TSInf
from worldmodel.model.bayesian import BayesianTransition
from worldmodel.model.independent import IndependentEnsemble
from worldmodel.model.world_model import WorldModel

N = 6
SOME = torch.tensor([True, False, True, False, False, False])


def of(transition: type) -> WorldModel:
    made = model()
    sizes = (made.rssm.deter, made.feature_size, tiny.ACTION, made.latents.param_size)
    made.rssm.transition = transition(*sizes, members=3, width=16)
    return made


def test_a_member_lasts_as_long_as_its_dream() -> None:
    them = dreams(N, TSInf(), made=of(IndependentEnsemble))
    them.begin()
    before = them._dealt.clone()
    assert sorted(before.tolist()) == [0, 0, 1, 1, 2, 2]
    changed = set()
    for seed in range(8):
        them.seed(seed)
        them.begin(SOME)
        assert torch.equal(them._dealt[~SOME], before[~SOME])
        changed |= {tuple(them._dealt[SOME].tolist())}
    assert len(changed) > 2


@pytest.mark.parametrize("propagation", [TS1(), TSInf()])
@pytest.mark.parametrize("partly", [False, True])
def test_a_dream_that_measures_nothing_is_the_same(propagation: TS1 | TSInf, partly: bool) -> None:
    """Also where members are no longer shared evenly, as ``follow`` would want it."""
    found = []
    for uncertainty in (True, False):
        them = dreams(N, propagation, made=of(IndependentEnsemble), mode=True, uncertainty=uncertainty)
        them.seed(1)
        them.begin()
        if partly:
            them.begin(SOME)
        steps = [them.step(torch.full((N, tiny.ACTION), 0.3)) for _ in range(4)]
        assert all(bool(step.uncertainty.any()) is uncertainty for step in steps)
        found.append(them.state.feature)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_members_that_are_samples_last_whoever_else_draws_them() -> None:
    made = of(BayesianTransition)
    them = dreams(N, made=made, mode=True)
    found = []
    for disturbed in (False, True):
        them.seed(0)
        them.begin()
        for _ in range(3):
            if disturbed:
                made.rssm.transition.draw()
            them.step(torch.zeros(N, tiny.ACTION))
        found.append(them.state.feature)
    assert torch.equal(*found)
    them.begin()  # others are drawn now
    for _ in range(3):
        them.step(torch.zeros(N, tiny.ACTION))
    assert not torch.allclose(them.state.feature, found[0])


def test_the_others_stay_where_they_are() -> None:
    them = dreams(N)
    them.begin()
    them.step(torch.ones(N, tiny.ACTION))
    before = them.state.feature
    them.begin(SOME)
    assert torch.equal(them.state.feature[~SOME], before[~SOME])
    starts = them.starts.feature
    assert all((starts == one).all(1).any() for one in them.state.feature[SOME])


def test_no_gradient_is_kept() -> None:
    them = dreams(N)
    them.begin()
    step = them.step(torch.zeros(N, tiny.ACTION, requires_grad=True))
    assert not step.reward.requires_grad and not them.state.deter.requires_grad
    torch.nn.Linear(1, 1)(step.reward.unsqueeze(1)).sum().backward()  # yet a learner may save it for its backward
