"""The one optimizer: groups with rates and limits of their own, and steps that are skipped where they would do harm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn

from encoders.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Range, Share
from worldmodel.errors import UserError

LearningRate = Annotated[float, Range(least=0, most=1)]


class Optimizer:
    """Adam over the parts of an agent. A step whose gradient is not finite is skipped and counted.

    ``updates`` counts the steps taken, ``skipped`` those that were not, ``skipped_in_a_row`` the ones since the last
    that was taken.

    Args:
        learning_rate: of the world model.
        actor_learning_rate: of the actor.
        critic_learning_rate: of the critic.
        pretrained_learning_rate: of the encoder's pretrained weights, those that are tuned.
        adam_epsilon: Adam's epsilon.
        clip: largest gradient norm of the world model, of the actor and of the critic; tuned pretrained weights are
            clipped by themselves, like the world model.
        warmup: updates over which the learning rates rise from zero.
        decay: share of the learning rates that is left after ``schedule.rounds`` as they were when the run began; they
            fall linearly, and stay there if the run goes on for longer. Without rounds they do not fall.
        max_skipped: steps in a row that may be skipped before training stops.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 4e-4,
        actor_learning_rate: LearningRate = 1e-4,
        critic_learning_rate: LearningRate = 1e-4,
        pretrained_learning_rate: LearningRate = 1e-5,
        adam_epsilon: PositiveFloat = 1e-6,
        clip: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (100.0, 1.0, 10.0),
        warmup: NonNegativeInt = 100,
        decay: Share = 1.0,
        max_skipped: PositiveInt = 5,
    ) -> None:
        names = ("world_model", "actor", "critic", "pretrained")
        rates = (learning_rate, actor_learning_rate, critic_learning_rate, pretrained_learning_rate)
        self.rates, self.clip = dict(zip(names, rates, strict=True)), dict(zip(names, (*clip, clip[0]), strict=True))
        self.adam_epsilon, self.warmup, self.decay, self.max_skipped = adam_epsilon, warmup, decay, max_skipped
        self.decay_over = 0  # updates; never if 0
        self.updates = self.skipped = self.skipped_in_a_row = 0

    def setup(self, parts: Mapping[str, list[nn.Parameter]], fabric: Fabric) -> None:
        """Take charge of the parameters, by part, on fabric's devices and at its precision."""
        self.fabric, self.precision = fabric, fabric.strategy.precision
        self.scaler = getattr(self.precision, "scaler", None)  # of fp16 alone
        groups = [{"params": part, "lr": self.rates[name], "name": name} for name, part in parts.items()]
        # a fused step would unscale by itself, which has to come before clipping
        self.adam = torch.optim.Adam(groups, eps=self.adam_epsilon, fused=self.scaler is None)
        self._adam = cast(_FabricOptimizer, fabric.setup_optimizers(self.adam))

    def step(self, loss: Tensor) -> dict[str, Tensor] | None:
        """Differentiate the loss (), clip, and step.

        Returns:
            The gradient's norm () of each part; None where it was not finite and no step was taken.

        Raises:
            UserError: too many steps in a row were skipped.
        """
        self.fabric.backward(loss)
        self.precision.unscale_gradients(self.adam)
        norms = {
            group["name"]: nn.utils.clip_grad_norm_(group["params"], self.clip[group["name"]])
            for group in self.adam.param_groups
        }
        # gradients are averaged over ranks by now, so every rank comes to the same decision
        finite = bool(torch.stack(list(norms.values())).sum().isfinite())
        if finite:
            self._set_rates()
        if finite or self.scaler is not None:  # which skips the step itself, and lowers its scale
            self._adam.step()
        self._adam.zero_grad()
        self._count(finite)
        return norms if finite else None

    def state_dict(self) -> dict[str, Any]:
        """Moments, counters and the scale of fp16: tensors, numbers, strings, lists and dicts."""
        counters = [self.updates, self.skipped, self.skipped_in_a_row, self.decay_over]
        return {"adam": self.adam.state_dict(), "precision": self.precision.state_dict(), "counters": counters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Return to a saved moment."""
        self.adam.load_state_dict(state["adam"])
        self.precision.load_state_dict(state["precision"])
        self.updates, self.skipped, self.skipped_in_a_row, self.decay_over = state["counters"]

    def _set_rates(self) -> None:
        share = min(1.0, (self.updates + 1) / max(1, self.warmup))
        if self.decay_over:
            share *= 1 - (1 - self.decay) * min(1.0, self.updates / self.decay_over)
        for group in self.adam.param_groups:
            group["lr"] = self.rates[group["name"]] * share

    def _count(self, finite: bool) -> None:
        self.updates += finite
        self.skipped += not finite
        if finite:
            self.skipped_in_a_row = 0
        elif self.scaler is None or self.scaler.get_scale() < 1:  # above, fp16 is still finding its scale
            self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.max_skipped:
            raise UserError(
                f"the loss was not finite {self.max_skipped} times in a row after {self.updates} updates: "
                "the last checkpoint is kept; lower the learning rates and resume"
            )
