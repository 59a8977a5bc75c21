"""A dream that somebody drives: it begins in a real record and is moved by one action at a time. No web here.

Legend: K members, L records, A action size, D memory, P parameters, h x w the decoder's pixels, H x W the simulator's.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from worldmodel.control.controller import Controller
from worldmodel.control.planners.base import bound
from worldmodel.insight.player.replayable import Recorded, ReplayableEnv
from worldmodel.insight.player.tracker import Judgement, Tracker
from worldmodel.insight.rollouts import picture
from worldmodel.insight.trust import Trust
from worldmodel.model.rssm import Posterior
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, LatentState

ME = "me"
_STRONG = 2


class Frame(NamedTuple):
    """One moment of a dream, and of the simulator under the same actions."""

    step: int  # since the last record that was seen; 0 is the model's reconstruction of that record
    image: np.ndarray  # (h, w, 3) uint8, the dream
    spread: np.ndarray  # (h, w) float32 in [0, 0.5], deviation over members of the picture, mean over colours
    truth: np.ndarray | None  # (H, W, 3) uint8; None where there is no simulator, or its episode is over
    action: np.ndarray  # (A,) float32, what led here
    driver: str  # who chose it
    reward: float  # imagined
    real_reward: float | None  # as truth
    uncertainty: float  # epistemic, of the step that led here; 1 is usual on the training data
    cont: float  # imagined probability that this state is not terminal
    ended: bool  # the simulator's episode is over; the dream goes on
    error: float | None = None  # of the dream in pixels, mean absolute, in [0, 1]; as truth
    judgement: Judgement | None = None  # what that is likely to be; None in step 0, and where nothing is known of it


class PlayerSession:
    """One dream, and who drives it.

    The dream follows the mixture of the members by its most likely latents, so the same start and actions give the same
    frames. What a planner draws comes from a generator of the session's own. Members that are samples are drawn at the
    start of a dream and last for it, whoever else dreams with this model.

    ``strong`` is a spread of a pixel that is much: twice what 99 of 100 pixels stay below in real frames of the
    episodes; 1 where the members never differ.

    Args:
        world_model: who dreams.
        action: what an action is.
        episodes: real ones, to begin in.
        controllers: who else can drive, by name.
        reality: the simulator that the episodes were played in; no truth if None.
        context: records, at most, that are seen before a dream.
        seed: of what is drawn.
        trust: what is known of how wrong dreams are.
        name: what the player is headed by, such as the run and its task.

    Raises:
        ValueError: there is no episode, or one is too short or of other actions; a controller is called ``me``; or the
            context is below 1.
    """

    def __init__(
        self,
        world_model: WorldModel,
        action: ActionSpec,
        episodes: Sequence[Recorded],
        controllers: Mapping[str, Controller] | None = None,
        reality: ReplayableEnv | None = None,
        context: int = 50,
        seed: int = 0,
        trust: Trust | None = None,
        name: str = "",
    ) -> None:
        if not episodes:
            raise ValueError("a dream begins in a real record: give at least one episode")
        for episode in episodes:
            if len(episode.image) < 2 or episode.action.shape != (len(episode.image), action.size):
                wanted = f"(L, {action.size}), L 2 or more"
                raise ValueError(f"episode {episode.name!r}: actions must be {wanted}, got {episode.action.shape}")
        if context < 1:
            raise ValueError(f"context must be at least 1, got {context}")
        if ME in (controllers or {}):
            raise ValueError(f"no controller can be called {ME!r}: that is the person at the keys")
        self.action, self.episodes, self.controllers = action, list(episodes), dict(controllers or {})
        self.driver, self.name = ME, name
        self._world_model, self._replayable, self._context = world_model, reality, context
        self._random = torch.Generator().manual_seed(seed).get_state()
        self._state: LatentState | None = None
        self._drawn: dict[str, Tensor] = {}  # members of this dream
        self._beside: ReplayableEnv | None = None  # of this dream
        self._memory: Any = None  # the controller's
        self._steps = 0
        self._tracker = None if trust is None else Tracker(world_model, trust)
        self.strong = _STRONG * self._usual_spread() or 1.0

    @torch.no_grad()
    def reset(self, episode: int = 0, record: int = 0) -> Frame:
        """Filter an episode's records up to this one; the dream begins there, and so does the simulator.

        Args:
            episode: place in ``episodes``.
            record: from 0 to L - 2, so that something real follows.

        Raises:
            ValueError: there is no such record.
            UserError: the simulator failed.
        """
        if not 0 <= episode < len(self.episodes):
            raise ValueError(f"episode must be from 0 to {len(self.episodes) - 1}, got {episode}")
        chosen = self.episodes[episode]
        if not 0 <= record < len(chosen.image) - 1:
            raise ValueError(f"record must be from 0 to {len(chosen.image) - 2} in this episode, got {record}")
        posterior = self._filter(chosen, record)
        self._drawn = self._world_model.rssm.transition.drawn()
        self._state, self._steps = posterior.state.map(lambda x: x[:, -1]), 0
        if self._tracker is not None:
            self._tracker.begin(self._state)
        self._beside = None if chosen.number is None else self._replayable
        if self._beside is not None:
            self._beside.begin(chosen, record)
        self._forget()
        truth = rearrange(chosen.image[record], "c h w -> h w c")
        expected, reward = posterior.prior[:, :, -1], float(chosen.reward[record])
        return self._frame(
            expected, action=chosen.action[record], driver="record", truth=truth, real_reward=reward, ended=False
        )

    def drive(self, who: str) -> None:
        """Hand over to ``me`` or to one of ``controllers``.

        Raises:
            ValueError: there is nobody of this name.
        """
        names = [ME, *self.controllers]
        if who not in names:
            near = difflib.get_close_matches(who, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names)}"
            raise ValueError(f"nobody called {who!r} can drive: {hint}")
        if who != self.driver:
            self.driver = who
            self._forget()

    @torch.no_grad()
    def step(self, action: Sequence[float] | np.ndarray | None = None) -> Frame:
        """Move dream and simulator by one action.

        Args:
            action: (A,) numbers, clipped to [-1, 1]; when discrete the largest is chosen. Only for who drives as
                ``me``; others choose for themselves.

        Raises:
            ValueError: nothing was reset yet, or the action is missing, of another size, or not finite.
            UserError: the simulator failed.
        """
        if self._state is None:
            raise ValueError("no dream has begun: reset first")
        if self.driver == ME:
            chosen = bound(self._given(action), self.action)
        else:
            with self._own_draws():
                chosen, self._memory = self.controllers[self.driver].act(self._state, self._memory)
        rssm = self._world_model.rssm
        rssm.transition.hold(self._drawn)
        deter, prior = rssm.img_step(self._state, chosen)
        self._state = rssm.sample_state(deter, prior, None, mode=True)
        self._steps += 1
        judgement = None if self._tracker is None else self._tracker.step(self._state, chosen)
        taken = chosen[0].float().cpu().numpy()
        real = None if self._beside is None else self._beside.step(taken)
        if real is None:
            over = self._beside is not None
            frame = self._frame(prior, action=taken, driver=self.driver, truth=None, real_reward=None, ended=over)
        else:
            truth = rearrange(real.image, "c h w -> h w c")
            frame = self._frame(
                prior, action=taken, driver=self.driver, truth=truth, real_reward=real.reward, ended=real.ended
            )
        return frame._replace(judgement=judgement)

    def close(self) -> None:
        """Stop the simulator."""
        if self._replayable is not None:
            self._replayable.close()

    def _filter(self, episode: Recorded, record: int) -> Posterior:
        """The records before this one and itself, at most ``context``: states (1, T, ...), priors (K, 1, T, P)."""
        seen = slice(max(0, record + 1 - self._context), record + 1)
        like = self._world_model.rssm.from_stoch.weight
        image = torch.from_numpy(np.ascontiguousarray(episode.image[None, seen])).to(like.device)  # (1, T, 3, H, W)
        action = torch.from_numpy(np.ascontiguousarray(episode.action[None, seen])).to(like)
        is_first = torch.zeros(action.shape[:2], dtype=torch.bool, device=like.device)
        is_first[:, 0] = seen.start == 0
        with self._own_draws():
            return self._world_model.rssm.observe(self._world_model.embed(image), action, is_first, mode=True)

    def _members(self, deter: Tensor, prior: Tensor) -> Tensor:
        """The picture (K, *B, 3, h, w) of each member's most likely latent, for a memory (*B, D) and (K, *B, P)."""
        mode = self._world_model.latents.mode(prior)
        return picture(self._world_model, torch.cat([deter.expand(len(prior), *deter.shape), mode], -1))

    @torch.no_grad()
    def _usual_spread(self) -> float:
        spreads = []
        for episode in self.episodes:
            posterior = self._filter(episode, len(episode.image) // 2)
            some = torch.arange(posterior.prior.shape[2] - 1, -1, -4)
            members = self._members(posterior.state.deter[:, some], posterior.prior[:, :, some])
            spreads.append(_spread(members).flatten())
        return float(np.quantile(torch.cat(spreads).cpu().numpy(), 0.99))

    def _given(self, action: Sequence[float] | np.ndarray | None) -> Tensor:
        if action is None:
            raise ValueError("you drive: give an action")
        with np.errstate(over="ignore"):  # and is not finite then
            given = np.asarray(action, np.float32)
        if given.shape != (self.action.size,) or not np.isfinite(given).all():
            raise ValueError(f"an action is {self.action.size} finite numbers, got {reprlib.repr(given.tolist())}")
        return torch.from_numpy(given).to(self._world_model.rssm.from_stoch.weight)[None]

    def _frame(
        self,
        prior: Tensor,
        action: np.ndarray,
        driver: str,
        truth: np.ndarray | None,
        real_reward: float | None,
        ended: bool,
    ) -> Frame:
        """What there is to see of the present state, which the members expected as ``prior`` (K, 1, P)."""
        model, state = self._world_model, self._state
        assert state is not None
        feature = state.feature  # (1, D + Z)
        image = rearrange(model.decoder.image(feature), "1 c h w -> h w c")
        spread = _spread(self._members(state.deter, prior))[0]
        reward, uncertainty, cont = (
            float(x[0]) for x in (model.reward(feature), model.uncertainty(prior), model.cont(feature))
        )
        return Frame(
            step=self._steps,
            image=image.cpu().numpy(),
            spread=spread.cpu().numpy(),
            truth=truth,
            action=action,
            driver=driver,
            reward=reward,
            real_reward=real_reward,
            uncertainty=uncertainty,
            cont=cont,
            ended=ended,
            error=None if truth is None else self._error(feature, truth),
        )

    def _error(self, feature: Tensor, truth: np.ndarray) -> float:
        real = torch.from_numpy(np.ascontiguousarray(truth)).to(feature.device)
        small = self._world_model.decoder.pixels.resize(rearrange(real, "h w c -> 1 c h w"))
        return float((picture(self._world_model, feature) - small).abs().mean())

    def _forget(self) -> None:
        self._memory = self.controllers[self.driver].initial(1) if self.driver in self.controllers else None

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            yield
            self._random = torch.get_rng_state()


def _spread(members: Tensor) -> Tensor:
    """Deviation (*B, h, w) over members of pictures (K, *B, 3, h, w), mean over colours."""
    return members.std(0, unbiased=False).mean(-3)
