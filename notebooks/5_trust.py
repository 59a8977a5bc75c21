# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Trust
#
# A model that has never been somewhere should say so. Here a small world model is trained in about half a minute on
# data with a hole in it. Then it is asked about real sequences, some through the hole: is it uncertain where it does
# not know, does uncertainty go with error, do its intervals cover the truth, and when is a dream no longer worth
# looking at?

# %%
import sys
import tempfile
from functools import partial
from pathlib import Path

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display

import worldmodel
from encoders.conv import PatchEncoder
from worldmodel.experience.environments import make_environment
from worldmodel.experience.replay import Replay, record_dtype
from worldmodel.insight.calibration import (
    auroc,
    coverage,
    interval,
    interval_scale,
    joined,
    open_loop_errors,
    rank_correlation,
    reliability,
)
from worldmodel.insight.clues import judged, with_expected
from worldmodel.insight.render import render_strip
from worldmodel.insight.rollouts import open_loop
from worldmodel.insight.trust import Clues, Origin, fit_trust, last_better
from worldmodel.insight.verify import covered
from worldmodel.model.decoder import PatchDecoder
from worldmodel.model.distributions import GaussianLatents
from worldmodel.model.independent import IndependentEnsemble
from worldmodel.model.world_model import WorldModel
from worldmodel.types import SequenceBatch

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import gallery, train

# %% [markdown]
# ## Data with a hole
#
# `PointSwamp` is a square that is pushed about. Where 0 < x < 0.5 there is a swamp: no reward, and one hardly moves.
# It cannot be seen. The episodes for training end before they would enter it, so both sides are known and the swamp is
# not.

# %%
env = make_environment("worldmodel.experience.toy:PointSwamp", size=16)
dtype = record_dtype((3, 16, 16), 2)


def in_swamp(point: np.ndarray) -> np.ndarray:
    """(*N, 2) -> (*N,) bool."""
    return (point[..., 0] > 0) & (point[..., 0] < 0.5)


def episode(env: gymnasium.Env, seed: int, careful: bool) -> tuple[np.ndarray, np.ndarray]:
    """Records (L,) of an episode under random actions, and where the square was (L, 2)."""
    rng = np.random.default_rng(seed)
    image, info = env.reset(seed=seed)
    action, cut = np.zeros(2, np.float32), False
    records, points = [np.array([(image, action, 0.0, True, False)], dtype)], [info["state"]]
    while not cut:
        action = np.clip(0.5 * action + rng.uniform(-1, 1, 2), -1, 1).astype(np.float32)
        image, reward, _, cut, info = env.step(action)
        if careful and in_swamp(info["state"]):
            break
        records.append(np.array([(image, action, reward, False, False)], dtype))
        points.append(info["state"])
    return np.concatenate(records), np.stack(points)


folder = tempfile.TemporaryDirectory()
replay = Replay(folder.name, image_shape=(3, 16, 16), action_size=2)
known = []
for seed in range(300):
    records, points = episode(env, seed, careful=True)
    replay.add_episode(records)
    known.append(points)
known = np.concatenate(known)
print(f"{replay.num_episodes} episodes, {len(replay)} records, {int(in_swamp(known).sum())} of them in the swamp")
assert not in_swamp(known).any()

# %% [markdown]
# ## A small world model
#
# Five members that share nothing, each a network of its own. The loop is plain: sample, loss, step.

# %%
torch.manual_seed(0)
world_model = WorldModel(
    2,
    PatchEncoder(16, channels=(16, 32)),
    GaussianLatents(8),
    partial(IndependentEnsemble, members=5, width=64),
    lambda feature: PatchDecoder(feature, 16, channels=(16, 32)),
    deter=32,
    width=64,
    decode_fraction=0.5,
)
losses = train(world_model, lambda: replay.sample(16, 16), updates=1000)

_, axes = plt.subplots(figsize=(7, 3))
for name, values in losses.items():
    if values.any():
        axes.plot(np.convolve(values, np.ones(20) / 20, "valid"), label=name)
