"""Environments that are not as they should be: each is one line that names task, episode and step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.environments import make_environment
from worldmodel.experience.replay import Replay
from worldmodel.experience.toy import PointReach
from worldmodel.experience.vector import InProcess

WHERE = "tests.experience.test_bad_environments"
HERE: dict[str, Callable[[], gymnasium.Env]] = {}  # what a task name of this module makes


def __getattr__(name: str) -> Callable[[], gymnasium.Env]:
    if name not in HERE:
        raise AttributeError(name)
    return HERE[name]


class Odd(PointReach):
    """Answers the third step of the second episode as it is told to."""

    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.answers, self.episode, self.count = answers, 0, 0

    def reset(self, **given: Any) -> Any:
        self.episode, self.count = self.episode + 1, 0
        answer = super().reset(**given)
        return self.answers["reset"](answer) if self.episode == 2 and "reset" in self.answers else answer

    def step(self, action: Any) -> Any:
        self.count += 1
        answer = super().step(action)
        return self.answers["step"](answer) if (self.episode, self.count) == (2, 3) else answer


def replaced(place: int, value: Any) -> Callable[[tuple], tuple]:
    return lambda answer: (*answer[:place], value, *answer[place + 1 :])


def raises(*_: Any) -> None:
    raise ZeroDivisionError("a bug\nof its own")


PICTURE = np.zeros((64, 64, 3), np.uint8)
STEPS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("raises", raises, "step raised ZeroDivisionError: a bug of its own"),
    ("exits", lambda _: sys.exit(3), "step raised SystemExit: 3"),
    ("old API", lambda answer: answer[:4], "step gave a tuple of 4, not (observation, reward, terminated, truncated"),
    ("nothing", lambda _: None, "step gave None, not (observation, reward"),
    ("reward None", replaced(1, None), "the reward is None, not a number"),
    ("reward text", replaced(1, "much"), "the reward is 'much', not a number"),
    ("reward array", replaced(1, np.zeros(2)), "the reward is float64 (2,), not a number"),
    ("reward complex", replaced(1, 1j), "the reward is 1j, not a number"),
    ("reward NaN", replaced(1, float("nan")), "gave a reward that is not finite at step 3 of episode 2"),
    ("reward huge", replaced(1, 1e300), "the reward is 1e+300, which is more than float32 holds"),
    ("done array", replaced(2, np.zeros(3, bool)), "terminated is bool (3,), not a bool"),
    ("done None", replaced(3, None), "truncated is None, not a bool"),
    ("info None", replaced(4, None), "info is None, not a dict"),
    ("info list", replaced(4, []), "info is list, not a dict"),
    ("observation None", replaced(0, None), "the observation is None, not uint8 (16, 16, 3) as its space says"),
    ("observation dict", replaced(0, {}), "the observation is dict, not uint8 (16, 16, 3)"),
    ("observation text", replaced(0, "a wall"), "the observation is 'a wall', not uint8 (16, 16, 3)"),
    ("RGBA midway", replaced(0, np.zeros((16, 16, 4), np.uint8)), "the observation is uint8 (16, 16, 4), not uint8"),
    ("CHW midway", replaced(0, np.zeros((3, 16, 16), np.uint8)), "the observation is uint8 (3, 16, 16), not uint8"),
    ("empty", replaced(0, np.zeros((0, 0, 3), np.uint8)), "the observation is uint8 (0, 0, 3), not uint8"),
    ("int16", replaced(0, np.zeros((16, 16, 3), np.int16)), "the observation is int16 (16, 16, 3), not uint8"),
    ("float", replaced(0, np.zeros((16, 16, 3))), "the observation is float64 (16, 16, 3), not uint8"),
]


@pytest.mark.parametrize(("answer", "message"), [case[1:] for case in STEPS], ids=[case[0] for case in STEPS])
def test_a_step_that_is_not_as_it_should_be(answer: Callable[[Any], Any], message: str) -> None:
    HERE["odd"] = lambda: Odd(step=answer)
    env = make_environment(f"{WHERE}:odd", size=16)
    for _ in range(2):
        env.reset(seed=0)
    for _ in range(2):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(UserError) as error:
        env.step(np.zeros(2, np.float32))
    text = str(error.value)
    assert message in text and f"'{WHERE}:odd'" in text and "\n" not in text
    assert "episode 2" in text and "step 3" in text
    assert ("raised" in text) == ("Traceback" in error.value.details)


RESETS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("raises", raises, "episode 2, step 0: reset raised ZeroDivisionError"),
    ("old API", lambda answer: answer[0], "reset gave uint8 (16, 16, 3), not (observation, info): is it of the old"),
    ("info None", lambda answer: (answer[0], None), "info is None, not a dict"),
    ("observation None", lambda answer: (None, {}), "the observation is None"),
]


@pytest.mark.parametrize(("answer", "message"), [case[1:] for case in RESETS], ids=[case[0] for case in RESETS])
def test_a_reset_that_is_not_as_it_should_be(answer: Callable[[Any], Any], message: str) -> None:
    HERE["odd"] = lambda: Odd(reset=answer)
    env = make_environment(f"{WHERE}:odd", size=16)
    env.reset(seed=0)
    with pytest.raises(UserError) as error:
        env.reset(seed=0)
    assert message in str(error.value) and "\n" not in str(error.value)


class Drawn(gymnasium.Env):
    """A state that is drawn on demand, as it is told to."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    render_mode = "rgb_array"
    picture: Any = PICTURE

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return np.zeros(2, np.float32), {}

    def render(self) -> Any:
        return self.picture() if callable(self.picture) else self.picture

    def close(self) -> None:
        raise ZeroDivisionError("at the end")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "render gave None, not a uint8 picture (H, W, 3)"),
        (PICTURE.transpose(2, 0, 1), "render gave uint8 (3, 64, 64), not"),
        (np.zeros((64, 64, 4), np.uint8), "render gave uint8 (64, 64, 4), not"),
        (PICTURE.astype(np.float32), "render gave float32 (64, 64, 3), not"),
        (raises, "render raised ZeroDivisionError: a bug of its own"),
    ],
)
def test_a_picture_that_is_not_as_it_should_be(picture: Any, message: str) -> None:
    HERE["drawn"] = lambda: type(
        "Made", (Drawn,), {"picture": staticmethod(picture) if callable(picture) else picture}
    )()
    env = make_environment(f"{WHERE}:drawn")
    with pytest.raises(UserError) as error:
        env.reset(seed=0)
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.warns(UserWarning, match="failed in close: ZeroDivisionError: at the end"):
        env.close()


