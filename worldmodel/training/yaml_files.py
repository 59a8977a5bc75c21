"""YAML of files that anybody may have written: plain data of a bounded size, or one line. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from worldmodel.errors import UserError

_BYTES, _NODES = 1_000_000, 50_000  # a run's own config.yaml has some 10 kB and 300 nodes


def read_yaml(source: Path | str, called: str = "") -> Any:
    """What a file, or a text, holds: dicts with names for keys, lists, texts and numbers.

    An alias counts as what it stands for, so that a file of a few lines cannot unfold into gigabytes.

    Args:
        source: the file's path, or the text itself.
        called: what it is called in a complaint; the path, if that is empty.

    Raises:
        UserError: it is not there, no YAML, or too large.
    """
    called = called or (str(source) if isinstance(source, Path) else "the text of settings")
    try:
        text = _text(source, called) if isinstance(source, Path) else source
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _measured(node, {}, called)
        return _named(yaml.safe_load(text), called)
    except OSError as cause:
        raise UserError(f"cannot read {called}: {cause.strerror}") from cause
    except (yaml.YAMLError, ValueError, OverflowError) as cause:  # ValueError: no UTF-8, or a number that is none
        raise UserError(f"{called} is no YAML: {' '.join(str(cause).split())[:160]}") from cause
    except RecursionError as cause:
        raise UserError(f"{called} is nested too deeply: it is no file of settings") from cause


def _text(path: Path, called: str) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"{called} is {'no file' if path.exists() else 'not there'}")
    with path.open("rb") as file:
        held = file.read(_BYTES + 1)
    if len(held) > _BYTES:
        raise UserError(f"{called} is too large: settings have {_BYTES // 1000} kB at most")
    return held.decode()


def _measured(node: yaml.Node, known: dict[int, int], called: str) -> int:
    """Nodes below this one, itself included, with every alias unfolded."""
    if id(node) not in known:
        known[id(node)] = _NODES + 1  # one that holds itself is without end
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = node.value
        known[id(node)] = 1 + sum(_measured(part, known, called) for part in inside)
    if known[id(node)] > _NODES:
        raise UserError(f"{called} unfolds into more than {_NODES:,} settings: it is no file of settings")
    return known[id(node)]


def _named(tree: Any, called: str) -> Any:
    """The same, if all keys are names."""
    if isinstance(tree, dict):
        for name in tree:
            if not isinstance(name, str):
                raise UserError(f"{called}: {str(name)[:40]!r} is no name of a setting")
        return {name: _named(value, called) for name, value in tree.items()}
    return [_named(value, called) for value in tree] if isinstance(tree, list) else tree