axes.set(xlabel="update", ylabel="loss (mean of 20)", yscale="log")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert losses["reconstruction"][-50:].mean() < 0.3 * losses["reconstruction"][:50].mean()

# %% [markdown]
# ## Does it know where it has not been?
#
# New episodes, half of them careful, half not. The uncertainty of a step is what the model has *before* it sees where
# the step leads.


# %%
def held_out(careful: bool, first: int, count: int = 150, length: int = 20) -> tuple[SequenceBatch, np.ndarray]:
    """Sequences (N, T) that nobody trained on, one of an episode, and where the square was (N, T, 2)."""
    rows, places, seed = [], [], first
    while len(rows) < count:
        records, points = episode(env, seed, careful)
        begin = int(np.random.default_rng(seed).integers(max(1, len(records) - length + 1)))
        seed += 1
        if len(records) >= begin + length and (careful or in_swamp(points[begin : begin + length]).any()):
            rows.append(records[begin : begin + length])
            places.append(points[begin : begin + length])
    stacked = np.stack(rows)
    number = torch.arange(count).unsqueeze(1).expand(count, length)
    names = ("image", "action", "reward", "is_first", "is_terminal")
    return SequenceBatch(*(torch.from_numpy(stacked[n].copy()) for n in names), episode=number), np.stack(places)


seen, seen_at = held_out(careful=True, first=1_000_000)
hole, hole_at = held_out(careful=False, first=2_000_000)

with torch.no_grad():
    uncertainty = {
        name: world_model.uncertainty(world_model.observe(batch, mode=True).prior)[:, 1:].numpy()
        for name, batch in (("seen", seen), ("hole", hole))
    }
inside = in_swamp(hole_at[:, :-1])  # steps that begin in the swamp
unseen = uncertainty["hole"][inside]
print(f"uncertainty of steps like the data {uncertainty['seen'].mean():.2f}, of steps in the swamp {unseen.mean():.2f}")
print(f"AUROC, that a step in the swamp is doubted more: {auroc(unseen, uncertainty['seen']):.3f}  (0.5 is chance)")
assert auroc(unseen, uncertainty["seen"]) > 0.9

# %%
bins = np.geomspace(min(uncertainty["seen"].min(), unseen.min()), max(uncertainty["seen"].max(), unseen.max()), 40)
_, axes = plt.subplots(figsize=(7, 3))
for values, name, colour, hatch in (
    (uncertainty["seen"], "like the data", "C0", ""),
    (unseen, "in the swamp", "C3", "///"),
):
    weights = np.full(values.size, 1 / values.size)
    axes.hist(
        values.ravel(), bins, weights=weights, color=colour, hatch=hatch, alpha=0.6, label=name, edgecolor="white"
    )
axes.set(xscale="log", xlabel="uncertainty of a step (1 is usual)", ylabel="share of the steps")
axes.legend()
plt.show()

# %% [markdown]
# The same on the map of states: how often the data have been there, and the mean uncertainty of a step from there. The
# model sees three records before the step, so that what happened earlier is no reason to be unsure. On the far right
# there are few data, and it is doubted too.

# %%
more, more_at = held_out(careful=False, first=3_000_000, count=300)
windows = more.map(lambda x: x.unfold(1, 4, 1).movedim(-1, 2).flatten(0, 1))  # (N, 4), all there are
with torch.no_grad():
    last = world_model.uncertainty(world_model.observe(windows, mode=True).prior)[:, -1].numpy()
begin = more_at[:, 2:-1].reshape(-1, 2)  # where the last step of each begins
grid = np.linspace(-1, 1, 17)
visits = np.histogram2d(*known.T, bins=grid)[0]
total, number = (np.histogram2d(*begin.T, bins=grid, weights=w)[0] for w in (last, np.ones(len(last))))
mean = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)  # NaN where nobody was

