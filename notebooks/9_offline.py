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
# Offline: a file that another library could have written is imported, a small world model learns from it alone, and a
# planner acts by that model in the real environment. It searches for whatever the model promises, mistakes included,
# where there are no data: *model exploitation*. Epistemic uncertainty, in units of the reward's error, is to keep it
# out. It wants `pip install 'worldmodel[data]'`, for h5py.

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
def in_swamp(point: np.ndarray) -> np.ndarray:  # (*N, 2) -> (*N,) bool
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


# %% [markdown]
# The file has the layout of stable-worldmodel: columns of rows end to end, and `ep_len` and `ep_offset` say where
# episodes lie. Nothing of this project is needed to write it. ([data.md](../docs/data.md) has the other layouts.)


# %%
def write(name: str, episodes: list[dict[str, np.ndarray]]) -> None:
    lengths = [len(episode["reward"]) for episode in episodes]
    with h5py.File(home / name, "w") as file:
        for column in episodes[0]:
            file[column] = np.concatenate([episode[column] for episode in episodes])
        file["ep_len"], file["ep_offset"] = np.array(lengths), np.cumsum([0, *lengths[:-1]])


episodes = [recorded(seed) for seed in range(200)]
write("recordings.h5", episodes)
write("unseen.h5", [recorded(seed) for seed in range(1000, 1050)])

visited = np.concatenate([episode["state"] for episode in episodes])
frames = {f"episode {i}": torch.from_numpy(episodes[i]["pixels"][:24:2]).movedim(-1, 1) for i in (3, 4)}
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
# When training is over the run is evaluated in the simulator, and *calibrated*: how wrong is a reward likely to be,
# given the uncertainty along a dream? Those episodes are random and may stray into the swamp; nothing learns from them.


# %%
def worldmodel(words: str) -> None:
    """What would be typed at a command line."""
    command = [sys.executable, "-m", "worldmodel", *words.split()]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    print(f"$ worldmodel {words}\n{done.stdout}{done.stderr}")
    done.check_returncode()


(home / "small.yaml").write_text("""
schedule: {rounds: 5, updates: 200, evaluate_every: 5, evaluation_episodes: 2, calibration_episodes: 30}
data: {action_repeat: 1, size: 16, batch: 32, length: 8}
optimizer: {learning_rate: 2.0e-3}
model:
  collect_with: {class_path: worldmodel.control.controller.RandomController}  # in the calibration's episodes
  weights: {reconstruction: 0.1}
  world_model: {init_args: {
    encoder: {init_args: {size: 16, channels: [16, 32]}}, decoder: {init_args: {size: 16, channels: [16, 32]}},
    latents: {init_args: {size: 8}}, transition: {init_args: {width: 48}}, deter: 32, width: 64}}
""")
configs = "--config transition/independent_priors --config policy/planet --config small.yaml"
worldmodel("import hdf5 recordings.h5 --run swamp --size 16")
worldmodel(f"fit --offline --run swamp --task {TASK} --fabric.accelerator cpu {configs}")

# %% [markdown]
# A dream beside the truth, of recordings that were not in the file. The model is small and briefly trained, and its
# calibration says so.

# %%
worldmodel("import hdf5 unseen.h5 --run unseen --size 16")
batch = wm.Replay(home / "unseen/replay/rank_0", image_shape=(3, 16, 16), action_size=2).sample(200, 17)
batch = batch.map(lambda x: x[~batch.is_first[:, 1:].any(1)])  # those that stay in one episode
agent, data = wm.load(home / "swamp", environments=1)
dream = wm.open_loop(agent.world_model, batch, context=5)
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
# as many steps as it will act in truth. Imagined return less real return is the *exploitation gap*. In the maps, grey
# is how often the data have been where.

# %%
lefts = [seed for seed in range(5000, 5100) if env.reset(seed=seed)[1]["state"][0] < 0][:8]
envs = [wm.make_env(TASK, size=16) for _ in lefts]


