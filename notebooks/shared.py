"""What the notebooks share: the small run without its simulator, the look of figures, films that play in a page.

Legend: N episodes or pictures, L records, A action, h x w pixels.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from cycler import cycler
from einops import rearrange
from IPython.display import HTML
from jsonargparse import ArgumentParser
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn import functional as F

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.experience.records import stored_shapes
from worldmodel.experience.replay import Replay
from worldmodel.insight.clues import weights_digest
from worldmodel.insight.plots import COLOURS
from worldmodel.insight.trust import Trust
from worldmodel.insight.video import write_mp4
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, SequenceBatch

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "notebooks" / "run"  # any other run folder serves as well

plt.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 90,
        "font.size": 11,
        "grid.color": "0.88",
        "image.cmap": "cividis",
        "legend.frameon": False,
    }
)


def settings() -> dict[str, Any]:
    """The configuration of the run."""
    return yaml.safe_load((RUN / "config.yaml").read_text())


def open_replay() -> Replay:
    """The episodes that the run has kept."""
    folder = RUN / "replay" / "rank_0"
    image_shape, action_size = stored_shapes(folder)
    return Replay(folder, image_shape=image_shape, action_size=action_size)


def read_episodes() -> SequenceBatch:
    """The same as whole sequences (N, L), of equal length in this task."""
    records = np.stack([records for _, records in open_replay().episodes()])
    number = torch.arange(len(records)).unsqueeze(1).expand(records.shape)
    names = ("image", "action", "reward", "is_first", "is_terminal")
    return SequenceBatch(*(torch.from_numpy(records[name].copy()) for name in names), episode=number)


def build(model: dict[str, Any], action: ActionSpec) -> tuple[WorldModel, ActorCritic]:
    """What the ``model`` part of a configuration describes, untrained. (``load_run`` opens the simulator too.)"""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--world_model", type=Callable[[int], WorldModel])
    parser.add_argument("--actor_critic", type=Callable[[ActionSpec, int], ActorCritic])
    parts = {name: model[name] for name in ("world_model", "actor_critic")}
    made = parser.instantiate_classes(parser.parse_object(parts))
    world_model = made.world_model(action.size)
    return world_model, made.actor_critic(action, world_model.feature_size)


def open_models() -> tuple[WorldModel, ActorCritic]:
    """World model, actor and critic of the run, trained."""
    size, repeat = read_episodes().action.shape[-1], settings()["data"]["action_repeat"]
    models = build(settings()["model"], ActionSpec(size, discrete=False, repeat=repeat))
    state = torch.load(RUN / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    for model, name in zip(models, ("world_model.", "actor_critic."), strict=True):
        model.load_state_dict({key.removeprefix(name): x for key, x in state.items() if key.startswith(name)})
        model.eval().requires_grad_(False)
    return models


def open_trust(world_model: WorldModel) -> Trust:
    """What the run knows of how wrong its dreams are, found to be of these weights."""
    trust = Trust.from_json((RUN / "calibration.json").read_text())
    trust.check(settings()["data"]["task"], weights_digest(world_model), trust.origin.updates)
    return trust


def gallery(rows: Mapping[str, Tensor], columns: Sequence[Any], title: str = "", cell: float = 0.9) -> Axes:
    """Pictures in rows: (N, 3, h, w) uint8 each, a column for each of the N; ``cell`` inches a side."""
    pictures = torch.stack([F.pad(x, (1, 1, 1, 1), value=255) for x in rows.values()])
    count, number, _, height, width = pictures.shape
    _, axes = plt.subplots(figsize=(number * cell + 1.4, count * cell + (0.9 if title else 0.6)))
    axes.imshow(rearrange(pictures, "r n c h w -> (r h) (n w) c"), interpolation="nearest")
    axes.set_xticks((np.arange(number) + 0.5) * width - 0.5, [str(x) for x in columns])
    axes.set_yticks((np.arange(count) + 0.5) * height - 0.5, list(rows))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return axes


def film(frames: np.ndarray, fps: int = 8) -> HTML:
    """Frames (T, H, W, 3) uint8 as a video inside the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, frames, fps)
        data = base64.b64encode(path.read_bytes()).decode()
    return HTML(f'<video controls loop autoplay muted playsinline src="data:video/mp4;base64,{data}"></video>')


def train(
    world_model: WorldModel,
    sample: Callable[[], SequenceBatch],
    updates: int,
    rate: float = 2e-3,
    reconstruction: float = 0.1,
) -> dict[str, np.ndarray]:
    """A plain training loop, in place. Every loss by name, (updates,); weights are those of ``size/laptop``."""
    world_model.fit_statistics(sample().image.flatten(0, 1))
    trained = [p for p in world_model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, rate, eps=1e-6)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=updates, pct_start=0.1)
    weights = {"reconstruction": reconstruction, "representation": 0.1}
    history = []
    world_model.train()
    for _ in range(updates):
        losses = {name: loss.mean() for name, loss in world_model.loss(sample())[0].items()}
        optimizer.zero_grad()
        torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 100.0)
        optimizer.step()
        schedule.step()
        history.append([float(loss.detach()) for loss in losses.values()])
    world_model.eval()
    return dict(zip(losses, np.array(history).T, strict=True))
