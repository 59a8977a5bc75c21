"""``worldmodel fit``: train a run, or go on with it. ``worldmodel validate``: evaluate its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from worldmodel.errors import UserError
from worldmodel.experience.cores import cores
from worldmodel.training.agent import Agent
from worldmodel.training.allowed import check_task
from worldmodel.training.average import mean_weights
from worldmodel.training.calibrating import calibrated
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.console import facts, megabytes
from worldmodel.training.data import Experience
from worldmodel.training.early import free_folder
from worldmodel.training.evaluation import evaluate, record_validation
from worldmodel.training.interrupt import Interrupted, Stop
from worldmodel.training.launch import launch
from worldmodel.training.lock import locked_by_first
from worldmodel.training.metrics import duration
from worldmodel.training.run import Run
from worldmodel.training.run_folder import RunFolder
from worldmodel.training.schedule import Progress, Schedule
from worldmodel.training.settings import Settings, read, training_parser
from worldmodel.training.train import train
from worldmodel.training.world import World


def fit(given: list[str]) -> None:
    """Train as a command line says.

    Raises:
        UserError: something that the person at the keyboard can mend.
        SystemExit: a signal came; everything is saved.
    """
    parser = training_parser("fit", "Train. --run FOLDER alone goes on with what it holds.")
    text = "with --checkpoint: drop what the run has collected and written since then"
    parser.add_argument("--rewind", type=bool, default=False, help=text)
    text = "a run, or a checkpoint, whose world model a new run begins with"
    parser.add_argument("--pretrained", type=str | None, default=None, help=text)
    settings = read(parser, given)
    settings.schedule()  # complains before processes are launched
    fabric = settings.fabric()
    launch(fabric, _fit, settings)


def _fit(fabric: Fabric, settings: Settings) -> None:
    named = settings.config.run
    if not named and fabric.is_global_zero:
        named = free_folder(settings.config.data.task or "run")
    folder = RunFolder(fabric.broadcast(named))
    with locked_by_first(fabric, folder.path):
        _fit_in(folder, fabric, settings)


def _fit_in(folder: RunFolder, fabric: Fabric, settings: Settings) -> None:
    config, schedule = settings.config, settings.schedule()
    held = settings.dump()
    folder.check(held, settings.defaults())
    checkpoint = _going_on(folder, config.checkpoint, config.rewind)
    fabric.barrier()  # all have looked before one writes
    if checkpoint is not None and config.checkpoint is None and _is_over(schedule, checkpoint):
        if fabric.is_global_zero:
            print(_finished(folder, checkpoint), flush=True)
        return
    data = settings.data()
    data.folder = folder.path
    try:
        world = World(fabric, data, settings.agent, config.seed)
        if checkpoint is None:
            _begin(world.agent, config.pretrained, says=fabric.is_global_zero)
        world.open(folder.path)
        if fabric.is_global_zero:  # what cannot be built leaves no trace
            folder.claim(held)
            print(_banner(world, schedule, folder), flush=True)
        with Stop() as stop:
            run = Run(folder, world, schedule, stop=stop, checkpoint=checkpoint)
            del checkpoint
            try:
                train(world, schedule, run)
            except Interrupted as signal:
                if not fabric.is_global_zero:
                    return  # or the launcher would kill the first
                print(f"stopped after update {world.agent.updates:,}, saved: {_going(folder)} goes on", flush=True)
                raise SystemExit(signal.code) from None
        if fabric.is_global_zero:
            if schedule.calibration_episodes and data.task is not None:
                print(calibrated(folder.path, schedule.calibration_episodes), flush=True)
            print(_closing(run), flush=True)
    except UserError as error:
        raise _explained(error, folder) from error
    finally:
        for logger in fabric.loggers:
            logger.finalize("finished")  # what it still holds
        data.close()


def _explained(error: UserError, folder: RunFolder) -> UserError:
    """The error, with the traceback of somebody's environment put beside the run that it ended."""
    if not error.details or not folder.config.exists():
        return error
    path = folder.path / "environment_error.txt"
    path.write_text(error.details)
    return UserError(f"{error}; its traceback is in {path}")


