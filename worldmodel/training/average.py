"""The running mean of the weights, with which an agent is evaluated and looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from encoders.ranges import PositiveShare


class WeightAverage:
    """Exponential moving average of all weights that learn (Polyak and Juditsky 1992).

    An actor that is good at one update and bad at the next is good on average. Nothing learns from the mean, so that
    training is the same with and without it.

    Args:
        rate: share of the weights that the mean takes over at each update, in (0, 1]; a plain mean until it is that
            of 1 / rate updates. At 1 the mean is the weights themselves.

    Raises:
        ValueError: the rate is no share.
    """

    def __init__(self, rate: PositiveShare = 0.003) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"the rate of the weights' mean is a share in (0, 1], got {rate}")
        self.rate, self.count = rate, 0
        self._live: dict[str, nn.Parameter] = {}
        self._mean: dict[str, Tensor] = {}

    def setup(self, module: nn.Module) -> None:
        """Take charge of a module's weights as they are now."""
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._mean = {name: p.detach().clone() for name, p in self._live.items()} if self.rate < 1 else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move the mean towards the weights; after every update."""
        self.count += 1
        if self._mean:
            share = max(self.rate, 1 / self.count)
            torch._foreach_lerp_(list(self._mean.values()), [self._live[name] for name in self._mean], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the mean for weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, mean in self._mean.items():
            live = self._live[name]
            self._mean[name], live.data = live.data, mean

    def state_dict(self) -> dict[str, Any]:
        """The mean by the weights' names, and of how many updates it is."""
        return {"mean": self._mean, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to a saved moment; after ``setup``."""
        self.count = state["count"]
        for name, mean in self._mean.items():
            mean.copy_(state["mean"].get(name, self._live[name]))


def mean_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights and buffers to evaluate and to look at: the checkpoint's, with the mean where it holds one."""
    return checkpoint["state_dict"] | checkpoint.get("average", {}).get("mean", {})
