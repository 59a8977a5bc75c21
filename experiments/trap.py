"""How an actor that learned from data alone is deceived: ``python -m experiments.trap RUN``, of a run of ``offline``.

The actor is filtered in its real environment, and dreams from there: reward and uncertainty of the dream beside what
comes, and how uncertain the model is of the data's own steps. Draws ``trap_dream.png`` and ``trap_filter.png`` in RUN.

Legend: N environments or episodes, T records, H horizon.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib.image import imsave
from torch import Tensor
from torch.nn import functional as F

from experiments import runner
from worldmodel.control.imagine import following, imagine
from worldmodel.experience.collector import observed
from worldmodel.experience.formats.own_replay import OwnReplay
from worldmodel.insight.rollouts import picture
from worldmodel.model.world_model import WorldModel
from worldmodel.training.agent import Agent
from worldmodel.training.calibrating import stacked
from worldmodel.training.loading import load_run
from worldmodel.types import LatentState, SequenceBatch

BEGIN, SHOWN, EPISODES = 4, 16, 40  # record that a dream begins at, pictures in a strip, episodes of the data


def resized(image: Tensor, like: Tensor) -> Tensor:
    """(T, 3, H, W) uint8 as the decoder's pictures are."""
    return F.interpolate(image.float() / 255, size=like.shape[-2:], mode="area")


def spelt(values: np.ndarray) -> str:
    return ", ".join(f"{x:.1f}" for x in values)


def draw(path: Path, *rows: Tensor) -> None:
    """Strips (T, 3, h, w) in [0, 1], one below the other."""
    framed = [F.pad(row[:SHOWN], (1, 1, 1, 1), value=1.0) for row in rows]
    image = rearrange(torch.stack(framed).clamp(0, 1), "r t c h w -> (r h) (t w) c").contiguous()
    imsave(path, image.repeat_interleave(3, 0).repeat_interleave(3, 1).numpy())


def acted(agent: Agent, environments: Any, steps: int) -> dict[str, Any]:
    """What the actor sees, takes for true and earns from record 0 on; and its state at record ``BEGIN``."""
    policy = agent.policy(explore=False)
    state, action = policy.initial(environments.num_envs), np.zeros((environments.num_envs, environments.action.size))
    found: dict[str, Any] = {"image": [], "believed": [], "reward": [], "policy": policy}
    environments.restart()
    for record in range(steps):
        step = environments.step(action)
        chosen, state = policy(observed(step), state)
        action = chosen.numpy().clip(-1, 1)
        found["image"].append(torch.from_numpy(step.image[0]))
        found["believed"].append(picture(agent.world_model, state.latent.feature)[0])
        found["reward"].append(step.reward)
        if record == BEGIN:
            found["latent"] = state.latent
    return found


def own_steps(model: WorldModel, batch: SequenceBatch) -> np.ndarray:
    """The uncertainty (N, T - 1) of the data's own steps, each from the posterior before it."""
    state = model.observe(batch, mode=True).state
    found = []
    for t in range(batch.reward.shape[1] - 1):
        before = LatentState(*(x[:, t] for x in state))
        found.append(imagine(model, following(batch.action[:, t + 1 : t + 2]), before, 1, mode=True).uncertainty)
    return torch.cat(found, 1).numpy()


@torch.no_grad()
def trap(folder: Path, horizon: int) -> int:
    """The command.

    Raises:
        UserError: the run is none, or holds no data.
    """
    agent, data = load_run(folder, folder / "checkpoints" / "last.ckpt", environments=4, to_draw=True)
    model = agent.world_model
    try:
        found = acted(agent, data.held_out("report"), BEGIN + 1 + horizon)
    finally:
        data.close()
    dream = imagine(model, found["policy"].controller.acting(), found["latent"], horizon, mode=True)
    real = np.array(found["reward"][BEGIN + 1 :]).T
    print(f"from record {BEGIN}, mean of {len(real)} episodes, steps 1 to {horizon}")
    print(f"reward imagined {dream.reward.sum(1).mean():.0f}, real {real.sum(1).mean():.0f}")
    for name, values in (
        ("imagined", dream.reward.numpy()),
        ("real", real),
        ("uncertainty", dream.uncertainty.numpy()),
    ):
        print(f"  {name}, each of the first 8: {spelt(values.mean(0)[:8])}")
    whole = [pair for replay in OwnReplay(folder).replays for pair in replay.episodes(ended=True)]
    length = min(len(records) for _, records in whole)
    batch = stacked([(number, records[:length]) for number, records in whole[:: max(1, len(whole) // EPISODES)]])
    told(own_steps(model, batch), batch.reward[:, 1:].numpy(), batch.action[:, 1, 0].numpy())
    believed = torch.stack(found["believed"])
    drawn = torch.stack([picture(model, x)[0] for x in dream.state.feature.unbind(1)[:SHOWN]])
    image = resized(torch.stack(found["image"]), believed)
    feature = model.observe(batch.map(lambda x: x[:1, :SHOWN]), mode=True).state.feature
    draw(folder / "trap_dream.png", drawn, image[BEGIN:])
    draw(
        folder / "trap_filter.png",
        image,
        believed,
        resized(batch.image[0, :SHOWN], believed),
        picture(model, feature[0]),
    )
    print(f"wrote {folder / 'trap_dream.png'} and {folder / 'trap_filter.png'}")
    return 0


def told(uncertainty: np.ndarray, reward: np.ndarray, first: np.ndarray) -> None:
    """What is printed of the data: N x (T - 1) steps, and the first number of each episode's first action."""
    levels = (0.5, 0.95, 0.99, 0.999)
    print(f"the data's own steps, {len(reward)} episodes: uncertainty at quantiles {levels}: ", end="")
    print(spelt(np.quantile(uncertainty, levels)))
    print(
        f"episodes whose first action is below -0.5: {np.mean(first < -0.5):.0%}, above 0.5: {np.mean(first > 0.5):.0%}"
    )
    for low, high in zip(
        *[np.linspace(reward.min(), reward.max(), 6)[x] for x in (slice(-1), slice(1, None))], strict=True
    ):
        inside = uncertainty[(reward >= low) & (reward <= high)]
        if len(inside):
            print(
                f"  reward {low:.1f} to {high:.1f}: median {np.median(inside):.2f}, above 5 {np.mean(inside > 5):.0%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--horizon", type=int, default=40, help="steps of the dream")
    given = parser.parse_args()
    runner.exits("experiments.trap", lambda: trap(given.run, given.horizon))


if __name__ == "__main__":
    main()
