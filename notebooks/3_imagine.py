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
# # 3. Dreams
#
# From any belief the model can go on without pictures: it imagines what its actions lead to. This notebook lets it
# dream of what really happened, lets every member of the ensemble dream alone, shows several futures of one state, and
# hands you the keys.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display

import worldmodel
from worldmodel.control.imagine import following
from worldmodel.insight.clues import with_expected
from worldmodel.insight.player.replayable import from_replay
from worldmodel.insight.player.session import PlayerSession
from worldmodel.insight.player.widget import Player
from worldmodel.insight.render import render_branches, render_film, render_strip
from worldmodel.insight.rollouts import branches, open_loop
from worldmodel.insight.trust import last_better
from worldmodel.types import ActionSpec

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import film, open_models, open_replay, open_trust, read_episodes

world_model, actor_critic = open_models()
episodes, trust = read_episodes(), open_trust(world_model)

# %% [markdown]
# ## Truth, the dream, and each member's dream
#
# The model sees the first five records of an episode, until the frames turn orange. Then it is told the actions and
# nothing else. The *mixture* averages the members at every step; each *member* also dreams alone. Where their pictures
# part, the model does not know. The violet curve is the uncertainty of each step, in multiples of what was usual in
# training.
#
# The run ended with a calibration, from held-out episodes: how wrong a dream is likely to be *by now*. That is the
# lowest curve, with a band that is to cover nine of ten, and the true error beside it. Where the dream is likely worse
# than if the last picture had stayed, it is trusted no longer, and its frame turns red.

# %%
context, horizon = 5, 35
dream = open_loop(world_model, episodes.map(lambda x: x[:1]), context, horizon, members=True)
dream = with_expected(world_model, dream, trust)
film(render_film(dream))

# %% [markdown]
# The same as a strip, shorter.

# %%
short = open_loop(world_model, episodes.map(lambda x: x[:1, 2:]), context=3, horizon=18, members=True)
display(render_strip(with_expected(world_model, short, trust), cell=44), include=["image/png"])

# %% [markdown]
# ## How long is a dream good for?
#
# Over dreams from many beginnings, the error of a pixel against that of a picture that just stands still: the last one
# seen. Below, the uncertainty that the model had of the same steps, without having seen how wrong it was.

# %%
starts = range(0, 24, 4)
dreams = [open_loop(world_model, episodes.map(lambda x, s=s: x[:, s : s + 45])) for s in starts]
dreams = [with_expected(world_model, d, trust) for d in dreams]
truth, dreamt = (torch.cat([getattr(d, name) for d in dreams]).numpy() / 255 for name in ("truth", "image"))
last = truth[:, context - 1 : context]
wrong = np.abs(dreamt - truth)[:, context:].mean((0, 2, 3, 4))  # (H,)
still = np.abs(last - truth)[:, context:].mean((0, 2, 3, 4))
uncertainty = torch.cat([d.uncertainty for d in dreams]).numpy()[:, context - 1 :]  # (N, H)

_, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4.6), sharex=True)
steps = np.arange(1, len(wrong) + 1)
top.plot(steps, wrong, label="dream", color="C1", marker="o", markersize=3)
top.plot(steps, still, label="the last picture seen", color="C0", marker="s", markersize=3)
top.set(ylabel="mean error of a pixel\n(share of the range)", title=f"{len(uncertainty)} dreams")
top.legend()
bottom.plot(steps, np.median(uncertainty, 0), color="C4", marker="o", markersize=3, label="median")
bottom.fill_between(
    steps, *np.quantile(uncertainty, [0.25, 0.75], 0), color="C4", alpha=0.25, linewidth=0, label="half of the dreams"
)
bottom.set(xlabel="steps since the last image", ylabel="uncertainty (1 is usual)", yscale="log")
bottom.legend()
plt.show()

# %%
for step in (1, 5, 10, 20, 40):
    print(f"step {step:2}: dream {wrong[step - 1]:.4f}, the last picture seen {still[step - 1]:.4f}")
assert wrong[0] < still[0]
assert wrong[9] < 0.7 * still[9]
assert wrong[0] < wrong[-1]

