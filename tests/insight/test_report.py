from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from worldmodel.insight import plots
from worldmodel.insight.calibration import HorizonErrors, Reliability, open_loop_errors
from worldmodel.insight.report import (
    Calibration,
    calibrate,
    horizon_errors,
    shift_auroc,
    step_measures,
    table_rows,
)
from worldmodel.insight.shifts import SHIFTS, Brightness

B, H = 4000, 3
EVEN = torch.arange(B) % 2 == 0


def made(factor: float = 2.0, members: bool = True) -> HorizonErrors:
    """Rewards that miss by a Gaussian whose deviation is ``factor`` times the spread of the members."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(B, H, generator=generator) + 0.5
    wrong = factor * spread * torch.randn(B, H, generator=generator)
    reward, pixel, latent = (torch.rand(B, H, generator=generator) for _ in range(3))
    measures = {"reward": spread * members, "pixels": pixel, "latent": -wrong.abs(), "entropy": torch.ones(B, H)}
    errors = (latent, pixel, wrong.abs(), wrong.cumsum(1).abs(), reward, reward + wrong)
    return HorizonErrors(*errors, measures, torch.ones(B, H, dtype=torch.bool))


def same(a: Any, b: Any) -> None:
    """Any two calibrations, or parts of them."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            same(a[name], b[name])
    elif isinstance(a, tuple):
        for pair in zip(a, b, strict=True):
            same(*pair)
    else:
        np.testing.assert_allclose(a, b)


