"""Figures of a run, drawn without any global state. Colours are those of Okabe and Ito, told apart by all eyes.

Legend: H horizon. NaN leaves a gap.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from worldmodel.insight.calibration import Reliability
from worldmodel.insight.trust import Expected

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
LOSSES = {  # by their names in metrics.csv
    "loss/reconstruction": "reconstruction",
    "loss/reward": "reward",
    "loss/dynamics": "dynamics (KL)",
    "loss/critic": "critic",
}
_MARKERS = "osD^vPX"
_UNITS = {  # of errors
    "latent": ("latent", "mean square error"),
    "pixel": ("pixels", "mean error (share of range)"),
    "reward": ("reward of the step", "mean error (reward)"),
    "return": ("return so far", "reward"),
}
_STEPS = "steps since the last image"


def to_png(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def learning_curve(
    evaluations: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, float]] = (),
    frames_at: float | None = None,
) -> Figure:
    """Mean return over environment frames, a line and a band of one deviation for each policy.

    Args:
        evaluations: rows of ``evaluations.jsonl``: frames, policy, return_mean, return_std.
        metrics: rows of ``metrics.csv``; where they have a ``train/return``, it is drawn in grey.
        frames_at: of the checkpoint that is reported on: a line marks it.
    """
    figure, (axes,) = _figure(1, width=8)
    explored = np.array([(row["frames"], row["train/return"]) for row in metrics if "train/return" in row])
    if len(explored):
        axes.plot(*explored.T, color="0.6", linewidth=1, label="as it explored")
    names = list(dict.fromkeys(_policy(row) for row in evaluations))
    for index, name in enumerate(names):
        rows = sorted((row for row in evaluations if _policy(row) == name), key=lambda row: row["frames"])
        frames, mean, std = (np.array([row[k] for row in rows], float) for k in ("frames", "return_mean", "return_std"))
        line = _line(axes, frames, mean, label=name, index=index)
        if len(rows) > 1:
            axes.fill_between(frames, mean - std, mean + std, color=line, alpha=0.2, linewidth=0)
        else:
            axes.errorbar(frames, mean, std, color=line, capsize=4)
    if frames_at is not None:
        axes.axvline(frames_at, color="0.4", linewidth=1, linestyle="--", label="this checkpoint")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    _finish(axes, "environment frames", "return of an episode")
    _legend(axes, len(names) + (len(explored) > 0) + (frames_at is not None))
    return figure


def loss_curves(metrics: Sequence[Mapping[str, float]]) -> Figure:
    """Those of ``LOSSES`` that were written down, over updates, a panel each; logarithmic where all are above 0.

    Args:
        metrics: rows of ``metrics.csv``.
    """
    names = [name for name in LOSSES if any(name in row for row in metrics)]
    figure, panels = _figure(len(names), width=2.8, height=3.0)
    for axes, name in zip(panels, names, strict=True):
        points = np.array([(row["updates"], row[name]) for row in metrics if name in row])
        axes.plot(*points.T, color=COLOURS[0], linewidth=1.3)
        if (points[:, 1] > 0).all():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.set_title(LOSSES[name])
        _finish(axes, "updates", "loss")
    return figure


def error_by_horizon(errors: Mapping[str, np.ndarray], bias: np.ndarray | None = None) -> Figure:
    """Mean errors (H,) of dreams by name (``latent``, ``pixel``, ``reward``, ``return``), a panel each.

    Args:
        errors: what to draw.
        bias: (H,) imagined minus real return, drawn beside the error of the return.
    """
    figure, panels = _figure(len(errors), width=2.8, height=3.2)
    for axes, (name, error) in zip(panels, errors.items(), strict=True):
        title, unit = _UNITS[name]
        steps = np.arange(1, len(error) + 1)
        _line(axes, steps, error, label="mean error", index=0)
        if name == "return" and bias is not None:
            _line(axes, steps, bias, label="imagined minus real", index=3)
            axes.axhline(0, color="0.4", linewidth=1)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
            axes.legend(frameon=False, loc="upper left")
        else:
            axes.set_ylim(0, 1.1 * np.nan_to_num(error).max(initial=1e-9))
        axes.set_title(title)
        _steps(axes, unit)
    return figure


def reliability_curve(curves: Mapping[str, Reliability], unit: str = "reward") -> Figure:
    """Error seen over deviation predicted, both logarithmic; on the diagonal an uncertainty is of the right size.

    Args:
        curves: bins by name. Those without uncertainty or error are left out.
        unit: of both.
    """
    figure, (axes,) = _figure(1, width=5.5, height=4.6)
    ends: list[float] = []
    for index, (name, curve) in enumerate(curves.items()):
        drawn = (curve.predicted > 0) & (curve.observed > 0)
        _line(axes, curve.predicted[drawn], curve.observed[drawn], label=name, index=index)
        ends += [*curve.predicted[drawn], *curve.observed[drawn]]
    if ends:
        limits = [min(ends) / 1.5, max(ends) * 1.5]
        axes.plot(limits, limits, color="0.4", linewidth=1, linestyle="--", label="right size")
        axes.set_xscale("log")
        axes.set_yscale("log")
    _finish(axes, f"predicted deviation, {unit}", f"root mean square error, {unit}")
    _legend(axes, 2)
    return figure


def correlation_by_horizon(correlations: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Rank correlations (H,) of measures of uncertainty, a panel for each error: ``{error: {measure: values}}``."""
    figure, panels = _figure(len(correlations), width=4.6, margin=1.6)
    for axes, (error, measures) in zip(panels, correlations.items(), strict=True):
        for index, (name, values) in enumerate(measures.items()):
            # some measures are almost the same: what lies below stays visible
            _line(
                axes,
                np.arange(1, len(values) + 1),
                values,
                label=name,
                index=index,
                wider=0.3 * (len(measures) - index),
            )
        axes.axhline(0, color="0.4", linewidth=1)
        axes.set_ylim(-1.05, 1.05)
        axes.set_title(f"with the {error} error")
        _steps(axes, "rank correlation")
    _outside(figure, panels[-1])
    return figure


