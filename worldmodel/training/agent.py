"""The LightningModule: one optimizer, one backward over a joint loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.policies import ActorPolicy
from worldmodel.errors import UserError
from worldmodel.experience.collector import run_episodes
from worldmodel.model.world_model import WorldModel
from worldmodel.training.randomness import own_randomness
from worldmodel.types import ActionSpec, SequenceBatch

WEIGHTS = {
    "reconstruction": 1.0,
    "reward": 1.0,
    "cont": 1.0,
    "dynamics": 1.0,
    "representation": 0.1,
    "complexity": 1.0,
    "actor": 1.0,
    "critic": 1.0,
    "replay_critic": 0.3,
}


class Evaluation(NamedTuple):
    """Returns of all episodes, and a video (T, H, W, 3) uint8 of the first."""

    returns: list[float]
    video: np.ndarray | None


class Agent(L.LightningModule):
    """World model, actor and critic, trained together.

    Args:
        action: what an action is; taken from the task.
        world_model: builds the world model from the action size.
        actor_critic: builds actor and critic from the action and the feature size.
        weights: weight of each loss by name; those not named keep their default. Their sum is differentiated once.
        learning_rate: of the world model.
        actor_learning_rate: of the actor.
        critic_learning_rate: of the critic.
        adam_epsilon: Adam's epsilon.
        clip: largest gradient norm of the world model, of the actor and of the critic.
        warmup: updates over which the learning rates rise from zero.
        decay: share of the learning rates that is left at ``trainer.max_epochs``; they fall linearly.
        compile: compile the losses (minutes at the start; worth it on a GPU).
        patience: losses in a row that may be not finite, each skipped and counted, before training stops.
        evaluation_episodes: episodes in an evaluation.
    """

    def __init__(
        self,
        action: ActionSpec,
        world_model: Callable[[int], WorldModel],
        actor_critic: Callable[[ActionSpec, int], ActorCritic],
        weights: dict[str, float] | None = None,
        learning_rate: float = 4e-4,
        actor_learning_rate: float = 1e-4,
        critic_learning_rate: float = 1e-4,
        adam_epsilon: float = 1e-6,
        clip: tuple[float, float, float] = (100.0, 1.0, 10.0),
        warmup: int = 100,
        decay: float = 1.0,
        compile: bool = False,
        patience: int = 5,
        evaluation_episodes: int = 10,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.action = action
        self.world_model = world_model(action.size)
        self.actor_critic = actor_critic(action, self.world_model.feature_size)
        if unknown := set(weights or {}) - set(WEIGHTS):
            raise UserError(f"no loss is called {sorted(unknown)[0]}: weights are of {', '.join(WEIGHTS)}")
        self.weights = WEIGHTS | (weights or {})
        self.rates = (learning_rate, actor_learning_rate, critic_learning_rate)
        self.adam_epsilon, self.clip, self.patience = adam_epsilon, clip, patience
        self.warmup, self.decay = warmup, decay
        self._losses = torch.compile(self.losses) if compile else self.losses
        self.evaluation_episodes = evaluation_episodes
        self.evaluation: Evaluation | None = None
        self.last_return: float | None = None
        self._loaded_updates = 0
        self.skipped, self.skipped_in_a_row = 0, 0
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @property
    def updates(self) -> int:
        """Gradient steps taken, in all; when validating, those of the checkpoint."""
        return self.global_step or self._loaded_updates

    def policy(self, explore: bool) -> ActorPolicy:
        """The actor, to collect with (``explore``) or to evaluate."""
        return ActorPolicy(self.world_model, self.actor_critic.actor, self.action.size, explore)

    def losses(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The joint loss () and metrics, from real sequences (B, T)."""
        losses, state, metrics = self.world_model.loss(batch)
        imagined, more = self.actor_critic.loss(self.world_model, state, batch)
        losses |= imagined
        if losses.keys() != self.weights.keys():
            raise AssertionError(f"losses {sorted(losses)} do not match weights {sorted(self.weights)}")
        means = {name: loss.mean() for name, loss in losses.items()}
        total = torch.stack([self.weights[name] * loss for name, loss in means.items()]).sum()
        detached = {f"loss/{name}": loss.detach() for name, loss in means.items()}
        return total, detached | metrics | more | {"loss/total": total.detach()}

    def training_step(self, batch: SequenceBatch, index: int) -> None:
        optimizer = cast(LightningOptimizer, self.optimizers())
        total, metrics = self._losses(batch)
        self.manual_backward(total)
        norms = [
            nn.utils.clip_grad_norm_(group["params"], limit)
            for group, limit in zip(optimizer.param_groups, self.clip, strict=True)
        ]
        # gradients are averaged over ranks by now, so every rank comes to the same decision
        if torch.stack(norms).sum().isfinite():
            self.skipped_in_a_row = 0
            self._schedule(optimizer)
            optimizer.step()
            self.actor_critic.critic.follow()
            names = ("world_model", "actor", "critic")
            self._accumulate(metrics | {f"gradient/{n}": x for n, x in zip(names, norms, strict=True)})
        else:
            self._skip()
        optimizer.zero_grad()

    def _schedule(self, optimizer: Any) -> None:
        share = min(1.0, (self.updates + 1) / max(1, self.warmup))
        epochs = self.trainer.max_epochs or 0
        if epochs > 0:
            share *= 1 - (1 - self.decay) * min(1.0, self.trainer.current_epoch / epochs)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    def _skip(self) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.patience:
            raise UserError(
                f"the loss was not finite {self.patience} times in a row after {self.updates} updates: "
                "the last checkpoint is kept; lower the learning rates and resume"
            )

    @torch.no_grad()
    def _accumulate(self, metrics: dict[str, Tensor]) -> None:
        self._count += 1
        for name, value in metrics.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def averages(self) -> dict[str, float]:
        """Mean of every metric since the last call, which this empties."""
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def validation_step(self, batch: int, index: int) -> None:
        """Run the episodes on every rank; ``evaluation`` then holds them all, and ``eval/return`` is their mean."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        world = self.trainer.world_size
        episodes = max(1, self.evaluation_episodes // world)
        with own_randomness(self.trainer.global_rank):
            environments = data.evaluation_environments()
            found = run_episodes(environments, self.policy(explore=False), episodes, record_video=True)
        returns = torch.tensor([episode.return_ for episode in found], device=self.device)
        self.evaluation = Evaluation(cast(Tensor, self.all_gather(returns)).flatten().tolist(), found[0].video)
        self.last_return = sum(self.evaluation.returns) / len(self.evaluation.returns)
        self.log("eval/return", self.last_return, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parts = (self.world_model, self.actor_critic.actor, self.actor_critic.critic)
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}
            for part, rate in zip(parts, self.rates, strict=True)
        ]
        return torch.optim.Adam(groups, eps=self.adam_epsilon, fused=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["agent"] = {
            "skipped": self.skipped,
            "in_a_row": self.skipped_in_a_row,
            "sums": dict(self._sums),
            "count": self._count,
            "last_return": self.last_return,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["agent"]
        self._loaded_updates = checkpoint["global_step"]
        self.skipped, self.skipped_in_a_row = state["skipped"], state["in_a_row"]
        self._sums, self._count, self.last_return = dict(state["sums"]), state["count"], state["last_return"]