# %% [markdown]
# The model can say so itself, of each dream alone and without the truth: what error is to be expected by now, and for
# how many steps the dream is to be trusted. In nine of ten dreams it should be no worse up to there than the last
# picture. Here it falls short of that: these are overlapping dreams of three episodes. What the calibration is worth on
# many held-out ones is in [uncertainty.md](../docs/uncertainty.md).

# %%
low, high, likely = torch.cat([d.expected_error for d in dreams]).unbind(-1)  # (N, H) each
error = np.abs(dreamt - truth)[:, context:].mean((2, 3, 4))  # (N, H)
beside = np.abs(last - truth)[:, context:].mean((2, 3, 4))
trusted = torch.cat([d.trusted for d in dreams]).numpy()
better = last_better(error, beside)  # steps up to which each was no worse in truth

_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
left.fill_between(steps, low.median(0).values, high.median(0).values, color="C1", alpha=0.25, label="band of 90%")
left.plot(steps, likely.median(0).values, color="C1", marker="o", markersize=3, label="expected")
left.plot(steps, np.median(error, 0), color="C5", marker="s", markersize=3, label="true")
left.set(xlabel="steps since the last image", ylabel="error of a pixel by now (share of the range)")
left.set_title("medians over the dreams")
left.legend(loc="upper left")
order = np.lexsort((trusted, better))
right.barh(np.arange(len(order)), better[order], color="C5", alpha=0.5, label="no worse in truth")
right.scatter(trusted[order], np.arange(len(order)), color="C3", marker="|", s=90, linewidths=2.5, label="trusted")
right.set(xlabel="steps since the last image", ylabel="dream", title="up to which step?", yticks=[])
right.legend(loc="lower right")
plt.show()

# %%
inside = float(((low.numpy() <= error) & (error <= high.numpy())).mean())
print(f"the bands of 90% hold {inside:.0%} of the errors")
print(f"up to the end of trust {np.mean(trusted <= better):.0%} of the dreams are no worse than the last picture")
print(f"half of the dreams are trusted for {np.median(trusted):g} steps or more, and true for {np.median(better):g}")
assert inside > 0.75
assert np.mean(trusted <= better) > 0.75

# %% [markdown]
# ## Several futures of one state
#
# From one moment of the swing, what would come of five actions, each held for 20 steps? Nothing of this ever happened.

# %%
moment = 10
seen = world_model.observe(episodes.map(lambda x: x[:1, : moment + 1]), mode=True).state
start = seen.map(lambda x: x[:, -1])
pushes = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
held = pushes.view(-1, 1, 1).expand(-1, 20, 1)  # (n, H, A)
futures = branches(world_model, start, following(held), n=5, horizon=20)
display(render_branches(futures, cell=44, names=[f"action {float(a):+.1f}" for a in pushes]), include=["image/png"])

# %% [markdown]
# And what if the actor acts? It draws its actions, so its futures part too, but it brings the pole up in all of them.

# %%
torch.manual_seed(0)
actor = actor_critic.actor
own = branches(world_model, start, lambda s: actor.bound(actor.sample(s.feature)), n=5, horizon=20)
display(render_branches(own, cell=44), include=["image/png"])
print(f"imagined return: actor {own.reward.sum(1).mean():.1f}, held actions {futures.reward.sum(1).mean():.1f}")
assert torch.equal(own.image[0, 0], futures.image[0, 0])  # all begin alike
assert own.reward.sum(1).mean() > futures.reward.sum(1).max()

# %% [markdown]
# ## Take the keys
#
# The player runs in a cell: choose a record to begin in, then drive the dream with the arrow keys, or hand it to the
# actor. In a page without a running notebook only its name stands below; `worldmodel play --run notebooks/run` shows
# the same in a browser.

# %%
player = Player(PlayerSession(world_model, ActionSpec(1, discrete=False), from_replay(open_replay()), trust=trust))
display(player)

# %%
frame = player.session.reset(episode=0, record=moment)
for _ in range(5):
    frame = player.session.step(np.array([1.0], np.float32))
print(f"step {frame.step}: imagined reward {frame.reward:.2f}, uncertainty {frame.uncertainty:.2f}")
by_now = frame.judgement
print(f"error by now {by_now.median:.4f} ({by_now.low:.4f} to {by_now.high:.4f}), lost: {frame.lost}")
assert frame.step == 5
assert frame.image.shape == (32, 32, 3)
