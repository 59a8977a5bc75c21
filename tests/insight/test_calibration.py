from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

from tests import tiny
from worldmodel.control.imagine import imagine
from worldmodel.insight.calibration import (
    auroc,
    coverage,
    expected_calibration_error,
    fit_softmax_temperature,
    fit_temperature,
    interval,
    interval_scale,
    open_loop_errors,
    rank_correlation,
    reliability,
    softmax_ece,
)
from worldmodel.insight.rollouts import imagine_members, open_loop
from worldmodel.insight.uncertainty import pixel_spread, reward_spread
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.types import LatentState


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_rank_correlation_is_spearman_s(rng: np.random.Generator) -> None:
    a, b = rng.integers(5, size=50), rng.integers(5, size=50)  # many ties
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    x = torch.randn(4, 5)
    assert rank_correlation(x, x.exp()) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)


def test_rank_correlation_at_its_limits() -> None:
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5)))
    assert rank_correlation(np.array([1, 2, np.nan, 3]), np.array([1, 2, 0, 3])) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 3 numbers are needed, got 2"):
        rank_correlation(np.array([1, 2, np.nan]), np.arange(3))
    with pytest.raises(ValueError, match="same shape"):
        rank_correlation(np.zeros((4, 1)), np.zeros(4))


def test_auroc(rng: np.random.Generator) -> None:
    assert auroc(np.array([3, 4]), np.array([1, 2])) == 1
    assert auroc(np.array([1, 2]), np.array([3, 4])) == 0
    assert auroc(np.ones(3), np.ones(5)) == 0.5
    assert auroc(torch.tensor([1, 3]), torch.tensor([1, 2])) == (0.5 + 0 + 1 + 1) / 4
    positive, negative = rng.integers(8, size=40) + 1, rng.integers(8, size=30)
    above = positive[:, None] - negative
    assert auroc(positive, negative) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    with pytest.raises(ValueError, match="at least 1"):
        auroc(np.array([]), np.ones(3))


def test_coverage() -> None:
    assert coverage(np.arange(4), np.zeros(4), np.full(4, 1)) == 0.5
    assert coverage(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 2)) == 1


def test_interval_scale_takes_the_quantile_of_a_finite_sample() -> None:
    error = np.array([-1, 2, -3, 4, -5, 6, -7, 8, -9])
    assert interval_scale(error, np.ones(9), 0.5) == 5  # rank ceil(10 * 0.5)
    assert interval_scale(error, np.ones(9), 0.9) == 9
    assert interval_scale(error, np.full(9, 2.0), 0.9) == 4.5
    assert interval_scale(error, np.ones(9), 0.91) == math.inf
    assert interval_scale(np.arange(1, 100), np.ones(99), 0.55) == 55  # 100 * 0.55 is not 55 in floating point


def test_intervals_cover_exchangeable_data(rng: np.random.Generator) -> None:
    covered = []
    for _ in range(300):
        spread = rng.uniform(0.5, 3, size=60)
        truth = spread * rng.standard_t(3, size=60)  # not Gaussian, and nobody knows
        scale = interval_scale(truth[:40], spread[:40], 0.8)
        covered.append(coverage(truth[40:], *interval(np.zeros(20), spread[40:], scale)))
    assert np.mean(covered) == pytest.approx(33 / 41, abs=0.01)  # exactly ceil(0.8 * 41) / 41


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_interval_scale_refuses(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        interval_scale(np.ones(3), np.ones(3), level)
    with pytest.raises(ValueError, match="a spread must be above 0"):
        interval_scale(np.ones(3), np.array([1.0, 0, 1]))


def test_reliability() -> None:
    uncertainty = np.array([5.0, 1, 3, 2, 4])
    error = np.array([-5.0, 1, 3, -1, 4])
    found = reliability(uncertainty, error, bins=2)
    assert found.counts.tolist() == [3, 2]
    assert found.predicted.tolist() == [2, 4.5]
    assert found.observed == pytest.approx([math.sqrt(11 / 3), math.sqrt(41 / 2)])
    with pytest.raises(ValueError, match="at least 6"):
        reliability(uncertainty, error, bins=6)
    with pytest.raises(ValueError, match="at least 1 bin"):
        reliability(uncertainty, error, bins=0)


def test_calibration_error_of_a_gaussian(rng: np.random.Generator) -> None:
    quantile = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])  # a Gaussian without luck
    std = rng.uniform(0.1, 5, size=2000)
    assert expected_calibration_error(std, std * quantile) == pytest.approx(0, abs=1e-3)
    level = np.arange(1, 20) / 20
    wide = [2 * NormalDist().cdf(3 * NormalDist().inv_cdf((1 + p) / 2)) - 1 for p in level]
    assert expected_calibration_error(3 * std, std * quantile) == pytest.approx(np.mean(wide - level), abs=1e-3)
    assert expected_calibration_error(std, 0 * std) == pytest.approx(0.5)


def test_the_temperature_of_a_gaussian_is_recovered(rng: np.random.Generator) -> None:
    std = rng.uniform(0.1, 5, size=2000)
    error = 2.5 * std * rng.standard_normal(2000)
    factor = fit_temperature(std, error)
    assert factor == pytest.approx(2.5, rel=0.07)
    assert fit_temperature(factor * std, error) == pytest.approx(1)
    assert (np.abs(error / (factor * std)) <= NormalDist().inv_cdf(0.75)).mean() == pytest.approx(0.5, abs=1e-3)