def _going_on(folder: RunFolder, named: str | None, rewind: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where a run begins.

    Raises:
        UserError: it cannot be used, or the run has gone on since then.
    """
    if named is None:
        if folder.last.exists():
            return load_checkpoint(folder.last, resumes=True)
        if folder.best.exists():
            raise UserError(
                f"{folder.path} holds no last.ckpt to go on from, only weights: begin another run with "
                f"--config {folder.config} --run runs/NAME"
            )
        return None
    checkpoint = load_checkpoint(Path(named), resumes=True)
    newer = folder.last.exists() and not folder.last.samefile(named)
    newer = newer or any(row["updates"] > checkpoint["updates"] for row in folder.read_evaluations())
    if newer and not rewind:
        raise UserError(
            f"{named} is of update {checkpoint['updates']:,}, and {folder.path} has gone on since: --rewind true drops "
            "what it has collected and written after that; copy the folder first to keep it"
        )
    return checkpoint


def _begin(agent: Agent, pretrained: str | None, says: bool) -> None:
    """Give a new run's agent the world model of another run, if one is named.

    Raises:
        UserError: it does not fit, or none is named and the agent's own is not to learn.
    """
    if pretrained is None:
        if agent.frozen:
            raise UserError("model.freeze_world_model wants one that has learned: --pretrained runs/NAME says which")
        return
    path = Path(pretrained)
    weights = RunFolder(path).weights if path.is_dir() else path
    state = load_checkpoint(weights)
    try:
        agent.take_world_model(mean_weights(state))
    except UserError as cause:
        raise UserError(f"--pretrained {weights}: {cause}") from cause
    if says:
        print(f"begins with the world model of {weights}, of update {state['updates']:,}", flush=True)


def _is_over(schedule: Schedule, checkpoint: dict[str, Any]) -> bool:
    progress = Progress()
    progress.load_state_dict(checkpoint["progress"])
    return schedule.is_over(progress)


def _finished(folder: RunFolder, checkpoint: dict[str, Any]) -> str:
    done = f"{checkpoint['progress']['round']:,} rounds, {checkpoint['updates']:,} updates"
    return f"{folder.path} is finished ({done}): more --schedule.rounds or --schedule.max_minutes go on with it"


def _banner(world: World, schedule: Schedule, folder: RunFolder) -> str:
    """What is known once all is built."""
    fabric, agent = world.fabric, world.agent
    where = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else str(fabric.device)
    several = f" x {fabric.world_size}" if fabric.world_size > 1 else ""
    told = {
        "model": f"{sum(p.numel() for p in agent.parameters() if p.requires_grad):,} parameters that learn",
        "device": f"{where}{several}, {torch.get_num_threads()} threads on {len(cores()) or os.cpu_count()} cores",
    }
    told |= {"data": _held(world.data)} if world.data.offline else {}
    told |= {"note": note} if not world.data.offline and (note := world.data.environments.note) else {}
    return facts(**told, **_estimate(schedule, folder))


def _held(data: Experience) -> str:
    """What a run learns from that collects nothing."""
    held = data.imported
    rewards = "" if held.rewards else ", without rewards: the actor has nothing to learn"
    return f"{held.records:,} records in {held.episodes:,} episodes of {held.format} {held.source}{rewards}"


def _estimate(schedule: Schedule, folder: RunFolder) -> dict[str, str]:
    """How long the rest takes, at the pace so far. Of a run that is new the lines to come say so."""
    rows = folder.read_metrics()
    pace = sorted(row["updates_per_second"] for row in rows if "updates_per_second" in row)
    if not pace or schedule.planned is None:
        return {}
    left = max(0.0, schedule.planned - rows[-1]["updates"])
    return {"left": f"{left:,.0f} updates, about {duration(left / max(1e-6, pace[len(pace) // 2]))}"}


def _closing(run: Run) -> str:
    folder, progress = run.folder.path, run.progress
    scored = "not evaluated" if progress.last_return is None else f"return {progress.last_return:.1f}"
    best = "" if progress.best == -float("inf") else f" (best {progress.best:.1f})"
    task = run.world.data.task
    looks = f"worldmodel export --run {folder} --program actor.pt2"
    if task is not None:
        trusted = _trust(task)
        looks = f"worldmodel report --run {folder}{trusted}\n      worldmodel play --run {folder}{trusted}"
    return (
        f"finished: {scored}{best} after {run.world.agent.updates:,} updates in {duration(progress.seconds)} of "
        f"training, all in {folder}: {megabytes(folder)}, of which the replay {megabytes(folder / 'replay')}\n"
        f"next: {looks}"
    )


def _trust(task: str) -> str:
    """What looking at a run of somebody's own task takes."""
    try:
        check_task(task, "")
    except UserError:
        return " --trust-code"
    return ""


def _going(folder: RunFolder) -> str:
    return f"worldmodel fit --run {folder.path}"


def validate(given: list[str]) -> None:
    """Evaluate the weights of a run, in episodes that have not chosen them.

    Raises:
        UserError: something that the person at the keyboard can mend.
    """
    parser = training_parser("validate", "Evaluate the weights of a run, in episodes that have not chosen them.")
    parser.add_argument("--trust-code", action="store_true", help="build whatever the run names, also code of others")
    settings = read(parser, given, trust_code="--trust-code" in given)
    settings.schedule()
    if not settings.config.run:
        raise UserError("say which run: --run runs/NAME")
    launch(settings.fabric(), _validate, settings)


def _validate(fabric: Fabric, settings: Settings) -> None:
    config, folder, data = settings.config, RunFolder(settings.config.run), settings.data()
    data.folder = folder.path
    path = Path(config.checkpoint) if config.checkpoint else folder.weights
    checkpoint, episodes = load_checkpoint(path), settings.schedule().evaluation_episodes
    try:
        world = World(fabric, data, settings.agent, config.seed)
        world.agent.load_state_dict(mean_weights(checkpoint))
        world.agent.average.setup(world.agent)
        world.agent.optimizer.updates, data.frames = checkpoint["updates"], checkpoint["frames"]
        who = world.agent.controller(explore=False).name
        of = f"{who} with {path.name} of update {checkpoint['updates']:,}, seed {config.seed}"
        if fabric.is_global_zero:
            print(f"validating {of}: {episodes} episodes", flush=True)
        found = evaluate(world, episodes, "report")
        complaint = None
        try:
            record_validation(folder, world, found, seconds=checkpoint["progress"]["seconds"], checkpoint=path)
        except UserError as cause:  # of a run that is read-only: what was found is said all the same
            complaint = cause
    finally:
        data.close()
    if fabric.is_global_zero:
        least, most = min(found.returns), max(found.returns)
        added = "" if complaint else f", added to {folder.validations}"
        print(
            f"{who}: return {found.mean:.1f} +- {np.std(found.returns):.1f} (standard deviation; {least:.1f} to "
            f"{most:.1f}) over {len(found.returns)} episodes{added}",
            flush=True,
        )
    if complaint is not None:
        raise complaint
