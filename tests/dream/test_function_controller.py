from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.dream.dreaming import ACTION, model
from worldmodel.control.controller import LatentPolicy
from worldmodel.dream.function_controller import FunctionController
from worldmodel.dream.observation import DecodedPixels
from worldmodel.experience.collector import run_episodes
from worldmodel.experience.vector import InProcess
from worldmodel.types import ActionSpec


@pytest.mark.parametrize(
    ("action", "given", "taken"),
    [(ACTION, [[0.5, -3.0]], [[0.5, -1.0]]), (ActionSpec(3, discrete=True), [2], [[0.0, 0.0, 1.0]])],
)
def test_actions_are_those_of_a_controller(action: ActionSpec, given: list, taken: list) -> None:
    made = model()
    controller = FunctionController(made, action, lambda seen: np.array(given))
    assert controller.act(made.rssm.initial(1), ())[0].tolist() == taken and controller.name == "function"


def test_it_is_shown_what_a_dream_shows() -> None:
    made, seen = model(), []

    def predict(observation: np.ndarray) -> np.ndarray:
        seen.append(observation)
        return np.zeros((len(observation), 2))

    state = made.rssm.initial(3)
    for observation in (None, DecodedPixels()):
        FunctionController(made, ACTION, predict, observation).act(state, ())
    assert np.array_equal(seen[0], state.feature.numpy())
    assert torch.equal(torch.from_numpy(seen[1]), made.decoder.image(state.feature))


def test_it_drives_real_environments() -> None:
    environments = InProcess("worldmodel.experience.toy:PointReach", 2, 0, size=16)
    policy = LatentPolicy(FunctionController(model(), ACTION, lambda seen: np.tanh(seen[:, :2])))
    episodes = run_episodes(environments, policy, 2)
    environments.close()
    assert len(episodes) == 2 and all(episode.steps > 1 for episode in episodes)
