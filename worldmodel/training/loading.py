"""A finished or running run in a program's hands: nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.average import mean_weights
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.data import Experience
from worldmodel.training.parser import Parser
from worldmodel.training.run_folder import RunFolder
from worldmodel.training.settings import Settings, add_parts, check_run


def load_run(
    folder: str | Path,
    checkpoint: str | Path | None = None,
    environments: int | None = None,
    trust_code: bool = False,
    to_draw: bool = False,
) -> tuple[Agent, Experience]:
    """The agent of a run folder, on the CPU and in evaluation mode, and the data that its ``config.yaml`` describes.

    ``data`` holds running environments: ``data.close()`` when done. ``data.open_replay`` reads what was collected.
    Torch multiplies matrices at the run's ``fabric.matmul_precision`` from now on, for it acts as it did in training.

    Args:
        folder: the run's.
        checkpoint: whose weights; ``best.ckpt`` if None, or ``last.ckpt`` where there is no best.
        environments: how many; as in training if None.
        trust_code: build whatever the run's ``config.yaml`` names, such as a task of somebody's own. Without it only
            classes of this package and of ``encoders`` are, and the tasks of dm_control and Gymnasium.
        to_draw: only if its model has a decoder.

    Raises:
        UserError: the folder holds no run, or one that names other code and is not trusted, or that has no decoder and
            is to be drawn; or the checkpoint is missing, damaged or of another configuration.
    """
    run = RunFolder(folder)
    held = run.read_config()
    if not trust_code:
        check_run(held, run.config)
    state = load_checkpoint(Path(checkpoint) if checkpoint else run.weights)
    settings = _settings(run.config, held)
    torch.set_float32_matmul_precision((held.get("fabric") or {}).get("matmul_precision", "medium"))
    data = settings.data()
    data.seed, data.folder = settings.config.seed, run.path
    data.num_envs = environments or data.num_envs
    try:
        agent = settings.agent(data.action, data.vector_size)
        if to_draw:
            agent.world_model.check_draws()
        agent.load_state_dict(mean_weights(state))
    except UserError:
        data.close()
        raise
    agent.optimizer.updates, data.frames = state["updates"], state["frames"]
    return agent.eval(), data


def evaluations(folder: str | Path) -> list[dict[str, Any]]:
    """What a run earned as it trained: frames, updates, seconds, policy, returns, return_mean.

    Raises:
        UserError: the folder holds no run, or its table cannot be read.
    """
    run = RunFolder(folder)
    run.read_config()
    return run.read_evaluations()


def _settings(config: Path, held: dict[str, Any]) -> Settings:
    """As the command line reads them."""
    parser = Parser()
    add_parts(parser)
    given = {name: held[name] for name in ("seed", "data", "optimizer", "average", "model") if name in held}
    try:
        parsed = parser.parse_object(given)
    except UserError as cause:  # the run is of another version, or its config was edited
        raise UserError(f"{config}: {cause}") from cause
    return Settings(parser, parsed)