def test_tails_do_not_move_the_temperature(rng: np.random.Generator) -> None:
    error = rng.standard_normal(2000)
    wild = error.copy()
    wild[np.abs(error).argsort()[-200:]] *= 100
    assert fit_temperature(np.ones(2000), wild) == fit_temperature(np.ones(2000), error)
    with pytest.raises(ValueError, match="a spread must be above 0"):
        fit_temperature(np.zeros(3), np.ones(3))


def test_the_temperature_of_a_softmax_is_recovered() -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(100, 200, 4)
    target = torch.distributions.Categorical(logits=logits).sample()
    assert fit_softmax_temperature(3 * logits, target) == pytest.approx(3, rel=0.03)
    assert fit_softmax_temperature(logits / 2, target) == pytest.approx(0.5, rel=0.03)
    honest, boastful = (softmax_ece((c * logits).softmax(-1), target) for c in (1, 3))
    assert honest < 0.01 < 0.1 < boastful


def test_the_temperature_of_a_softmax_is_bounded() -> None:
    sure = np.array([[2.0, 0], [0, 2.0]])
    assert fit_softmax_temperature(sure, np.array([0, 1])) == pytest.approx(0.01)  # always right
    assert fit_softmax_temperature(sure, np.array([1, 0])) == pytest.approx(100)  # never


def test_softmax_ece_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    target = np.array([0, 0, 1, 0])
    assert softmax_ece(probs, target, bins=10) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert softmax_ece(probs, target, bins=1) == pytest.approx(0)  # 0.75 said, 0.75 right
    with pytest.raises(ValueError, match="do not match"):
        softmax_ece(probs, target[:3])
    with pytest.raises(ValueError, match=r"classes must be in \[0, 2\)"):
        softmax_ece(probs, np.array([0, 1, 2, 0]))


@pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(6)])
@torch.no_grad()
def test_open_loop_errors_are_what_they_say(latents: Latents) -> None:
    model, data = tiny.world_model(latents), tiny.batch(3, 12)
    torch.nn.init.normal_(model.reward.net[-1].weight)  # it starts at zero
    found = open_loop_errors(model, data, context=4, horizon=6)
    for part in (*found[:6], *found.measures.values(), found.valid):
        assert part.shape == (3, 6)
    assert found.valid.all()
    assert set(found.measures) == {"entropy", "epistemic", "information", "pairwise", "reward", "pixels", "latent"}
    assert all((x > 0).all() for name, x in found.measures.items() if name not in ("entropy", "latent"))

    rollout = open_loop(model, data.map(lambda x: x[:, :10]), context=4)
    torch.testing.assert_close(found.imagined_reward, rollout.reward[:, 3:])
    torch.testing.assert_close(found.measures["epistemic"], rollout.uncertainty[:, 3:])
    assert (
        255 * found.pixel_error - (rollout.truth.float() - rollout.image)[:, 4:].abs().mean((-3, -2, -1))
    ).abs().max() < 1
    assert torch.equal(found.reward, data.reward[:, 4:10])
    wrong = found.imagined_reward - found.reward
    torch.testing.assert_close(found.reward_error, wrong.abs())
    torch.testing.assert_close(found.return_error[:, -1], wrong.sum(1).abs())

    posterior = model.observe(data, mode=True).state
    start, actions = LatentState(*(x[:, 3] for x in posterior)), data.action[:, 4:10]
    left = iter(actions.unbind(1))
    dream = imagine(model, lambda _: next(left), start, 6, mode=True).state.stoch[:, 1:]
    torch.testing.assert_close(found.latent_error, (dream - posterior.stoch[:, 4:10]).square().mean(-1))
    own = imagine_members(model, start, actions)
    torch.testing.assert_close(found.measures["reward"], reward_spread(own))
    torch.testing.assert_close(found.measures["pixels"], pixel_spread(model, own))


def test_the_next_episode_is_masked() -> None:
    model, data = tiny.world_model(), tiny.batch(3, 8)
    data.is_first[0, 5] = data.is_first[1, 1] = True
    found = open_loop_errors(model, data, context=3, horizon=5)
    assert found.valid.tolist() == [[True, True, False, False, False], [True] * 5, [True] * 5]
    for part in (*found[:6], *found.measures.values()):
        assert not part[0, 2:].any()
    assert found.pixel_error[0, :2].all() and found.pixel_error[1:].all()


def test_one_member_has_no_epistemic_measure() -> None:
    found = open_loop_errors(tiny.world_model(members=1), tiny.batch(2, 6), context=2, horizon=4)
    assert found.measures.pop("entropy").all()
    assert not any(x.any() for x in found.measures.values())


def test_a_horizon_beyond_the_data() -> None:
    model, data = tiny.world_model(), tiny.batch(2, 6)
    open_loop_errors(model, data, context=2, horizon=4)
    with pytest.raises(ValueError, match="horizon longer than the data: 2 seen \\+ 5 dreamt, sequences have 6"):
        open_loop_errors(model, data, context=2, horizon=5)
    for context, horizon in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            open_loop_errors(model, data, context, horizon)
