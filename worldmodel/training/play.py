"""``worldmodel play``: step into the dream of a run and drive it, in a browser on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from worldmodel.control.planners.cem import CEM
from worldmodel.errors import UserError
from worldmodel.experience.collector import RandomPolicy
from worldmodel.experience.vector import InProcess
from worldmodel.insight.player.drivers import ActorDriver, Driver, PlannerDriver
from worldmodel.insight.player.reality import Reality, Recorded
from worldmodel.insight.player.server import ADDRESS, listen, serve
from worldmodel.insight.player.session import PlayerSession
from worldmodel.training.acting import ByActor, ByPlanner
from worldmodel.training.agent import Agent
from worldmodel.training.data import Experience
from worldmodel.training.imagine import read_policy
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness, seed_for
from worldmodel.training.settings import reason

_EPISODES = 3  # of each kind


def play(run: str, checkpoint: str | None = None, port: int = 8765, policy: str | None = None, seed: int = 0) -> None:
    """Serve the player on this machine until it is interrupted. Writes nothing.

    Args:
        run: the run's folder.
        checkpoint: whose weights; best.ckpt if none is given, or last.ckpt where there is no best.
        port: of the page; 0 takes any that is free.
        policy: a config that names a planner, such as policy/mppi; the run's own if none is given, or CEM.
        seed: of the real episodes that dreams begin in, and of what the planner draws.

    Raises:
        UserError: there is no such run, checkpoint or planner, or the port is taken.
    """
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    planner = None if policy is None else _planner(policy)
    # a GL context belongs to a thread: what loads the run steps it too
    with listen(port) as listener, ThreadPoolExecutor(1) as executor:
        make = executor.submit(sessions, run, checkpoint, planner, seed).result()
        print(f"the player is at http://{ADDRESS}:{listener.getsockname()[1]}/", flush=True)
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(make, executor, listener))


def sessions(run: str, checkpoint: str | None, planner: ByPlanner | None, seed: int) -> Callable[[], PlayerSession]:
    """What makes sessions on a run, each with a simulator of its own. All begin in the same episodes.

    Raises:
        UserError: there is no such run or checkpoint, or the planner cannot plan its actions.
    """
    agent, data = load_run(run, checkpoint, environments=1)
    data.close()
    if planner is None:
        own = agent.evaluate_with
        planner = own if isinstance(own, ByPlanner) else ByPlanner(CEM(horizon=10, discount=0.97, iterations=3))
    try:
        planner.check(agent.world_model, agent.actor_critic, agent.action)
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
    episodes = _record(agent, data, planner, seed)

    def make() -> PlayerSession:
        drivers: dict[str, Driver] = {}
        if agent.actor_critic is not None:
            drivers["actor"] = ActorDriver(agent.actor_critic.actor)
        plans = planner.policy(agent.world_model, agent.actor_critic, agent.action, explore=False)
        drivers["planner"] = PlannerDriver(plans)
        reality = _reality(data, seed)
        return PlayerSession(agent.world_model, agent.action, episodes, drivers, reality, seed=seed)

    return make


def _planner(path: str) -> ByPlanner:
    acting = read_policy(path)
    if not isinstance(acting, ByPlanner):
        raise UserError(f"{path} names no planner: configs/policy/cem.yaml is one that does")
    return acting


def _reality(data: Experience, seed: int) -> Reality:
    return Reality(InProcess(data.task, 1, seed_for(data.seed + seed, 0, "player"), **data.settings))


def _record(agent: Agent, data: Experience, planner: ByPlanner, seed: int) -> list[Recorded]:
    """Held-out episodes: first those of the actor, or else of the planner, then those at random."""
    acting, name = (planner, "planner") if agent.actor_critic is None else (ByActor(), "actor")
    acts = acting.policy(agent.world_model, agent.actor_critic, agent.action, explore=False)
    reality = _reality(data, seed)
    try:
        with own_randomness(seed):
            return [
                reality.record(policy, f"{who} {number}")
                for who, policy in ((name, acts), ("random", RandomPolicy(agent.action)))
                for number in range(1, _EPISODES + 1)
            ]
    finally:
        reality.close()
