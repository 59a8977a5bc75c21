from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, OneHotCategorical, kl_divergence

from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents, TwoHot, symexp, symlog

FAMILIES = [CategoricalLatents(3, 4), GaussianLatents(6)]


def reference(latents: Latents, params: Tensor) -> Independent:
    """The same distribution by torch.distributions."""
    if isinstance(latents, CategoricalLatents):
        probs = 0.99 * params.unflatten(-1, (3, 4)).softmax(-1) + 0.01 / 4
        return Independent(OneHotCategorical(probs=probs), 1)
    mean, raw = params.chunk(2, -1)
    return Independent(Normal(mean, torch.nn.functional.softplus(raw) + 0.1), 1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("latents", FAMILIES)
def test_kl_and_entropy_are_torch_s(latents: Latents) -> None:
    p, q = 2 * torch.randn(2, 5, 12)
    expected = kl_divergence(reference(latents, p), reference(latents, q))
    torch.testing.assert_close(latents.kl(p, q), expected)
    torch.testing.assert_close(latents.kl(p, p), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(latents.entropy(p), reference(latents, p).entropy())


@pytest.mark.parametrize("latents", FAMILIES)
def test_samples_have_the_right_mean(latents: Latents) -> None:
    params = torch.randn(2, 12)
    sample = latents.sample(params.expand(20000, 2, 12))
    assert sample.shape == (20000, 2, latents.size)
    distribution = reference(latents, params)
    torch.testing.assert_close(sample.mean(0), distribution.mean.flatten(1), atol=0.03, rtol=0)
    torch.testing.assert_close(sample.var(0), distribution.variance.flatten(1), atol=0.05, rtol=0.05)


def test_categorical_samples_are_exactly_one_hot_and_frequent_as_they_should_be() -> None:
    latents = CategoricalLatents(1, 3)
    params = torch.tensor([0.0, 1.0, -40.0], requires_grad=True)
    sample = latents.sample(params.expand(50000, 3))
    assert torch.equal(sample.detach(), sample.detach().round()) and (sample.sum(-1) == 1).all()
    expected = 0.99 * params.softmax(-1) + 0.01 / 3  # the impossible class comes up, too
    torch.testing.assert_close(sample.mean(0), expected, atol=0.007, rtol=0)
    assert sample.mean(0)[2] > 0


@pytest.mark.parametrize("draw", ["sample", "mode"])
def test_categorical_gradients_are_those_of_the_probabilities(draw: str) -> None:
    latents = CategoricalLatents(3, 4)
    params = torch.randn(5, 12, requires_grad=True)
    weight = torch.randn(5, 12)
    (straight,) = torch.autograd.grad((getattr(latents, draw)(params) * weight).sum(), params)
    (expected,) = torch.autograd.grad((latents.probs(params).flatten(1) * weight).sum(), params)
    assert straight.abs().sum() > 0
    torch.testing.assert_close(straight, expected)


def test_gaussian_gradients_are_reparameterised() -> None:
    latents = GaussianLatents(6)
    params = torch.randn(5, 12, requires_grad=True)
    sample = latents.sample(params)
    (gradient,) = torch.autograd.grad(sample.sum(), params)
    mean, std = latents.moments(params.detach())
    noise = (sample.detach() - mean) / std
    torch.testing.assert_close(gradient[:, :6], torch.ones(5, 6))
    torch.testing.assert_close(gradient[:, 6:], noise * params.detach()[:, 6:].sigmoid())


def test_modes_are_the_likeliest() -> None:
    params = torch.randn(5, 12)
    assert torch.equal(CategoricalLatents(3, 4).mode(params).view(5, 3, 4).argmax(-1), params.view(5, 3, 4).argmax(-1))
    assert torch.equal(GaussianLatents(6).mode(params), params[:, :6])


@pytest.mark.parametrize("latents", FAMILIES)
def test_members_that_agree_leave_no_epistemic_doubt(latents: Latents) -> None:
    params = torch.randn(5, 12)
    uncertainty = latents.uncertainty(params.expand(4, 5, 12))
    torch.testing.assert_close(uncertainty.epistemic, torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(uncertainty.total, uncertainty.aleatoric)
    assert (uncertainty.aleatoric > 0).all()


def test_members_in_full_disagreement() -> None:
    latents = CategoricalLatents(2, 4, unimix=1e-6)
    sure = 60 * torch.eye(4)  # member k is sure of class k, in both groups
    uncertainty = latents.uncertainty(torch.cat([sure, sure], -1))
    assert uncertainty.epistemic.item() == pytest.approx(2 * math.log(4), abs=1e-3)
    assert uncertainty.aleatoric.item() == pytest.approx(0, abs=1e-3)

    gaussian = GaussianLatents(2, min_std=0.5)
    members = torch.tensor([[3.0, 0, -60, -60], [-3, 0, -60, -60]])  # K = 2 means +-3 and 0, deviations 0.5
    uncertainty = gaussian.uncertainty(members)
    assert uncertainty.epistemic.item() == pytest.approx((9 + 0) / 2)
    assert uncertainty.aleatoric.item() == pytest.approx(0.25)
    assert uncertainty.total.item() == pytest.approx(4.75)


@pytest.mark.parametrize("latents", FAMILIES)
def test_uncertainty_adds_up(latents: Latents) -> None:
    uncertainty = latents.uncertainty(torch.randn(4, 5, 12))
    torch.testing.assert_close(uncertainty.total, uncertainty.aleatoric + uncertainty.epistemic)
    assert (uncertainty.epistemic > 0).all()


@pytest.mark.parametrize("latents", FAMILIES)
def test_mixture_has_the_members_moments(latents: Latents) -> None:
    members = torch.randn(4, 5, 12)
    mixture = reference(latents, latents.mixture(members))
    means = torch.stack([reference(latents, m).mean for m in members])
    torch.testing.assert_close(mixture.mean, means.mean(0), atol=1e-5, rtol=1e-4)
    if isinstance(latents, GaussianLatents):
        variances = torch.stack([reference(latents, m).variance for m in members])
        torch.testing.assert_close(mixture.variance, variances.mean(0) + means.var(0, unbiased=False))
    assert torch.equal(latents.mixture(members[:1]), members[0])


def test_symlog_and_back() -> None:
    x = torch.tensor([-1000.0, -1, -1e-3, 0, 1e-3, 1, 1000])
    torch.testing.assert_close(symexp(symlog(x)), x)
    assert symlog(x)[-1].item() == pytest.approx(math.log(1001))


def test_twohot_target_means_the_value() -> None:
    twohot = TwoHot(63, 6.0)
    value = torch.cat([torch.randn(200) * 50, torch.zeros(1), twohot.bins])
    target = twohot.target(value)
    torch.testing.assert_close((target * twohot.bins).sum(-1), value, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(target.sum(-1), torch.ones(len(value)))
    assert (target >= 0).all() and ((target > 0).sum(-1) <= 2).all()
    # and only neighbours share
    first, last = (target > 0).int().argmax(-1), 62 - (target > 0).flip(-1).int().argmax(-1)
    assert (last - first <= 1).all()


def test_twohot_clips_to_its_outermost_bins() -> None:
    twohot = TwoHot(5, 2.0)
    limit = math.exp(2) - 1
    mean = (twohot.target(torch.tensor([-1e9, 1e9, math.inf])) * twohot.bins).sum(-1)
    torch.testing.assert_close(mean, torch.tensor([-limit, limit, limit]))


def test_twohot_mean_of_even_logits_is_exactly_zero() -> None:
    assert TwoHot(255, 20.0).mean(torch.zeros(3, 255)).tolist() == [0, 0, 0]


def test_twohot_loss_pulls_the_mean_to_the_value() -> None:
    twohot = TwoHot(41, 6.0)
    logits = torch.zeros(4, 41, requires_grad=True)
    value = torch.tensor([-30.0, -0.4, 0.0, 7.0])
    (gradient,) = torch.autograd.grad(twohot.loss(logits, value).sum(), logits)
    torch.testing.assert_close(gradient, torch.full((4, 41), 1 / 41) - twohot.target(value))
    optimizer = torch.optim.Adam([logits], 0.5)
    for _ in range(200):
        optimizer.zero_grad()
        twohot.loss(logits, value).sum().backward()
        optimizer.step()
    torch.testing.assert_close(twohot.mean(logits), value, atol=0.05, rtol=0.02)


def test_a_value_that_is_not_a_number_shows_in_the_loss() -> None:
    assert TwoHot(5, 2.0).loss(torch.zeros(1, 5), torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize(
    "build", [lambda: CategoricalLatents(0, 4), lambda: CategoricalLatents(4, 1), lambda: GaussianLatents(0)]
)
def test_latents_need_a_size(build: type[Latents]) -> None:
    with pytest.raises(ValueError, match="latents need"):
        build()


@pytest.mark.parametrize("bins", [1, 4])
def test_twohot_needs_odd_bins(bins: int) -> None:
    with pytest.raises(ValueError, match="bins must be odd"):
        TwoHot(bins)


@pytest.mark.parametrize("latents", FAMILIES)
def test_what_is_rounded_to_bf16_is_computed_in_float32(latents: Latents) -> None:
    p, q = (2 * torch.randn(2, 5, 12)).bfloat16()
    assert latents.kl(p, q).dtype == latents.entropy(p).dtype == latents.uncertainty(torch.stack([p, q])).total.dtype
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(latents.kl(p, q), latents.kl(p.float(), q.float()), rtol=0, atol=0)


def test_autocast_draws_every_class_as_often_as_it_should() -> None:
    latents = CategoricalLatents(1, 16, unimix=0.0)
    probs = torch.full((16,), 0.045 / 15).index_fill(0, torch.tensor([3]), 0.955)
    with torch.autocast("cpu", torch.bfloat16):
        sample = latents.sample(probs.log().expand(400_000, 16))
    torch.testing.assert_close(sample.float().mean(0), probs, atol=5e-4, rtol=0)