def test_gaussian_errors_are_calibrated() -> None:
    found = calibrate(made(), EVEN, level=0.8, floor=0)
    assert found.temperature == pytest.approx(2, rel=0.03)
    assert found.ece["temperature"] < 0.03 < 0.15 < found.ece["raw"]
    assert found.level == 0.8
    for name in ("reward", "return"):
        assert found.coverage[name] == pytest.approx(np.full(H, 0.8), abs=0.03)
        assert found.pooled_coverage[name] == pytest.approx(0.8, abs=0.03)
    curve = found.reliability["temperature"]
    assert curve.counts.tolist() == [B // 2 * H // 10] * 10
    assert curve.observed == pytest.approx(curve.predicted, rel=0.1)
    assert found.reliability["raw"].predicted == pytest.approx(curve.predicted / found.temperature)


def test_correlations_errors_and_bias() -> None:
    errors = made()
    found = calibrate(errors, EVEN)
    for each in (found.correlation, found.pooled_correlation):
        assert each["pixel"]["pixels"] == pytest.approx(1)
        assert each["reward"]["latent"] == pytest.approx(-1)
        assert np.isnan(each["pixel"]["entropy"]).all()
        assert np.abs(each["pixel"]["reward"]).max() < 0.15
    assert found.correlation["pixel"]["pixels"].shape == (H,)
    assert found.errors["pixel"] == pytest.approx(errors.pixel_error.mean(0).numpy())
    assert found.errors["return"] == pytest.approx(errors.return_error.mean(0).numpy(), rel=1e-5)
    bias = (errors.imagined_reward - errors.reward).cumsum(1).mean(0)
    assert found.bias == pytest.approx(bias.numpy(), abs=1e-5)


def test_a_single_member_has_intervals_too() -> None:
    found = calibrate(made(members=False), EVEN)
    assert np.isnan(found.correlation["reward"]["reward"]).all()
    assert found.pooled_coverage["reward"] == pytest.approx(0.9, abs=0.02)
    assert 8 < found.temperature < 10  # the floor is a tenth of the root mean square, which tails make large
    assert found.ece["temperature"] < 0.05


def test_heavy_tails_do_not_make_the_deviation_too_wide() -> None:
    errors = made(factor=0.0)
    tails = torch.distributions.StudentT(2.0)
    torch.manual_seed(0)
    wrong = 3 * errors.measures["reward"] * tails.sample((B, H))
    found = calibrate(errors._replace(imagined_reward=errors.reward + wrong), EVEN, floor=0)
    assert found.temperature == pytest.approx(3 * 0.8165 / 0.6745, rel=0.05)  # the medians of |t2| and |N|
    assert found.ece["temperature"] < 0.03


def test_what_comes_after_an_episode_counts_for_nothing() -> None:
    errors = made()
    errors.valid[::3, 1:] = False
    before = calibrate(errors, EVEN)
    errors.reward[::3, 1:] = 1e6
    errors.pixel_error[::3, 1:] = 1e6
    errors.measures["reward"][::3, 1:] = 1e6
    same(before, calibrate(errors, EVEN))
    errors.valid[:, 1:] = False
    nothing = calibrate(errors, EVEN)
    assert np.isnan(nothing.errors["pixel"]).tolist() == [False, True, True]
    assert np.isnan(nothing.coverage["return"]).tolist() == [False, True, True]
    assert not math.isnan(nothing.pooled_coverage["return"])


def first(errors: HorizonErrors, count: int) -> HorizonErrors:
    measures = {name: x[:count] for name, x in errors.measures.items()}
    parts: dict[str, Any] = {name: x[:count] for name, x in errors._asdict().items() if name != "measures"}
    return HorizonErrors(**parts, measures=measures)


def test_with_few_sequences_what_cannot_be_said_is_not() -> None:
    found = calibrate(first(made(), 16), EVEN[:16])  # 8 to fit a step's interval with, 9 are needed
    assert np.isnan(found.coverage["reward"]).all()
    assert not math.isnan(found.pooled_coverage["reward"])
    found = calibrate(first(made(), 2), EVEN[:2])
    assert np.isnan(found.correlation["pixel"]["pixels"]).all()
    assert found.reliability["raw"].counts.tolist() == [1] * H
    for fit in (torch.zeros(2), torch.ones(2)):
        with pytest.raises(ValueError, match="some sequences must be fitted and others tested"):
            calibrate(first(made(), 2), fit)


def test_dreams_without_any_error() -> None:
    errors = made(factor=0.0)
    found = calibrate(errors, EVEN)
    assert found.ece["temperature"] == 0.5 and found.pooled_coverage["reward"] == 1
    plots.to_png(plots.reliability_curve(found.reliability))


def test_many_sequences_are_taken_in_parts() -> None:
    model, data = tiny.world_model(), tiny.batch(34, 6)
    data.is_first[33, 4] = True
    whole, parts = open_loop_errors(model, data, 2, 4), horizon_errors(model, data, 2, 4)
    for name, x in whole._asdict().items():
        if name != "measures":
            torch.testing.assert_close(getattr(parts, name), x)
    assert parts.measures.keys() == whole.measures.keys()
    for name, x in whole.measures.items():
        torch.testing.assert_close(parts.measures[name], x)


@torch.no_grad()
def test_doubts_of_one_step() -> None:
    model, data = tiny.world_model(), tiny.batch(34, 5)
    data.is_first[33, 2] = True
    found = step_measures(model, data)
    assert {x.shape for x in found.values()} == {(34 * 4 - 1,)}
    posterior = model.observe(data, mode=True)
    torch.testing.assert_close(found["epistemic"][:4], model.uncertainty(posterior.prior)[0, 1:])
    latents, last = model.latents, (33, slice(3, 5))
    prior, posterior = posterior.prior[(slice(None), *last)], posterior.state.params[last]
    torch.testing.assert_close(found["surprise"][-2:], latents.kl(posterior, latents.mixture(prior)))


def test_aurocs_of_shifts() -> None:
    model, data = tiny.world_model(), tiny.batch(8, 5)
    found = shift_auroc(model, data, SHIFTS | {"none": Brightness(0)})
    assert found.keys() == {*SHIFTS, "none"}
    assert set(found["none"].values()) == {0.5}
    assert all(0 <= x <= 1 for each in found.values() for x in each.values())
    assert found["brightness"]["surprise"] != 0.5
    alone = shift_auroc(tiny.world_model(members=1), data, {"blur": SHIFTS["blur"]})
    assert alone["blur"]["epistemic"] == alone["blur"]["information"] == 0.5


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrate(made(), EVEN)


def test_a_table_of_all_numbers(found: Calibration) -> None:
    rows = table_rows(found, {"blur": {"surprise": 0.75}}, task="toy", transition="SharedTrunk", seed=3)
    assert rows == json.loads(json.dumps(rows, allow_nan=False))
    keys = {"task", "transition", "seed", "measure", "case", "metric", "horizon", "value"}
    assert all(row.keys() == keys for row in rows)
    places = [(r["metric"], r["measure"], r["case"], r["horizon"]) for r in rows]
    assert len(set(places)) == len(places)
    by_place = dict(zip(places, (row["value"] for row in rows), strict=True))
    assert by_place["auroc", "surprise", "blur", None] == 0.75
    assert by_place["coverage", "reward", "return", 2] == found.coverage["return"][1]
    assert by_place["coverage", "reward", "return", None] == found.pooled_coverage["return"]
    assert by_place["rank_correlation", "entropy", "pixel", 1] is None  # it is constant
    assert by_place["bias", None, "return", H] == found.bias[-1]


def test_policies_have_learning_curves_of_their_own() -> None:
    def row(policy: str, frames: int) -> dict[str, Any]:
        return {"policy": policy, "frames": frames, "return_mean": frames / 2, "return_std": 1.0}

    rows = [row("actor", 20), row("actor", 10), row("cem", 20), row("actor", 30)]
    (axes,) = plots.learning_curve(rows).axes
    drawn = {
        line.get_label(): line.get_xydata().tolist() for line in axes.lines if not line.get_label().startswith("_")
    }
    assert drawn == {"actor": [[10, 5], [20, 10], [30, 15]], "cem": [[20, 10]]}
    assert axes.get_xlabel() == "environment frames"


def test_returns_as_it_explored_stand_behind() -> None:
    rows = [{"policy": "actor", "frames": 10, "return_mean": 1.0, "return_std": 0.1}]
    metrics = [{"updates": 1.0, "frames": 5.0, "train/return": 2.0}, {"updates": 2.0}]
    (axes,) = plots.learning_curve(rows, metrics).axes
    assert axes.lines[0].get_xydata().tolist() == [[5, 2]] and axes.get_legend() is not None


def test_losses_that_were_written_down_are_drawn() -> None:
    rows = [{"updates": 1.0, "loss/reward": 2.0, "loss/total": 5.0}, {"updates": 2.0}, {"updates": 3.0}]
    rows[2] |= {"loss/reward": 1.0, "loss/critic": -1.0}
    reward, critic = plots.loss_curves(rows).axes
    assert reward.lines[0].get_xydata().tolist() == [[1, 2], [3, 1]] and reward.get_yscale() == "log"
    assert critic.lines[0].get_xydata().tolist() == [[3, -1]] and critic.get_yscale() == "linear"
    assert [axes.get_title() for axes in (reward, critic)] == ["reward", "critic"]


def test_figures_say_what_they_show(found: Calibration) -> None:
    single = {"only": Reliability(np.array([0.1]), np.array([0.0]), np.array([3]))}
    figures = {
        "error": plots.error_by_horizon(found.errors, found.bias),
        "reliability": plots.reliability_curve(found.reliability),
        "nothing": plots.reliability_curve(single),
        "correlation": plots.correlation_by_horizon(found.correlation),
        "unknown": plots.coverage_by_horizon({"reward": np.full(H, math.nan)}, 0.9),
        "auroc": plots.auroc_bars({name: {"epistemic": 0.4, "surprise": 1.0} for name in SHIFTS}),
    }
    for figure in figures.values():
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
        assert plots.to_png(figure, dpi=30).startswith(b"\x89PNG")
    assert [len(figures[name].axes) for name in ("error", "correlation")] == [4, 2]
    tops = [bar.get_y() + bar.get_height() for bar in figures["auroc"].axes[0].patches]
    assert tops == pytest.approx([0.4] * len(SHIFTS) + [1.0] * len(SHIFTS))


def test_tensors_and_arrays_choose_alike() -> None:
    same(calibrate(made(), EVEN), calibrate(made(), EVEN.numpy()))
