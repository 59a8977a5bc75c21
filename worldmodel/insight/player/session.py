"""A dream that somebody drives: it begins in a real record and is moved by one action at a time. No web here.

Legend: K members, L records, A action size, D memory, P parameters, h x w the decoder's pixels, H x W the simulator's.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from worldmodel.control.controller import Controller
from worldmodel.control.planners.base import bound
from worldmodel.insight.player.frame import Frame
from worldmodel.insight.player.replayable import Recorded, ReplayableEnv, SeenRecord, SeenRecords
from worldmodel.insight.player.tracker import Tracker
from worldmodel.insight.rollouts import picture
from worldmodel.insight.trust import Trust
from worldmodel.model.rssm import Posterior
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, LatentState

ME = "me"
_STRONG = 2


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
            if episode.image.dtype != np.uint8 or episode.image.ndim != 4:
                found = f"{episode.image.dtype} {episode.image.shape}"
                raise ValueError(f"episode {episode.name!r}: images must be uint8 (L, 3, H, W), got {found}")
        if context < 1:
            raise ValueError(f"context must be at least 1, got {context}")
        if ME in (controllers or {}):
            raise ValueError(f"no controller can be called {ME!r}: that is the person at the keys")
        self.action, self.episodes, self.controllers = action, list(episodes), dict(controllers or {})
        self.driver, self.name = ME, name
        self._world_model, self._replayable, self._seen = world_model, reality, SeenRecords(context)
        self._random = torch.Generator().manual_seed(seed).get_state()
        self._state: LatentState | None = None
        self._drawn: dict[str, Tensor] = {}  # members of this dream
        self._beside: ReplayableEnv | None = None  # of this dream
        self._memory: Any = None  # the controller's
        self._last: Tensor | None = None  # the picture (1, 3, h, w) that the dream began with
        self._steps, self._lost = 0, False
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
        self._beside = None if chosen.number is None else self._replayable
        if self._beside is not None:
            self._beside.begin(chosen, record)
        self._seen.begin(chosen, record)
        return self._begin()

    @torch.no_grad()
    def show(self) -> Frame:
        """Show the dream the real frames up to the present one; it begins again there, beside the same simulator.

        Raises:
            ValueError: nothing was reset yet, or no simulator runs.
        """
        if self._state is None:
            raise ValueError("no dream has begun: reset first")
        if self._steps and (self._beside is None or not self._beside.running):
            why = "no simulator runs here" if self._beside is None else "the real episode is over"
            raise ValueError(f"there is no real frame to show: {why}")
        return self._begin()

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
        self._lost = self._lost or (judgement is not None and not judgement.trusted)
        taken = chosen[0].float().cpu().numpy()
        real = None if self._beside is None else self._beside.step(taken)
        if real is None:
            over = self._beside is not None
            frame = self._frame(prior, action=taken, driver=self.driver, truth=None, real_reward=None, ended=over)
        else:
            self._seen.add(SeenRecord(real.image, taken, real.reward, real.vector))
            truth = rearrange(real.image, "c h w -> h w c")
            frame = self._frame(
                prior, action=taken, driver=self.driver, truth=truth, real_reward=real.reward, ended=real.ended
            )
        self._lost = self._lost or bool(frame.behind)
        return frame._replace(judgement=judgement, lost=self._lost)

    def close(self) -> None:
        """Stop the simulator."""
        if self._replayable is not None:
            self._replayable.close()

    def _begin(self) -> Frame:
        """The dream begins in the last record that was seen."""
        posterior = self._filter(self._seen)
        self._drawn = self._world_model.rssm.transition.drawn()
        self._state, self._steps, self._lost = posterior.state.map(lambda x: x[:, -1]), 0, False
        self._last = picture(self._world_model, self._state.feature)
        image, action, reward, _ = self._seen.last
        if self._tracker is not None:
            self._tracker.begin(self._state, image)
        self._forget()
        truth, expected = rearrange(image, "c h w -> h w c"), posterior.prior[:, :, -1]
        return self._frame(expected, action=action, driver="record", truth=truth, real_reward=reward, ended=False)

    def _filter(self, seen: SeenRecords) -> Posterior:
        """The records that were seen: states (1, T, ...), priors (K, 1, T, P)."""
        images, actions, vectors, begins = seen.arrays()
        like = self._world_model.rssm.from_stoch.weight
        image = torch.from_numpy(images[None]).to(like.device)  # (1, T, 3, H, W)
        action = torch.from_numpy(actions[None]).to(like)
        is_first = torch.zeros(action.shape[:2], dtype=torch.bool, device=like.device)
        is_first[:, 0] = begins
        vector = None if vectors is None else torch.from_numpy(vectors[None]).to(like)  # (1, T, V)
        embed = self._world_model.embed(image, vector=vector)
        with self._own_draws():
            return self._world_model.rssm.observe(embed, action, is_first, mode=True)

    def _members(self, deter: Tensor, prior: Tensor) -> Tensor:
        """The picture (K, *B, 3, h, w) of each member's most likely latent, for a memory (*B, D) and (K, *B, P)."""
        mode = self._world_model.latents.mode(prior)
        return picture(self._world_model, torch.cat([deter.expand(len(prior), *deter.shape), mode], -1))

    @torch.no_grad()
    def _usual_spread(self) -> float:
        spreads = []
        for episode in self.episodes:
            self._seen.begin(episode, len(episode.image) // 2)
            posterior = self._filter(self._seen)
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
            **({} if truth is None else self._errors(feature, truth)),
        )

    def _errors(self, feature: Tensor, truth: np.ndarray) -> dict[str, Any]:
        """How far dream and truth are apart, and whether the last picture that was seen is nearer."""
        assert self._last is not None
        real = torch.from_numpy(np.ascontiguousarray(truth)).to(feature.device)
        small = self._world_model.decoder.pixels.resize(rearrange(real, "h w c -> 1 c h w"))
        error, still = ((x - small).abs().mean() for x in (picture(self._world_model, feature), self._last))
        return {"error": float(error), "behind": bool(error > still)}

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
