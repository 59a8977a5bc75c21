"""Learn a latent world model from pixels, know how uncertain it is, and control with it.

``import worldmodel as wm`` loads nothing yet: each name below is imported when it is first used.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldmodel.control import planners as planners
    from worldmodel.control.actor_critic import ActorCritic as ActorCritic
    from worldmodel.control.actor_critic import PolicyGradient as PolicyGradient
    from worldmodel.control.actor_critic import ThroughModel as ThroughModel
    from worldmodel.control.controller import ActorController as ActorController
    from worldmodel.control.controller import LatentPolicy as LatentPolicy
    from worldmodel.control.controller import RandomController as RandomController
    from worldmodel.control.controller import SinglePolicy as SinglePolicy
    from worldmodel.control.imagine import following as following
    from worldmodel.control.imagine import imagine as imagine
    from worldmodel.control.planner_controller import PlannerController as PlannerController
    from worldmodel.control.propagation import TS1 as TS1
    from worldmodel.control.propagation import Mixture as Mixture
    from worldmodel.control.propagation import TSInf as TSInf
    from worldmodel.dream.function_controller import FunctionController as FunctionController
    from worldmodel.dream.vector_env import DreamVectorEnv as DreamVectorEnv
    from worldmodel.errors import UserError as UserError
    from worldmodel.experience.collector import Collector as Collector
    from worldmodel.experience.collector import RandomPolicy as RandomPolicy
    from worldmodel.experience.collector import run_episodes as run_episodes
    from worldmodel.experience.environments import make_environment as make_env  # noqa: F401
    from worldmodel.experience.replay import Replay as Replay
    from worldmodel.experience.vector import InProcess as InProcess
    from worldmodel.experience.vector import Workers as Workers
    from worldmodel.insight.clues import dream_clues as dream_clues
    from worldmodel.insight.clues import with_expected as with_expected
    from worldmodel.insight.exploitation import Promises as Promises
    from worldmodel.insight.exploitation import exploitation as exploitation
    from worldmodel.insight.novelty import novelty as novelty
    from worldmodel.insight.render import render_film as render_film
    from worldmodel.insight.render import render_strip as render_strip
    from worldmodel.insight.report import step_measures as step_measures
    from worldmodel.insight.rollouts import branches as branches
    from worldmodel.insight.rollouts import open_loop as open_loop
    from worldmodel.insight.trust import Trust as Trust
    from worldmodel.model.distributions import CategoricalLatents as CategoricalLatents
    from worldmodel.model.distributions import GaussianLatents as GaussianLatents
    from worldmodel.model.independent import IndependentEnsemble as IndependentEnsemble
    from worldmodel.model.independent import IndependentHeads as IndependentHeads
    from worldmodel.model.rssm import RSSM as RSSM
    from worldmodel.model.transitions import SharedTrunk as SharedTrunk
    from worldmodel.model.world_model import WorldModel as WorldModel
    from worldmodel.training.agent import Agent as Agent
    from worldmodel.training.api import train as train
    from worldmodel.training.calibrating import load_caution as load_caution
    from worldmodel.training.calibrating import load_trust as load_trust
    from worldmodel.training.data import open_replay as open_replay
    from worldmodel.training.loading import evaluations as evaluations
    from worldmodel.training.loading import load_run as load  # noqa: F401
    from worldmodel.types import ActionSpec as ActionSpec
    from worldmodel.types import LatentState as LatentState
    from worldmodel.types import Observation as Observation
    from worldmodel.types import SequenceBatch as SequenceBatch
    from worldmodel.types import Trajectory as Trajectory

__version__ = "0.1.0"

# where each is, and what it is called there if it has another name; the imports above tell a type checker the same
_WHERE = {
    "ActionSpec": "types",
    "ActorController": "control.controller",
    "ActorCritic": "control.actor_critic",
    "Agent": "training.agent",
    "CategoricalLatents": "model.distributions",
    "Collector": "experience.collector",
    "DreamVectorEnv": "dream.vector_env",
    "FunctionController": "dream.function_controller",
    "GaussianLatents": "model.distributions",
    "InProcess": "experience.vector",
    "IndependentEnsemble": "model.independent",
    "IndependentHeads": "model.independent",
    "LatentPolicy": "control.controller",
    "LatentState": "types",
    "Mixture": "control.propagation",
    "Observation": "types",
    "PlannerController": "control.planner_controller",
    "PolicyGradient": "control.actor_critic",
    "RSSM": "model.rssm",
    "RandomController": "control.controller",
    "RandomPolicy": "experience.collector",
    "Replay": "experience.replay",
    "SequenceBatch": "types",
    "SharedTrunk": "model.transitions",
    "SinglePolicy": "control.controller",
    "TS1": "control.propagation",
    "TSInf": "control.propagation",
    "ThroughModel": "control.actor_critic",
    "Trajectory": "types",
    "Trust": "insight.trust",
    "UserError": "errors",
    "Workers": "experience.vector",
    "WorldModel": "model.world_model",
    "branches": "insight.rollouts",
    "dream_clues": "insight.clues",
    "evaluations": "training.loading",
    "following": "control.imagine",
    "imagine": "control.imagine",
    "load": "training.loading:load_run",
    "load_caution": "training.calibrating",
    "load_trust": "training.calibrating",
    "make_env": "experience.environments:make_environment",
    "Promises": "insight.exploitation",
    "exploitation": "insight.exploitation",
    "novelty": "insight.novelty",
    "open_loop": "insight.rollouts",
    "open_replay": "training.data",
    "planners": "control",
    "render_film": "insight.render",
    "render_strip": "insight.render",
    "run_episodes": "experience.collector",
    "step_measures": "insight.report",
    "train": "training.api",
    "with_expected": "insight.clues",
}
__all__ = ["__version__", *_WHERE]


def _path(name: str) -> str:
    """``worldmodel.WorldModel`` as ``worldmodel.model.world_model.WorldModel``; anything else as it is."""
    package, _, called = name.rpartition(".")
    if package != __name__ or called not in _WHERE:
        return name
    module, _, there = _WHERE[called].partition(":")
    return f"{package}.{module}.{there or called}"


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


@functools.cache
def _hint(name: str) -> str:
    """Names like this one. Parsers ask for the same ones thousands of times, to find where a class is imported from."""
    near = difflib.get_close_matches(name, _WHERE, n=3)
    return f": did you mean {' or '.join(near)}?" if near else ""


if not TYPE_CHECKING:  # where it would accept any name

    def __getattr__(name: str) -> object:
        """Import what is asked for (PEP 562)."""
        if name not in _WHERE:
            raise AttributeError(f"worldmodel has no {name}{_hint(name)}", name=name, obj=sys.modules[__name__])
        module, _, called = _WHERE[name].partition(":")
        found = importlib.import_module(f"{__name__}.{module}")
        if name == "planners":  # a package rather than a name in one
            importlib.import_module(f"{__name__}.control.planners")
        globals()[name] = getattr(found, called or name)
        return globals()[name]
