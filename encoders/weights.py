"""Weights from files: read as tensors only, and compared by name and shape before they are used."""

from __future__ import annotations

import argparse
import difflib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

State = dict[str, Tensor]
Shapes = dict[str, torch.Size]


def near(name: str, known: Iterable[str]) -> str:
    """``: did you mean ...?`` for an unknown name, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f": did you mean {' or '.join(found)}?" if found else ""


def one_line(cause: BaseException) -> str:
    """What an error says, in one line of at most 200 characters."""
    return " ".join(str(cause).split())[:200] or type(cause).__name__


def shapes(module: nn.Module) -> Shapes:
    """Shape of every parameter and buffer, by name and in order."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def read(file: str | Path, key: str | None = None, prefix: str = "") -> State:
    """The state dict that a torch or safetensors file holds.

    Args:
        file: path; ``.safetensors`` by its suffix, anything else as ``torch.save`` writes it.
        key: where in the file the state dict is; not needed if the file holds only one.
        prefix: taken are the names that begin with it, without it.

    Raises:
        ValueError: no such file, key or prefix; a damaged file; one that would run code when it is unpickled.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no weights file {file}")
    held = _select(_load(path), key, file)
    taken = {name.removeprefix(prefix): tensor for name, tensor in held.items() if name.startswith(prefix)}
    if not taken:
        raise ValueError(f"no name in {file} begins with prefix {prefix!r}: the first is {next(iter(held), 'missing')}")
    return taken


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # what training scripts keep beside the weights, and nothing but names and values
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise ValueError(
            f"{path} is damaged, or holds objects that would run code when they are loaded: save its state dict alone"
        ) from cause
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as cause:
        raise ValueError(f"{path} is damaged or holds no weights: {one_line(cause)}") from cause


def _is_state(held: Any) -> bool:
    return isinstance(held, Mapping) and bool(held) and all(isinstance(x, Tensor) for x in held.values())


def _select(held: Any, key: str | None, file: str | Path) -> State:
    if key is None and _is_state(held):
        return dict(held)
    names = [str(name) for name in held] if isinstance(held, Mapping) else []
    if key is None:
        states = [name for name in names if _is_state(held[name])]
        if len(states) == 1:
            return dict(held[states[0]])
        raise ValueError(f"{file} holds {_few(names)}: name the one with the weights as key")
    if key not in names:
        raise ValueError(f"{file} holds no {key!r}{near(key, names) or f': it holds {_few(names)}'}")
    if not _is_state(held[key]):
        raise ValueError(f"{key!r} in {file} is no state dict of tensors")
    return dict(held[key])


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing by name"


def fit(module: nn.Module, state: State, whole: Shapes, name: str, source: str) -> None:
    """Load ``state`` into ``module``, of which every parameter must be there.

    Args:
        module: the part of a network that is used.
        state: tensors by name.
        whole: names and shapes of the whole network; what is in it but not in ``module`` may be in ``state``.
        name, source: of the network and of the weights, for the message.

    Raises:
        ValueError: says what is missing, what is left over, and whose shape differs, the first of each and how many.
    """
    state, own = _by_order(state, whole), shapes(module)
    missing = [x for x in own if x not in state and not x.endswith("num_batches_tracked")]
    extra = [x for x in state if x not in whole]
    other = [x for x in own if x in state and state[x].shape != own[x]]
    wrong = [f"{missing[0]} is missing ({len(missing)} are)"] if missing else []
    wrong += [f"{extra[0]} is not in it ({len(extra)} are not)"] if extra else []
    if other:
        shape = f"{tuple(state[other[0]].shape)}, not {tuple(own[other[0]])}"
        wrong.append(f"{other[0]} is {shape} ({len(other)} differ)")
    if wrong:
        raise ValueError(f"{source} does not fit {name}: {'; '.join(wrong)}")
    module.load_state_dict({x: state[x] for x in own if x in state}, strict=False)


def _by_order(state: State, whole: Shapes) -> State:
    """The same network under names of another library: all other names, but kinds and shapes alike one by one."""
    if state.keys() & whole.keys() or len(state) != len(whole):
        return state
    theirs = [(name.rpartition(".")[2], tensor.shape) for name, tensor in state.items()]
    ours = [(name.rpartition(".")[2], shape) for name, shape in whole.items()]
    return dict(zip(whole, state.values(), strict=True)) if theirs == ours else state
