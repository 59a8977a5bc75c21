from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from worldmodel.errors import UserError
from worldmodel.experience.environments import make_environment
from worldmodel.experience.rendering import Quality

TOY = "worldmodel.experience.toy:PointReach"
DISCRETE = "worldmodel.experience.toy:DiscretePointReach"
BROKEN = "tests.experience.broken"


def play(env: gymnasium.Env, seed: int, actions: np.ndarray) -> list[tuple]:
    env.reset(seed=seed)
    return [env.step(action)[:4] for action in actions]


@pytest.mark.parametrize(
    "task",
    [
        "cartpole_swingup",
        "reacher_easy",
        "finger_turn_hard",
        "ball_in_cup_catch",
        "walker_stand",
        TOY,
    ],
)
def test_seed_and_actions_reproduce_an_episode(task: str) -> None:
    fresh, used = (
        make_environment(task, action_repeat=2),
        make_environment(task, action_repeat=2),
    )
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (12, *fresh.action_space.shape)).astype(np.float32)
    play(used, 3, actions[:5])
    for one, two in zip(play(fresh, 5, actions), play(used, 5, actions), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:] == two[1:]
    first, other = fresh.reset(seed=1)[0], fresh.reset(seed=2)[0]
    assert (first != other).any()


@pytest.mark.parametrize("task", [TOY, "cup_catch"])
def test_spaces(task: str) -> None:
    env = make_environment(task, size=32)
    image, info = env.reset(seed=0)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (3, 32, 32), np.uint8)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    assert image.shape == (3, 32, 32)
    assert image.dtype == np.uint8
    assert info["frames"] == 0


def test_time_limit_truncates() -> None:
    env = make_environment("cartpole_balance", action_repeat=300, size=16)
    env.reset(seed=0)
    results = [env.step(np.zeros(1, np.float32)) for _ in range(4)]
    assert [r[4]["frames"] for r in results] == [300, 300, 300, 100]
    assert [r[3] for r in results] == [False, False, False, True]
    assert not any(r[2] for r in results)


def test_repeat_sums_rewards_renders_once_and_stops_at_the_end() -> None:
    env = make_environment(f"{BROKEN}:Counter", action_repeat=3, size=8)
    env.reset(seed=0)
    first = env.step(np.array([-1.0, 2.0], np.float32))
    assert (first[1], first[2], first[4]["frames"]) == (3.0, False, 3)
    assert first[0].max() == 3
    np.testing.assert_allclose(env.unwrapped.action, [0, 3])
    second = env.step(np.zeros(2, np.float32))
    assert (second[1], second[2], second[4]["frames"]) == (2.0, True, 2)
    assert env.unwrapped.renders == 3


@pytest.mark.parametrize("quality", ["fast", "reference"])
def test_several_cameras_stand_side_by_side(quality: Quality) -> None:
    cameras = [0, 1]
    both, *alone = (
        make_environment("cartpole_swingup", size=32, camera=camera, quality=quality) for camera in (cameras, *cameras)
    )
    images = [env.reset(seed=0)[0] for env in (both, *alone)]
    assert both.observation_space.shape == images[0].shape == (3, 32, 64)
    np.testing.assert_array_equal(images[0], np.concatenate(images[1:], 2))
    assert not np.array_equal(*images[1:])
    with pytest.raises(UserError, match="no camera 7"):
        make_environment("cartpole_swingup", camera=[0, 7])


def test_toy_is_learnable_and_discrete_moves() -> None:
    env = make_environment(DISCRETE)
    assert env.action_space == gymnasium.spaces.Discrete(5)
    env.reset(seed=0)
    for _ in range(40):  # walk to the centre by what it knows of itself
        point = env.unwrapped._point
        axis = int(np.abs(point[1]) > np.abs(point[0]))
        far = abs(point[axis]) > 0.1
        reward, _, truncated = env.step((1 + 2 * axis + int(point[axis] < 0)) if far else 0)[1:4]
        if truncated:
            break
    assert truncated
    assert reward > 0.8


