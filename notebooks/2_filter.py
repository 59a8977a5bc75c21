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
# # 2. The filter
#
# The model never sees a state. It keeps a belief: from the last belief and the action it predicts (the *prior*), then
# it looks at the picture and corrects (the *posterior*). This notebook follows both along a real episode, measures by
# how much each picture surprises, and shows what happens when one picture is replaced by another.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import worldmodel
from worldmodel.insight.calibration import auroc
from worldmodel.insight.rollouts import picture

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import gallery, open_models, read_episodes

world_model, _ = open_models()
episodes = read_episodes()
latents = world_model.latents
print(f"{sum(p.numel() for p in world_model.parameters()):,} parameters, {world_model.rssm.transition.members} members")

# %% [markdown]
# ## Prior and posterior
#
# `observe` filters whole sequences. It gives the posterior states and, for each record, the prior of every member of
# the ensemble. The mixture of the members is what the model as a whole predicts.

# %%
found = world_model.observe(episodes, mode=True)
deter, posterior = found.state.deter, found.state.params  # (N, L, D) and (N, L, P)
prior = latents.mixture(found.prior)  # (N, L, P)
print(f"states {tuple(found.state.feature.shape)}, priors of all members {tuple(found.prior.shape)}")

truth = world_model.decoder.pixels.resize(episodes.image.flatten(0, 1)).unflatten(0, episodes.reward.shape)
predicted = picture(world_model, torch.cat([deter, latents.mode(prior)], -1))  # (N, L, 3, h, w), before it looks
corrected = picture(world_model, found.state.feature)  # after


def shown(image: torch.Tensor) -> torch.Tensor:
    """(*B, 3, h, w) in [0, 1] as bytes."""
    return (255 * image).round().to(torch.uint8)


moments = torch.arange(0, 20, 2)
rows = {"truth": truth, "posterior": corrected, "prior": predicted}
gallery({n: shown(x[0, moments]) for n, x in rows.items()}, moments.tolist(), "episode 0, by record")
plt.show()

# %% [markdown]
# At record 0 the prior knows nothing: there was no belief before. Afterwards it is one step ahead of the picture and
# hardly worse than the posterior, which has seen it.

# %%
error = {name: (x - truth).abs().mean((-3, -2, -1)) for name, x in rows.items() if name != "truth"}  # (N, L)
for name, x in error.items():
    print(f"{name:9}  mean error of a pixel: record 0 {float(x[:, 0].mean()):.4f}, later {float(x[:, 1:].mean()):.4f}")
mean_picture = (world_model.decoder.pixels.mean - truth).abs().mean((-3, -2, -1))
print(f"the mean picture, which knows nothing: {float(mean_picture.mean()):.4f}")
assert error["posterior"].mean() < mean_picture.mean()
assert error["prior"][:, 1:].mean() < mean_picture[:, 1:].mean()

# %% [markdown]
# ## Surprise
#
# By how much a picture moves the belief is its surprise, KL(posterior || prior), in nats. Beside it stands the
# uncertainty *before* the picture: how far the members' predictions are apart, in multiples of the typical.

# %%
surprise = latents.kl(posterior, prior)  # (N, L)
uncertainty = world_model.uncertainty(found.prior)  # (N, L)

_, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4.4), sharex=True)
top.plot(range(1, 126), surprise[0, 1:])
top.set(ylabel="surprise (nats)", title="episode 0, without its first record")
bottom.plot(range(1, 126), uncertainty[0, 1:], color="C1")
bottom.axhline(1, color="0.4", linewidth=1)
bottom.set(xlabel="record", ylabel="uncertainty (1 is usual)")
plt.show()

# %% [markdown]
# ## A picture is replaced
#
# At one moment the model is shown another picture: that of the episode's beginning, with the pole hanging down.
# Everything else is as it was.

# %%
at = 60
image = episodes.image.clone()
image[:, at] = episodes.image[:, 0]
changed = world_model.observe(episodes._replace(image=image), mode=True)
startled = latents.kl(changed.state.params, latents.mixture(changed.prior))
moments = torch.arange(at - 2, at + 6)
what = picture(world_model, changed.state.feature)
before = picture(world_model, torch.cat([changed.state.deter, latents.mode(latents.mixture(changed.prior))], -1))
rows = {
    "what it is shown": world_model.decoder.pixels.resize(image[0]),
    "prior": before[0],
    "posterior": what[0],
    "without it": corrected[0],
}
gallery({n: shown(x[moments]) for n, x in rows.items()}, moments.tolist(), f"record {at} is replaced")
plt.show()

# %%
_, axes = plt.subplots(figsize=(8, 3))
steps = range(at - 15, at + 16)
axes.plot(steps, startled[0, steps], label="replaced", marker="o", markersize=4, color="C3")
axes.plot(steps, surprise[0, steps], label="as it was", marker="s", markersize=4, color="C0")
axes.set(xlabel="record", ylabel="surprise (nats)", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# The false picture is believed at once: the posterior trusts what it sees. It is also the greatest surprise in all
# that time, and so is the true picture that follows. A few records later nothing is left of it.

# %%
usual = float(surprise[:, at - 15 : at].median())
ratio = startled[:, at] / usual
print(f"surprise at record {at}: {float(startled[:, at].mean()):.1f} nats, {float(ratio.mean()):.0f} times the usual")
apart = (what - corrected).abs().mean((-3, -2, -1)).mean(0)  # (L,) from the belief without it
for later in (0, 1, 2, 5, 10, 20):
    print(f"{later:2d} records later the pictures in mind differ by {float(apart[at + later]):.4f}")
assert auroc(startled[:, at], surprise[:, 1:].flatten()) > 0.95
assert apart[at + 20] < 0.1 * apart[at]
