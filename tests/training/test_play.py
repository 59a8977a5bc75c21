from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import CONFIGS, files, words
from tests.training.forked import Forked
from worldmodel.commands import play
from worldmodel.control.controller import RandomController
from worldmodel.insight.player.session import Frame, PlayerSession
from worldmodel.training.agent import Agent
from worldmodel.training.cli import run
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[PlayerSession]:
    """Sessions of two tabs that a command would have served."""
    kept: list[PlayerSession] = []

    async def visit(make: Callable[[], PlayerSession], executor: Executor, listener: socket.socket) -> None:
        for _ in range(2):
            kept.append(await asyncio.get_running_loop().run_in_executor(executor, make))

    monkeypatch.setattr(play, "serve", visit)
    return kept


def film(session: PlayerSession, who: str) -> list[Frame]:
    session.drive(who)
    return [session.reset(4, 10), *(session.step() for _ in range(4))]


def same(one: list[Frame], other: list[Frame]) -> bool:
    return all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_the_command_gives_each_tab_a_session_on_held_out_episodes(
    finished: Path, visited: list[PlayerSession], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    run(["play", "--run", str(finished), "--port", "0"])
    said = capsys.readouterr().out
    assert re.fullmatch(r"nothing is known of how wrong [^\n]+\nthe player is at http://127\.0\.0\.1:\d+/\n", said)
    assert files(finished) == before
    one, other = visited
    assert one.name == "finished: worldmodel.experience.toy:PointReach"
    names = [episode.name for episode in one.episodes]
    assert names == ["actor 1", "actor 2", "actor 3", "random 1", "random 2", "random 3"]
    assert [*one.controllers] == ["actor", "planner"]
    for who in ("actor", "planner"):
        assert same(film(one, who), film(other, who))
    frames = film(one, "actor")
    assert frames[0].truth is not None and np.array_equal(frames[0].truth.transpose(2, 0, 1), one.episodes[4].image[10])
    assert all(frame.truth is not None for frame in frames)

    run(["play", "--run", str(finished), "--port", "0"])
    run(["play", "--run", str(finished), "--port", "0", "--seed", "1"])
    again, seeded = visited[2], visited[4]
    assert np.array_equal(again.episodes[3].image, one.episodes[3].image)
    assert not np.array_equal(seeded.episodes[3].image, one.episodes[3].image)


def test_a_policy_file_names_the_planner(finished: Path, visited: list[PlayerSession]) -> None:
    given = ["--run", str(finished), "--port", "0"]
    run(["play", *given, "--policy", str(CONFIGS / "policy/mppi.yaml")])
    run(["play", *given])
    mppi, default = visited[0].controllers["planner"], visited[2].controllers["planner"]
    kinds = [type(controller.planner).__name__ for controller in (mppi, default)]  # type: ignore[attr-defined]
    assert kinds == ["MPPI", "CEM"]


def test_without_an_actor_the_planner_plays(
    finished: Path, visited: list[PlayerSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare(*given: Any, **more: Any) -> tuple[Agent, Experience]:
        agent, data = load_run(*given, **more)
        agent.actor_critic, agent.evaluate_with = None, RandomController
        return agent, data

    monkeypatch.setattr(play, "load_run", bare)
    run(["play", "--run", str(finished), "--port", "0"])
    assert [*visited[0].controllers] == ["planner"] and visited[0].episodes[0].name == "planner 1"
    assert len(film(visited[0], "planner")) == 5


def test_discrete_actions(tmp_path: Path, visited: list[PlayerSession], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    task = "worldmodel.experience.toy:DiscretePointReach"
    run(words(folder, "--data.task", task, "--schedule.rounds", "1"))
    run(["play", "--run", str(folder), "--port", "0"])
    for who in ("actor", "planner"):
        assert all(frame.action.sum() == frame.action.max() == 1 for frame in film(visited[0], who)[1:])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(["play", "--run", str(folder), "--port", "0", "--policy", str(CONFIGS / "policy/ilqr.yaml")])
    assert (
        capsys.readouterr().err == "worldmodel: ILQR plans continuous actions only: use CEM, MPPI or RandomShooting\n"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--run", "{run}/nothing"], "holds no run"),
        (["--run", "{run}", "--checkpoint", "no/such.ckpt"], "there is no checkpoint no/such.ckpt"),
        (["--run", "{run}", "--port", "65536"], "port is 65536: it must be from 1 to 65535"),
        (["--run", "{run}", "--port", "-1"], "port is -1"),
        (["--run", "{run}", "--port", "many"], "port: expected int, got many"),
        (
            ["--run", "{run}", "--port", "{taken}"],
            "port {taken} is taken, perhaps by another player: give another --port",
        ),
        (["--run", "{run}", "--policy", "no/such.yaml"], "there is no policy file no/such.yaml"),
        (
            ["--run", "{run}", "--policy", "{configs}/policy/actor.yaml"],
            "actor.yaml names no planner: policy/cem",
        ),
        (["--run", "{run}", "--prot", "1"], "no option prot: did you mean port?"),
        ([], "required: run"),
    ],
)
def test_mistakes(finished: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str) -> None:
    before = files(finished)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"run": finished, "taken": taken.getsockname()[1], "configs": CONFIGS}
        with pytest.raises(SystemExit) as end:
            run(["play", *(word.format(**known) for word in given)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message.format(**known) in error
    assert error.startswith("worldmodel: ") and error.count("\n") == 1
    assert files(finished) == before


def test_the_command_serves_until_it_is_interrupted(finished: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = Forked(["play", "--run", str(finished), "--port", str(port)])
    try:
        while (page := _read(f"http://127.0.0.1:{port}/")) is None:
            assert served.process.is_alive()
            time.sleep(0.05)
        assert b"player.css" in page
        os.kill(served.process.pid, signal.SIGINT)
        assert served.wait(100) == 0
    finally:
        served.kill()


def _read(address: str) -> bytes | None:
    try:
        with urllib.request.urlopen(address, timeout=100) as answer:
            return answer.read()
    except urllib.error.URLError:  # nobody listens yet
        return None
