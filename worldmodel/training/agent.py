"""The LightningModule: one optimizer, one backward over a joint loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.errors import UserError
from worldmodel.experience.collector import Policy, run_episodes
from worldmodel.model.world_model import WorldModel
from worldmodel.training.acting import Acting, ByActor
from worldmodel.training.randomness import own_randomness
from worldmodel.types import ActionSpec, SequenceBatch

WORLD_WEIGHTS = {
    "reconstruction": 1.0,
    "reward": 1.0,
    "cont": 1.0,
    "dynamics": 1.0,
    "representation": 0.1,
    "complexity": 1.0,
}
CONTROL_WEIGHTS = {"actor": 1.0, "critic": 1.0, "replay_critic": 0.3}


class Evaluation(NamedTuple):
    """Returns of all episodes, and a video (T, H, W, 3) uint8 of the first."""

    returns: list[float]
    video: np.ndarray | None


class Agent(L.LightningModule):
    """World model, actor and critic, trained together; or a world model alone, that a planner acts in.

    Args:
        action: what an action is; taken from the task.
        world_model: builds the world model from the action size.
        actor_critic: builds actor and critic from the action and the feature size; null for none.
        weights: weight of each loss by name; those not named keep their default. Their sum is differentiated once.
        learning_rate: of the world model.
        actor_learning_rate: of the actor.
        critic_learning_rate: of the critic.
        pretrained_learning_rate: of the encoder's pretrained weights, those that are tuned.
        adam_epsilon: Adam's epsilon.
        clip: largest gradient norm of the world model, of the actor and of the critic; tuned pretrained weights are
            clipped by themselves, like the world model.
        warmup: updates over which the learning rates rise from zero.
        decay: share of the learning rates that is left at ``trainer.max_epochs``; they fall linearly.
        compile: compile the losses (minutes at the start; worth it on a GPU).
        patience: losses in a row that may be not finite, each skipped and counted, before training stops.
        evaluation_episodes: episodes in an evaluation.
        collect_with: who acts in collection; the actor if null.
        evaluate_with: who acts in an evaluation; the actor if null.
    """

    def __init__(
        self,
        action: ActionSpec,
        world_model: Callable[[int], WorldModel],
        actor_critic: Callable[[ActionSpec, int], ActorCritic] | None,
        weights: dict[str, float] | None = None,
        learning_rate: float = 4e-4,
        actor_learning_rate: float = 1e-4,
        critic_learning_rate: float = 1e-4,
        pretrained_learning_rate: float = 1e-5,
        adam_epsilon: float = 1e-6,
        clip: tuple[float, float, float] = (100.0, 1.0, 10.0),
        warmup: int = 100,
        decay: float = 1.0,
        compile: bool = False,
        patience: int = 5,
        evaluation_episodes: int = 10,
        collect_with: Acting | None = None,
        evaluate_with: Acting | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.action = action
        self.world_model = world_model(action.size)
        feature_size = self.world_model.feature_size
        self.actor_critic = None if actor_critic is None else actor_critic(action, feature_size)
        known = WORLD_WEIGHTS | ({} if self.actor_critic is None else CONTROL_WEIGHTS)
        if unknown := set(weights or {}) - set(known):
            raise UserError(f"no loss is called {sorted(unknown)[0]}: weights are of {', '.join(known)}")
        self.weights = known | (weights or {})
        self._names = tuple(self.parts)
        rates = (learning_rate, actor_learning_rate, critic_learning_rate, pretrained_learning_rate)
        settings = zip(("world_model", "actor", "critic", "pretrained"), rates, (*clip, clip[0]), strict=True)
        rows = [(rate, limit) for name, rate, limit in settings if name in self._names]
        self.rates, self.clip = zip(*rows, strict=True)
        self.adam_epsilon, self.patience = adam_epsilon, patience
        self.warmup, self.decay = warmup, decay
        self._losses = torch.compile(self.losses) if compile else self.losses
        self.evaluation_episodes = evaluation_episodes
        self.collect_with, self.evaluate_with = collect_with or ByActor(), evaluate_with or ByActor()
        for acting in (self.collect_with, self.evaluate_with):
            acting.check(self.world_model, self.actor_critic, action)
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

    @property
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that learn, by what has a learning rate and a limit of the gradient of its own."""
        modules: dict[str, nn.Module] = {"world_model": self.world_model}
        if self.actor_critic is not None:
            modules |= {"actor": self.actor_critic.actor, "critic": self.actor_critic.critic}
        pretrained = [p for p in self.world_model.encoder.pretrained_parameters() if p.requires_grad]
        apart = {id(p) for p in pretrained}
        parts = {
            name: [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
            for name, module in modules.items()
        }
        return parts | ({"pretrained": pretrained} if pretrained else {})

    def policy(self, explore: bool) -> Policy:
        """Who acts, to collect with (``explore``) or to evaluate."""
        acting = self.collect_with if explore else self.evaluate_with
        return acting.policy(self.world_model, self.actor_critic, self.action, explore)

    def losses(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The joint loss () and metrics, from real sequences (B, T)."""
        losses, state, metrics = self.world_model.loss(batch)
        if self.actor_critic is not None:
            imagined, more = self.actor_critic.loss(self.world_model, state, batch)
            losses, metrics = losses | imagined, metrics | more
        if losses.keys() != self.weights.keys():
            raise AssertionError(f"losses {sorted(losses)} do not match weights {sorted(self.weights)}")
        means = {name: loss.mean() for name, loss in losses.items()}
        total = torch.stack([self.weights[name] * loss for name, loss in means.items()]).sum()
        detached = {f"loss/{name}": loss.detach() for name, loss in means.items()}
        return total, detached | metrics | {"loss/total": total.detach()}

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
            if self.actor_critic is not None:
                self.actor_critic.critic.follow()
            self._accumulate(metrics | {f"gradient/{n}": x for n, x in zip(self._names, norms, strict=True)})
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
        # Lightning's inference mode would keep planners from taking gradients
        with own_randomness(self.trainer.global_rank), torch.inference_mode(False), torch.no_grad():
            environments = data.evaluation_environments()
            found = run_episodes(environments, self.policy(explore=False), episodes, record_video=True)
        returns = torch.tensor([episode.return_ for episode in found], device=self.device)
        self.evaluation = Evaluation(cast(Tensor, self.all_gather(returns)).flatten().tolist(), found[0].video)
        self.last_return = sum(self.evaluation.returns) / len(self.evaluation.returns)
        self.log("eval/return", self.last_return, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": part, "lr": rate} for part, rate in zip(self.parts.values(), self.rates, strict=True)]
        return torch.optim.Adam(groups, eps=self.adam_epsilon, fused=True)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of torch.

        Raises:
            UserError: the weights are of another configuration; names the first that does not fit.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as cause:
            text, own = str(cause), self.state_dict()
            missing = [f"{name} is missing" for name in own if f'"{name}"' in text]
            extra = [f"{name} is not in the configuration" for name in state_dict if f'"{name}"' in text]
            shapes = [
                f"{name} is {tuple(state_dict[name].shape)}, not {tuple(own[name].shape)}"
                for name in own
                if f"for {name}:" in text
            ]
            wrong = [kind[0] for kind in (missing, extra, shapes) if kind] or [" ".join(text.split())[:200]]
            count = len(missing) + len(extra) + len(shapes)
            raise UserError(
                f"the checkpoint does not fit the configuration: {'; '.join(wrong)} ({count} differ in all)"
            ) from cause

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
