from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.control.propagation import deal
from worldmodel.model.independent import IndependentEnsemble, IndependentHeads, RandomPriors
from worldmodel.model.transitions import select_member

SIZES = (8, 20, 2, 12)  # deter, feature, action, params


def inputs(*batch: int) -> list[Tensor]:
    return [torch.randn(*batch, n) for n in SIZES[:3]]


def by_hand(ensemble: IndependentEnsemble, k: int, x: Tensor, normalise: bool) -> Tensor:
    """Member k alone, from (N, F + A)."""
    weights = {name: p[k] for name, p in ensemble.net.named_parameters()}
    step = 3 if normalise else 2
    out = x
    for i in range(2):
        out = F.linear(out, weights[f"{step * i}.weight"], weights[f"{step * i}.bias"])
        if normalise:
            scale, shift = weights[f"{step * i + 1}.scale"][0], weights[f"{step * i + 1}.shift"][0]
            out = F.layer_norm(out, (16,), scale, shift, eps=1e-3)
        out = F.silu(out)
    out = F.linear(out, weights[f"{2 * step}.weight"], weights[f"{2 * step}.bias"])
    if ensemble.priors is not None:
        q = ensemble.priors
        out = out + ensemble.prior_scale * F.linear(F.linear(x, q.weight[k], q.bias[k]).relu(), q.out[k])
    return out


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("prior_scale", [0.0, 2.0])
def test_members_in_one_product_are_members_one_by_one(normalise: bool, prior_scale: float) -> None:
    ensemble = IndependentEnsemble(*SIZES, members=3, width=16, prior_scale=prior_scale, normalise=normalise)
    for p in ensemble.parameters():  # norms would start alike
        p.data += 0.1 * torch.randn_like(p)
    deter, feature, action = inputs(7)
    prior, x = ensemble(deter, feature, action), torch.cat([feature, action], -1)
    for k in range(3):
        torch.testing.assert_close(prior[k], by_hand(ensemble, k, x, normalise))


@pytest.mark.parametrize("normalise", [True, False])
def test_a_members_gradient_touches_its_own_weights_alone(normalise: bool) -> None:
    ensemble = IndependentEnsemble(*SIZES, members=3, width=16, prior_scale=1.0, normalise=normalise)
    ensemble(*inputs(5))[1].square().sum().backward()
    for p in ensemble.parameters():
        assert p.grad is not None and p.grad[1].any() and not p.grad[[0, 2]].any()


def test_the_memory_is_not_read() -> None:
    ensemble = IndependentEnsemble(*SIZES, members=3, width=16)
    deter, feature, action = inputs(5)
    prior = ensemble(deter, feature, action)
    assert torch.equal(ensemble(deter + 1, feature, action), prior)
    assert not torch.equal(ensemble(deter, feature + 1, action), prior)
    assert not torch.equal(ensemble(deter, feature, action + 1), prior)


def test_heads_read_the_memory_alone() -> None:
    ensemble = IndependentHeads(*SIZES, members=3, width=16)
    deter, feature, action = inputs(6)
    prior = ensemble(deter, feature, action)
    assert torch.equal(ensemble(deter, feature + 1, action + 1), prior)
    assert not torch.equal(ensemble(deter + 1, feature, action), prior)
    for k in range(3):
        torch.testing.assert_close(prior[k], by_hand(ensemble, k, deter, normalise=True))
    member = deal(3, torch.Size([6]), torch.device("cpu"))
    torch.testing.assert_close(ensemble.follow(deter, feature, action, member), select_member(prior, member))


def test_every_member_starts_like_linear_layers() -> None:
    net = IndependentEnsemble(*SIZES, members=4, width=64).net
    for weight in (p for name, p in net.named_parameters() if name.endswith("weight")):
        each = weight.flatten(1)
        like = torch.nn.Linear(weight.shape[2], 4096).weight
        torch.testing.assert_close(each.std(1), like.std().expand(4), rtol=0.1, atol=0)
        torch.testing.assert_close(each.abs().amax(1), like.abs().max().expand(4), rtol=0.05, atol=0)


