"""A finished or running run in a program's hands: no trainer, nothing is written."""

from __future__ import annotations

from pathlib import Path

import yaml

from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.cli import link, reason
from worldmodel.training.data import Experience
from worldmodel.training.parser import Parser
from worldmodel.training.run import RunFolder, load_checkpoint


def load_run(
    folder: str | Path, checkpoint: str | Path | None = None, environments: int | None = None
) -> tuple[Agent, Experience]:
    """The agent of a run folder, on the CPU and in evaluation mode, and the data that its ``config.yaml`` describes.

    ``data`` holds running environments: ``data.close()`` when done. ``data.open_replay`` reads what was collected.

    Args:
        folder: the run's.
        checkpoint: whose weights; ``best.ckpt`` if None, or ``last.ckpt`` where there is no best.
        environments: how many; as in training if None.

    Raises:
        UserError: the folder holds no run, or the checkpoint is missing, damaged or of another configuration.
    """
    run = RunFolder(folder)
    if not run.config.exists():
        raise UserError(f"{folder} holds no run: there is no {run.config}")
    path = Path(checkpoint) if checkpoint else run.best if run.best.exists() else run.last
    state = load_checkpoint(path)
    agent, data = _build(run.config, environments)
    try:
        agent.load_state_dict(state["state_dict"])
        agent.on_load_checkpoint(state)
        data.load_state_dict(state[type(data).__qualname__])
    except UserError:
        data.close()
        raise
    return agent.eval(), data


def _build(config: Path, environments: int | None) -> tuple[Agent, Experience]:
    """Agent and data, as the command line builds them."""
    parser = Parser()
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(Experience, "data")
    parser.add_lightning_class_args(Agent, "model")
    link(parser)
    held = yaml.safe_load(config.read_text())
    settings = {name: held[name] for name in ("seed_everything", "data", "model")}
    if environments is not None:
        settings["data"]["num_envs"] = environments
    try:
        built = parser.instantiate_classes(parser.parse_object(settings))
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
    return built.model, built.data