_, axes = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True)
for panel, values, title, unit in (
    (axes[0], np.where(visits, visits, np.nan), "the data", "records in a cell"),
    (axes[1], mean, "uncertainty", "mean uncertainty of a step (1 is usual)"),
):
    drawn = panel.pcolormesh(grid, grid, values.T, norm="log")
    panel.axvspan(0, 0.5, fill=False, edgecolor="C3", linewidth=2, linestyle="--")
    panel.set(xlabel="x", title=title, aspect="equal")
    panel.grid(False)
    plt.colorbar(drawn, ax=panel, label=unit, shrink=0.8)
axes[0].set_ylabel("y")
axes[0].text(0.25, -0.9, "swamp", color="C3", ha="center")
plt.show()
middle = in_swamp(begin)
print(f"mean uncertainty in the swamp {last[middle].mean():.2f}, elsewhere {last[~middle].mean():.2f}")
assert last[middle].mean() > 2 * last[~middle].mean()

# %% [markdown]
# ## Does uncertainty go with error?
#
# Dreams of 12 steps from five records seen, in the data and through the swamp, against what really came. Each member
# dreams alone; the spread of their dreams is the uncertainty here.

# %%
errors = joined([open_loop_errors(world_model, batch, context=5, horizon=12) for batch in (seen, hole)])
spread, wrong = errors.measures["pixels"], errors.pixel_error
between = rank_correlation(spread[errors.valid], wrong[errors.valid])
curve = reliability(spread[errors.valid], wrong[errors.valid], bins=12)

_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for batch, name, colour, marker in (
    (slice(150), "like the data", "C0", "o"),
    (slice(150, None), "through the swamp", "C3", "^"),
):
    left.scatter(spread[batch, -1], wrong[batch, -1], s=14, color=colour, marker=marker, alpha=0.7, label=name)
left.set(
    xlabel="spread of the members' pictures", ylabel="error of a pixel (share of the range)", title="after 12 steps"
)
left.legend(fontsize=9)
right.plot(curve.predicted, curve.observed, marker="o", color="C2")
right.set(
    xlabel="spread, 12 bins of equal count",
    ylabel="error in the bin (RMS)",
    title=f"all steps: rank correlation {between:.2f}",
)
plt.show()
assert between > 0.5

# %%
worst = int(wrong[150:, -1].argmax())
dream = open_loop(world_model, hole.map(lambda x: x[worst : worst + 1]), context=5, horizon=12, members=True)
picked = [0, 2, 4, 6, 8, 10, 12, 14, 16]
shown = {"truth": dream.truth[0], "dream": dream.image[0]} | {
    f"member {k + 1}": x[0] for k, x in enumerate(dream.members)
}
gallery({n: x[picked] for n, x in shown.items()}, picked, "the worst of them (5 records are seen)", 0.7)
plt.show()

# %% [markdown]
# ## Do intervals cover?
#
# An interval is the imagined reward, plus and minus a multiple of the members' spread. The multiple is found on half
# of the sequences (split conformal), for 90%. On the other half it should cover nine of ten.

# %%
signed = errors.imagined_reward - errors.reward
width = errors.measures["reward"] + 0.1 * errors.reward_error.mean()  # members can agree and be wrong
fit = torch.arange(len(signed)) % 2 == 0
share = []
for step in range(signed.shape[1]):
    scale = interval_scale(signed[fit, step], width[fit, step], level=0.9)
    ends = interval(errors.imagined_reward[~fit, step], width[~fit, step], scale)
    share.append(coverage(errors.reward[~fit, step], *ends))

_, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(range(1, 13), share, marker="o", label="covered")
axes.axhline(0.9, color="0.4", linestyle="--", linewidth=1, label="asked for")
axes.set(xlabel="steps since the last image", ylabel="share of the rewards", ylim=(0, 1.03))
axes.legend(loc="lower right")
plt.show()
print(f"mean coverage {np.mean(share):.2f}")
assert 0.82 < np.mean(share) < 0.97

