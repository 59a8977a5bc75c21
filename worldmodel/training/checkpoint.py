"""Checkpoints: written whole or not at all, read as plain data, and compared with the checksum at their end.

A checkpoint is the zip archive that torch writes, whose checksums torch does not look at when it reads. So its comment,
which is the last that a zip archive has, holds the CRC-32 of all bytes before.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worldmodel.errors import UserError, one_line

_SEAL = rb"worldmodel crc32 [0-9a-f]{8}"
_LENGTH = len(b"worldmodel crc32 ") + 8
_HELD = {"state_dict": dict, "updates": int, "frames": int, "progress": dict}
_SEALED = "sealed"  # there is a checksum, says the checkpoint: one whose mark is damaged is not taken for an older one


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


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint: tensors, numbers, strings, lists and dicts.

    Raises:
        UserError: the disk is full; what was there before is kept.
    """

    def write(temporary: Path) -> None:
        torch.save({**checkpoint, _SEALED: True}, temporary)
        _seal(temporary)

    write_atomically(path, write)


def _seal(path: Path) -> None:
    """Write the checksum into the archive's comment."""
    with path.open("rb+") as file:
        file.seek(-2, os.SEEK_END)  # where the archive says how long its comment is
        file.write(struct.pack("<H", _LENGTH))
    checksum = _SEAL.replace(b"[0-9a-f]{8}", f"{_crc(path):08x}".encode())
    with path.open("ab") as file:
        file.write(checksum)


def _crc(path: Path, leave: int = 0) -> int:
    """CRC-32 of a file but for its last ``leave`` bytes."""
    crc, left = 0, path.stat().st_size - leave
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 22))):
            crc, left = zlib.crc32(block, crc), left - len(block)
    return crc


def _seal_of(path: Path) -> int | None:
    """The checksum that was written with a file; None if there is none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LENGTH))
        found = re.fullmatch(_SEAL, file.read())
    return None if found is None else int(found[0].split()[-1], 16)


def link(source: Path, target: Path) -> None:
    """Let ``target`` be the file that ``source`` is now; a copy, where the file system has no links.

    Raises:
        UserError: the disk is full.
    """

    def write(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(target, write)


def load_checkpoint(path: Path, resumes: bool = False) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``: a hostile file runs nothing.

    Args:
        path: of the file.
        resumes: training goes on from it, so weights alone will not do.

    Raises:
        UserError: it is missing, damaged, of another program, or holds more than plain data, or less than is needed.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: train first, or name another with --checkpoint")
    hint = "" if path.stem != "last" else "; checkpoints/best.ckpt may serve with --checkpoint"
    try:
        seal = _seal_of(path)
        if seal is not None and seal != _crc(path, leave=_LENGTH):
            raise UserError(f"the checkpoint {path} is damaged: its bytes do not give its checksum{hint}")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as cause:
        raise UserError(
            f"the checkpoint {path} is damaged or not one of ours ({one_line(cause)[:90]}){hint}"
        ) from cause
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"the checkpoint {path} is not one of ours: it holds no state_dict")
    if checkpoint.get(_SEALED) and seal is None:
        raise UserError(f"the checkpoint {path} is damaged: its checksum is gone{hint}")
    for name, kind in _HELD.items():
        if not isinstance(checkpoint.get(name), kind):
            raise UserError(f"the checkpoint {path} is not one of ours: its {name} is no {kind.__name__}")
    if resumes and "optimizer" not in checkpoint:
        raise UserError(f"the checkpoint {path} holds weights only: nothing can be trained on from it")
    return checkpoint
