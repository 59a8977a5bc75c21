"""The dm_control suite as Gymnasium environments: state observations, rendered on demand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.rendering import Cameras, Quality, import_suite, make_renderer

_ALIASES = {"cup_catch": "ball_in_cup_catch"}
_CAMERAS = {"quadruped": 2}  # the convention of pixel benchmarks; camera 0 elsewhere


def suite_tasks() -> dict[str, tuple[str, str]]:
    """Every task by name: ``cartpole_swingup -> ("cartpole", "swingup")``, aliases included."""
    tasks = {f"{domain}_{task}": (domain, task) for domain, task in import_suite().ALL_TASKS}
    return tasks | {alias: tasks[name] for alias, name in _ALIASES.items()}


class SuiteEnvironment(gymnasium.Env):
    """One suite task. ``reset(seed=...)`` fixes the whole episode: the same seed and actions give the same states.

    Observations are the physics state, (S,) float64, and so is ``info["state"]``, which wrappers leave alone;
    ``render()`` gives (size, size, 3) uint8; of V cameras (size, V * size, 3), side by side.
    """

    render_mode = "rgb_array"

    def __init__(
        self,
        domain: str,
        task: str,
        size: int,
        camera: Cameras,
        quality: Quality,
    ) -> None:
        # Some models are random themselves (lqr): a fixed seed here, the episode's own in reset.
        self._env = import_suite().load(domain, task, task_kwargs={"random": 0})
        physics = self._env.physics
        if camera is None:
            camera = _CAMERAS.get(domain, 0) if physics.model.ncam else -1
        cameras: list[int | str] = camera if isinstance(camera, list) else [camera]
        self._renderers = [make_renderer(quality, physics, size, each) for each in cameras]
        spec = self._env.action_spec()
        low, high = (np.broadcast_to(bound, spec.shape).astype(np.float32) for bound in (spec.minimum, spec.maximum))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, physics.get_state().shape, np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._env.task.random.seed(seed)
        self._env.reset()
        state = self._env.physics.get_state()
        return state, {"state": state}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        from dm_control.rl.control import PhysicsError

        try:
            step = self._env.step(action)
        except PhysicsError as cause:
            raise UserError(f"the simulation broke down: {' '.join(str(cause).split())}") from cause
        terminated = step.last() and step.discount == 0
        state = self._env.physics.get_state()
        return state, float(step.reward), terminated, step.last() and not terminated, {"state": state}

    def render(self) -> np.ndarray:
        return np.concatenate([renderer() for renderer in self._renderers], 1)

    def close(self) -> None:
        self._env.physics.free()