class NoSeed(PointReach):
    def reset(self) -> tuple:  # type: ignore[override]
        return super().reset()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (raises, "cannot be made: ZeroDivisionError: a bug of its own"),
        (lambda: sys.exit(3), "cannot be made: SystemExit: 3"),
        (NoSeed, "reset raised TypeError"),
    ],
)
def test_an_environment_that_cannot_begin(make: Callable[[], Any], message: str) -> None:
    HERE["made"] = make
    with pytest.raises(UserError) as error:
        make_environment(f"{WHERE}:made", size=16).reset(seed=0)
    assert message in str(error.value) and "\n" not in str(error.value) and "Traceback" in error.value.details


class Unseeded(PointReach):
    """Begins elsewhere each time, whatever the seed."""

    begun = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        Unseeded.begun += 1
        return super().reset(seed=Unseeded.begun)


@pytest.mark.parametrize(("make", "comes_back"), [(PointReach, True), (Unseeded, False)])
def test_an_episode_that_does_not_come_back_ends(
    make: Callable[[], Any], comes_back: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    HERE["made"] = make
    held = []
    for name in ("one", "other"):
        environments = InProcess(f"{WHERE}:made", 1, size=16)
        replay = Replay(tmp_path / name, image_shape=(3, 16, 16), action_size=2, capacity=1000)
        held.append((environments, replay, Collector(environments, replay)))
    (_, _, collector), (environments, replay, resumed) = held
    policy = RandomPolicy(environments.action)
    collector.collect(policy, 5)
    resumed.load_state_dict(collector.state_dict())
    assert any("did not come back" in str(x.message) for x in recwarn) != comes_back
    resumed.collect(policy, 2)
    assert environments.state_dict()["episodes"] == [1 if comes_back else 2]