# %% [markdown]
# ## How wrong by now?
#
# All of this together is a run's *calibration*, which `worldmodel fit` ends with. What a dream shows of itself, such as
# how far the members' own dreams have come apart, gives the error that is to be expected *by now*. The function is
# fitted on one half of held-out sequences; its bands and the trust horizon on the other half: the steps until a dream
# is likely worse than if the last picture had stayed.
#
# Such promises are for dreams like those that it was fitted on. One calibration here has been shown sequences like the
# data alone, another some through the swamp as well. Both are asked about others.

# %%
groups = {"like the data": seen, "through the swamp": hole}
found = {name: judged(world_model, batch, context=5) for name, batch in groups.items()}


def part(names: list[str], fitted: bool) -> tuple[Clues, dict[str, np.ndarray]]:
    """Clues and errors of the dreams that calibrations are fitted on, two of three in each group, or of the others."""
    chosen = (np.arange(150) % 3 < 2) == fitted
    clues = zip(*(found[name].clues for name in names), strict=True)
    kinds = found[names[0]].errors
    errors = {kind: np.concatenate([found[name].errors[kind][chosen] for name in names]) for kind in kinds}
    return Clues(*(np.concatenate([x[chosen] for x in parts]) for parts in clues)), errors


origin = Origin("PointSwamp", weights="", updates=1000, episodes=100, context=5)
calibrations = {}
for title, names in (("calibrated on the data", ["like the data"]), ("with the swamp", list(groups))):
    clues, errors = part(names, fitted=True)
    calibrations[title] = fit_trust(clues, errors, np.arange(len(clues.pixels)), origin)

_, panels = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True)
held = {}
for row, (title, trust) in zip(panels, calibrations.items(), strict=True):
    for panel, name in zip(row, groups, strict=True):
        clues, errors = part([name], fitted=False)
        expected, true, steps = trust.expected(clues), errors["pixels"], np.arange(1, 16)
        low, high = (np.median(x, 0) for x in expected.band(0.9))
        panel.fill_between(steps, low, high, color="C1", alpha=0.25, linewidth=0, label="band of 90%")
        panel.plot(steps, np.median(expected.median, 0), color="C1", marker="o", markersize=4, label="expected")
        panel.plot(steps, np.median(true, 0), color="C5", marker="s", markersize=4, label="true")
        panel.plot(steps, np.median(errors["still"], 0), color="C0", linestyle="--", label="of the last picture")
        panel.set_title(f"{title}: {name}", fontsize=10)
        trusted = trust.trusted_steps(clues)
        share = np.mean(trusted <= last_better(true, errors["still"]))
        held[title, name] = share, np.mean(covered(expected, true, 0.9))
        print(
            f"{title + ', ' + name:42} trusted for {np.median(trusted):4g} of 15 steps (median), {share:4.0%} "
            f"of dreams no worse than the last picture; bands cover {held[title, name][1]:.0%}"
        )
for panel in panels[:, 0]:
    panel.set(ylabel="error of a pixel by now", ylim=(0, None))
for panel in panels[1]:
    panel.set(xlabel="steps since the last image")
panels[0, 0].legend(fontsize=9)
plt.show()

# %% [markdown]
# Where the calibration knows nothing of a swamp, the error that it expects there rises, but not to where it should be:
# members can be wrong together, further than they ever were together in the data. Calibrate on what you will ask about.

# %%
assert held["calibrated on the data", "like the data"][0] > 0.75
assert held["calibrated on the data", "like the data"][1] > 0.75
assert held["with the swamp", "through the swamp"][1] > held["calibrated on the data", "through the swamp"][1] + 0.2

# %% [markdown]
# The worst of the dreams again, as `worldmodel imagine` draws it: the error that is expected by now with its band, the
# true one, and a red line where trust ends.

# %%
shown = with_expected(world_model, dream, calibrations["with the swamp"])
display(render_strip(shown, cell=44), include=["image/png"])

# %%
env.close()
folder.cleanup()
