"""The types that travel between the parts. NamedTuples: they pass through vmap, pytrees and device transfer.

Legend: B batch, T time, H horizon, K ensemble members, A action size, D deter, S latents, C classes, Z Gaussian size,
E shape of an image's stored features, V numbers beside an image.

Time alignment. A record t holds what the agent saw at t and what led there::

    record      0          1          2         ...     L
    image     o_0 (reset)  o_1        o_2               o_L
    action    0            a_0 -> o_1 a_1 -> o_2        a_{L-1} -> o_L
    reward    0            r(o_1)     r(o_2)            r(o_L)
    is_first  1            0          0                 0

``action[t]`` led to ``image[t]``, and so did ``reward[t]``. ``is_first[t]`` cuts the memory; it may stand anywhere
inside a sequence. ``is_terminal[t]`` says that nothing follows o_t (a time limit is no terminal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


class ActionSpec(NamedTuple):
    """What an action is: ``size`` numbers in [-1, 1], or a one-hot vector of ``size`` when ``discrete``."""

    size: int
    discrete: bool
    repeat: int = 1  # environment frames that one action lasts: a step of the agent


class SequenceBatch(NamedTuple):
    """Real sequences, aligned as drawn above. ``episode`` numbers the episode of each record within its replay."""

    image: Tensor  # (B, T, 3, H, W) uint8
    action: Tensor  # (B, T, A) float32
    reward: Tensor  # (B, T) float32, NaN where nobody knows it
    is_first: Tensor  # (B, T) bool
    is_terminal: Tensor  # (B, T) bool
    episode: Tensor  # (B, T) int64
    features: Tensor | None = None  # (B, T, *E) float32, what the encoder's frozen part made of the image, if stored
    vector: Tensor | None = None  # (B, T, V) float32, what was observed beside the image, if anything

    def map(self, function: Callable[[Tensor], Tensor]) -> SequenceBatch:
        """``function`` of every tensor; where there is none, none."""
        return SequenceBatch._make(None if x is None else function(x) for x in self)


class Observation(NamedTuple):
    """What a policy sees of N environments at one moment (torch tensors)."""

    image: Tensor  # (N, 3, H, W) uint8
    is_first: Tensor  # (N,) bool
    features: Tensor | None = None  # (N, *E) float32, as in SequenceBatch, if they are known
    vector: Tensor | None = None  # (N, V) float32, as in SequenceBatch

    def map(self, function: Callable[[Tensor], Tensor]) -> Observation:
        """``function`` of every tensor; where there is none, none."""
        return Observation._make(None if x is None else function(x) for x in self)


class LatentState(NamedTuple):
    """A latent state s. ``params`` are those of the distribution that ``stoch`` was drawn from (see Latents)."""

    deter: Tensor  # (*B, D) memory
    stoch: Tensor  # (*B, Z) sample; a categorical's one-hot vectors lie flat, Z = S * C
    params: Tensor  # (*B, P) logits, or mean and raw deviation

    @property
    def feature(self) -> Tensor:
        """All that the heads see of a state, (*B, D + Z)."""
        import torch  # a worker process imports this module and must not load torch

        return torch.cat([self.deter, self.stoch], -1)

    def map(self, function: Callable[[Tensor], Tensor]) -> LatentState:
        """``function`` of every tensor."""
        return LatentState._make(function(x) for x in self)

    @staticmethod
    def stack(states: Sequence[LatentState], dim: int = 0) -> LatentState:
        """Several states as one, along a new dimension."""
        import torch

        return LatentState._make(torch.stack(x, dim) for x in zip(*states, strict=True))


class Uncertainty(NamedTuple):
    """Uncertainty of an ensemble's next state: total = aleatoric + epistemic, as nats (categorical) or variances."""

    total: Tensor  # (*B,)
    aleatoric: Tensor  # (*B,) noise in the data
    epistemic: Tensor  # (*B,) ignorance of the model


S = TypeVar("S")


class Trajectory(NamedTuple, Generic[S]):
    """Rollouts of H steps. ``action[t]`` leads from ``state[t]`` to ``state[t + 1]``, which earns ``reward[t]``.

    States are latent, or flat vectors where a planner asks. What stands after ``uncertainty`` is there where it was
    asked for (``insight/rollouts.py``). Rollouts of each member on its own have K before B everywhere.
    """

    state: S  # each (B, H + 1, ...)
    action: Tensor  # (B, H, A)
    reward: Tensor  # (B, H)
    cont: Tensor  # (B, H) probability that state[t + 1] is not terminal
    uncertainty: Tensor  # (B, H) epistemic uncertainty of the step, 1 is what the model has on its own data
    image: Tensor | None = None  # (B, H + 1, 3, h, w) uint8, of every state as the decoder draws it
    members: Tensor | None = None  # (K, B, H + 1, 3, h, w) uint8, the same where each member imagines on its own
    truth: Tensor | None = None  # (B, H + 1, 3, h, w) uint8, real images at the decoder's size; black where not valid
    real_reward: Tensor | None = None  # (B, H), NaN where it is not known
    valid: Tensor | None = None  # (B, H + 1) bool: it is known what really happened
    expected_error: Tensor | None = None  # (B, H, 3) in pixels by now, low, high, median; H from the context on
    trusted: Tensor | None = None  # (B,) int, steps until a dream is likely worse than the last picture
    context: int = 1  # states at the beginning that were filtered from real images; the others are imagined

    def map(self, function: Callable[[Tensor], Tensor]) -> Trajectory[S]:
        """``function`` of every tensor; where there is none, none."""

        def of(x: Any) -> Any:
            if x is None or isinstance(x, int):
                return x
            return x.map(function) if isinstance(x, LatentState) else function(x)

        return Trajectory._make(of(x) for x in self)


class Plan(NamedTuple):
    """What a planner would do in B states at once. Sequences lie in the space that the planner searches."""

    action: Tensor  # (B, A) what to do now, within the limits of an action
    mean: Tensor  # (B, H, A) the whole plan
    std: Tensor  # (B, H, A) spread of the search when it ended, zero where nothing was drawn
    value: Tensor  # (B,) imagined return of the plan, its uncertainty weighed in
    uncertainty: Tensor  # (B,) mean uncertainty along the plan
    elites: Tensor  # (B, E, H, A) the best sequences that were tried, best first
    elite_values: Tensor  # (B, E) their imagined returns
