"""Films as mp4 and gif, written and read without any program beside Python. Legend: T frames, H x W pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from worldmodel.errors import UserError

_SMALLEST = 256  # pixels; players blur what is smaller


def write_mp4(path: Path | str, frames: np.ndarray, fps: int = 15) -> None:
    """Write an h264 film; the file appears whole or not at all.

    Args:
        path: of the file; folders that are missing are made.
        frames: (T, H, W, 3) uint8. Small ones are enlarged, pixel by pixel, to 256 or more on the shorter side.
        fps: frames per second.

    Raises:
        UserError: the file cannot be written.
        ValueError: ``frames`` is no film.
    """
    _checked(frames)
    _whole(Path(path), lambda temporary: _encode(str(temporary), frames, fps))


def mp4_bytes(frames: np.ndarray, fps: int = 15) -> bytes:
    """The same film without a file.

    Raises:
        ValueError: ``frames`` is no film.
    """
    _checked(frames)
    file = io.BytesIO()
    _encode(file, frames, fps)
    return file.getvalue()


def read_mp4(path: Path | str) -> np.ndarray:
    """The frames (T, H, W, 3) uint8 of a film.

    Raises:
        UserError: there is none that can be read.
    """
    try:
        # of no other format: playlists name files and addresses
        with av.open(str(path), format="mp4") as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (OSError, av.FFmpegError, ValueError, IndexError) as cause:
        raise UserError(f"cannot read the film {path}: {' '.join(str(cause).split())}") from cause


def write_gif(path: Path | str, frames: np.ndarray, fps: int = 15) -> None:
    """Write a gif that repeats for ever; the file appears whole or not at all.

    Args:
        path: of the file; folders that are missing are made.
        frames: (T, H, W, 3) uint8; a frame like the one before only makes that one last longer.
        fps: frames per second; a frame lasts whole hundredths of a second.

    Raises:
        UserError: the file cannot be written.
        ValueError: ``frames`` is no film.
    """
    _checked(frames)
    first, *rest = (Image.fromarray(frame) for frame in frames)
    lasts = 10 * round(100 / fps)  # ms

    def write(temporary: Path) -> None:
        first.save(temporary, format="gif", save_all=True, append_images=rest, duration=lasts, loop=0)

    _whole(Path(path), write)


def _checked(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"a film is (T, H, W, 3) uint8 with at least one frame, got {frames.shape} {frames.dtype}")


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a link would be followed
        write(temporary)
        temporary.replace(path)
    except (OSError, av.FFmpegError) as cause:
        raise UserError(f"cannot write the film {path}: {' '.join(str(cause).split())}") from cause
    finally:
        if temporary.exists():
            temporary.unlink()


def _encode(target: str | io.BytesIO, frames: np.ndarray, fps: int) -> None:
    height, width = frames.shape[1:3]
    scale = -(-_SMALLEST // min(height, width))
    odd = (height * scale % 2, width * scale % 2)  # yuv420p halves both sides
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = height * scale + odd[0], width * scale + odd[1]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            large = frame.repeat(scale, 0).repeat(scale, 1)
            large = np.pad(large, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
