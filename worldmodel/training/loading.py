"""A finished or running run in a program's hands: no trainer, nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    held = run.read_config()
    path = Path(checkpoint) if checkpoint else run.best if run.best.exists() else run.last
    state = load_checkpoint(path)
    agent, data = _build(run.config, held, environments)
    try:
        agent.load_state_dict(state["state_dict"])
        agent.on_load_checkpoint(state)
        data.load_state_dict(state[type(data).__qualname__])
    except UserError:
        data.close()
        raise
    return agent.eval(), data


def _build(config: Path, held: dict[str, Any], environments: int | None) -> tuple[Agent, Experience]:
    """Agent and data, as the command line builds them."""
    parser = Parser()
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(Experience, "data")
    parser.add_lightning_class_args(Agent, "model")
    link(parser)
    settings = {"seed_everything": held.get("seed_everything", 0), "data": held["data"], "model": held["model"]}
    if environments is not None:
        settings["data"]["num_envs"] = environments
    try:
        built = parser.instantiate_classes(parser.parse_object(settings))
    except UserError as cause:  # the run is of another version, or its config was edited
        raise UserError(f"{config}: {cause}") from cause
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
    return built.model, built.data
