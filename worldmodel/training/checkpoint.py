"""Checkpoints: written whole or not at all, and read as plain data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place: a reader sees old or new, never half.

    Raises:
        UserError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a link would be followed
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as cause:  # torch reports a full disk as RuntimeError
        if temporary.exists():
            temporary.unlink()
        raise UserError(f"cannot write {path} ({one_line(cause)}): is the disk full? The old one is kept") from cause


def one_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint: tensors, numbers, strings, lists and dicts.

    Raises:
        UserError: the disk is full; what was there before is kept.
    """
    write_atomically(path, lambda temporary: torch.save(checkpoint, temporary))


def link(source: Path, target: Path) -> None:
    """Let ``target`` be the file that ``source`` is now."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    temporary.replace(target)


def load_checkpoint(path: Path, resumes: bool = False) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``: a hostile file runs nothing.

    Args:
        path: of the file.
        resumes: training goes on from it, so weights alone will not do.

    Raises:
        UserError: it is missing, cut short, of another program, or holds more than plain data, or less than is needed.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: train first, or name another with --checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        hint = "" if path.stem != "last" else "; checkpoints/best.ckpt may serve with --checkpoint"
        raise UserError(
            f"the checkpoint {path} is damaged or not one of ours ({one_line(cause)[:90]}){hint}"
        ) from cause
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"the checkpoint {path} is not one of ours: it holds no state_dict")
    if resumes and "optimizer" not in checkpoint:
        raise UserError(f"the checkpoint {path} holds weights only: nothing can be trained on from it")
    return checkpoint
