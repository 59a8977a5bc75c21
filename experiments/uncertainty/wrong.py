"""How wrong the model really is in its holes: what a perfect uncertainty of one step would find there.

Legend: N sequences, T records, h x w pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from experiments.uncertainty.data import LIMIT, Sequences, Task
from experiments.uncertainty.measure import Row, row
from worldmodel.insight.calibration import auroc
from worldmodel.insight.rollouts import picture
from worldmodel.model.world_model import WorldModel
from worldmodel.types import SequenceBatch


@torch.no_grad()
def one_step_error(model: WorldModel, batch: SequenceBatch) -> dict[str, np.ndarray]:
    """True errors (N, T - 1) of the step to each record but the first: predicted from the filtered state before it."""
    torch.manual_seed(0)
    found = model.observe(batch, mode=True)
    latents, deter = model.latents, found.state.deter[:, 1:]
    likely = latents.mode(latents.mixture(found.prior[:, :, 1:]))
    feature = torch.cat([deter, likely], -1)
    truth = model.decoder.pixels.resize(batch.image[:, 1:].flatten(0, 1)).unflatten(0, deter.shape[:2])
    # most pixels never change: the mean square sees the few that do
    wrong = (picture(model, feature) - truth).square().mean((-3, -2, -1))
    return {"pixels": wrong.numpy(), "reward": (model.reward(feature) - batch.reward[:, 1:]).abs().numpy()}


def wrong(task: Task, model: WorldModel, held: dict[str, Sequences]) -> list[Row]:
    """AUROC of the true error, steps of a hole against those like the data; and by how much larger it is."""
    inside = task.in_hole(held["state"].state)[:, :-1]
    strong = (held["action"].batch.action[:, 1:, task.component].abs() > LIMIT).numpy()
    seen = one_step_error(model, held["seen"].batch)
    rows = []
    for case, kind, where in (("hole_states", "state", inside), ("hole_actions", "action", strong)):
        for name, error in one_step_error(model, held[kind].batch).items():
            rows.append(row(f"true_{name}_error", case, "auroc", 1, auroc(error[where], seen[name])))
            rows.append(row(f"true_{name}_error", case, "ratio", 1, error[where].mean() / seen[name].mean()))
    return rows
