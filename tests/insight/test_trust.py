from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from worldmodel.errors import UserError
from worldmodel.insight.clues import dream_clues, judged, weights_digest, with_expected
from worldmodel.insight.error_model import ALONG, LEVELS, Clues, Expected
from worldmodel.insight.rollouts import open_loop
from worldmodel.insight.trust import Origin, Trust, fit_trust, last_better
from worldmodel.insight.verify import Verified, covered, verify_by_episode
from worldmodel.types import Trajectory

ORIGIN = Origin(task="toy", weights="abc", updates=300, episodes=8, context=5)
H = 6


def dreams(rng: np.random.Generator, n: int) -> tuple[Clues, dict[str, np.ndarray], np.ndarray]:
    """The error in pixels is the members' spread, times the step, times noise; that of the last picture stays."""
    clues = Clues(*(np.exp(rng.normal(size=(n, H))) for _ in Clues._fields))
    step = np.arange(1, H + 1)

    def noise() -> np.ndarray:
        return np.exp(0.5 * rng.normal(size=(n, H)))

    pixels = 0.01 * step * clues.pixels * noise()
    errors = {"pixels": pixels, "reward": clues.reward * noise(), "return": step * clues.total * noise()}
    return clues, errors | {"still": 0.1 * clues.motion * noise()}, np.arange(n) % 40


@pytest.fixture(scope="module")
def fitted() -> Trust:
    return fit_trust(*dreams(np.random.default_rng(0), 5000), ORIGIN)


def test_bands_cover_what_they_say(fitted: Trust) -> None:
    clues, errors, _ = dreams(np.random.default_rng(1), 8000)
    for name, error in errors.items():
        for level in LEVELS:
            np.testing.assert_allclose(covered(fitted.expected(clues, name), error, level), level, atol=0.03)
        median = fitted.expected(clues, name).median
        np.testing.assert_allclose((error < median).mean(0), 0.5, atol=0.03)
    known = 0.01 * np.arange(1, H + 1) * clues.pixels
    np.testing.assert_allclose(np.median(fitted.expected(clues).median / known, 0), 1, atol=0.1)


def test_more_of_a_clue_is_never_less_of_an_error(fitted: Trust) -> None:
    clues, _, _ = dreams(np.random.default_rng(2), 20)
    for name in ("pixels", "reward", "return", "still"):
        before = fitted.expected(clues, name)
        for clue in Clues._fields:
            after = fitted.expected(clues._replace(**{clue: 2 * getattr(clues, clue)}), name)
            assert (after.median >= before.median - 1e-12).all()
        ends = [before.band(level) for level in LEVELS]  # wider and wider, around the median
        for (low, high), (lower, higher) in pairwise(ends):
            assert (lower <= low).all() and (low <= before.median).all() and (high <= higher).all()
    assert (fitted.expected(clues._replace(pixels=9 * clues.pixels)).median > fitted.expected(clues).median).all()


def test_dreams_are_better_than_the_last_picture_up_to_their_trust_horizon(fitted: Trust) -> None:
    clues, errors, _ = dreams(np.random.default_rng(3), 4000)
    steps, true = fitted.trusted_steps(clues), last_better(errors["pixels"], errors["still"])
    assert 0.87 <= (steps <= true).mean() <= 0.93  # 0.9 and no more cautious than that
    assert steps.max() == H and len(np.unique(steps)) > 3
    wilder = fitted.trusted_steps(clues._replace(pixels=3 * clues.pixels))
    assert (wilder <= steps).all() and wilder.sum() < steps.sum()
    counts = [fitted.trusted_steps(clues, threshold).sum() for threshold in (0.01, 0.1, 1, 1e9)]
    assert counts == sorted(counts) and counts[0] < counts[1] < counts[2] and counts[3] == 4000 * H


