"""``worldmodel play``: step into the dream of a run and drive it, in a browser on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from worldmodel.control.controller import ActorController, Controller, LatentPolicy, MakeController
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners.cem import CEM
from worldmodel.errors import UserError
from worldmodel.experience.collector import RandomPolicy
from worldmodel.experience.vector import InProcess
from worldmodel.insight.player.replayable import Recorded, ReplayableEnv
from worldmodel.insight.player.server import ADDRESS, listen, serve
from worldmodel.insight.player.session import PlayerSession
from worldmodel.insight.trust import Trust
from worldmodel.training.acting import read_policy
from worldmodel.training.agent import Agent
from worldmodel.training.calibrating import load_trust
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness, seed_for
from worldmodel.training.settings import reason

_EPISODES = 3  # of each kind


def play(
    run: str,
    checkpoint: str | None = None,
    port: int = 8765,
    policy: str | None = None,
    seed: int = 0,
    trust_code: bool = False,
) -> None:
    """Serve the player on this machine until it is interrupted. Writes nothing.

    Args:
        run: the run's folder.
        checkpoint: whose weights; best.ckpt if none is given, or last.ckpt where there is no best.
        port: of the page; 0 takes any that is free.
        policy: a config that names a planner, such as policy/mppi; the run's own if none is given, or CEM.
        seed: of the real episodes that dreams begin in, and of what the planner draws.
        trust_code: build whatever the run names, also code that is not of this package.

    Raises:
        UserError: there is no such run, checkpoint or planner, or the port is taken.
    """
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    # a GL context belongs to a thread: what loads the run steps it too
    with listen(port) as listener, ThreadPoolExecutor(1) as executor:
        make = executor.submit(sessions, run, checkpoint, policy=policy, seed=seed, trust_code=trust_code).result()
        print(f"the player is at http://{ADDRESS}:{listener.getsockname()[1]}/", flush=True)
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(make, executor, listener))


def sessions(
    run: str, checkpoint: str | None, policy: str | None, seed: int, trust_code: bool = False
) -> Callable[[], PlayerSession]:
    """What makes sessions on a run, each with a simulator of its own. All begin in the same episodes.

    Raises:
        UserError: there is no such run or checkpoint, or the planner is none or cannot plan its actions.
    """
    make_planner = None if policy is None else read_policy(policy, trust_code)
    agent, data = load_run(run, checkpoint, environments=1, trust_code=trust_code, to_draw=True)
    task = data.needed_task()
    data.close()
    trust: Trust | None = None
    try:
        trust = load_trust(Path(run), agent, task)
    except UserError as cause:
        print(cause, flush=True)
    controllers: dict[str, Controller] = {"planner": _planner(agent, make_planner, policy)}
    if agent.actor_critic is not None:
        controllers = {"actor": agent.controller(False, ActorController)} | controllers
    episodes = _record(data, controllers, seed)
    name = f"{Path(run).name}: {task}"

    def make() -> PlayerSession:
        real = _replayable(data, seed)
        return PlayerSession(
            agent.world_model,
            agent.action,
            episodes,
            controllers=controllers,
            reality=real,
            seed=seed,
            trust=trust,
            name=name,
        )

    return make


def _planner(agent: Agent, make: MakeController | None, path: str | None) -> PlannerController:
    """What the file at ``path`` names; else the run's own planner, or CEM."""
    try:
        planner = agent.controller(False, make)
        if make is None and not isinstance(planner, PlannerController):
            search = CEM(horizon=10, discount=0.97, iterations=3)
            return PlannerController(agent.world_model, agent.actor_critic, agent.action, planner=search)
        planner.check()
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
    if not isinstance(planner, PlannerController):
        raise UserError(f"{path} names no planner: policy/cem is one that does")
    return planner


def _replayable(data: Experience, seed: int) -> ReplayableEnv:
    return ReplayableEnv(InProcess(data.needed_task(), 1, seed_for(data.seed + seed, 0, "player"), **data.settings))


def _record(data: Experience, controllers: Mapping[str, Controller], seed: int) -> list[Recorded]:
    """Held-out episodes: first those of the actor, or else of the planner, then those at random."""
    name, controller = next(iter(controllers.items()))
    reality = _replayable(data, seed)
    try:
        with own_randomness(seed):
            return [
                reality.record(policy, f"{who} {number}")
                for who, policy in ((name, LatentPolicy(controller)), ("random", RandomPolicy(controller.action)))
                for number in range(1, _EPISODES + 1)
            ]
    finally:
        reality.close()
