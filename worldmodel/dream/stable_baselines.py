"""Dreams for Stable-Baselines3, which is wanted only here: ``DreamVectorEnv.stable_baselines`` imports this module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode

from worldmodel.errors import UserError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as cause:
    raise UserError("stable_baselines3 is not installed: pip install 'worldmodel[sb3]'") from cause

if TYPE_CHECKING:
    from worldmodel.dream.vector_env import DreamVectorEnv


class StableBaselinesDreams(VecEnv):
    """A ``DreamVectorEnv`` as a ``VecEnv``.

    Where a dream ends its info holds ``terminal_observation``, what its last step led to, and ``TimeLimit.truncated``,
    so that the learner bootstraps from the value there: by the horizon or by uncertainty, and not terminated.

    Args:
        dreams: of mode SAME_STEP, which is this library's way, and of numpy arrays.

    Raises:
        UserError: they are of another mode, or give tensors.
    """

    def __init__(self, dreams: DreamVectorEnv) -> None:
        if dreams.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise UserError('Stable-Baselines3 begins anew in the step that ends: give autoreset_mode="SameStep"')
        if dreams.tensors:
            raise UserError("Stable-Baselines3 takes numpy arrays: give tensors=False")
        self.dreams = dreams
        self._actions: np.ndarray | None = None
        super().__init__(dreams.num_envs, dreams.single_observation_space, dreams.single_action_space)

    def reset(self) -> np.ndarray:
        observation, infos = self.dreams.reset(seed=self._seeds[0])
        self.reset_infos = self._of_each(infos)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, reward, terminated, truncated, infos = self.dreams.step(self._actions)
        each = self._of_each(infos)
        if "final_obs" in infos:
            last = self._of_each(infos["final_info"])
            for i in np.flatnonzero(terminated | truncated):
                each[i] = last[i] | {
                    "terminal_observation": infos["final_obs"][i],
                    "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                }
                self.reset_infos[i] = {"is_first": True}
        return observation, reward, terminated | truncated, each

    def close(self) -> None:
        self.dreams.close()

    def get_images(self) -> Sequence[np.ndarray]:
        return self.dreams.render()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """All dreams have the attributes of their one ``DreamVectorEnv``."""
        return [getattr(self.dreams, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """For all dreams at once: they are one environment."""
        setattr(self.dreams, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Called once, for all dreams; its result for each that was asked for."""
        result = getattr(self.dreams, method_name)(*method_args, **method_kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))

    def _of_each(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        """What is known of each dream, as plain numbers."""
        each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for name, values in infos.items():
            if not name.startswith("_") and not name.startswith("final_"):
                for i in np.flatnonzero(infos[f"_{name}"]):
                    each[i][name] = values[i].item()
        return each