def test_episodes_are_judged_by_the_others() -> None:
    clues, errors, episode = dreams(np.random.default_rng(7), 1200)
    found = verify_by_episode(clues, errors, episode, ORIGIN)
    assert found.trusted.shape == found.true.shape == (1200,) and found.errors["pixels"].shape == (1200, H)
    for level in LEVELS:
        np.testing.assert_allclose(found.coverage("pixels", level).mean(), level, atol=0.03)
    assert (found.correlation("pixels") > 0.7).all() and 0.85 < found.better < 0.95
    errors["pixels"][episode == 1] *= 1000  # what one episode holds changes nothing in how it is judged itself
    again = verify_by_episode(clues, errors, episode, ORIGIN)
    one = episode == 1
    for was, now in (
        (found.expected["pixels"].quantiles, again.expected["pixels"].quantiles),
        (found.trusted, again.trusted),
    ):
        np.testing.assert_array_equal(now[one], was[one])
        assert (now[~one] != was[~one]).any()
    rows = found.rows(task="toy")
    assert {row["metric"] for row in rows} >= {"rank_correlation", "coverage_0.95", "trust_horizon"}
    json.dumps(rows, allow_nan=False)
    few = Clues(*(x[:40] for x in clues)), {name: x[:40] for name, x in errors.items()}, np.arange(40) % 8
    assert fit_trust(*few, ORIGIN).limit > 0 and len(verify_by_episode(*few, ORIGIN).trusted) == 40  # enough for both
    with pytest.raises(UserError, match="4 episodes or more, got 1"):
        verify_by_episode(clues, errors, 0 * episode, ORIGIN)


@pytest.mark.parametrize("episodes", [16, 40])
def test_bands_of_few_dreams_cover_too(episodes: int) -> None:
    """All dreams are fitted on, and none is in its own band: over many small calibrations bands are not too narrow."""
    inside, better = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        clues, errors, _ = dreams(rng, 60)
        trust = fit_trust(clues, errors, np.arange(60) % episodes, ORIGIN)
        clues, errors, _ = dreams(rng, 200)
        inside.append([covered(trust.expected(clues), errors["pixels"], level).mean() for level in LEVELS])
        better.append((trust.trusted_steps(clues) <= last_better(errors["pixels"], errors["still"])).mean())
    np.testing.assert_allclose(np.mean(inside, 0), LEVELS, atol=0.03)
    assert 0.87 < np.mean(better) < 0.94


def test_what_is_not_known_is_left_out() -> None:
    clues, errors, episode = dreams(np.random.default_rng(4), 800)
    errors["pixels"][::2, 3:] = np.nan
    errors["reward"][:, 5] = np.nan
    trust = fit_trust(clues, errors, episode, ORIGIN)
    np.testing.assert_allclose(covered(trust.expected(clues), errors["pixels"], 0.9), 0.9, atol=0.07)
    low, high = trust.expected(clues, "reward").band(0.9)
    assert (low[:, 5] == 0).all() and np.isinf(high[:, 5]).all() and np.isfinite(high[:, :5]).all()
    assert np.isnan(covered(trust.expected(clues, "reward"), errors["reward"], 0.9)[5])


