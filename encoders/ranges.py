"""Numbers with limits, as annotations: settings are compared with them before anything is built. Free of torch."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """Limits of a number: ``least <= x <= most`` and ``above < x < below``."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number lies within; one that is not finite never does."""
        inside = self.least <= value <= self.most and self.above < value < self.below
        return math.isfinite(value) and inside

    def __repr__(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return (
            " and ".join(f"{name} {limit:.10g}" for name, limit in limits.items() if math.isfinite(limit)) or "finite"
        )


PositiveInt = Annotated[int, Range(least=1)]
NonNegativeInt = Annotated[int, Range(least=0)]
Width = Annotated[int, Range(least=1, most=65536)]  # of a layer
Layers = Annotated[int, Range(least=0, most=64)]
Hidden = Annotated[int, Range(least=1, most=64)]  # layers, of which there is one
Members = Annotated[int, Range(least=1, most=1024)]
Side = Annotated[int, Range(least=1, most=4096)]  # pixels
Finite = Annotated[float, Range()]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
PositiveShare = Annotated[float, Range(above=0, most=1)]
ShareBelowOne = Annotated[float, Range(least=0, below=1)]
Seed = Annotated[int, Range(least=0, most=2**32 - 1)]
