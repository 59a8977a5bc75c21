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
# # 9. From somebody else's data to a cautious planner
#
# Offline: a file that another library could have written is imported, a small world model is trained on it alone, and
# a planner acts by that model in the real environment. Some states the data never visit, and a planner searches for
# whatever the model promises, mistakes included: *model exploitation*. Epistemic uncertainty, in units of the reward's
# error, is to keep it out. It wants `pip install 'worldmodel[data]'`, for h5py.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import torch

import worldmodel as wm

sys.path.append(str(Path(wm.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import gallery

TASK = "worldmodel.experience.toy:PointSwamp"
env, folder = wm.make_env(TASK, size=16), tempfile.TemporaryDirectory()
home = Path(folder.name)

# %% [markdown]
# ## Recordings
#
# `PointSwamp` is a square that is pushed about, 0.2 a step at most. Reward rises to the right, `(x + 1) / 2`; but where
# 0 < x < 0.5 there is a swamp, which cannot be seen: no reward, and one hardly moves. Whoever made these recordings
# knew of it. Actions are random, and one that would lead into the swamp is drawn again. So both sides are in the data,
# the swamp is not, and nothing in the data says why.


# %%
def in_swamp(point: np.ndarray) -> np.ndarray:
    """(*N, 2) -> (*N,) bool."""
    return (point[..., 0] > 0) & (point[..., 0] < 0.5)


def recorded(seed: int) -> dict[str, np.ndarray]:
    """An episode: in row t what was seen and the reward that came with it, and the action that was taken then."""
    rng, (image, info) = np.random.default_rng(seed), env.reset(seed=seed)
    rows, action, reward, over = [], np.zeros(2), np.nan, False
    while not over:
        drawn = np.clip(0.5 * action + rng.uniform(-1, 1, (100, 2)), -1, 1)
        action = drawn[~in_swamp(info["state"] + 0.2 * drawn)][0].astype(np.float32)
        rows.append((image.transpose(1, 2, 0), action, reward, info["state"]))
        image, reward, _, over, info = env.step(action)
    rows.append((image.transpose(1, 2, 0), np.full(2, np.nan), reward, info["state"]))
    return {name: np.stack([row[i] for row in rows]) for i, name in enumerate(("pixels", "action", "reward", "state"))}


episodes = [recorded(seed) for seed in range(200)]

# %% [markdown]
# The file has the layout of stable-worldmodel: columns of rows end to end, and `ep_len` and `ep_offset` say where
# episodes lie. Nothing of this project is needed to write it. ([data.md](../docs/data.md) has the other layouts.)

# %%
lengths = [len(episode["reward"]) for episode in episodes]
with h5py.File(home / "recordings.h5", "w") as file:
    for name in episodes[0]:
        file[name] = np.concatenate([episode[name] for episode in episodes])
    file["ep_len"], file["ep_offset"] = np.array(lengths), np.cumsum([0, *lengths[:-1]])
    print({name: (column.shape, str(column.dtype)) for name, column in file.items()})

# %%
visited = np.concatenate([episode["state"] for episode in episodes])
sides = {"left": visited[::33, 0] < 0, "right": visited[::33, 0] > 0}  # of the swamp, where each begins
frames = {k: torch.from_numpy(episodes[x.argmax()]["pixels"][:24:2]).permute(0, 3, 1, 2) for k, x in sides.items()}
gallery(frames, range(0, 24, 2), "two episodes, by step", 0.7)
plt.show()
print(f"{len(visited):,} records, {int(in_swamp(visited).sum())} of them in the swamp")
assert not in_swamp(visited).any()

# %% [markdown]
# ## Import and fit
#
# `import` makes the replay of a run, `fit --offline` trains on that. Five members share nothing; each sees episodes
# resampled (*bootstrap*) and has a fixed random function added (*randomised prior*, Osband et al. 2018), so that
# members that agree on the data need not agree beyond. There is no actor: the cross-entropy method (CEM) plans.
#
# The simulator is needed once training is over: the run is evaluated there, and *calibrated*: how wrong is a reward
# likely to be, given the uncertainty along a dream? Those episodes are random, and may stray into the swamp. They are
# not learned from.


# %%
def worldmodel(words: str) -> None:
    """What would be typed at a command line."""
    command = [sys.executable, "-m", "worldmodel", *words.split()]
    done = subprocess.run(command, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(f"$ worldmodel {words}\n{done.stdout}")
    done.check_returncode()


settings = """
fabric: {accelerator: cpu}
schedule: {rounds: 5, updates: 200, evaluate_every: 5, evaluation_episodes: 2, calibration_episodes: 60}
data: {action_repeat: 1, size: 16, batch: 32, length: 8}
optimizer: {learning_rate: 2.0e-3}
model:
  collect_with: {class_path: worldmodel.control.controller.RandomController}  # in the calibration's episodes
  weights: {reconstruction: 0.1}
  world_model:
    init_args:
      encoder: {init_args: {size: 16, channels: [16, 32]}}
      latents: {init_args: {size: 8}}
      transition: {init_args: {width: 48}}
      decoder: {init_args: {size: 16, channels: [16, 32]}}
      deter: 32
      width: 64
"""
(home / "small.yaml").write_text(settings)
worldmodel("import hdf5 recordings.h5 --run swamp --size 16")
configs = "--config transition/independent_priors --config policy/planet --config small.yaml"
worldmodel(f"fit --offline --run swamp --task {TASK} {configs}")

# %% [markdown]
# A dream beside the truth, of recordings that were not in the file. In our records an action stands beside the picture
# that it led to; `import` has seen to that, here it is done by hand.

# %%
agent, data = wm.load(home / "swamp", environments=1)
model = agent.world_model
columns = [np.stack([e[name] for e in map(recorded, range(1000, 1050))]) for name in ("pixels", "action", "reward")]
pixels, action, reward = (torch.from_numpy(x.astype(x.dtype if x.dtype == np.uint8 else np.float32)) for x in columns)
first = torch.arange(33).expand(50, 33) == 0
episode = torch.arange(50).unsqueeze(1).expand(50, 33)
batch = wm.SequenceBatch(
    pixels.movedim(-1, 2), action.roll(1, 1).nan_to_num(), reward.nan_to_num(), first, first & False, episode
)
dream = wm.open_loop(model, batch, context=5, horizon=12)
gallery({"truth": dream.truth[0], "dream": dream.image[0]}, range(17), "by record; 5 are seen", 0.7)
plt.show()
wrong, still = ((x.float() - dream.truth[:, 5:]).abs().mean() for x in (dream.image[:, 5:], dream.truth[:, 4:5]))
print(f"mean error of a pixel over 12 steps {wrong / 255:.4f}, of the last picture seen {still / 255:.4f}")
assert wrong < still

# %% [markdown]
# ## Plain and cautious
#
# Both are CEM over 10 steps, from the same beginnings on the left, in the real environment. `RewardErrorWeight` takes
# off the reward of each imagined step the error that the calibration expects of it, here three times: a number that
# was tried out on this task, as such numbers have to be. Before it moves, each planner also acts in its own dream, for
# as many steps as it will act in truth. Imagined return less real return is the *exploitation gap*.


# %%
@torch.no_grad()
def play(weight: object, steps: int = 16, count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """Imagined returns (N,), real ones (N,), points (N, T, 2), and the first beginning's pictures."""
    torch.manual_seed(0)
    envs = [wm.make_env(TASK, size=16) for _ in range(count)]
    lefts = (s for s in range(5000, 6000) if env.reset(seed=s)[1]["state"][0] < 0)
    shown = [(*each.reset(seed=seed), 0.0) for each, seed in zip(envs, lefts, strict=False)]
    planner = wm.planners.CEM(10, 0.97, weight, candidates=64, elites=8, iterations=3)
    policy = wm.LatentPolicy(wm.PlannerController(model, None, agent.action, planner=planner), explore=False)
    state, images, points, real = policy.initial(count), [], [], np.zeros(count)
    for step in range(steps + 1):
        image, info, reward = zip(*shown, strict=True)
        images.append(torch.from_numpy(image[0]))
        points.append([x["state"] for x in info])
        real = real + reward
        seen = wm.Observation(torch.from_numpy(np.stack(image)), torch.full((count,), step == 0))
        action, state = policy(seen, state)
        if step == 0:
            path = wm.imagine(model, policy.controller.acting(), state.latent, steps, mode=True, uncertainty=False)
        came = [each.step(a) for each, a in zip(envs, action.numpy(), strict=True)]
        shown = [(x[0], x[4], x[1]) for x in came]
    pictures = {"expected": model.decoder.image(path.state.feature[0]), "came": torch.stack(images)}
    return path.reward.sum(1).numpy(), real, np.stack(points, 1), pictures


weights = {"plain": 0.0, "cautious": wm.load_caution(home / "swamp").weight(-3.0)}
found = {name: play(weight) for name, weight in weights.items()}
gallery({f"{name}: {k}": x for name, f in found.items() for k, x in f[3].items()}, range(17), "by step", 0.7)
plt.show()

# %% [markdown]
# In its dream the plain planner walks through. Below, grey is how often the data have been where.

# %%
_, axes = plt.subplots(1, 3, figsize=(13, 4.4), width_ratios=[1, 1, 0.8])
for place, (name, (imagined, real, points, _)) in enumerate(found.items()):
    panel = axes[place]
    panel.hist2d(*visited.T, bins=[np.linspace(-1, 1, 21)] * 2, cmap="Greys", cmin=1, vmax=80)
    panel.axvspan(0, 0.5, facecolor="none", edgecolor="C3", hatch="//", alpha=0.5, linewidth=0)
    panel.plot(*points.transpose(2, 1, 0), color="C0", linewidth=1.5, clip_on=False)
    panel.plot(*points[:, 0].T, "ok", markersize=5, clip_on=False)
    panel.plot(*points[:, -1].T, "sC1", markersize=8, mec="k", clip_on=False)
    panel.set(xlabel="x, from beginning (dot) to end (square)", ylabel="y", xlim=(-1, 1), ylim=(-1, 1), title=name)
    panel.grid(False)
    for offset, values, colour, hatch in ((-0.2, imagined, "C5", "//"), (0.2, real, "C2", "")):
        label = ("imagined" if offset < 0 else "real") if place == 0 else None
        axes[2].bar(place + offset, values.mean(), 0.36, color=colour, hatch=hatch, edgecolor="white", label=label)
        axes[2].plot(place + offset + np.linspace(-0.1, 0.1, len(values)), values, ".k", markersize=4)
axes[2].set(ylabel="return of 16 steps: each, and mean", xticks=[0, 1], xticklabels=list(found), ylim=(0, None))
axes[2].legend(loc="upper right")
plt.show()

gap, inside = ({name: float(f(*x[:3])) for name, x in found.items()} for f in (
    lambda imagined, real, _: (imagined - real).mean(), lambda imagined, real, points: in_swamp(points[:, 1:]).mean()
))  # fmt: skip
for name, (imagined, real, _, _) in found.items():
    said = f"imagined {imagined.mean():5.2f}, real {real.mean():5.2f}, gap {gap[name]:5.2f}"
    print(f"{name:9} {said}, {inside[name]:.0%} of the steps in the swamp")
assert inside["plain"] > 0.5 and inside["cautious"] < 0.5 * inside["plain"]
assert abs(gap["cautious"]) < 0.5 * gap["plain"]
assert found["cautious"][1].mean() > found["plain"][1].mean()

# %% [markdown]
# The plain planner imagines what it does not get, and spends most of its steps in the swamp. The cautious one spends
# less than half as many there, its gap is less than half as large, and it earns more. It does not know the swamp: it
# knows that nobody has shown it what is there.

# %%
data.close()
env.close()
folder.cleanup()
