"""Is a record unlike the data? What each part of the model has to say, in one number. Legend: n records, m of the data.

Members that disagree know an unseen *transition*. An image that the encoder or the decoder has never met may be mapped
to a state like any other, whose transition all members agree on: then the posterior that is far from the prior, and the
picture that is far from the image, know more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from worldmodel.insight.calibration import Numbers

JUDGES = ("epistemic", "surprise", "reconstruction")  # of the transition, the posterior and the decoder


def novelty(found: Mapping[str, Numbers], data: Mapping[str, Numbers]) -> np.ndarray:
    """How unlike the data records are, 0 or more: -2 sum_j log p_j (Fisher's method), of those of ``JUDGES`` there are.

    p_j is the share of the data that is at least as strange in the eyes of j. The judges do not err independently, so
    the sum orders records and is no test of significance.

    Args:
        found: measures (n,) by name, as ``step_measures`` gives them.
        data: the same (m,) of records like those that the model was trained on.

    Returns:
        (n,)
    """
    told = [-2 * np.log(tail(found[name], data[name])) for name in JUDGES if name in found and name in data]
    return np.sum(told, axis=0)


def tail(values: Numbers, data: Numbers) -> np.ndarray:
    """Share (n,) in (0, 1] of the data (m,), and of the value itself, that is no less than each value."""
    given, known = (x.detach().cpu().numpy() if isinstance(x, Tensor) else x for x in (values, data))
    ordered = np.sort(known.ravel())
    below = np.searchsorted(ordered, given, side="left")
    return (len(ordered) - below + 1) / (len(ordered) + 1)