def test_the_swamp_holds_fast_and_pays_nothing_and_reward_aside_lies_left() -> None:
    swamp = make_environment("worldmodel.experience.toy:PointSwamp")
    swamp.reset(seed=0)  # one that comes to a step from next to 0 differs by more than the tolerance
    while (point := swamp.reset(seed=None)[1]["state"])[0] > -0.2:  # one of the starts on the left
        pass
    right = np.array([1, 0], np.float32)
    while point[0] <= 0:
        before, (_, reward, _, _, info) = point, swamp.step(right)
        point = info["state"]
        assert point[0] == pytest.approx(before[0] + 0.2)
    assert reward == 0
    assert swamp.step(right)[4]["state"][0] == pytest.approx(point[0] + 0.07 * 0.2)
    aside = make_environment("worldmodel.experience.toy:PointAside")
    starts = np.stack([aside.reset(seed=seed)[1]["state"] for seed in range(50)])
    assert starts[:, 0].max() <= 0
    for action in (right, -right):
        aside.reset(seed=0)
        for _ in range(10):
            _, reward, _, _, info = aside.step(action)
        expected = max(0.0, 1 - float(np.hypot(info["state"][0] + 0.6, info["state"][1])))
        assert reward == pytest.approx(expected)
        assert (reward > 0) == (action[0] < 0)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("cartpole_swingpu", {}, "cartpole_swingup"),
        ("zzzzqqqq", {}, "`worldmodel tasks` lists"),
        (f"{BROKEN}:Unseen", {}, "no picture, and cannot be drawn: its render_mode is None, not rgb_array"),
        ("no_such_module:make", {}, "no module 'no_such_module'"),
        ("worldmodel.experience.toy:Nothing", {}, "has no 'Nothing'"),
        (f"{BROKEN}:nothing", {}, "not a gymnasium.Env"),
        (f"{BROKEN}:Unbounded", {}, "bounded Box"),
        (TOY, {"size": 0}, "size is 0"),
        (TOY, {"action_repeat": 0}, "action_repeat is 0"),
        ("cartpole_balance", {"quality": "best"}, "fast, reference"),
        ("cartpole_balance", {"camera": 9}, "no camera 9"),
        ("cartpole_balance", {"camera": "nose"}, "no camera 'nose'"),
    ],
)
def test_bad_input_is_one_clear_line(task: str, options: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_environment(task, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "what"), [("NanReward", "reward"), ("NanState", "observation")])
def test_numbers_that_are_not_finite(name: str, what: str) -> None:
    env = make_environment(f"{BROKEN}:{name}")
    env.reset(seed=0)
    with pytest.raises(UserError, match=rf"{name}' gave a {what} that is not finite at step \d"):
        for _ in range(5):
            env.step(np.zeros(2, np.float32))


def test_missing_gl_names_the_package() -> None:
    code = """
import ctypes, os
real = ctypes.CDLL
class Missing(real):
    def __init__(self, name, *args, **kwargs):
        if name and "EGL" in str(name):
            raise OSError(f"{name}: cannot open shared object file")
        super().__init__(name, *args, **kwargs)
ctypes.CDLL = ctypes.cdll._dlltype = Missing
os.environ["MUJOCO_GL"] = "egl"
from worldmodel.errors import UserError
from worldmodel.experience.environments import make_environment
from worldmodel.experience.rendering import Quality
try:
    make_environment("cartpole_balance")
except UserError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "apt-get install libegl1" in result.stdout
    assert result.stdout.count("\n") == 1


def test_fast_looks_like_reference() -> None:
    images = []
    for quality in ("fast", "reference"):
        env = make_environment("walker_stand", quality=quality)
        images.append(env.reset(seed=0)[0].astype(float))
    assert np.abs(images[0] - images[1]).mean() < 20
    assert images[0].std() > 20


def test_restarts_are_time_limits_in_frames() -> None:
    env = make_environment(TOY, size=16, action_repeat=3, episode_frames=8)
    for seed in (0, 1):
        env.reset(seed=seed)
        ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]  # 9 frames, and no terminal state
    with pytest.raises(UserError, match="episode_frames is 0"):
        make_environment(TOY, size=16, episode_frames=0)
