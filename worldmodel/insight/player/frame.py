"""What there is to see at one moment of a dream.

Legend: A action size, h x w the decoder's pixels, H x W the truth's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from worldmodel.insight.player.tracker import Judgement


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
    behind: bool | None = None  # whether the last picture that was seen is nearer to the truth by now; as truth
    judgement: Judgement | None = None  # what that is likely to be; None in step 0, and where nothing is known of it
    lost: bool = False  # the dream has fallen behind that picture, or likely has; once it is lost it stays so