def test_random_priors_have_unit_variance() -> None:
    torch.manual_seed(0)
    q = RandomPriors(members=50, inputs=30, outputs=20, width=64)(torch.randn(400, 30))
    assert 0.9 < q.square().mean() < 1.1
    assert 0.7 < (q[0] - q[1]).var() / 2 < 1.4  # of their own


def test_random_priors_are_kept_and_never_trained() -> None:
    ensemble = IndependentEnsemble(*SIZES, members=3, width=16, prior_scale=1.0)
    plain = IndependentEnsemble(*SIZES, members=3, width=16)
    assert dict(ensemble.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert ensemble.state_dict().keys() - plain.state_dict().keys() == {"priors.weight", "priors.bias", "priors.out"}
    assert plain.state_dict().keys() == dict(plain.named_parameters()).keys()
    before = {name: x.clone() for name, x in ensemble.named_buffers()}
    optimizer = torch.optim.Adam(ensemble.parameters(), 0.1)
    ensemble(*inputs(5)).square().sum().backward()
    optimizer.step()
    ensemble.draw()
    assert all(torch.equal(x, before[name]) for name, x in ensemble.named_buffers())


def test_gradients_pass_through_random_priors() -> None:
    ensemble = IndependentEnsemble(*SIZES, members=3, width=16, prior_scale=1.0)
    assert ensemble.priors is not None
    x = torch.randn(5, 22, requires_grad=True)
    (gradient,) = torch.autograd.grad(ensemble.priors(x).sum(), x)
    assert (gradient != 0).all()


def test_a_negative_prior_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="prior_scale is a deviation of at least 0, got -1"):
        IndependentEnsemble(*SIZES, prior_scale=-1.0)


@pytest.mark.parametrize(("count", "share"), [(9, 1.0), (7, 0.5)])  # evenly, and with a rest
def test_following_is_computing_all_and_selecting(count: int, share: float) -> None:
    ensemble = IndependentEnsemble(*SIZES, default_width=16, members=3, width_share=share)
    given = [x.requires_grad_() for x in inputs(count)]
    member = deal(3, torch.Size([count]), given[0].device)
    followed, selected = ensemble.follow(*given, member), select_member(ensemble(*given), member)
    torch.testing.assert_close(followed, selected)
    for one, other in zip(
        *(torch.autograd.grad(x.square().sum(), given[1:]) for x in (followed, selected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_members_take_their_share_of_the_width() -> None:
    for given, width in (({}, 40), ({"width_share": 0.5}, 20), ({"width": 7, "width_share": 0.5}, 7)):
        net = IndependentEnsemble(*SIZES, default_width=40, members=2, **given).net
        assert next(net.parameters()).shape == (2, width, 22)
    with pytest.raises(ValueError, match="share of the world model's width above 0, got 0"):
        IndependentEnsemble(*SIZES, width_share=0.0)


def test_members_agree_where_there_is_data_and_nowhere_else() -> None:
    torch.manual_seed(0)
    ensemble = IndependentEnsemble(4, 2, 1, 1, members=5, width=32, prior_scale=1.0)

    def points(low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.rand(128, 3) * (high - low) + low
        return torch.zeros(128, 4), x[:, :2], x[:, 2:]

    def truth(deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        return torch.sin(2 * feature[:, :1]) * feature[:, 1:] + action

    seen = points(-1, 1)
    optimizer = torch.optim.Adam(ensemble.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        error = (ensemble(*seen) - truth(*seen)).square().mean()
        error.backward()
        optimizer.step()
    assert error < 5e-3 < 0.1 < truth(*seen).var()
    with torch.no_grad():
        near, far = (ensemble(*where).var(0).mean() for where in (points(-1, 1), points(3, 4)))
    assert far > 5 * near and far > 0.3  # as the random functions do
