from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from worldmodel.insight.uncertainty import entropy, information, pairwise, per_latent
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents

FAMILIES = [CategoricalLatents(3, 4), GaussianLatents(6)]
RAW_ONE = math.log(math.expm1(0.9))  # softplus of it, and the least deviation of 0.1, is 1


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("latents", "count"), [(FAMILIES[0], 3), (FAMILIES[1], 6)])
def test_latents_add_up_to_the_whole(latents: Latents, count: int) -> None:
    prior = 2 * torch.randn(4, 5, 7, 12)
    together = (lambda x: x.sum(-1)) if isinstance(latents, CategoricalLatents) else (lambda x: x.mean(-1))
    for each, whole in zip(per_latent(latents, prior), latents.uncertainty(prior), strict=True):
        assert each.shape == (5, 7, count) and (each >= 0).all()
        torch.testing.assert_close(together(each), whole)


@pytest.mark.parametrize("latents", FAMILIES)
def test_members_that_agree_leave_no_epistemic_doubt(latents: Latents) -> None:
    prior = torch.randn(5, 12).expand(4, 5, 12)
    for measure in (per_latent(latents, prior).epistemic, information(latents, prior), pairwise(latents, prior)):
        torch.testing.assert_close(measure, torch.zeros_like(measure), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy(latents, prior), latents.entropy(prior[0]))


@pytest.mark.parametrize("latents", FAMILIES)
def test_one_member(latents: Latents) -> None:
    prior = torch.randn(1, 5, 12)
    assert torch.equal(entropy(latents, prior), latents.entropy(prior[0]))
    assert not information(latents, prior).any() and not pairwise(latents, prior).any()
    assert not per_latent(latents, prior).epistemic.any()


def test_two_classes_by_hand() -> None:
    latents = CategoricalLatents(2, 2, unimix=0)
    sure, other = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.1, 0.9]).log()
    even = torch.zeros(2)
    prior = torch.stack([torch.cat([sure, even]), torch.cat([other, even])]).unsqueeze(
        1
    )  # they part in the first group
    own = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    each = per_latent(latents, prior)
    torch.testing.assert_close(each.total, torch.tensor([[math.log(2), math.log(2)]]))
    torch.testing.assert_close(each.aleatoric, torch.tensor([[own, math.log(2)]]))
    torch.testing.assert_close(each.epistemic, torch.tensor([[math.log(2) - own, 0.0]]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(information(latents, prior), torch.tensor([math.log(2) - own]))
    torch.testing.assert_close(entropy(latents, prior), torch.tensor([2 * math.log(2)]))
    torch.testing.assert_close(pairwise(latents, prior), torch.tensor([0.8 * math.log(9)]))


def test_two_gaussians_by_hand() -> None:
    latents = GaussianLatents(2)
    prior = torch.tensor([[[1.0, 3.0, RAW_ONE, RAW_ONE]], [[-1.0, 3.0, RAW_ONE, RAW_ONE]]])  # unit, one mean apart by 2
    each = per_latent(latents, prior)
    torch.testing.assert_close(each.total, torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(each.aleatoric, torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(each.epistemic, torch.tensor([[1.0, 0.0]]))
    unit = 0.5 * math.log(2 * math.pi * math.e)
    torch.testing.assert_close(entropy(latents, prior), torch.tensor([2 * unit + 0.5 * math.log(2)]))
    torch.testing.assert_close(information(latents, prior), torch.tensor([0.5 * math.log(2)]))
    torch.testing.assert_close(pairwise(latents, prior), torch.tensor([2.0]))


@pytest.mark.parametrize("latents", FAMILIES)
def test_pairwise_is_the_mean_over_pairs(latents: Latents) -> None:
    prior = torch.randn(4, 5, 12)
    pairs = [(latents.kl(p, q) + latents.kl(q, p)) / 2 for p, q in combinations(prior, 2)]
    torch.testing.assert_close(pairwise(latents, prior), torch.stack(pairs).mean(0))


def test_information_of_categories_is_the_model_s_own() -> None:
    prior = 2 * torch.randn(4, 5, 12)
    torch.testing.assert_close(
        information(FAMILIES[0], prior), FAMILIES[0].uncertainty(prior).epistemic, atol=1e-5, rtol=1e-5
    )


def test_information_of_gaussians_does_not_depend_on_their_scale() -> None:
    latents = GaussianLatents(3, min_std=0)
    mean, std = torch.randn(4, 5, 3), torch.rand(4, 5, 3) + 0.5
    small, large = (torch.cat([c * mean, (c * std).expm1().log()], -1) for c in (1, 10))
    torch.testing.assert_close(information(latents, small), information(latents, large), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latents.uncertainty(small).epistemic, latents.uncertainty(large).epistemic, rtol=0.5)


def test_a_family_that_is_not_known() -> None:
    with pytest.raises(TypeError, match="not known for object"):
        per_latent(object(), torch.zeros(2, 3, 4))