def coverage_by_horizon(coverage: Mapping[str, np.ndarray], level: float) -> Figure:
    """Share (H,) of the truth inside its intervals, a line for each name, and the level that was asked for."""
    figure, (axes,) = _figure(1, width=6)
    for index, (name, values) in enumerate(coverage.items()):
        _line(axes, np.arange(1, len(values) + 1), values, label=name, index=index)
    axes.axhline(level, color="0.4", linewidth=1, linestyle="--", label=f"asked for: {level:g}")
    axes.set_ylim(-0.03, 1.03)
    _steps(axes, "share of the truth that is covered")
    _legend(axes, 2)
    return figure


def expected_errors(expected: Mapping[str, Expected], errors: Mapping[str, np.ndarray]) -> Figure:
    """Expected and true error by step, a panel for pixels, reward and return: medians over dreams.

    Args:
        expected: of ``pixels``, ``reward``, ``return`` and ``still``, the last picture's in pixels.
        errors: (n, H) the same.
    """
    names = {"pixels": "pixel", "reward": "reward", "return": "return"}
    figure, panels = _figure(len(names), width=3.4, height=3.4)
    for axes, (name, called) in zip(panels, names.items(), strict=True):
        steps = np.arange(1, errors[name].shape[1] + 1)
        for level, strength in ((0.9, 0.15), (0.5, 0.3)):
            low, high = (np.median(x, 0) for x in expected[name].band(level))
            known = np.isfinite(high)
            axes.fill_between(steps[known], low[known], high[known], color=COLOURS[0], alpha=strength, linewidth=0)
        _line(axes, steps, np.median(expected[name].median, 0), label="expected", index=0)
        _line(axes, steps, np.nanmedian(errors[name], 0), label="true", index=3)
        if name == "pixels":
            _line(axes, steps, np.nanmedian(errors["still"], 0), label="of the last picture", index=1)
        axes.set_ylim(bottom=0)
        axes.set_title(_UNITS[called][0])
        _steps(axes, "error")
        axes.legend(frameon=False, loc="upper left")
    return figure


def auroc_bars(aurocs: Mapping[str, Mapping[str, float]]) -> Figure:
    """How well measures tell shifted images from seen ones, a group of bars each: ``{shift: {measure: x}}``."""
    figure, (axes,) = _figure(1, width=9, margin=1.5)
    measures = list(next(iter(aurocs.values()), {}))
    wide = 0.8 / max(1, len(measures))
    place = np.arange(len(aurocs))
    for index, name in enumerate(measures):
        left = place - 0.4 + index * wide
        values = [row[name] for row in aurocs.values()]
        # from chance, so that the length of a bar is what a measure knows
        axes.bar(left, np.array(values) - 0.5, wide * 0.92, 0.5, align="edge", color=COLOURS[index], label=name)
    axes.axhline(0.5, color="0.2", linewidth=1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(place, list(aurocs))
    _finish(axes, "shift of the images", "AUROC, 0.5 is chance")
    _outside(figure, axes)
    return figure


def _policy(row: Mapping[str, Any]) -> str:
    return str(row.get("policy", "actor"))


def _figure(columns: int, width: float = 4.0, height: float = 3.6, margin: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A row of panels, each ``width`` x ``height`` inches, and a margin to the right."""
    figure = Figure(figsize=(columns * width + margin, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, index: int, wider: float = 0.0) -> str:
    colour = COLOURS[index % len(COLOURS)]
    marker = _MARKERS[index % len(_MARKERS)]  # so that colour is not all that tells lines apart
    label = label.replace("$", r"\$")  # a name is no formula
    axes.plot(x, y, color=colour, marker=marker, markersize=4.5 + wider, linewidth=1.6 + wider, label=label)
    return colour


def _steps(axes: Axes, y: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, _STEPS, y)


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, lines: int) -> None:
    if lines > 1:
        axes.legend(frameon=False)


def _outside(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
