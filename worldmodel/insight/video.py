"""Films as mp4, written without any program beside Python."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

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
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"a film is (T, H, W, 3) uint8 with at least one frame, got {frames.shape} {frames.dtype}")
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(temporary, frames, fps)
        temporary.replace(path)
    except (OSError, av.FFmpegError) as cause:
        raise UserError(f"cannot write the film {path}: {' '.join(str(cause).split())}") from cause
    finally:
        if temporary.exists():
            temporary.unlink()


def _encode(path: Path, frames: np.ndarray, fps: int) -> None:
    height, width = frames.shape[1:3]
    scale = -(-_SMALLEST // min(height, width))
    odd = (height * scale % 2, width * scale % 2)  # yuv420p halves both sides
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = height * scale + odd[0], width * scale + odd[1]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            large = frame.repeat(scale, 0).repeat(scale, 1)
            large = np.pad(large, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())
