"""An actor and its filter as a program of their own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import words
from worldmodel.commands import program
from worldmodel.commands.program import INPUTS, ActorProgram
from worldmodel.control.controller import ActorController, LatentPolicy
from worldmodel.training.cli import run
from worldmodel.training.loading import load_run
from worldmodel.types import Observation


@pytest.mark.parametrize("task", ["PointReach", "DiscretePointReach"])
def test_its_actions_are_the_agents_over_episodes(tmp_path: Path, capsys: Any, task: str) -> None:
    folder = tmp_path / "run"
    run(words(folder, "--schedule.rounds", "1", "--data.task", f"worldmodel.experience.toy:{task}"))
    run(["export", "--run", str(folder), "--program", str(tmp_path / "actor.pt2")])
    assert f"wrote {tmp_path}/actor.pt2: actions within " in capsys.readouterr().out
    about = json.loads((tmp_path / "actor.json").read_text())
    assert list(about["inputs"]) == list(INPUTS) and about["inputs"]["image"] == [1, 3, 16, 16]

    agent, data = load_run(folder, environments=1)
    step = torch.export.load(tmp_path / "actor.pt2").module()
    policy = LatentPolicy(ActorController(agent.world_model, agent.actor_critic, agent.action))
    memory, state, episodes = policy.initial(1), ActorProgram(agent).initial(), 0
    action = torch.zeros(1, agent.action.size)
    for _ in range(80):  # two episodes and more: memory is forgotten between them
        moment = data.environments.step(action.numpy())
        image, first = torch.from_numpy(moment.image), torch.from_numpy(moment.is_first)
        episodes += int(moment.is_first[0])
        action, memory = policy(Observation(image, first), memory)
        with torch.no_grad():
            state = step(image, first, *state)
        torch.testing.assert_close(state[0], action, atol=1e-4, rtol=0)
    assert episodes > 1
    data.close()


def test_onnx(finished: Path, tmp_path: Path, capsys: Any) -> None:
    """The export itself compares the actions."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    run(["export", "--run", str(finished), "--program", str(tmp_path / "actor.onnx")])
    assert f"wrote {tmp_path}/actor.onnx: actions within " in capsys.readouterr().out


def test_what_cannot_be_written(finished: Path, complaint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["export", "--run", str(finished), "--program"]
    assert "say what to write: --out FOLDER, --program" in complaint(given[:-1])
    assert "its name has to end in .pt2 or .onnx" in complaint([*given, "actor.exe"])
    if importlib.util.find_spec("onnxscript") is None:
        assert "ONNX needs onnx: pip install onnx onnxscript onnxruntime" in complaint([*given, "actor.onnx"])
    monkeypatch.setattr(program, "_TOLERANCE", -1.0)
    assert "the program's actions differ from the agent's by" in complaint([*given, str(finished / "actor.pt2")])
    assert not (finished / "actor.pt2").exists()
