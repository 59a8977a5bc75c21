"""The model as a Gymnasium vector environment. Legend in worldmodel/types.py; N dreams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldmodel.control.controller import LatentPolicy
from worldmodel.control.dreams import Dreams
from worldmodel.control.propagation import TS1, Propagation
from worldmodel.control.truncation import NoTruncation, Truncation
from worldmodel.dream.function_controller import FunctionController, Predict
from worldmodel.dream.given import as_actions, as_mask, moved
from worldmodel.dream.observation import OBSERVATIONS, DreamObservation, LatentFeature
from worldmodel.dream.starts import posterior_starts
from worldmodel.dream.trusting import check_caution, judged, with_price
from worldmodel.errors import UserError
from worldmodel.insight.caution import RewardErrorWeight
from worldmodel.insight.dream_judge import DreamJudge
from worldmodel.insight.trust import Trust
from worldmodel.types import ActionSpec

if TYPE_CHECKING:
    from worldmodel.dream.stable_baselines import StableBaselinesDreams


class DreamVectorEnv(VectorEnv):
    """N dreams of a world model, stepped in one batch, as ``gymnasium.vector`` has it.

    A step's observation, reward, termination and infos are of the state that its action led to. A dream terminates
    where the continue head says so. It is truncated by ``horizon``, and where the model is no longer believed: where
    the product of what ``truncation`` makes of its steps' uncertainty falls below one half (``AtLimit``: at the first
    step above the limit). With ``trust`` it is truncated where it is likely worse than if the last picture stayed.

    ``infos`` of a step, each (N,) and beside it under ``_name`` the mask of the dreams that it is there for:

    - ``uncertainty``: epistemic, of the step; 1 is usual on the training data
    - ``cont``: probability that the state is not terminal
    - ``imagined_reward``: without what uncertainty is worth
    - ``uncertain``: truncated because the model is not believed
    - ``trusted``, ``expected_error``, ``expected_reward_error``, with ``trust``: False where trust has ended, and the
      dream with it; the errors in pixels and in reward to be expected by now
    - ``is_first``: the observation begins a dream. No step led there; in mode NEXT_STEP the reward of it is 0

    Autoreset is Gymnasium's: with NEXT_STEP the step after the last ignores its action and begins the next dream; with
    SAME_STEP the last step does, and ``final_obs`` and ``final_info`` hold what it led to; with DISABLED
    ``reset(options={"reset_mask": mask})`` is up to the caller.

    Args:
        dreams: what is stepped.
        action: what an action is.
        observation: what is seen of them; the latent feature if None.
        horizon: steps, at most; None for dreams that only end otherwise.
        autoreset_mode: what comes after an end; also by Gymnasium's name of it, such as ``SameStep``.
        uncertainty_weight: what a unit of uncertainty adds to the reward; below 0 cautious, above 0 curious. With
            ``trust`` also a ``RewardErrorWeight``, for a unit of the reward's expected error.
        truncation: how far along a dream the model is believed; always if None.
        continue_threshold: a dream terminates where ``cont`` is below; if None, with probability 1 - ``cont``.
        tensors: give torch tensors on the model's device, in infos too, instead of numpy arrays. Actions may be either.
        trust: the model's calibration: members and draws are then carried beside every dream, which costs several times
            as much.

    Raises:
        ValueError: the horizon is below 1, the threshold no probability, or the dreams do not measure the uncertainty
            that is asked for; or what only ``trust`` can say is asked for without it.
    """

    def __init__(
        self,
        dreams: Dreams,
        action: ActionSpec,
        *,
        observation: DreamObservation | None = None,
        horizon: int | None = 50,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        uncertainty_weight: float | RewardErrorWeight = 0.0,
        truncation: Truncation | None = None,
        continue_threshold: float | None = 0.5,
        tensors: bool = False,
        trust: Trust | None = None,
    ) -> None:
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        if continue_threshold is not None and not 0 <= continue_threshold <= 1:
            raise ValueError(f"continue_threshold is a probability, got {continue_threshold}")
        self.truncation = truncation or NoTruncation()
        check_caution(dreams, uncertainty_weight, self.truncation, trust)
        self._judge = None if trust is None else DreamJudge(dreams.world_model, trust)
        self.dreams, self.action, self.observation = dreams, action, observation or LatentFeature()
        self.horizon, self.autoreset_mode = horizon, AutoresetMode(autoreset_mode)
        self.uncertainty_weight, self.continue_threshold, self.tensors = uncertainty_weight, continue_threshold, tensors
        self.num_envs = dreams.num
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": self.autoreset_mode}
        self.render_mode = "rgb_array"
        self.single_observation_space = self.observation.space(dreams.world_model)
        one = spaces.Discrete(action.size) if action.discrete else spaces.Box(-1, 1, (action.size,), np.float32)
        self.single_action_space: spaces.Space = one
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        zeros = torch.zeros(self.num_envs, device=dreams.device)
        self._steps, self._belief, self._ended = zeros.long(), zeros + 1, zeros.bool()
        self._begun = False

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        num_envs: int = 8,
        observation: str | DreamObservation = "latent",
        *,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        context: int = 10,
        starts: int = 1024,
        propagation: Propagation | None = None,
        mode: bool = False,
        uncertainty: bool = True,
        trust: bool = False,
        trust_code: bool = False,
        **settings: Any,
    ) -> DreamVectorEnv:
        """Dreams of a run's model, which begin in states of its replay.

        Args:
            run: the run's folder.
            num_envs: N.
            observation: ``latent``, ``pixels``, or any ``DreamObservation``.
            checkpoint: whose weights; ``best.ckpt`` if None, or ``last.ckpt`` where there is no best.
            device: where to dream.
            context: records that are filtered before a dream begins.
            starts: how many states of the replay there are to begin in.
            propagation: which member each step follows; another at each step (TS1) if None.
            mode: take the most likely latents instead of draws.
            uncertainty: measure the uncertainty of every step.
            trust: end a dream where the run's ``calibration.json`` says that it is likely worse than the last picture.
            trust_code: build whatever the run's ``config.yaml`` names; see ``wm.load``.
            settings: as the constructor's: ``horizon``, ``autoreset_mode``, ``uncertainty_weight``, ``truncation``,
                ``continue_threshold``, ``tensors``.

        Raises:
            UserError: the folder holds no run, or one that is not trusted, or no records; or there is no such
                observation or device, or no calibration of these weights.
        """
        from worldmodel.training.calibrating import load_trust
        from worldmodel.training.data import open_replay  # with Lightning, which dreams themselves do without
        from worldmodel.training.loading import load_run

        if isinstance(observation, str):
            if observation not in OBSERVATIONS:
                raise UserError(f"a dream is observed as {' or '.join(OBSERVATIONS)}, not as {observation!r}")
            observation = OBSERVATIONS[observation]()
        agent, data = load_run(run, checkpoint, environments=1, trust_code=trust_code)
        try:
            known = load_trust(run, agent, data.needed_task()) if trust else None
            model = moved(agent.world_model, device)
            began = posterior_starts(model, open_replay(run, data), starts, context=context)
        finally:
            data.close()
        dreams = Dreams(
            model, began.state, num_envs, propagation=propagation or TS1(), mode=mode, uncertainty=uncertainty,
            reconstruction=began.reconstruction,
        )  # fmt: skip
        return cls(dreams, agent.action, observation=observation, trust=known, **settings)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin all dreams, or those of a mask.

        Args:
            seed: of everything that is drawn from now on; goes on as it was if None.
            options: ``reset_mask``, (N,) bool, is for those that are to begin anew; the others stay where they are.

        Raises:
            TypeError, ValueError: the mask is none of N dreams.
            ResetNeeded: a mask before all have begun.
        """
        super().reset(seed=seed)
        mask = as_mask((options or {}).get("reset_mask"), self.num_envs, self.dreams.device)
        if seed is not None or not self._begun:
            self.dreams.seed(int(self.np_random.integers(2**63)))
        if not self._begun and not mask.all():
            raise ResetNeeded("no dream has begun yet: reset all of them before some")
        self._begin(mask)
        self._begun = True
        return self._give(self._observe()), self._infos({"is_first": (mask, mask)})

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move all dreams by one action each.

        Args:
            actions: (N, A) in [-1, 1], clipped to that as real environments do; (N,) from 0 to A - 1 when discrete.

        Raises:
            ResetNeeded: nothing was reset yet, or a dream has ended and autoreset is disabled.
            ValueError: actions of another shape, out of range, or not finite.
        """
        if not self._begun:
            raise ResetNeeded("no dream has begun yet: reset first")
        over = self._ended
        if self.autoreset_mode is AutoresetMode.DISABLED and over.any():
            ended = over.nonzero().squeeze(1).tolist()
            raise ResetNeeded(f'dreams {ended} have ended: reset(options={{"reset_mask": ...}}) before the next step')
        action = as_actions(actions, self.num_envs, self.action, self.dreams.device)
        step = self.dreams.step(action)
        self._steps = self._steps + 1
        self._belief = self._belief * self.truncation(step.uncertainty.unsqueeze(1)).squeeze(1)
        uncertain, terminated = self._belief < 0.5, self._terminates(step.cont)
        truncated = uncertain if self.horizon is None else uncertain | (self._steps >= self.horizon)
        known = judged(self._judge, self.dreams, action)
        truncated = truncated | ~known.get("trusted", ~truncated)
        reward = with_price(step, self.uncertainty_weight, known)
        of_step = {"cont": step.cont, "imagined_reward": step.reward, "uncertain": uncertain}
        of_step |= known | ({"uncertainty": step.uncertainty} if self.dreams.uncertainty else {})
        if over.any():  # their last step was the one before: this one begins anew
            reward = reward.masked_fill(over, 0)
            terminated, truncated = terminated & ~over, truncated & ~over
            self._begin(over)
        self._ended = terminated | truncated
        first, final = over, {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            first = self._ended
            final = self._final(of_step, first)
            self._begin(first)
        infos = self._infos({name: (value, ~first) for name, value in of_step.items()})
        infos |= self._infos({"is_first": (first, torch.ones_like(first))}) | final
        return self._give(self._observe()), *map(self._give, (reward.float(), terminated, truncated)), infos

    @torch.no_grad()
    def render(self) -> tuple[np.ndarray, ...]:
        """The decoder's image of every dream, each (h, w, 3) uint8."""
        image = self.dreams.world_model.decoder.image(self.dreams.state.feature)
        return tuple(rearrange(image, "n c h w -> n h w c").cpu().numpy())

    def policy(self, predict: Predict) -> LatentPolicy:
        """What was learned here, for real environments: it filters their images, and observes the state as in a dream.

        Args:
            predict: observations (N, ...) to actions; see ``FunctionController``.
        """
        controller = FunctionController(self.dreams.world_model, self.action, predict, self.observation)
        return LatentPolicy(controller)

    def stable_baselines(self) -> StableBaselinesDreams:
        """These dreams as a ``VecEnv`` of Stable-Baselines3.

        Raises:
            UserError: the library is not installed, or the dreams are none that it could take.
        """
        from worldmodel.dream.stable_baselines import StableBaselinesDreams

        return StableBaselinesDreams(self)

    def _begin(self, which: Tensor) -> None:
        self.dreams.begin(which)
        self._steps, self._belief = self._steps.masked_fill(which, 0), self._belief.masked_fill(which, 1)
        self._ended = self._ended & ~which
        if self._judge is not None and self.dreams.reconstruction is not None:
            self._judge.begin(self.dreams.state, self.dreams.reconstruction, which)

    def _terminates(self, cont: Tensor) -> Tensor:
        return cont < (self.dreams.uniform() if self.continue_threshold is None else self.continue_threshold)

    @torch.no_grad()
    def _observe(self) -> Tensor:
        return self.observation(self.dreams.world_model, self.dreams.state)

    def _final(self, of_step: dict[str, Tensor], ended: Tensor) -> dict[str, Any]:
        """What the last steps led to, of the dreams that have ended."""
        place = ended.nonzero().squeeze(1)
        with torch.no_grad():
            seen = self.observation(self.dreams.world_model, self.dreams.state.map(lambda x: x[place]))
        observations = np.full(self.num_envs, None, object)
        for i, one in zip(place.tolist(), seen, strict=True):
            observations[i] = self._give(one)
        known = {name: (value, ended) for name, value in of_step.items()}
        known["is_first"] = (torch.zeros_like(ended), ended)
        mask = self._give(ended)
        return {"final_obs": observations, "_final_obs": mask, "final_info": self._infos(known), "_final_info": mask}

    def _infos(self, known: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """Values (N,), zero where they are not known, and their masks, of what is known of any dream."""
        infos: dict[str, Any] = {}
        for name, (value, mask) in known.items():
            if mask.any():
                infos |= {name: self._give(value.masked_fill(~mask, 0)), f"_{name}": self._give(mask)}
        return infos

    def _give(self, x: Tensor) -> Any:
        x = x.clone()  # what the caller does to it is his own affair
        return x if self.tensors else x.cpu().numpy()
