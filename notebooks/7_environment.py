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
# # 7. Your own environment
#
# Anything that Gymnasium knows, with pictures, can be learned. This notebook writes an environment, collects from it
# by random actions, trains a tiny world model, and looks at its dreams.

# %%
import sys
import tempfile
from functools import partial
from pathlib import Path

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch
from gymnasium.spaces import Box

import worldmodel
from encoders.conv import PatchEncoder
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import InProcess
from worldmodel.insight.render import render_film
from worldmodel.insight.rollouts import open_loop
from worldmodel.model.decoder import PatchDecoder
from worldmodel.model.distributions import GaussianLatents
from worldmodel.model.independent import IndependentEnsemble
from worldmodel.model.world_model import WorldModel

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import film, gallery, train

# %% [markdown]
# ## The environment
#
# A puck on ice: the action pushes it, the walls throw it back, and it is best off in the middle. One picture does not
# show how fast it is: a model has to remember.


# %%
class Puck(gymnasium.Env):
    observation_space = Box(0, 255, (16, 16, 3), np.uint8)
    action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place, self.speed = self.np_random.uniform([[-0.8, -0.8], [-0.1, -0.1]], [[0.8, 0.8], [0.1, 0.1]])
        self.count = 0
        return self.picture(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.speed = 0.9 * self.speed + 0.05 * action
        self.speed[np.abs(self.place + self.speed) > 0.8] *= -1
        self.place, self.count = np.clip(self.place + self.speed, -0.8, 0.8), self.count + 1
        return self.picture(), 1 - float(np.abs(self.place).max()), False, self.count == 40, {}

    def picture(self) -> np.ndarray:
        cell = np.linspace(-1, 1, 16)
        away = np.hypot(cell - self.place[0], -cell[:, None] - self.place[1])  # (16, 16)
        return (np.clip(2.8 - away / 0.15, 0, 1)[:, :, None] * [230, 160, 0]).astype(np.uint8)


# %% [markdown]
# ## Data
#
# `module:name` tells where the environment is made. In a notebook the module is `__main__`; on the command line the
# same is `worldmodel fit --config configs/base.yaml --data.task mytask:Puck --data.size 32 --data.action_repeat 1
# --run runs/puck`.

# %%
torch.manual_seed(0)
folder = tempfile.TemporaryDirectory()
environments = InProcess("__main__:Puck", num_envs=4, size=16)
replay = Replay(folder.name, image_shape=environments.image_shape, action_size=environments.action.size)
episodes = Collector(environments, replay).collect(RandomPolicy(environments.action), steps=41 * 60)
print(
    f"{len(episodes)} episodes, {len(replay)} records, mean return {np.mean([e.return_ for e in episodes]):.1f} of 40"
)

example = replay.sample(1, 40)
gallery({"picture": example.image[0, :24:2]}, range(0, 24, 2), "a sampled sequence, by record", 0.7)
plt.show()
assert len(episodes) == 240
assert example.image.shape == (1, 40, 3, 16, 16)

# %% [markdown]
# ## A tiny world model

# %%
world_model = WorldModel(
    2,
    PatchEncoder(16, channels=(32, 64)),
    GaussianLatents(16),
    partial(IndependentEnsemble, members=3, width=64),
    lambda feature: PatchDecoder(feature, 16, channels=(32, 64)),
    deter=128,
    width=96,
    decode_fraction=0.5,
)
print(f"{sum(p.numel() for p in world_model.parameters()):,} parameters")
losses = train(world_model, lambda: replay.sample(16, 16), updates=800, rate=4e-3)

_, axes = plt.subplots(figsize=(7, 3))
for name in ("reconstruction", "reward", "dynamics"):
    axes.plot(np.convolve(losses[name], np.ones(20) / 20, "valid"), label=name)
axes.set(xlabel="update", ylabel="loss (mean of 20)", yscale="log")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Its dreams
#
# New episodes, from seeds that it was not trained on. It sees five records, until the frames turn orange, and dreams
# the rest.

# %%
unseen = InProcess("__main__:Puck", num_envs=4, seed=1, size=16)
other = tempfile.TemporaryDirectory()
held_out = Replay(other.name, image_shape=unseen.image_shape, action_size=2)
Collector(unseen, held_out).collect(RandomPolicy(unseen.action), steps=41 * 15)
batch = held_out.sample(200, 25)
batch = batch.map(lambda x: x[~batch.is_first[:, 1:].any(1)])  # those that stay in one episode
dream = open_loop(world_model, batch, context=5)
truth, dreamt = dream.truth.numpy() / 255, dream.image.numpy() / 255
lively = int(np.abs(np.diff(truth, axis=1)).sum((1, 2, 3, 4)).argmax())  # the one in which most happens
film(render_film(open_loop(world_model, batch.map(lambda x: x[lively : lively + 1]), context=5, members=True)))

# %%
picked = np.arange(3, 25, 2)
rows = {"truth": dream.truth[lively], "dream": dream.image[lively]}
gallery({n: x[picked] for n, x in rows.items()}, picked.tolist(), "5 records are seen", 0.7)
plt.show()

# %%
wrong = np.abs(dreamt - truth)[:, 5:].mean((0, 2, 3, 4))
still = np.abs(truth[:, 4:5] - truth)[:, 5:].mean((0, 2, 3, 4))
steps = np.arange(1, 21)
_, axes = plt.subplots(figsize=(7, 3))
axes.plot(steps, wrong, marker="o", color="C1", label="dream")
axes.plot(steps, still, marker="s", color="C0", label="the last picture seen")
axes.set(
    xlabel="steps since the last image",
    ylabel="mean error of a pixel\n(share of the range)",
    ylim=(0, None),
    xticks=steps[4::5],
)
axes.legend()
plt.show()
print(f"{len(truth)} dreams; after 5 steps {wrong[4]:.4f}, the last picture seen {still[4]:.4f}")
assert wrong[4] < 0.6 * still[4]
assert wrong[-1] < still[-1]

# %%
for each in (environments, unseen):
    each.close()
for each in (folder, other):
    each.cleanup()
