"""Films and strips of rollouts: frames, the uncertainty of every step, imagined reward beside the real one.

Legend: N sequences, T time, K members, n branches, F film frames, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from worldmodel.insight.canvas import (
    DREAMT,
    FAINT,
    LOST,
    SEEN,
    Line,
    Scale,
    blank,
    enlarged,
    font,
    paste,
    plot,
    scale_of,
)
from worldmodel.insight.plots import COLOURS
from worldmodel.types import LatentState, Trajectory

_REAL, _IMAGINED, _UNCERTAINTY, _BAND = COLOURS[5], COLOURS[1], COLOURS[4], "#8A6A20"
_WORDS, _PLOT, _GAP = 150, 64, 6  # pixels: margin for words, height of a plot, between things
_COLUMNS = 40  # frames in a row of a strip, at most


def render_strip(found: Trajectory[LatentState], cell: int = 64, difference: bool = False) -> Image.Image:
    """Time from left to right, for each sequence: truth, the mixture's dream, each member's, uncertainty, and reward.

    An orange line stands where the dreams begin, numbers above count the records. Of many records every second is
    shown, or every third, but the curves are of all.

    Args:
        found: what to draw, as ``open_loop`` gives it.
        cell: least side of one frame in the picture, in pixels.
        difference: a row for |truth - dream| as well.
    """
    names, pictures = _rows(found, difference)
    rows = enlarged(pictures, cell)  # (rows, N, T, h, w, 3)
    kinds, count, length, height, width, _ = rows.shape
    every = -(-length // _COLUMNS)
    step = (width + 1) / every  # pixels from one record to the next
    left = _WORDS + step * np.arange(length) + _GAP * (np.arange(length) >= found.context)
    right, line = int(left[-1] + width), int(_WORDS + step * found.context)
    block = kinds * (height + 1) + _curves(found) * (_PLOT + _GAP) + 2 * _GAP
    canvas = blank(right + _GAP, 20 + count * block)
    draw = ImageDraw.Draw(canvas)
    shown = range(found.context % every, length, every)  # so that the first of the dream is among them
    for t in shown:
        draw.text((left[t] + 2, 3), str(t), DREAMT if t >= found.context else SEEN, font(12))
    for n in range(count):
        top = 20 + n * block
        for row, name in enumerate(names):
            y = top + row * (height + 1)
            draw.text((8, y + height // 2 - 8), name, SEEN, font())
            for t in shown:
                room = right - int(left[t])
                paste(canvas, rows[row, n, t][:, :room], int(left[t]), y)
        _plots(draw, found, n=n, x=left + width / 2, place=(_WORDS, top + kinds * (height + 1) + _GAP, right))
    draw.rectangle((line + 1, 0, line + _GAP - 3, canvas.height), DREAMT)
    return canvas


def render_film(found: Trajectory[LatentState], cell: int = 128, difference: bool = False) -> np.ndarray:
    """A film (F, H, W, 3) uint8, a frame for each record.

    For each sequence: truth, the mixture's dream and each member's side by side, below them uncertainty and
    reward with a cursor. Dreams have a white border while they are shown images, an orange one from where they are not,
    and a red one from where they are likely worse than the last picture, if that is known.

    Args:
        found: what to show, as ``open_loop`` gives it.
        cell: least side of one picture in the film, in pixels.
        difference: |truth - dream| as well.
    """
    names, pictures = _rows(found, difference)
    rows, valid = enlarged(pictures, cell), _known(found.valid)
    kinds, count, length, height, width, _ = rows.shape
    edge, caption = 4, 20
    wide = max(kinds * (width + 2 * edge + _GAP), _WORDS + 400)
    block = caption + height + 2 * edge + _curves(found) * (_PLOT + _GAP) + 3 * _GAP
    top = caption + edge + height + edge + _GAP
    centres = np.linspace(_WORDS + 8, wide - 14, length)
    still = blank(wide + _GAP, 20 + count * block)  # what does not move
    draw = ImageDraw.Draw(still)
    for n in range(count):
        for row, name in enumerate(names):
            draw.text((_GAP + row * (width + 2 * edge + _GAP), 20 + n * block + 2), name, SEEN, font())
        _plots(draw, found, n=n, x=centres, place=(_WORDS, 20 + n * block + top, wide - 6))
    frames = []
    for t in range(length):
        frame, dreamt = still.copy(), t >= found.context
        draw = ImageDraw.Draw(frame)
        words = f"step {t - found.context + 1} of the dream" if dreamt else f"record {t + 1} of {found.context} seen"
        draw.text((_GAP, 3), words, DREAMT if dreamt else SEEN, font())
        for n in range(count):
            y = 20 + n * block + caption
            for row in range(kinds):
                x = _GAP + row * (width + 2 * edge + _GAP)
                if row:
                    border = (x, y, x + width + 2 * edge - 1, y + height + 2 * edge - 1)
                    draw.rectangle(border, _border(found, n, t))
                paste(frame, rows[row, n, t], x + edge, y + edge)
                if not row and not valid[n, t]:
                    draw.text((x + edge + width // 2, y + height // 2), "not known", FAINT, font(), anchor="mm")
            low = 20 + n * block + top
            draw.line((centres[t], low, centres[t], low + _curves(found) * (_PLOT + _GAP) - _GAP), SEEN)
        frames.append(np.asarray(frame))
    return np.stack(frames)


def render_branches(found: Trajectory[LatentState], cell: int = 64, names: Sequence[str] | None = None) -> Image.Image:
    """A row of pictures for each future, return and mean uncertainty beside it; below, reward and uncertainty of all.

    Args:
        found: what to draw, as ``branches`` gives it.
        cell: least side of one frame in the picture, in pixels.
        names: of the futures; numbers if None.
    """
    images = enlarged(_known(found.image), cell)  # (n, H + 1, h, w, 3)
    rewards, uncertainties = _known(found.reward), _known(found.uncertainty)
    count, length, height, width, _ = images.shape
    every = -(-length // _COLUMNS)
    left = _WORDS + (width + 1) / every * np.arange(length)
    right = int(left[-1] + width)
    colours = [COLOURS[:6][i % 6] for i in range(count)]  # the seventh is black
    canvas = blank(right + _GAP, 20 + count * (height + 1) + 2 * (_PLOT + _GAP) + _GAP)
    draw = ImageDraw.Draw(canvas)
    for t in range(0, length, every):
        draw.text((left[t] + 2, 3), str(t), DREAMT, font(12))
    for row, colour in enumerate(colours):
        y = 20 + row * (height + 1)
        draw.rectangle((0, y, 4, y + height - 1), colour)
        words = (
            names[row] if names else f"future {row + 1}",
            f"return {rewards[row].sum():.3g}",
            f"uncertainty {uncertainties[row].mean():.3g}",
        )
        for line, text in enumerate(words):
            draw.text((9, y + height // 2 - 24 + 16 * line), text, SEEN, font(12))
        for t in range(0, length, every):
            paste(canvas, images[row, t][:, : right - int(left[t])], int(left[t]), y)
    y = 20 + count * (height + 1) + _GAP
    for values, least, title, mark in (
        (uncertainties, Scale(0, 1), "uncertainty\n(1 is usual)", 1.0),
        (rewards, Scale(0, 0), "imagined reward", None),
    ):
        lines = [Line(x, colour) for x, colour in zip(values, colours, strict=True)]
        box = (_WORDS, y, right, y + _PLOT)
        plot(
            draw, box, x=left[1:] + width / 2, lines=lines, scale=scale_of(values, least=least), title=title, mark=mark
        )
        y += _PLOT + _GAP
    return canvas


def _known(x: Tensor | None) -> np.ndarray:
    """What has to be there, as an array.

    Raises:
        ValueError: it is not.
    """
    if x is None:
        raise ValueError("the rollout has no images: take one of open_loop or branches")
    return x.float().cpu().numpy() if x.is_floating_point() else x.cpu().numpy()


def _rows(found: Trajectory[LatentState], difference: bool) -> tuple[list[str], np.ndarray]:
    """What there is to see, by name, (rows, N, T, 3, h, w) uint8."""
    truth, image, valid = _known(found.truth), _known(found.image), _known(found.valid)
    rows = {"truth": truth, "dream (mixture)": image}
    if difference:
        wrong = np.abs(truth.astype(np.int16) - image).astype(np.uint8)
        rows["difference"] = wrong * valid[:, :, None, None, None]
    if found.members is not None:
        rows |= {f"member {k}": own for k, own in enumerate(_known(found.members), 1)}
    return [*rows], np.stack([*rows.values()])


def _plots(
    draw: ImageDraw.ImageDraw, found: Trajectory[LatentState], n: int, x: np.ndarray, place: tuple[int, int, int]
) -> None:
    """Uncertainty and reward of a sequence at (left, top, right); all sequences have the same scales."""
    left, top, right = place
    uncertainties, imagined, real = (
        _known(y) for y in (found.uncertainty, found.reward, found.real_reward)
    )  # (N, T - 1)
    uncertainty, reward = scale_of(uncertainties, least=Scale(0, 1)), scale_of(real, imagined, least=Scale(0, 0))
    plot(
        draw,
        (left, top, right, top + _PLOT),
        x=x[1:],
        lines=[Line(uncertainties[n], _UNCERTAINTY)],
        scale=uncertainty,
        title="uncertainty\n(1 is usual)",
        mark=1.0,
    )
    top += _PLOT + _GAP
    lines = [Line(real[n], _REAL, "real"), Line(imagined[n], _IMAGINED, "imagined")]
    plot(draw, (left, top, right, top + _PLOT), x=x[1:], lines=lines, scale=reward, title="reward of a step")
    begins = (x[found.context - 1] + x[found.context]) / 2
    if found.expected_error is not None:
        top += _PLOT + _GAP
        _error_plot(draw, found, n=n, x=x[found.context :], box=(left, top, right, top + _PLOT))
    draw.line((begins, place[1], begins, top + _PLOT), DREAMT)


def _error_plot(
    draw: ImageDraw.ImageDraw, found: Trajectory[LatentState], n: int, x: np.ndarray, box: tuple[int, int, int, int]
) -> None:
    """The error to be expected by now with its band, the true one, and where trust ends."""
    low, high, median = _known(found.expected_error)[n].T  # (H,)
    truth, image = (_known(y)[n, found.context :].astype(float) for y in (found.truth, found.image))
    valid = _known(found.valid)[n, found.context :]
    true = np.where(valid, np.abs(truth - image).mean((1, 2, 3)) / 255, np.nan)
    high = np.where(np.isfinite(high), high, np.nan)
    lines = [
        Line(low, _BAND),
        Line(high, _BAND, "band of 90%"),
        Line(median, _IMAGINED, "expected"),
        Line(true, _REAL, "true"),
    ]
    plot(draw, box, x=x, lines=lines, scale=scale_of(median, true, high, least=Scale(0, 0)), title="error in pixels")
    trusted = int(_known(found.trusted)[n])
    if trusted < len(x):
        draw.line((x[trusted], box[1], x[trusted], box[3]), LOST, 2)


def _curves(found: Trajectory[LatentState]) -> int:
    return 2 if found.expected_error is None else 3


def _border(found: Trajectory[LatentState], n: int, t: int) -> tuple[int, int, int]:
    """White while images are shown, orange in a dream, red once it is likely worse than the last picture."""
    lost = found.trusted is not None and t - found.context >= int(found.trusted[n])
    return LOST if lost else DREAMT if t >= found.context else SEEN