@torch.no_grad()
def play(weight: object, steps: int = 16) -> dict[str, np.ndarray]:
    """Imagined and real rewards (N, T), points (N, T + 1, 2); and pictures (T + 1) of the first, imagined and real."""
    torch.manual_seed(0)
    planner = wm.planners.CEM(10, 0.97, weight, candidates=64, elites=8, iterations=3)
    policy = wm.LatentPolicy(wm.PlannerController(agent.world_model, None, agent.action, planner), explore=False)
    begun = [e.reset(seed=s) for e, s in zip(envs, lefts, strict=True)]
    images, points, real = [np.stack([x[0] for x in begun])], [[x[1]["state"] for x in begun]], []
    state = policy.initial(len(envs))
    for step in range(steps):
        seen = wm.Observation(torch.from_numpy(images[-1]), torch.full((len(envs),), step == 0))
        action, state = policy(seen, state)
        if step == 0:
            path = wm.imagine(agent.world_model, policy.controller.acting(), state.latent, steps, mode=True)
        image, reward, _, _, info = zip(*(e.step(a) for e, a in zip(envs, action.numpy(), strict=True)), strict=True)
        images.append(np.stack(image))
        points.append([x["state"] for x in info])
        real.append(reward)
    drawn = agent.world_model.decoder.image(path.state.feature[0]), torch.from_numpy(np.stack(images)[:, 0])
    numbers = {"imagined": path.reward.numpy(), "real": np.array(real).T, "points": np.stack(points, 1)}
    return numbers | dict(zip(("expected", "came"), drawn, strict=True))


weights = {"plain": 0.0, "cautious": wm.load_caution(home / "swamp").weight(-3.0)}
found = {name: play(weight) for name, weight in weights.items()}
gallery({f"{name}: {k}": x[k] for name, x in found.items() for k in ("expected", "came")}, range(17), "by step", 0.7)
plt.show()
beyond = (found["plain"]["imagined"][:, -1] > 0.5).mean()
print(f"{beyond:.0%} of the plain planner's dreams end where reward is above 0.5, as it is beyond the swamp alone")
assert beyond > 0.5

# %%
_, axes = plt.subplots(1, 3, figsize=(13, 4.2))
gap, inside, earned = {}, {}, {}
for panel, (name, x), style in zip(axes, found.items(), ("^C1", "oC0"), strict=False):
    points, imagined, real = x["points"], x["imagined"].sum(1), x["real"].sum(1)
    gap[name], inside[name], earned[name] = (imagined - real).mean(), in_swamp(points[:, 1:]).mean(), real.mean()
    panel.hist2d(*visited.T, bins=[np.linspace(-1, 1, 21)] * 2, cmap="Greys", cmin=1, vmax=80)
    panel.axvspan(0, 0.5, facecolor="none", edgecolor="C3", hatch="//", alpha=0.5, linewidth=0)
    panel.text(0.25, 0.85, "swamp", color="C3", ha="center", va="center", backgroundcolor="white")
    panel.plot(*points.transpose(2, 1, 0), color=style[1:], linewidth=1.5, clip_on=False)
    panel.plot(*points[:, 0].T, ".k", *points[:, -1].T, style, markersize=8, mec="k", clip_on=False)
    panel.set(xlabel="x, from beginning (dot) to end", ylabel="y", xticks=[-1, 0, 1], yticks=[-1, 0, 1], title=name)
    axes[2].plot(imagined, real, style, markersize=8, mec="k", label=f"{name}: gap {gap[name]:.1f}")
axes[2].axline((0, 0), slope=1, color="0.5", linestyle="--")
axes[2].set(xlabel="imagined return", ylabel="real return", xlim=(0, 16), ylim=(0, 16), title="returns of 16 steps")
axes[2].legend(loc="upper left")
plt.show()
for n in found:
    print(f"{n:8} gap {gap[n]:5.2f}, real return {earned[n]:.2f}, {inside[n]:.0%} of the steps in the swamp")
assert inside["plain"] > 0.5 and inside["cautious"] < 0.5 * inside["plain"]
assert abs(gap["cautious"]) < 0.5 * gap["plain"]
assert earned["cautious"] > earned["plain"]

# %% [markdown]
# The plain planner imagines what it does not get, and spends most of its steps in the swamp. The cautious one spends
# less than half as many there, its gap is less than half as large, and it earns more. It does not know the swamp: it
# knows that nobody has shown it what is there.

# %%
data.close()
folder.cleanup()