def test_a_calibration_is_read_as_it_was_written(fitted: Trust) -> None:
    text = fitted.to_json()
    again = Trust.from_json(text)
    clues, _, _ = dreams(np.random.default_rng(5), 10)
    assert again.origin == fitted.origin and again.to_json() == text and again.horizon == H
    np.testing.assert_array_equal(again.expected(clues).quantiles, fitted.expected(clues).quantiles)
    np.testing.assert_array_equal(again.trusted_steps(clues), fitted.trusted_steps(clues))
    shorter = Clues(*(x[:, :2] for x in clues))
    np.testing.assert_array_equal(again.expected(shorter).median, fitted.expected(clues).median[:, :2])
    again.check("toy", "abc", 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.check("other", "abc", 300), "is of the task toy, not of other: worldmodel report fits it again"),
        (lambda x: x.check("toy", "xyz", 400), r"is stale, of other weights \(those after 300 updates\): worldmodel"),
        (lambda x: x.check("toy", "xyz", 300), r"of other weights \(others, also after 300 updates\)"),
        (lambda x: x.from_json("[]"), "no calibration that can be read"),
        (lambda x: x.from_json("half{"), "no calibration that can be read"),
        (lambda x: x.from_json(json.dumps(json.loads(x.to_json()) | {"clues": ["pixels"]})), "of another version"),
        (lambda x: fit_trust(*dreams(np.random.default_rng(0), 30), ORIGIN), "30 episodes gave 30: about 39 episodes"),
        (lambda x: fit_trust(*dreams(np.random.default_rng(0), 90)[:2], np.zeros(90), ORIGIN), "of 2 episodes or more"),
    ],
)
def test_refused_in_a_line(fitted: Trust, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        change(fitted)
    assert "\n" not in str(error.value)


def test_a_band_or_a_horizon_that_is_not_there(fitted: Trust) -> None:
    clues, _, _ = dreams(np.random.default_rng(6), 3)
    with pytest.raises(ValueError, match=r"bands cover one of 0.5, 0.8, 0.9, 0.95, not 0.7"):
        fitted.expected(clues).band(0.7)
    with pytest.raises(ValueError, match="knows 6 steps, and the dreams have 12"):
        fitted.expected(Clues(*(np.concatenate([x, x], 1) for x in clues)))


def test_clues_and_errors_of_dreams() -> None:
    model, data = tiny.world_model(), tiny.batch(35, 7)
    data.is_first[0, 5] = True
    for p in model.reward.parameters():  # or it says zero, whatever it sees
        p.data += 0.3 * torch.randn_like(p)
    found = judged(model, data, context=3)
    assert all(x.shape == (35, 4) and (x >= 0).all() and np.isfinite(x).all() for x in found.clues)
    assert found.clues.total[:, 1:].std() > 0 and found.clues.pixels.max() <= 0.5
    np.testing.assert_allclose(found.clues.total[:, 0], found.clues.reward[:, 0], rtol=1e-5)
    for error in found.errors.values():
        assert error.shape == (35, 4) and np.isnan(error[0, 2:]).all() and np.isnan(error).sum() == 2
    whole = open_loop(model, data, context=3)
    np.testing.assert_allclose(found.errors["reward"][1], (whole.reward - data.reward[:, 1:])[1, 2:].abs(), rtol=1e-4)
    alone = dream_clues(
        tiny.world_model(members=1),
        _dreamt(open_loop(tiny.world_model(members=1), data, 3)),
        torch.ones(len(data.reward)),
    )
    assert not alone.pixels.any() and not alone.latent.any() and alone.motion.any()
    with pytest.raises(ValueError, match="context of 7"):
        judged(model, data, context=7)


def _dreamt(path: Trajectory[Any]) -> Trajectory[Any]:
    seen = path.context - 1
    return path._replace(state=path.state.map(lambda x: x[:, seen:]), action=path.action[:, seen:])


def test_a_rollout_carries_what_is_to_be_expected_of_it(fitted: Trust) -> None:
    model = tiny.world_model()
    path = open_loop(model, tiny.batch(4, 8), context=3)
    found = with_expected(model, path, fitted)
    assert found.expected_error.shape == (4, 5, 3) and found.trusted.shape == (4,)
    low, high, median = found.expected_error.unbind(-1)
    assert (low <= median).all() and (median <= high).all() and (found.trusted <= 5).all()
    longer = with_expected(model, open_loop(model, tiny.batch(2, 9), context=1), fitted).expected_error
    assert longer.shape == (2, 8, 3) and longer[:, :6].isfinite().all() and longer[:, 6:].isnan().all()


def test_a_digest_tells_weights_apart() -> None:
    model, same = tiny.world_model(), tiny.world_model()
    assert weights_digest(model) == weights_digest(same) != weights_digest(tiny.world_model(members=2))
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-6
    assert weights_digest(model) != weights_digest(same)


def test_the_worst_dreams_that_are_expected_to_be_good_are_counted() -> None:
    error = np.arange(1.0, 101.0)[:, None]
    expected = {
        name: Expected(x, x[..., None])
        for name, x in {"pixels": error, "reward": -error, "return": np.where(error > 95, 0, error)}.items()
    }
    found = Verified({name: error for name in expected}, expected, np.zeros(100), np.zeros(100))
    assert [found.trapped(name).tolist() for name in expected] == [[0.0], [1.0], [0.5]]


def test_what_a_planner_sees_is_calibrated_too(fitted: Trust) -> None:
    rng = np.random.default_rng(8)
    clues, errors, episode = dreams(rng, 4000)
    errors["reward"] = 0.2 * clues.uncertainty**0.5 * np.exp(0.1 * rng.normal(size=(4000, H)))
    along = fit_trust(clues, errors, episode, ORIGIN).along
    assert along is not None and along.along is None
    found, usual = along.expected(clues, "reward").median, np.abs(np.log(clues.uncertainty)) < 1
    np.testing.assert_allclose(found[usual], 0.2 * clues.uncertainty[usual] ** 0.5, rtol=0.2)
    np.testing.assert_allclose(covered(along.expected(clues, "reward"), errors["reward"], 0.9), 0.9, atol=0.03)
    other = Clues(**{n: x if n in ALONG else 9 * x for n, x in clues._asdict().items()})
    np.testing.assert_array_equal(along.trusted_steps(other), along.trusted_steps(clues))
    assert Trust.from_json(fitted.to_json()).along is not None
