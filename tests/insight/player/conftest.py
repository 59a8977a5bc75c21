"""The tiny model in a toy, and a browser."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests import tiny
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.controller import ActorController
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners.cem import CEM
from worldmodel.control.propagation import Mixture
from worldmodel.experience.collector import RandomPolicy
from worldmodel.experience.vector import InProcess
from worldmodel.insight.player.replayable import ReplayableEnv
from worldmodel.insight.player.server import ADDRESS, listen, serve
from worldmodel.insight.player.session import PlayerSession
from worldmodel.model.transitions import SharedTrunk, Transition
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec

POINT, CHOICES = "worldmodel.experience.toy:PointReach", "worldmodel.experience.toy:DiscretePointReach"


def parted(size: int = 2, members: int = tiny.MEMBERS) -> WorldModel:
    """A model of ``size`` actions whose members differ widely, and that expects rewards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "ACTION", size)
        model = tiny.world_model(members=members)
    transition = model.rssm.transition
    assert isinstance(transition, SharedTrunk)
    torch.nn.init.normal_(transition.heads.weight)
    torch.nn.init.normal_(model.decoder.net[0].weight)
    torch.nn.init.normal_(model.reward.net[-1].weight, std=0.1)
    model.typical_uncertainty.fill_(0.2)
    model.fit_statistics(torch.randint(256, (8, 3, tiny.SIZE, tiny.SIZE), dtype=torch.uint8))
    return model.eval()


def reality(task: str = POINT) -> ReplayableEnv:
    return ReplayableEnv(InProcess(task, 1, seed=3, size=tiny.SIZE))


def make_session(
    task: str = POINT, seed: int = 0, transition: Transition | None = None, **settings: Any
) -> PlayerSession:
    """A session in a toy, with an actor and a planner, on two random episodes."""
    real = reality(task)
    spec = ActionSpec(5, True) if task == CHOICES else ActionSpec(2, False)
    model = parted(spec.size)
    model.rssm.transition = transition or model.rssm.transition
    torch.manual_seed(7)
    actor_critic = ActorCritic(spec, model.feature_size, ThroughModel(), Mixture(), width=16)
    torch.nn.init.normal_(actor_critic.actor.net[-1].weight)
    planner = CEM(horizon=3, candidates=8, elites=2, iterations=2)
    controllers = {
        "actor": ActorController(model, actor_critic, spec),
        "planner": PlannerController(model, actor_critic, spec, planner=planner),
    }
    episodes = [real.record(RandomPolicy(spec), f"random {n}") for n in (1, 2)]
    return PlayerSession(
        model, spec, episodes, **{"controllers": controllers, "reality": real, "seed": seed, **settings}
    )


@contextmanager
def served(make: Callable[[], PlayerSession] = make_session) -> Iterator[str]:
    """The address of a player that is served in a thread of its own."""
    ready, ended = threading.Event(), threading.Event()
    with listen(0) as listener, ThreadPoolExecutor(1) as executor:

        async def run() -> None:
            task = asyncio.ensure_future(serve(make, executor, listener))
            ready.set()
            while not ended.is_set():
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        ready.wait()
        try:
            yield f"http://{ADDRESS}:{listener.getsockname()[1]}/"
        finally:
            ended.set()
            thread.join()


@pytest.fixture(scope="package")  # while it is open, an event loop runs in this thread, and no other can
def browser() -> Iterator[Any]:
    """Chromium, if this machine has one."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page of 1280 x 800; what goes wrong inside fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    page.close()
    assert not errors
