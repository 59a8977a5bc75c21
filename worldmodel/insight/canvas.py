"""Pictures put together by hand: frames, words, curves. Legend: T time, h x w pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from einops import repeat
from PIL import Image, ImageDraw, ImageFont

DARK, SEEN, DREAMT, FAINT = (40, 40, 40), (235, 235, 235), (255, 140, 0), (120, 120, 120)
LOST = (220, 30, 30)  # a dream that is trusted no more


class Line(NamedTuple):
    """A curve; NaN leaves a gap."""

    values: np.ndarray  # (T,)
    colour: str
    name: str = ""


class Scale(NamedTuple):
    """What the lower and the upper edge of a plot stand for."""

    low: float
    high: float


@lru_cache
def font(size: int = 13) -> Any:
    """A font for words on pictures, ``size`` pixels high."""
    return ImageFont.load_default(size)


def enlarged(images: np.ndarray, cell: int) -> np.ndarray:
    """(..., 3, h, w) -> (..., H, W, 3), every pixel a square, until the shorter side has ``cell`` or more."""
    scale = max(1, -(-cell // min(images.shape[-2:])))
    return repeat(images, "... c h w -> ... (h a) (w b) c", a=scale, b=scale)


def blank(width: int, height: int) -> Image.Image:
    """A dark picture."""
    return Image.new("RGB", (width, height), DARK)


def paste(canvas: Image.Image, frame: np.ndarray, x: int, y: int) -> None:
    """Put a frame (h, w, 3) uint8 onto a picture, its upper left corner at (x, y)."""
    canvas.paste(Image.fromarray(np.ascontiguousarray(frame)), (x, y))


def scale_of(*values: np.ndarray, least: Scale) -> Scale:
    """A scale with room for all that is finite in ``values``, and for ``least``."""
    known = np.concatenate([x[np.isfinite(x)] for x in values] or [np.zeros(0)])
    low, high = min(least.low, known.min(initial=least.low)), max(least.high, known.max(initial=least.high))
    return Scale(float(low), float(high))


def plot(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    x: np.ndarray,
    lines: Sequence[Line],
    scale: Scale,
    title: str,
    mark: float | None = None,
) -> None:
    """Curves, and left of them a title, their names in their colours, and the ends of the scale.

    Args:
        draw: of the picture.
        box: left, top, right and bottom of the plot; the words take 145 pixels more to the left.
        x: (T,) where the values stand, in pixels of the picture.
        lines: what is drawn, the last on top.
        scale: of the vertical axis.
        title: what is drawn, with its unit.
        mark: a value at which a thin line runs across.
    """
    left, top, right, bottom = box
    draw.rectangle(box, fill=(22, 22, 22))

    def at(value: float) -> float:
        return bottom - 2 - (value - scale.low) / max(1e-9, scale.high - scale.low) * (bottom - top - 4)

    if mark is not None:
        draw.line((left, at(mark), right, at(mark)), FAINT)
    for line in lines:
        for points in _pieces(x, line.values):
            path = [(px, at(py)) for px, py in points]
            if len(path) > 1:
                draw.line(path, line.colour, 2)
            for px, py in path if len(path) == 1 else []:
                draw.ellipse((px - 2, py - 2, px + 2, py + 2), line.colour)
    draw.text((left - 143, top), title, SEEN, font())
    named = [line for line in lines if line.name]
    for row, line in enumerate(named):
        draw.text((left - 143, top + 16 * (row + 1)), line.name, line.colour, font())
    draw.text((left - 4, top), f"{scale.high:.3g}", SEEN, font(11), anchor="rt")
    draw.text((left - 4, bottom), f"{scale.low:.3g}", SEEN, font(11), anchor="rb")


def _pieces(x: np.ndarray, y: np.ndarray) -> Iterator[list[tuple[float, float]]]:
    """Runs of points without a gap."""
    points: list[tuple[float, float]] = []
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(py):
            points.append((px, py))
        elif points:
            yield points
            points = []
    if points:
        yield points
