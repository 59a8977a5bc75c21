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
# # 4. Plans
#
# A planner imagines many sequences of actions and takes the one that promises most. This notebook looks at one plan in
# one state: all the candidates, the best of them, what is chosen, and how the model's uncertainty changes the choice.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display

import worldmodel
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.imagine import following
from worldmodel.control.planners import CEM, RandomShooting
from worldmodel.insight.render import render_branches
from worldmodel.insight.rollouts import branches
from worldmodel.types import ActionSpec, LatentState

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import open_models, read_episodes

world_model, actor_critic = open_models()
episodes = read_episodes()
spec = ActionSpec(1, discrete=False)

# %% [markdown]
# ## One state
#
# The model filters an episode up to a moment when the pole begins to tip. A planner sees no picture: only a vector,
# and *dynamics* that say where an action leads, what it earns, and how far the members disagree. The critic says what
# lies beyond the horizon.

# %%
moment, horizon, discount = 80, 12, 0.97
seen = world_model.observe(episodes.map(lambda x: x[:1, : moment + 1]), mode=True).state
start = LatentState(*(x[:, -1] for x in seen))
dynamics = LatentDynamics(world_model, actor_critic.critic)
feature = start.feature  # (1, F)

# %% [markdown]
# ## Candidates, elites, choice
#
# Random shooting draws sequences and takes the best. The cross-entropy method (CEM) draws around what was good, and
# draws again. `Plan.elites` are the best sequences that it tried, `Plan.mean` is what it chose.

# %%
torch.manual_seed(0)
candidates = 2 * torch.rand(1, 512, horizon, 1) - 1
cem = CEM(horizon, discount, candidates=64, elites=8, iterations=6)
returns, uncertainty = (x[0] for x in cem.score(dynamics, feature, spec, candidates))  # (N,) each
plan = cem.plan(dynamics, feature, spec)
_, elite_uncertainty = cem.score(dynamics, feature, spec, plan.elites)
steps = np.arange(1, horizon + 1)

_, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.plot(steps, candidates[0, :60, :, 0].T, color="0.8", linewidth=0.8)
left.plot([], [], color="0.8", label="random candidates")
left.plot(steps, plan.elites[0, :, :, 0].T, color="C1", linewidth=1.2)
left.plot([], [], color="C1", label="elites of CEM")
left.plot(steps, plan.mean[0, :, 0], color="C6", linewidth=2.5, marker="o", markersize=4, label="the choice")
left.set(xlabel="step", ylabel="action [-1, 1]", title="sequences of actions", ylim=(-1.1, 1.4), yticks=[-1, 0, 1])
left.legend(loc="upper left", ncols=3, fontsize=9)
right.scatter(uncertainty, returns, s=10, color="0.7", label="random candidates")
right.scatter(elite_uncertainty[0], plan.elite_values[0], s=40, marker="s", color="C1", label="elites of CEM")
right.scatter(plan.uncertainty, plan.value, s=140, marker="*", color="C6", label="the choice")
right.set(
    xlabel="mean uncertainty along the sequence (1 is usual)", ylabel="imagined return", title="what they promise"
)
right.legend(fontsize=9)
plt.show()

# %%
print(f"random: best of 512 {float(returns.max()):.2f}, mean {float(returns.mean()):.2f}; CEM {float(plan.value):.2f}")
assert plan.value > returns.quantile(0.95)
assert plan.value > plan.elite_values.max() - 1e-3  # the dynamics are no draw, so what was found once is found again
assert (plan.mean.abs() <= 1).all()

# %% [markdown]
# What it expects: the choice, the best and the worst of the random candidates.

# %%
rows = torch.cat([plan.mean, candidates[0, [int(returns.argmax()), int(returns.argmin())]]])  # (3, H, A)
futures = branches(world_model, start, following(rows), n=3, horizon=horizon)
display(render_branches(futures, names=["choice of CEM", "best random", "worst random"]), include=["image/png"])

# %% [markdown]
# ## Cautious, plain, curious
#
# `uncertainty_weight` is what a unit of uncertainty adds to the reward of a step: below 0 a planner is cautious,
# above 0 curious. Here three planners look at the same candidates. The weights are large, to show the difference.
#
# The plain one takes what stands far above all others. That is the *best random* of the picture above, and too good to
# be true: the pole dissolves, and stands again some steps later. The members disagree about it, and the cautious
# planner leaves it alone.

# %%
weights = {"cautious": -3.0, "plain": 0.0, "curious": 3.0}
chosen = {}
_, axes = plt.subplots(figsize=(7, 4))
axes.scatter(uncertainty, returns, s=10, color="0.75", label="candidates")
for (name, weight), colour, marker in zip(weights.items(), ("C0", "C6", "C3"), "v*^", strict=True):
    planner = RandomShooting(horizon, discount, uncertainty_weight=weight)
    best = int(planner.score(dynamics, feature, spec, candidates)[0].argmax())
    chosen[name] = (float(uncertainty[best]), float(returns[best]))
    axes.scatter(*chosen[name], s=130, color=colour, marker=marker, label=f"{name} ({weight:+.0f})")
axes.set(
    xlabel="mean uncertainty along the sequence (1 is usual)",
    ylabel="imagined return, without uncertainty",
    title="the choice",
)
axes.legend()
plt.show()

# %%
for name, (unsure, promised) in chosen.items():
    print(f"{name:9} uncertainty {unsure:5.2f}   imagined return {promised:7.2f}")
assert chosen["cautious"][0] <= chosen["plain"][0] <= chosen["curious"][0]
assert chosen["cautious"][0] < chosen["curious"][0]
assert chosen["plain"][1] == max(float(returns.max()), *(x[1] for x in chosen.values()))

# %% [markdown]
# CEM with the same weights searches for what the weight asks, and finds more of it than the random candidates held.

# %%
searched = {}
for name, weight in weights.items():
    torch.manual_seed(0)
    searched[name] = CEM(horizon, discount, weight, iterations=6).plan(dynamics, feature, spec)

_, axes = plt.subplots(figsize=(9, 3.2))
for (name, found), colour, marker in zip(searched.items(), ("C0", "C6", "C3"), "vo^", strict=True):
    label = f"{name}: uncertainty {float(found.uncertainty):.2f}"
    axes.plot(steps, found.mean[0, :, 0], color=colour, marker=marker, label=label)
axes.set(xlabel="step", ylabel="action [-1, 1]", ylim=(-1.1, 1.1), title="what each would do")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert searched["cautious"].uncertainty < searched["curious"].uncertainty
