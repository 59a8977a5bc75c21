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
# # 8. Another library's learner, in dreams
#
# A world model is an environment too. Stable-Baselines3's PPO knows nothing of this project; here it learns in dreams
# of the shipped run, and is then put into the real environment. Beside it the same PPO learns from real pictures, as
# many as the model had been shown.
#
# It wants `pip install 'worldmodel[sb3]'`, and the simulator. With `LONG=1` among the variables of the environment both
# learn for as long as figures take, twelve minutes of a core, as what is stored here did; without, for half a minute.

# %%
import os
import sys
import time
from pathlib import Path

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize

import worldmodel as wm

sys.path.append(str(Path(wm.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import RUN, film, gallery, settings

LONG = "LONG" in os.environ
dream_steps, real_steps, episodes = (300_000, 49_000, 8) if LONG else (10_000, 2_000, 4)
frames_seen, repeat = 400_800, settings()["data"]["action_repeat"]  # of the real task, while the model was trained
torch.manual_seed(0)

# %% [markdown]
# ## Dreams as an environment
#
# Eight dreams are stepped in one batch. Each begins in a state of a real sequence and lasts for 50 steps; what a
# learner sees is the latent feature, as the run's own actor does. The decoder draws for us alone.

# %%
dreams = wm.DreamVectorEnv.from_run(RUN, num_envs=8, horizon=50, autoreset_mode="SameStep")
print(dreams.single_observation_space, dreams.single_action_space)

dreams.reset(seed=0)
drawn = []
for _ in range(13):
    drawn.append(np.stack(dreams.render()[:3]))  # (3, h, w, 3)
    dreams.step(dreams.action_space.sample())
rows = torch.from_numpy(np.stack(drawn, 1)).permute(0, 1, 4, 2, 3)
gallery({f"dream {i + 1}": x for i, x in enumerate(rows)}, range(13), "three of them, under random actions")
plt.show()

begun, count = time.process_time(), 100
for _ in range(count):
    dreams.step(dreams.action_space.sample())
print(f"about {count * dreams.num_envs / (time.process_time() - begun):,.0f} steps a second on one core")

# %% [markdown]
# ## PPO
#
# The library's defaults. Rewards are scaled (`VecNormalize`), or the critic's loss drowns the actor's; observations
# stay as they are, for in the real environment nothing scales them.


# %%
class Returns(BaseCallback):
    """Notes the mean return of the latest episodes after every rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.mean = [], []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.model.ep_info_buffer:
            self.steps.append(self.num_timesteps)
            self.mean.append(np.mean([episode["r"] for episode in self.model.ep_info_buffer]))


rollout = {} if LONG else {"n_steps": 256}
learner = PPO(
    "MlpPolicy", VecNormalize(VecMonitor(dreams.stable_baselines()), norm_obs=False), seed=0, device="cpu", **rollout
)
in_dreams, begun = Returns(), time.process_time()
learner.learn(dream_steps, callback=in_dreams)
dream_minutes = (time.process_time() - begun) / 60
print(f"{learner.num_timesteps:,} dream steps in {dream_minutes:.1f} minutes of a core")

_, axes = plt.subplots(figsize=(7, 3))
axes.plot(in_dreams.steps, in_dreams.mean, marker="o", markersize=3)
axes.set(xlabel="dream steps", ylabel="return of a dream of 50 steps", title="PPO in dreams", ylim=(0, None))
plt.show()
assert in_dreams.mean[-1] > in_dreams.mean[0]

# %% [markdown]
# ## Into the real environment
#
# `dreams.policy` filters real pictures with the run's encoder, and shows PPO what a dream would have shown it. No real
# frame was added. The run's own actor and random actions drive the same episodes.

# %%
agent, data = wm.load(RUN, environments=4)
environments = data.held_out("report")
policies = {
    "PPO, learned in dreams": dreams.policy(lambda seen: learner.predict(seen, deterministic=True)[0]),
    "the run's own actor": agent.policy(explore=False),
    "random": wm.RandomPolicy(data.action),
}
real, films = {}, {}
for name, policy in policies.items():
    found = wm.run_episodes(environments, policy, episodes, record_video=True)
    real[name], films[name] = [x.return_ for x in found], found[0].video
    print(f"{name:24} {np.mean(real[name]):6.1f}  ({min(real[name]):.0f} to {max(real[name]):.0f})")
data.close()
assert np.mean(real["PPO, learned in dreams"]) > np.mean(real["random"]) or not LONG

# %%
picked = range(0, 120, 9)
rows = {name: torch.from_numpy(x[:120:9]).permute(0, 3, 1, 2) for name, x in films.items()}
gallery(rows, picked, "real episodes, by step")
plt.show()

# %%
film(films["PPO, learned in dreams"].repeat(3, 1).repeat(3, 2))

# %% [markdown]
# ## PPO on real frames alone
#
# The same learner without a model: three pictures in a row, 40 x 40 pixels, and the library's convolutional policy. It
# is given as many real frames as the model had been.


# %%
def make() -> gymnasium.Env:
    return wm.make_env(settings()["data"]["task"], size=40, action_repeat=repeat)


pictures = VecNormalize(VecMonitor(VecFrameStack(DummyVecEnv([make] * 4), 3, channels_order="first")), norm_obs=False)
rollout = {"n_steps": 512} if LONG else {"n_steps": 256, "n_epochs": 2}
alone = PPO("CnnPolicy", pictures, seed=0, device="cpu", **rollout)
on_frames, begun = Returns(), time.process_time()
alone.learn(real_steps, callback=on_frames)
real_minutes = (time.process_time() - begun) / 60
print(f"{alone.num_timesteps * repeat:,} real frames in {real_minutes:.1f} minutes of a core")
returns = []
while len(returns) < episodes:
    seen, total, over = pictures.reset(), np.zeros(4), False
    while not over:  # all four end together
        seen, _, ends, _ = pictures.step(alone.predict(seen, deterministic=True)[0])
        total, over = total + pictures.get_original_reward(), bool(ends.all())
    returns += total.tolist()
real["PPO, real frames alone"] = returns[:episodes]
pictures.close()

# %%
_, axes = plt.subplots(figsize=(8, 3.8))
axes.plot(np.array(on_frames.steps) * repeat, on_frames.mean, color="C0", label="PPO, real frames alone (as it learns)")
for (name, values), colour, marker in zip(real.items(), ("C1", "C6", "0.5", "C0"), "o*vs", strict=True):
    place = alone.num_timesteps * repeat if name == "PPO, real frames alone" else frames_seen * (name != "random")
    spread = np.abs(np.array([[min(values)], [max(values)]]) - np.mean(values))
    axes.errorbar(place, np.mean(values), spread, color=colour, marker=marker, markersize=9, capsize=4, label=name)
axes.set(xlabel="real frames that were seen", ylabel="return of a real episode", ylim=(0, 1000))
axes.set_title(f"{episodes} episodes each, least to most")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for name, values in real.items():
    print(f"{name:24} {np.mean(values):6.1f}")
assert not LONG or np.mean(real["PPO, learned in dreams"]) > np.mean(real["PPO, real frames alone"])

# %% [markdown]
# Learning in dreams is bounded by the model: what it has not seen, PPO cannot learn there. `truncation` ends dreams
# where the model is not believed, `uncertainty_weight` prices it; [dream_env.md](../docs/dream_env.md) has figures.

# %%
dreams.close()
