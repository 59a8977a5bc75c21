"""What learns: world model, actor and critic, and the update, which is written here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.controller import ActorController, Controller, LatentPolicy, MakeController
from worldmodel.errors import UserError
from worldmodel.model.representation import MakeRepresentation
from worldmodel.model.world_model import Losses, Metrics, WorldModel
from worldmodel.training.average import WeightAverage
from worldmodel.training.optimizer import Optimizer
from worldmodel.types import ActionSpec, SequenceBatch

WORLD_WEIGHTS = {
    "reconstruction": 1.0,
    "reward": 1.0,
    "cont": 1.0,
    "dynamics": 1.0,
    "representation": 0.1,
    "complexity": 1.0,
}


class Agent(nn.Module):
    """World model, actor and critic, trained together; or a world model alone, that a planner acts in.

    Args:
        action: what an action is; taken from the task.
        vector_size: numbers beside an image, if any; taken from the task.
        world_model: builds the world model from the action size.
        actor_critic: builds actor and critic from the action and the feature size; null for none.
        representation: what states learn of their images instead of drawing them, such as Barlow Twins; the
            decoder's reconstruction if null. With one, world_model.decoder may be null, or stands beside it to look.
        weights: weight of each loss by name; those not named keep their default. Their sum is differentiated once.
        compile: compile the losses (minutes at the start; worth it on a GPU).
        freeze_world_model: only actor and critic learn, in a world model that another run has learned.
        collect_with: who acts in collection; the actor if null.
        evaluate_with: who acts in an evaluation; the actor if null.
        optimizer: makes the steps; one with its defaults if None.
        average: the running mean of the weights that is evaluated and looked at; one with its defaults if None.

    Raises:
        UserError: no loss has the name of a weight, nothing teaches the model to see, nothing is left that learns, or
            somebody cannot act here.
    """

    def __init__(
        self,
        action: ActionSpec,
        world_model: Callable[[int], WorldModel],
        actor_critic: Callable[[ActionSpec, int], ActorCritic] | None,
        representation: MakeRepresentation | None = None,
        weights: dict[str, float] | None = None,
        compile: bool = False,
        freeze_world_model: bool = False,
        collect_with: MakeController | None = None,
        evaluate_with: MakeController | None = None,
        optimizer: Optimizer | None = None,
        average: WeightAverage | None = None,
        vector_size: int = 0,
    ) -> None:
        super().__init__()
        self.action = action
        self.world_model = world_model(action.size)
        feature_size = self.world_model.feature_size
        self.actor_critic = None if actor_critic is None else actor_critic(action, feature_size)
        known = WORLD_WEIGHTS | self._represent(representation)
        if vector_size:
            self.world_model.take_vector(vector_size)
            known |= {"vector": 1.0}
        acting = {} if self.actor_critic is None else self.actor_critic.weights
        known |= acting
        if unknown := set(weights or {}) - set(known):
            raise UserError(f"no loss is called {sorted(unknown)[0]}: weights are of {', '.join(known)}")
        self.weights = known | (weights or {})
        self.frozen = freeze_world_model
        if freeze_world_model:
            self._freeze(acting)
        self.optimizer, self.average = optimizer or Optimizer(), average or WeightAverage()
        self._losses = torch.compile(self.losses) if compile else self.losses
        self.collect_with, self.evaluate_with = collect_with or ActorController, evaluate_with or ActorController
        for explore in (True, False):
            self.controller(explore).check()

    def _freeze(self, acting: Iterable[str]) -> None:
        """Let only the losses of these names be taken, which are the actor's and the critic's."""
        if self.actor_critic is None:
            raise UserError("with model.freeze_world_model and no model.actor_critic nothing is left that learns")
        self.world_model.requires_grad_(False)
        self.weights = {name: self.weights[name] for name in acting}

    def _represent(self, make: MakeRepresentation | None) -> dict[str, float]:
        """Give the world model its representation loss, if it has one: that one's weight, by name."""
        if make is not None:
            self.world_model.represent(make)
        loss = self.world_model.representation
        if loss is None and not self.world_model.draws:
            raise UserError(
                "without a decoder nothing teaches the model to see: give it one (model.world_model.decoder), or a "
                "representation loss such as --representation barlow"
            )
        if loss is not None and loss.beside and not self.world_model.draws:
            raise UserError(
                f"the loss {loss.name} is to stand beside the reconstruction, and there is no decoder: give the model "
                "one (model.world_model.decoder), or leave out beside"
            )
        return {} if loss is None else {loss.name: loss.weight}

    @property
    def updates(self) -> int:
        """Gradient steps taken, in all."""
        return self.optimizer.updates

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

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
        parts |= {"pretrained": pretrained}
        return {name: part for name, part in parts.items() if part}

    def controller(self, explore: bool, make: MakeController | None = None) -> Controller:
        """Who acts, to collect with (``explore``) or to evaluate: ``make``'s, or those that the config names.

        Raises:
            UserError: it needs an actor and there is none.
            ValueError: its settings do not go together.
        """
        make = make or (self.collect_with if explore else self.evaluate_with)
        return make(self.world_model, self.actor_critic, self.action)

    def policy(self, explore: bool) -> LatentPolicy:
        """The same, in real environments."""
        return LatentPolicy(self.controller(explore), explore)

    def setup(self, fabric: Fabric | None = None) -> Agent:
        """Get ready for updates, on a device, at a precision, beside other ranks; on the CPU alone if None."""
        fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self.to(fabric.device)
        # not fabric.setup_module: under mixed precision that would round rewards and actions too
        module = fabric.strategy.setup_module(self)
        self._fabric, self._forward = fabric, module.__call__
        self.optimizer.setup(self.parts, fabric)
        self.average.setup(self)
        return self

    def update(self, batch: SequenceBatch) -> Metrics:
        """Learn from real sequences (B, T): one loss, one backward, one step. After ``setup``.

        Returns:
            Metrics, each (); none where the gradient was not finite and no step was taken.

        Raises:
            UserError: that happened too often in a row.
        """
        with self._fabric.autocast():
            loss, metrics = self._forward(batch)
        norms = self.optimizer.step(loss)
        self._share_statistics()
        if norms is None:
            return {}
        self.average.update()
        if self.actor_critic is not None:
            self.actor_critic.critic.update_target()
        return metrics | {f"gradient/{name}": norm for name, norm in norms.items()}

    def forward(self, batch: SequenceBatch) -> tuple[Tensor, Metrics]:
        """As ``losses``, compiled where that is asked for."""
        return self._losses(batch)

    def losses(self, batch: SequenceBatch) -> tuple[Tensor, Metrics]:
        """The joint loss () and metrics, from real sequences (B, T)."""
        losses: Losses = {}
        metrics: Metrics = {}
        if self.frozen:
            with torch.no_grad():
                state = self.world_model.observe(batch).state
        else:
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

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Running statistics are buffers, which each rank moves by its own batch: all go on from the mean."""
        if self._fabric.world_size == 1:
            return
        buffers = [x for x in self.buffers() if x.is_floating_point()]
        flat = cast(Tensor, self._fabric.all_reduce(torch.cat([x.flatten() for x in buffers]), reduce_op="mean"))
        for buffer, mean in zip(buffers, flat.split([x.numel() for x in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    @torch.no_grad()
    def take_world_model(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with the world model of another agent's weights and buffers; after ``setup``.

        Raises:
            UserError: that one was of another configuration; names the first weight that does not fit.
        """
        of_model = {name: x for name, x in weights.items() if name.startswith("world_model.")}
        own = {name: x for name, x in self.state_dict().items() if not name.startswith("world_model.")}
        self.load_state_dict(own | of_model)
        self.average.setup(self)

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
