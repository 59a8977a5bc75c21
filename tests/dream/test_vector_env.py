from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests import tiny
from tests.dream.dreaming import ACTION, OneDream, dreams, environment, model
from worldmodel.control.propagation import TS1, Mixture, Propagation, TSInf
from worldmodel.control.truncation import AtLimit, Gradual
from worldmodel.dream.observation import DecodedPixels, LatentFeature
from worldmodel.dream.vector_env import DreamVectorEnv
from worldmodel.types import ActionSpec

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
MODES = [NEXT, SAME, DISABLED]


def actions(env: Any, steps: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def threshold(settings: dict[str, Any]) -> float:
    """A chance to go on that some steps fall below, in the middle of a gap so that last bits decide nothing."""
    env = environment(**settings, horizon=None, autoreset_mode=NEXT)
    env.reset(seed=0)
    cont = np.sort(np.concatenate([env.step(a)[4]["cont"] for a in actions(env, 60)]))
    few = cont[len(cont) // 12 : len(cont) // 4]
    widest = np.diff(few).argmax()
    return float(few[widest : widest + 2].mean())


def assert_same(one: Any, other: Any) -> None:
    """Arrays and dicts of arrays, alike but for rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, np.ndarray) and one.dtype == object:
        for x, y in zip(one, other, strict=True):
            assert (x is None) == (y is None)
            assert x is None or np.allclose(x, y, rtol=1e-3, atol=1e-4)
    else:
        assert np.shape(one) == np.shape(other)
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_it_resets_as_gymnasiums_own_vector_environment_does(mode: AutoresetMode) -> None:
    """Dreams that draw nothing are the same in one batch as each on its own under SyncVectorEnv, infos and all."""
    alone = {"mode": True, "starts": 1, "truncation": AtLimit(1e9), "uncertainty_weight": -0.1}
    alone |= {"continue_threshold": threshold({"mode": True, "starts": 1})}
    ours = environment(4, horizon=7, autoreset_mode=mode, **alone)
    theirs = SyncVectorEnv([lambda: OneDream(horizon=7, **alone)] * 4, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode
    for ours_is, theirs_is in zip(ours.reset(seed=0), theirs.reset(seed=0), strict=True):
        assert_same(ours_is, theirs_is)
    ends = []
    for action in actions(ours, 60):
        found, wanted = ours.step(action), theirs.step(action)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
        ended = found[2] | found[3]
        ends.append((found[2].sum(), found[3].sum()))
        if mode is DISABLED and ended.any():
            pair = [env.reset(options={"reset_mask": ended.copy()}) for env in (ours, theirs)]
            assert_same(pair[0][0], pair[1][0])
            assert pair[0][1]["is_first"].tolist() == ended.tolist()
    terminated, truncated = np.sum(ends, 0)
    assert terminated > 3 and truncated > 3  # both kinds of an end were met


@pytest.mark.parametrize("settings", [{}, {"observation": DecodedPixels()}, {"action": ActionSpec(2, discrete=True)}])
def test_gymnasiums_checker_of_environments(settings: dict[str, Any]) -> None:
    check_env(OneDream(horizon=5, **settings))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("observation", [LatentFeature(), DecodedPixels()])
def test_everything_lies_in_its_space(mode: AutoresetMode, observation: Any) -> None:
    env = environment(observation=observation, horizon=3, autoreset_mode=mode)
    seen, _ = env.reset(seed=1)
    assert seen in env.observation_space
    for action in actions(env, 8):
        seen, reward, terminated, truncated, infos = env.step(action)
        assert seen in env.observation_space
        assert reward.shape == (4,) and terminated.dtype == truncated.dtype == bool
        for last in infos.get("final_obs", []):
            assert last in env.single_observation_space
        if mode is DISABLED and truncated.any():
            env.reset(options={"reset_mask": truncated})
    assert len(env.render()) == 4 and env.render()[0].shape == (tiny.SIZE, tiny.SIZE, 3)


@pytest.mark.parametrize("propagation", [TS1(), TSInf(), Mixture()])
@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_a_reward_is_that_of_the_state_its_action_led_to(mode: AutoresetMode, propagation: Propagation) -> None:
    env = environment(horizon=3, autoreset_mode=mode, propagation=propagation, uncertainty_weight=-0.5)
    heads = env.dreams.world_model
    env.reset(seed=0)
    for t, action in enumerate(actions(env, 12), 1):
        seen, reward, _, truncated, infos = env.step(action)
        led_to = torch.from_numpy(seen)
        if mode is NEXT and t % 4 == 0:  # a dream began: no step led there
            assert not reward.any() and infos["is_first"].all() and "cont" not in infos and not truncated.any()
            continue
        if mode is SAME and t % 3 == 0:
            assert infos["is_first"].all() and infos["_final_obs"].all()
            led_to = torch.from_numpy(np.stack(infos["final_obs"]))
            assert not np.allclose(seen, led_to)  # the next dream's first is another
            infos = infos["final_info"]
        assert not infos["is_first"].any()
        with torch.no_grad():
            expected, cont = heads.reward(led_to).numpy(), heads.cont(led_to).numpy()
        assert np.allclose(infos["imagined_reward"], expected, atol=1e-5)
        assert np.allclose(infos["cont"], cont, atol=1e-5)
        assert np.allclose(reward, expected - 0.5 * infos["uncertainty"], atol=1e-5)


def test_a_dream_begins_in_one_of_its_starts() -> None:
    env = environment(horizon=2, autoreset_mode=SAME)
    starts = env.dreams.starts.feature.numpy()
    seen, _ = env.reset(seed=0)
    begun = [seen, *(x for x, *_, infos in map(env.step, actions(env, 20)) if infos["is_first"].all())]
    assert len(begun) == 11
    found = {int(np.abs(starts - one).sum(1).argmin()) for one in np.concatenate(begun)}
    assert all(np.abs(starts - one).sum(1).min() == 0 for one in np.concatenate(begun)) and len(found) > 6


def test_a_horizon_truncates_and_each_dream_has_its_own_steps() -> None:
    env = environment(2, horizon=4, autoreset_mode=DISABLED)
    env.reset(seed=0)
    early, late = np.array([True, False]), np.array([False, True])
    moves = actions(env, 20)
    ends = [env.step(moves[t])[3].tolist() for t in range(2)]
    env.reset(options={"reset_mask": early})  # two steps behind now
    ends += [env.step(moves[t])[3].tolist() for t in range(2, 4)]
    assert ends == [[False, False]] * 3 + [[False, True]]
    before, _ = env.reset(options={"reset_mask": late})
    assert env.step(moves[4])[3].tolist() == [False, False] and env.step(moves[5])[3].tolist() == [True, False]
    assert before.shape == (2, env.single_observation_space.shape[0])


def test_where_the_model_is_not_believed_a_dream_is_truncated() -> None:
    free = environment(8, horizon=None, autoreset_mode=SAME)
    free.reset(seed=0)
    moves = actions(free, 10)
    uncertainty = np.stack([free.step(a)[4]["uncertainty"] for a in moves])  # (10, 8)
    limit = float(np.quantile(uncertainty, 0.9))
    env = environment(8, horizon=None, autoreset_mode=DISABLED, truncation=AtLimit(limit))
    env.reset(seed=0)
    for t, action in enumerate(moves):
        _, _, terminated, truncated, infos = env.step(action)
        assert not terminated.any() and np.array_equal(truncated, infos["uncertain"])
        assert np.array_equal(truncated, uncertainty[t] > limit)
        if truncated.any():
            break
    else:
        pytest.fail("no dream was ever uncertain")
    gradual = environment(8, horizon=None, autoreset_mode=DISABLED, truncation=Gradual(half=2.0))
    gradual.reset(seed=0)
    gradual.dreams.world_model.typical_uncertainty.fill_(float(uncertainty.mean()) / 1.3)
    steps = 0
    while not gradual.step(moves[steps])[3].any():
        steps += 1
    assert steps >= 1  # no single step is that uncertain, several are


def test_without_a_threshold_ends_are_drawn() -> None:
    env = environment(64, horizon=None, continue_threshold=None, autoreset_mode=NEXT)
    env.reset(seed=0)
    ended, chance = [], []
    for action in actions(env, 40):
        _, _, terminated, _, infos = env.step(action)
        ended.append(terminated[infos["_cont"]])
        chance.append(1 - infos["cont"][infos["_cont"]])
    assert np.concatenate(ended).mean() == pytest.approx(np.concatenate(chance).mean(), abs=0.05)


@pytest.mark.parametrize("propagation", [TS1(), TSInf(), Mixture()])
def test_the_same_seed_gives_the_same_dream(propagation: Propagation) -> None:
    def play(env: DreamVectorEnv, seed: int | None) -> np.ndarray:
        seen = [env.reset(seed=seed)[0]]
        for action in actions(env, 9):
            torch.rand(3)  # others draw between its steps
            seen.append(env.step(action)[0])
        return np.stack(seen)

    env = environment(horizon=4, propagation=propagation)
    first, state = play(env, 3), torch.get_rng_state()
    env.reset(seed=8)
    assert torch.equal(torch.get_rng_state(), state)  # and it draws nothing of theirs
    assert np.array_equal(first, play(env, 3))
    assert np.array_equal(first, play(environment(horizon=4, propagation=propagation), 3))
    assert not np.allclose(first, play(env, 4))
    assert not np.allclose(play(env, None), play(env, None))


@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_what_it_gives_is_not_written_over(mode: AutoresetMode) -> None:
    env = environment(horizon=2, autoreset_mode=mode)
    given = [env.reset(seed=0)[0], *(x for action in actions(env, 5) for x in env.step(action)[:4])]
    copies = [x.copy() for x in given]
    for action in actions(env, 5):
        env.step(action)
    assert all(np.array_equal(x, y) for x, y in zip(given, copies, strict=True))
    seen, *_ = env.step(env.action_space.sample())
    state = env.dreams.state.feature.clone()
    seen[:] = 7
    assert torch.equal(env.dreams.state.feature, state)


@pytest.mark.parametrize("observation", [LatentFeature(), DecodedPixels()])
def test_tensors_are_the_same_numbers(observation: Any) -> None:
    arrays, tensors = (
        environment(horizon=2, autoreset_mode=SAME, observation=observation, tensors=x) for x in (False, True)
    )
    assert np.array_equal(arrays.reset(seed=0)[0], tensors.reset(seed=0)[0])
    for action in actions(arrays, 4):
        *some, infos = arrays.step(action)
        *others, more = tensors.step(torch.from_numpy(action))
        assert all(isinstance(x, torch.Tensor) and np.array_equal(x, y) for x, y in zip(others, some, strict=True))
        assert infos.keys() == more.keys() and isinstance(more["_is_first"], torch.Tensor)
        if "final_obs" in infos:
            assert all(isinstance(x, torch.Tensor) for x in more["final_obs"])
            assert isinstance(more["final_info"]["uncertainty"], torch.Tensor)


def test_discrete_actions_are_one_hot_in_the_model() -> None:
    env = environment(action=ActionSpec(2, discrete=True), mode=True, starts=1)
    env.reset(seed=0)
    seen, *_ = env.step(np.array([0, 1, 1, 0]))
    assert np.allclose(seen[0], seen[3]) and np.allclose(seen[1], seen[2]) and not np.allclose(seen[0], seen[1])


def test_actions_are_clipped_as_real_environments_do() -> None:
    one, other = (environment(mode=True) for _ in range(2))
    one.reset(seed=0), other.reset(seed=0)
    assert np.array_equal(one.step(np.full((4, 2), 3.0))[0], other.step(np.ones((4, 2)))[0])


def test_spaces() -> None:
    env = environment(3)
    assert env.single_action_space.shape == (ACTION.size,) and env.action_space.shape == (3, ACTION.size)
    assert env.single_observation_space.shape == (model().feature_size,)
    pixels = environment(3, observation=DecodedPixels()).observation_space
    assert pixels.shape == (3, 3, tiny.SIZE, tiny.SIZE) and pixels.dtype == np.uint8
    assert dreams(3).num == 3


@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_gymnasiums_wrappers_go_over_it(mode: AutoresetMode) -> None:
    env = RecordEpisodeStatistics(environment(horizon=4, autoreset_mode=mode))
    env.reset(seed=0)
    period, earned = (5 if mode is NEXT else 4), np.zeros(4)
    for t, action in enumerate(actions(env, 3 * period)):
        _, reward, _, truncated, infos = env.step(action)
        earned = reward if t % period == 0 else earned + reward
        if mode is NEXT and t % period == 4:  # a dream began
            earned = np.zeros(4)
        assert ("episode" in infos) == (t % period == 3) == truncated.all()
        if "episode" in infos:
            assert infos["episode"]["l"].tolist() == [4] * 4 and np.allclose(infos["episode"]["r"], earned, atol=1e-4)
