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
# # 1. The data
#
# A world model learns from episodes: pictures, the actions between them, and rewards. This notebook opens the episodes
# of a small run (`run/`, a cart that swings up its pole), shows how actions and pictures are aligned, and what
# whitening does to the pixels. Nothing is trained, and no simulator is opened.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display

import worldmodel
from encoders.base import Pixels
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import InProcess

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import film, gallery, open_replay, read_episodes, settings

# %% [markdown]
# ## Episodes
#
# The replay is a folder of chunks, `.npz` files of consecutive records. A record holds a picture, the action and the
# reward that led there, two flags, and the number of its episode.

# %%
replay = open_replay()
episodes = read_episodes()
count, length = episodes.reward.shape
print(f"task {settings()['data']['task']}, each action repeated {settings()['data']['action_repeat']} times")
print(f"{count} episodes of {length} records, image {tuple(episodes.image.shape[2:])} {episodes.image.dtype}")
for number, total in enumerate(episodes.reward.sum(1)):
    print(f"episode {number}: return {float(total):.1f}")

# %%
shown = torch.arange(0, 36, 4)
gallery({"picture": episodes.image[0, shown]}, shown.tolist(), "the first seconds of episode 0, by record")
plt.show()
display(film(episodes.image[0].permute(0, 2, 3, 1).numpy(), fps=12))

# %%
_, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4), sharex=True)
top.step(range(length), episodes.action[0, :, 0], where="mid")
top.set(ylabel="action [-1, 1]", title="episode 0")
bottom.plot(episodes.reward[0])
bottom.set(xlabel="record", ylabel="reward of the step")
plt.show()

# %% [markdown]
# The reward of a step is the sum over its repeated frames, so it is at most the number of repeats.

# %%
assert float(episodes.reward.min()) >= 0
assert float(episodes.reward.max()) <= settings()["data"]["action_repeat"]

# %% [markdown]
# ## Time
#
# `action[t]` led to `image[t]`, and so did `reward[t]`. The first record of an episode is what the reset showed: no
# action led there, and `is_first` says so.

# %%
print("record  is_first  action  reward")
for t in range(4):
    row = (bool(episodes.is_first[0, t]), float(episodes.action[0, t, 0]), float(episodes.reward[0, t]))
    print(f"{t:6d}  {row[0]!s:8}  {row[1]:6.2f}  {row[2]:6.3f}")
assert not episodes.action[:, 0].any()
assert not episodes.reward[:, 0].any()
assert bool(episodes.is_first[:, 0].all())
assert not episodes.is_first[:, 1:].any()

# %% [markdown]
# That can be checked by eye in a toy whose physics are known: a bright square moves by 0.2 times the action, unless it
# stands at a wall. The same few lines collect from any environment.

# %%
torch.manual_seed(0)
folder = tempfile.TemporaryDirectory()
environments = InProcess("worldmodel.experience.toy:PointReach", num_envs=4, size=16)
toy = Replay(folder.name, image_shape=environments.image_shape, action_size=environments.action.size)
finished = Collector(environments, toy).collect(RandomPolicy(environments.action), steps=200)
print(f"{len(finished)} episodes, {len(toy)} records, mean return {np.mean([e.return_ for e in finished]):.1f}")

# %%
sequence = toy.sample(batch=16, length=24)
print({name: tuple(x.shape) for name, x in sequence._asdict().items() if x is not None})
red = sequence.image[:, :, 0].double()  # (B, T, 16, 16)
pixel = torch.arange(16.0, dtype=torch.float64)
x = (red.sum(2) * pixel).sum(-1) / red.sum((2, 3))  # (B, T) where the square is, in pixels
position = (x - 7.5) / 6  # in [-1, 1]
moved = position.diff(dim=1)
inside = (~sequence.is_first[:, 1:]) & (position[:, 1:].abs() < 0.99)

_, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
for panel, name, action in (
    (axes[0], "action[t]", sequence.action[:, 1:, 0]),
    (axes[1], "action[t - 1]", sequence.action[:, :-1, 0]),
):
    panel.scatter(action[inside], moved[inside], s=8)
    panel.set(xlabel=name)
axes[0].set(ylabel="move from image[t - 1] to image[t]", title="what led there")
axes[1].set(title="one step off")
plt.show()

# %%
error = (moved - 0.2 * sequence.action[:, 1:, 0])[inside].abs().max()
print(f"largest difference from 0.2 * action[t]: {float(error):.4f}, of a width of 2")
assert error < 0.01

# %% [markdown]
# A sampled sequence may run on into the next episode. `is_first` marks the place; the model forgets there, and the
# plot above leaves it out.

# %% [markdown]
# ## Pixels
#
# Most pixels of a control task never change. In a sum over raw pixels they fill the loss. So every pixel has its mean
# subtracted and is divided by its own deviation, but at least by 0.05 of the range.

# %%
pixels = Pixels(32)
frames = episodes.image.flatten(0, 1)
pixels.fit_statistics(frames)
raw, white = pixels.resize(frames[:64]), pixels(frames[:64])

_, axes = plt.subplots(1, 4, figsize=(10, 2.9))
one = 20
grey = white[one].mean(0)
panels = {
    "mean": axes[0].imshow(pixels.mean.permute(1, 2, 0)),
    "deviation": axes[1].imshow(pixels.std.mean(0)),
    "a picture": axes[2].imshow(raw[one].permute(1, 2, 0)),
    "whitened": axes[3].imshow(grey, cmap="PuOr", vmin=-grey.abs().max(), vmax=grey.abs().max()),
}
for panel, name in zip(axes, panels, strict=True):
    panel.set(title=name, xticks=[], yticks=[])
    panel.grid(False)
plt.colorbar(panels["deviation"], ax=axes[1], label="share of the range", shrink=0.7)
plt.colorbar(panels["whitened"], ax=axes[3], label="deviations from the mean", shrink=0.7)
plt.show()

# %%
resized = pixels.resize(frames)
deviation = resized.std(0, unbiased=False)
still = deviation < pixels.floor
print(f"{float(still.float().mean()):.0%} of the pixels vary by less than {pixels.floor} of the range")
whitened = (resized - pixels.mean) / pixels.std
print(f"whitened: mean {float(whitened.mean()):+.4f}, deviation where they vary {float(whitened[:, ~still].std()):.3f}")
assert still.float().mean() > 0.5
assert abs(float(whitened.mean())) < 1e-3
assert torch.allclose(whitened[:, ~still].std(0, unbiased=False), torch.ones(()), atol=1e-3)

# %%
environments.close()
folder.cleanup()
