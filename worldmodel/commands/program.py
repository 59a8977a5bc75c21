"""An actor and its filter as one program that needs no worldmodel: for a robot, or another language.

Legend: N images, A action size, D memory, Z latent.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodel.control.controller import ActorController, LatentPolicy
from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import write_atomically
from worldmodel.types import LatentState, Observation

INPUTS, OUTPUTS = ("image", "is_first", "action", "deter", "stoch"), ("next_action", "next_deter", "next_stoch")
VECTOR = "vector"  # the last input, of a model that takes one
_TOLERANCE = 1e-4
_STEPS = 50

State = tuple[Tensor, Tensor, Tensor]  # action, deter, stoch: what goes in again


class ActorProgram(nn.Module):
    """One moment of an episode: the image and what is remembered in, the action and what is to be remembered out.

    Args:
        agent: whose world model filters and whose actor acts, by its mode.

    Raises:
        UserError: there is no actor.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        if agent.actor_critic is None:
            raise UserError("this run has no actor: a planner cannot be written as a program")
        self.world_model, self.actor = agent.world_model, agent.actor_critic.actor

    def initial(self) -> State:
        """Zeros, (1, A), (1, D), (1, Z)."""
        rssm = self.world_model.rssm
        start = rssm.initial(1)
        return start.deter.new_zeros(1, rssm.from_action.in_features), start.deter, start.stoch

    def forward(
        self,
        image: Tensor,
        is_first: Tensor,
        action: Tensor,
        deter: Tensor,
        stoch: Tensor,
        vector: Tensor | None = None,
    ) -> State:
        """Of image (1, 3, H, W) uint8, is_first (1,) bool, the action before (1, A), memory (1, D), latent (1, Z).

        And of a vector (1, V) beside the image, where the model takes one.
        """
        state = LatentState(deter, stoch, deter.new_zeros(1, self.world_model.latents.param_size))
        state = self.world_model.filter(Observation(image, is_first, vector=vector), action, state, mode=True)
        return self.actor.mode(state.feature), state.deter, state.stoch


def write_program(agent: Agent, image_shape: tuple[int, int, int], path: Path) -> str:
    """Write it and see that its actions are the agent's, over an episode of images; with a .json of its inputs.

    Args:
        agent: in evaluation mode, on the CPU.
        image_shape: (3, H, W) of the images that it is given.
        path: ending in .pt2 (torch.export) or .onnx.

    Returns:
        What to tell: how far actions differ, and the milliseconds of a step.

    Raises:
        UserError: no such format, a package is missing, or the actions differ.
    """
    if path.suffix not in _FORMATS:
        raise UserError(f"cannot write {path}: its name has to end in {' or '.join(_FORMATS)}")
    program = ActorProgram(agent).eval()
    image, first = torch.zeros(1, *image_shape, dtype=torch.uint8), torch.ones(1, dtype=torch.bool)
    convert, read = _FORMATS[path.suffix]
    with torch.no_grad():
        given = {**dict(zip(INPUTS, (image, first, *program.initial()), strict=True)), **_vector(agent)}
        held = convert(program, given)
        write_atomically(path, lambda temporary: temporary.write_bytes(held))
        try:
            told = _compared(agent, program, read(path), image_shape)
        except UserError:
            path.unlink()
            raise
    about = {
        "inputs": {name: list(x.shape) for name, x in given.items()},
        "outputs": list(OUTPUTS),
        "action": {"size": agent.action.size, "discrete": agent.action.discrete, "repeat": agent.action.repeat},
        "use": "feed the outputs back as action, deter and stoch; zeros and is_first at the start of an episode",
    }
    write_atomically(path.with_suffix(".json"), lambda temporary: temporary.write_text(json.dumps(about, indent=2)))
    return told


def _compared(agent: Agent, program: ActorProgram, step: Callable[..., State], shape: tuple[int, ...]) -> str:
    """The two beside each other, each with its own memory, on noise that moves."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (_STEPS, 1, *shape), np.uint8))
    policy = LatentPolicy(ActorController(agent.world_model, agent.actor_critic, agent.action))
    memory, state, apart, seconds = policy.initial(1), program.initial(), 0.0, [0.0, 0.0]
    for index, image in enumerate(images):
        first = torch.tensor([index == 0])
        beside = {name: x + float(rng.normal()) for name, x in _vector(agent).items()}
        begun = time.perf_counter()
        ours, memory = policy(Observation(image, first, vector=beside.get(VECTOR)), memory)
        between = time.perf_counter()
        state = step(image, first, *state, *beside.values())
        seconds = [seconds[0] + between - begun, seconds[1] + time.perf_counter() - between]
        apart = max(apart, float((ours - state[0]).abs().max()))
    if not apart <= _TOLERANCE:
        raise UserError(f"the program's actions differ from the agent's by {apart:.2g}: it is of no use")
    ms = [1000 * x / _STEPS for x in seconds]
    return (
        f"actions within {apart:.1g} of the agent's over {_STEPS} steps; {ms[1]:.2f} ms a step, the agent {ms[0]:.2f}"
    )


def _vector(agent: Agent) -> dict[str, Tensor]:
    """The input (1, V) for what stands beside an image, if anything does."""
    taken = agent.world_model.vector
    return {} if taken is None else {VECTOR: torch.zeros(1, taken.size)}


def _exported(program: ActorProgram, given: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(program, tuple(given.values())), file)
    return file.getvalue()


def _read_exported(path: Path) -> Callable[..., State]:
    return torch.export.load(path).module()


def _onnx(program: ActorProgram, given: dict[str, Tensor]) -> bytes:
    _needed("onnx", "onnxscript", "onnxruntime")
    names: dict[str, Any] = {"input_names": list(given), "output_names": list(OUTPUTS)}
    made = torch.onnx.export(program, tuple(given.values()), dynamo=True, verbose=False, **names)
    assert made is not None
    return made.model_proto.SerializeToString()


def _read_onnx(path: Path) -> Callable[..., State]:
    session = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def step(*given: Tensor) -> Any:
        found = session.run(None, {name: x.numpy() for name, x in zip((*INPUTS, VECTOR), given, strict=False)})
        return tuple(torch.from_numpy(x) for x in found)

    return step


def _needed(*modules: str) -> None:
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as cause:
            raise UserError(f"ONNX needs {module}: pip install {' '.join(modules)}") from cause


_FORMATS: dict[str, tuple[Callable[..., bytes], Callable[[Path], Callable[..., State]]]] = {
    ".pt2": (_exported, _read_exported),
    ".onnx": (_onnx, _read_onnx),
}
